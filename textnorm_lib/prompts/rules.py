"""Contrastive prompts by rule: the prompt with one thing changed that a generator may get wrong.

    a realistic photo of three deer        count: two deer, four deer, ...   swap: three dogs, ...
                                           extra object: three deer and a dog, ...
    a realistic photo of a cat and a dog   missing object: a cat, two dogs, ...   count: a cat and two dogs, ...
    a cat on the left of a dog             relation: a dog on the left of a cat, a cat on top of a dog, ...

Each rule is a *kind* of contrast. A rule changes what ``grammar.parse`` read and has it written again, so articles
and plurals are right. All prompts made are of forms that the mini world's generator and rewards were trained on, and no
two of a set mean the same. An object less is a contrast, for an image with one too many is bad; saying less of colours,
relation, location or style is none, for what fits the prompt fits that too.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product, zip_longest
from typing import NamedTuple

import pandas as pd

from textnorm_lib.prompts.grammar import MOST_OF_ONE, MOST_OF_TWO, PHOTO, RELATION_WORDING, Asked, Spec, parse, write
from textnorm_lib.prompts.templates import CLASSES, COLOURS, LOCATIONS, STYLES
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.store import step

MOST = 32  # as the released composition sets: with the prompt itself, 33 prompts per image

# What may stand in for what most easily; after CIFAR-10's animals and vehicles and COCO's supercategories.
_GROUPS = (
    ("bird", "cat", "deer", "dog", "frog", "horse"),
    ("airplane", "automobile", "ship", "truck"),
    ("apple", "cake", "carrot", "orange"),
    ("laptop", "microwave", "toaster"),
    ("book", "chair", "cup", "fork", "suitcase", "teddy bear", "umbrella", "vase"),
)


class Contrast(NamedTuple):
    """A contrastive prompt, and which of ``KINDS`` it differs by."""

    prompt: str
    kind: str


def rule_based(prompt: str) -> list[str]:
    """The contrastive prompts of ``rule_contrasts``, at most 32, most informative first."""
    return [contrast.prompt for contrast in rule_contrasts(prompt)]


def rule_contrasts(prompt: str) -> list[Contrast]:
    """At most 32 prompts that each ask for something else than ``prompt``, and the kind of each; always the same.

    Kinds come up in turn, in the order of ``KINDS`` (what is special to the prompt, then what generators fail at most),
    and within a kind the nearest first: the nearest counts, then the like classes. So any number of them from the front
    has each kind as evenly as it can. Capitals and full stops are ``prompt``'s. Raises ``DataError`` for a prompt that
    the grammar does not read, as most of the released comprehensive set.
    """
    try:
        spec = parse(prompt)
    except DataError as error:
        remedy = "have an LLMWriter write its contrasts, or take the released ones (load_official)"
        raise DataError(f"{error}; no rule fits, so {remedy}") from None
    kinds = ([(kind, changed) for changed in _different(rule(spec), spec)] for kind, rule in _RULES.items())
    return [Contrast(_spelt_like(prompt, write(changed)), kind) for kind, changed in _in_turn(kinds)[:MOST]]


@step(1)
def rule_sets(prompts: pd.DataFrame, *, most: int) -> pd.DataFrame:
    """The rules' first ``most`` contrastive prompts of each of ``prompts`` (set, prompt): set, prompt, text, kind."""
    rows = [
        (name, prompt, *contrast)
        for name, prompt in prompts[["set", "prompt"]].itertuples(index=False)
        for contrast in rule_contrasts(prompt)[:most]
    ]
    return pd.DataFrame(rows, columns=["set", "prompt", "text", "kind"])


def canonical(spec: Spec) -> Spec:
    """``spec`` in one of its two orders: a dog on the right of a cat is a cat on the left of a dog."""
    if spec.relation == "right":
        return replace(spec, objects=spec.objects[::-1], relation="left")
    return spec if spec.relation else replace(spec, objects=tuple(sorted(spec.objects)))


def _colours(spec: Spec) -> Iterator[Spec]:
    """Two colours swapped, one of them on both, then other colours; nothing where no colour is asked for."""
    colours = tuple(asked.colour for asked in spec.objects)
    if len(colours) == 2 and all(colours):
        yield from (_with(spec, colour=pair) for pair in (colours[::-1], colours[:1] * 2, colours[1:] * 2))
    yield from _one_changed(spec, "colour", lambda own: _after(own, COLOURS) if own else [])


