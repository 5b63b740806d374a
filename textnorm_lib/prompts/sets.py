"""The mini world's prompts: the three sets of the study, their split by class, and the captions to train on."""

import hashlib
import itertools
from collections import Counter

import numpy as np
import pandas as pd

from textnorm_lib.prompts.grammar import MOST_OF_ONE, MOST_OF_TWO, PHOTO, RELATION_WORDING, Asked, Spec, parse
from textnorm_lib.prompts.templates import (
    CIFAR10_CLASSES,
    CLASSES,
    COCO_CLASSES,
    COLOURS,
    LOCATIONS,
    STYLES,
    categorise,
    composition_prompts,
    counting_prompts,
)
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.store import step

# Recipes are chosen on prompts of development classes, then scored once on those of sealed ones. The rule: of
# CIFAR-10's classes and of COCO's, every second in alphabetical order, which gives 5 + 8 for development and 5 + 7
# sealed, three of the six animals on each side.
DEVELOPMENT, SEALED, MIXED = "development", "sealed", "mixed"
DEVELOPMENT_CLASSES = (*sorted(CIFAR10_CLASSES)[::2], *sorted(COCO_CLASSES)[::2])
SEALED_CLASSES = (*sorted(CIFAR10_CLASSES)[1::2], *sorted(COCO_CLASSES)[1::2])

# The comprehensive set: twelve prompts of each category that sprites can show, six of development classes, then six
# of sealed ones. No colour is asked for in which the class is drawn anyway.
_COMPREHENSIVE = {
    "colors": """
        a blue colored bird; a red colored frog; a green colored airplane; a black colored suitcase;
        a pink colored deer; a yellow colored vase;
        a red colored dog; a black colored dog; a pink colored automobile; a green colored cat; a white colored horse;
        a yellow colored umbrella""",
    "spatial": """
        a vase on top of a chair; a toaster on top of a microwave; a bird on the left of a frog;
        a ship on the left of an airplane; an apple on the right of a cake; a deer on the right of a suitcase;
        a laptop on top of a teddy bear; an umbrella on top of a horse; a cat on the left of a dog;
        an automobile on the left of a truck; a dog on the right of an umbrella; a cup on the right of a book""",
    "location": """
        a frog in the middle of the ocean; a cake in the desert; a deer in the forest; an apple on the table;
        a bird on the grass; a suitcase on the street;
        an umbrella in the middle of the ocean; an automobile in the desert; a cat in the forest; a carrot on the table;
        a horse on the grass; a dog on the street""",
    "counting": """
        two airplanes in the desert; three birds on the street; four birds on the street; five apples on the table;
        six frogs on the grass; two ships in the middle of the ocean;
        two automobiles on the street; three automobiles on the street; four dogs on the street;
        five dogs on the street; six oranges on the table; three horses in the forest""",
    "composition": """
        a blue bird and a brown frog; a green apple and a black suitcase; a green chair and a pink vase;
        a bird and two frogs on the grass; two apples and a fork on the table; three deer and a bird in the forest;
        a red book and a yellow umbrella; a red automobile and a white horse; a green cup and a blue laptop;
        a cat and a dog on the grass; a cat and two dogs on the grass; a cat and three dogs on the grass""",
    "style": """
        a pencil sketch of a bird; a pencil sketch of two deer; an oil painting of a ship;
        an oil painting of three apples; a neon sign of a frog; a neon sign of a chair and a vase;
        a pencil sketch of a cat; a pencil sketch of two dogs; an oil painting of a horse;
        an oil painting of a cup and an orange; a neon sign of an umbrella; a neon sign of three automobiles""",
}
CATEGORIES = tuple(_COMPREHENSIVE)

# The captions to train on. Counting and composition are what the study measures most; contrastive prompts need every
# count to eight and every pair of counts to three; the other forms are few, but easier to learn.
FORMS = {
    "counting": 0.45,
    "pair": 0.35,
    "colour": 0.05,
    "colour pair": 0.03,
    "relation": 0.04,
    "location": 0.05,
    "style": 0.03,
}
COUNT_WEIGHTS = (0.16, 0.15, 0.14, 0.14, 0.13, 0.12, 0.08, 0.08)  # 1 to 8; seven and eight are only contrastive
ONE_OF_EACH = 0.5  # of the pairs: the composition set's own form; the other eight pairs of counts share the rest
PAIR_ELSEWHERE = 0.3  # of the prompts with a location or a style: two classes
SINGLE_COLOURED = 0.6  # of the prompts with one coloured class: a single object


def comprehensive_prompts() -> tuple[str, ...]:
    """The 72 prompts of the comprehensive set, twelve per category."""
    return tuple(" ".join(p.split()) for prompts in _COMPREHENSIVE.values() for p in prompts.split(";"))


_MAKERS = {"comprehensive": comprehensive_prompts, "counting": counting_prompts, "composition": composition_prompts}
SETS = tuple(_MAKERS)


def mini_prompts(set_name: str) -> tuple[str, ...]:
    """The prompts of "comprehensive" (72), "counting" (150) or "composition" (300)."""
    if set_name not in SETS:
        raise DataError(f"unknown prompt set {set_name!r}; known: {', '.join(SETS)}")
    return _MAKERS[set_name]()


def choose_prompts(set_name: str, number: int, *, only: str | None = None) -> tuple[str, ...]:
    """``number`` prompts of a set, in the set's order; the same every time, fewer are always among more.

    All of the set, or: in turn one of development and one of sealed classes, none mixed, and each time the first whose
    category was taken least often, then the first whose classes and counts were. So categories, classes and counts come
    up as evenly as they can. With ``only`` all are of that side. Raises ``DataError`` if the set has not so many.
    """
    prompts = mini_prompts(set_name)
    if number == len(prompts) and only is None:
        return prompts
    chosen_from = (DEVELOPMENT, SEALED) if only is None else (only,)
    sides = {side: [prompt for prompt in prompts if split(prompt) == side] for side in chosen_from}
    most = len(sides) * min(map(len, sides.values()))
    if not 1 <= number <= most:
        limit = f"at most {most}, or all {len(prompts)}" if only is None else f"1 to {most} of {only} classes"
        raise DataError(f"{number} prompts of the {set_name} set; take {limit}")
    chosen, used = set(), Counter()
    for side in itertools.islice(itertools.cycle(sides), number):
        asked = {prompt: _asks_for(prompt) for prompt in sides[side] if prompt not in chosen}
        best = min(asked, key=lambda prompt: (used[asked[prompt][0]], sum(used[one] for one in asked[prompt][1:])))
        chosen.add(best)
        used.update(asked[best])
    return tuple(prompt for prompt in prompts if prompt in chosen)


def _asks_for(prompt: str) -> list[str | int]:
    """Its primary category, then the classes and the counts."""
    objects = parse(prompt).objects
    return [categorise(prompt)[0], *(asked.name for asked in objects), *(asked.count for asked in objects)]


def split(prompt: str) -> str:
    """``DEVELOPMENT`` or ``SEALED`` if all classes of the prompt are of that side, else ``MIXED``."""
    sealed = [asked.name in SEALED_CLASSES for asked in parse(prompt).objects]
    return SEALED if all(sealed) else MIXED if any(sealed) else DEVELOPMENT


def side_of(prompt: str) -> str:
    """``split``; a prompt that the grammar cannot read gets a side by its digest, as the paper's comprehensive ones."""
    try:
        return split(prompt)
    except DataError:
        return (DEVELOPMENT, SEALED)[hashlib.sha256(prompt.encode()).digest()[0] % 2]


def classes_of(prompt: str) -> tuple[str, ...]:
    """The classes of objects that a prompt names; a prompt that the grammar cannot read is a class of its own."""
    try:
        return tuple(asked.name for asked in parse(prompt).objects)
    except DataError:
        return (prompt,)


def sample_spec(generator: np.random.Generator) -> Spec:
    """Draw what one training scene shows, by the weights of ``FORMS``; classes, colours and so on are uniform."""
    form = _pick(generator, tuple(FORMS), tuple(FORMS.values()))
    if form == "counting":
        return Spec((_one_class(generator),))
    if form == "pair":
        return Spec(_two_classes(generator))
    if form == "relation":
        first, second = _classes(generator)
        return Spec((Asked(first), Asked(second)), relation=_pick(generator, tuple(RELATION_WORDING)))
    if form == "colour":
        name, colour = _pick(generator, CLASSES), _pick(generator, COLOURS)
        count = 1 if generator.random() < SINGLE_COLOURED else int(generator.integers(2, MOST_OF_ONE + 1))
        return Spec((Asked(name, count, colour),))
    if form == "colour pair":
        return Spec(tuple(Asked(name, 1, _pick(generator, COLOURS)) for name in _classes(generator)))
    objects = _two_classes(generator) if generator.random() < PAIR_ELSEWHERE else (_one_class(generator),)
    if form == "location":
        return Spec(objects, location=_pick(generator, LOCATIONS))
    return Spec(objects, style=_pick(generator, tuple(style for style in STYLES if style != PHOTO)))


def _one_class(generator: np.random.Generator) -> Asked:
    return Asked(_pick(generator, CLASSES), _pick(generator, tuple(range(1, MOST_OF_ONE + 1)), COUNT_WEIGHTS))


def _two_classes(generator: np.random.Generator) -> tuple[Asked, Asked]:
    first, second = _classes(generator)
    if generator.random() < ONE_OF_EACH:
        return Asked(first), Asked(second)
    counts = divmod(int(generator.integers(1, MOST_OF_TWO**2)), MOST_OF_TWO)  # all pairs but (0, 0)
    return Asked(first, counts[0] + 1), Asked(second, counts[1] + 1)


def _classes(generator: np.random.Generator) -> tuple[str, str]:
    first, second = generator.choice(len(CLASSES), 2, replace=False).tolist()
    return CLASSES[first], CLASSES[second]


def _pick(generator: np.random.Generator, options: tuple, weights: tuple[float, ...] | None = None):
    return options[int(generator.choice(len(options), p=weights))]


@step(1)
def prompts_of_sets(*, only: str | None, **per_set: int) -> pd.DataFrame:
    """So many prompts of each set (``choose_prompts``): set, prompt."""
    rows = [(name, prompt) for name, n in per_set.items() for prompt in choose_prompts(name, n, only=only)]
    return pd.DataFrame(rows, columns=["set", "prompt"])


@step(1)
def images_of_side(images: pd.DataFrame, *, side: str) -> pd.DataFrame:
    """The rows of ``images`` whose prompts are of one side."""
    sides = {prompt: side_of(prompt) for prompt in images["prompt"].unique()}
    return images[images["prompt"].map(sides) == side].reset_index(drop=True)