def _relations(spec: Spec) -> Iterator[Spec]:
    """The objects swapped, then the other relations in either order."""
    if spec.relation:
        swapped = replace(spec, objects=spec.objects[::-1])
        yield from (swapped, *_others(spec, "relation", RELATION_WORDING))
        yield from _others(swapped, "relation", RELATION_WORDING)


def _others(spec: Spec, field: str, options: Iterable[str]) -> list[Spec]:
    """The other relations, locations or styles."""
    return [replace(spec, **{field: other}) for other in _after(getattr(spec, field), options)]


def _missing(spec: Spec) -> Iterator[Spec]:
    """Either object alone, then as many of one as there should be of both together."""
    if len(spec.objects) == 2:
        total = sum(asked.count for asked in spec.objects)
        alone = [*spec.objects, *(asked._replace(count=total) for asked in spec.objects)]
        yield from (replace(spec, objects=(asked,), relation=None) for asked in alone)


def _counts(spec: Spec) -> Iterator[Spec]:
    """The other counts; those of two classes vary together. Relations and coloured pairs are of single objects only."""
    own = tuple(asked.count for asked in spec.objects)
    if len(own) == 2 and (spec.relation or any(asked.colour for asked in spec.objects)):
        return

    def distance(counts: tuple[int, ...]) -> tuple[int, int]:
        steps = [abs(a - b) for a, b in zip(counts, own, strict=True)]
        return sum(steps), max(steps)

    most = MOST_OF_ONE if len(own) == 1 else MOST_OF_TWO
    for counts in sorted(product(range(1, most + 1), repeat=len(own)), key=distance):
        yield _with(spec, count=counts)


def _swaps(spec: Spec) -> Iterator[Spec]:
    """Another class in the place of one."""
    names = [asked.name for asked in spec.objects]
    yield from _one_changed(spec, "name", lambda own: [other for other in _alike(own) if other not in names])


def _extra(spec: Spec) -> Iterator[Spec]:
    """One object of another class beside those asked for: as many as a pair can have, and not coloured."""
    first = spec.objects[0]
    if len(spec.objects) == 1 and first.count <= MOST_OF_TWO and not first.colour:
        yield from (replace(spec, objects=(first, Asked(other))) for other in _alike(first.name))


_RULES: dict[str, Callable[[Spec], Iterable[Spec]]] = {
    "colour": _colours,
    "relation": _relations,
    "location": lambda spec: _others(spec, "location", LOCATIONS) if spec.location else (),
    "style": lambda spec: _others(spec, "style", STYLES) if spec.style != PHOTO else (),
    "missing object": _missing,
    "count": _counts,
    "swap": _swaps,
    "extra object": _extra,
}
KINDS = tuple(_RULES)


def _different(changed: Iterable[Spec], spec: Spec) -> list[Spec]:
    """The first of each meaning other than ``spec``'s."""
    first: dict[Spec, Spec] = {}
    for other in changed:
        first.setdefault(canonical(other), other)
    first.pop(canonical(spec), None)
    return list(first.values())


def _with(spec: Spec, **values: tuple) -> Spec:
    """``spec`` with one value for each object, e.g. ``count=(2, 1)``."""
    ((field, each),) = values.items()
    objects = (asked._replace(**{field: value}) for asked, value in zip(spec.objects, each, strict=True))
    return replace(spec, objects=tuple(objects))


def _one_changed(spec: Spec, field: str, others: Callable[[str | None], list[str]]) -> list[Spec]:
    """The colour or the name of either object replaced by each of the ``others``, one object at a time, in turn."""
    values = tuple(getattr(asked, field) for asked in spec.objects)
    return _in_turn(
        [_with(spec, **{field: (*values[:place], other, *values[place + 1 :])}) for other in others(own)]
        for place, own in enumerate(values)
    )


def _alike(name: str) -> list[str]:
    """The other classes, those of its own group first."""
    group = next(group for group in _GROUPS if name in group)
    return sorted(_after(name, CLASSES), key=lambda other: other not in group)


def _after(own: str, options: Iterable[str]) -> list[str]:
    """The other options in their order, beginning behind ``own``, so that not all prompts get the same first ones."""
    options = list(options)
    place = options.index(own)
    return options[place + 1 :] + options[:place]


def _in_turn(queues: Iterable[Sequence]) -> list:
    """The first of each queue, then the second of each, and so on."""
    return [item for round_ in zip_longest(*queues) for item in round_ if item is not None]


def _spelt_like(prompt: str, text: str) -> str:
    """With a capital and a full stop where ``prompt`` has them, so that a reward does not compare spelling."""
    text = text[0].upper() + text[1:] if prompt.strip()[0].isupper() else text
    return f"{text}." if prompt.rstrip().endswith(".") else text
