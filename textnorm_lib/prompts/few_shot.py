"""What a language model is asked for, with examples for the prompt's categories, and how its answer is read.

Section 4.1 of the paper prints the instruction, its table 3 the examples. The listing of the assembly (algorithm 10) is
an image, absent from the text at hand: the order of the parts is that of section 4.1, while the sentence that asks for
a list and the way the parts are set apart are ours. We leave out a comma that the print carries inside a caption
("marshmallows,"). All eight inputs of table 3 are prompts of TIA2's comprehensive set themselves: asked for one of
these, the model sees an answer to that very prompt.

The paper's model, gpt-4-0613, knows no structured output, and neither do all servers that speak its protocol. So the
answer is free text, which ``parse_answer`` reads strictly: one list as JSON writes it, or an error that says why not.
"""

import json
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

from textnorm_lib.study.errors import ConfigError, DataError

INSTRUCTION = "Create captions that are different from the original input used for the text-to-image generation model"
REFERENCE = ", referencing the provided failure cases"
FORMAT = 'Answer with one list, ["caption", "caption", ...], and nothing else.'
LONGEST_ANSWER = 20_000  # characters; the longest released list has 1,785
LONGEST_CAPTION = 400  # characters; the longest released caption has 95


class Example(NamedTuple):
    """A prompt and contrastive captions for it."""

    prompt: str
    captions: tuple[str, ...]


FEW_SHOT: dict[str, Example] = {
    "text": Example(
        "A sign that says 'Diffusion'.",
        ("A sign misspelled as 'Difision'.", "A sign containing a bizarre accent 'Difśion'."),
    ),
    "style": Example(
        "Greek statue of a man tripping over a cat.",
        (
            "Greek statue of a man",
            "Greek statue of two men",
            "Greek statue of two men tripping over a cat.",
            "Greek statue of a man tripping over a dog.",
            "Greek statue of two men tripping over a dog.",
            "Greek statue of a man tripping over a ball.",
        ),
    ),
    "composition": Example(
        "A red car and a white sheep.",
        (
            "A red car and two white sheep.",
            "A red car and a herd of sheep.",
            "A red car and a dominant white sheep among the gray ones.",
            "A red car with two real sheep on the side.",
        ),
    ),
    "counting": Example(
        "Four cars on the street.",
        (
            "Two cars on the street.",
            "Three cars on the street.",
            "Five cars on the street.",
            "Six cars on the street.",
        ),
    ),
    "creative": Example(
        "A heart made of chocolate",
        (
            "a star made of caramel",
            "a flower made of marshmallows",
            "a diamond made of gummy bears",
            "a moon made of licorice",
            "a sun made of jelly beans",
            "a butterfly made of lollipops",
            "a crown made of cotton candy",
            "a rainbow made of skittles",
            "a cloud made of cotton candy",
            "a tree made of chocolate-covered pretzels",
            "a snowflake made of peppermint candies",
            "a fish made of sour gummies",
            "a bird made of chocolate-covered almonds",
            "a car made of chocolate bars",
            "a house made of chocolate cookies",
            "a boat made of chocolate-covered strawberries",
            "an airplane made of chocolate truffles",
            "a guitar made of chocolate wafer sticks",
            "a camera made of chocolate coins",
            "a dinosaur made of chocolate eggs",
        ),
    ),
    "location": Example(
        "A glowing mushroom in the forest",
        (
            "a sparkling flower in the garden",
            "a luminous firefly in the night sky",
            "a shimmering starfish in the ocean",
            "a radiant sunflower in the field",
            "a glowing jellyfish in the deep sea",
            "a gleaming diamond in the jewelry store",
            "a luminescent moon in the night sky",
            "a glowing firefly in the meadow",
            "a sparkling gemstone in the cave",
            "a luminous butterfly in the garden",
            "a shimmering seashell on the beach",
            "a radiant rainbow in the sky",
            "a glowing lantern in the dark",
            "a luminescent lightning bug in the field",
            "a sparkling crystal in the cave",
            "a shimmering waterfall in the forest",
            "a radiant star in the night sky",
            "a glowing firefly in the park",
            "a luminous pearl in the oyster",
            "a sparkling diamond in the jewelry box",
        ),
    ),
    "colors": Example(
        "A blue bird and a brown bear.",
        (
            "A pair of bears, one blue and the other brown.",
            "A blue bear and a brown bear, no bird in sight.",
            "Two bears, both brown, no blue bird.",
            "Two bears, one brown and the other unexpectedly blue.",
        ),
    ),
    "spatial": Example(
        "An umbrella on top of a spoon.",
        (
            "A spoon.",
            "An umbrella.",
            "An umbrella on the right of a spoon.",
            "An umbrella on the left of a spoon.",
            "An umbrella at the bottom of a spoon.",
            "Two umbrellas on top of a spoon.",
        ),
    ),
}


def few_shot_prompt(prompt: str, categories: Sequence[str]) -> str:
    """What to send for ``prompt``: one example for each of ``categories``, in their order; there may be none.

    Raises ``ConfigError`` for an unknown or repeated category, ``DataError`` for a prompt that is not one line of text.
    """
    if isinstance(categories, str) or len(set(categories)) < len(categories) or not FEW_SHOT.keys() >= set(categories):
        raise ConfigError(f"categories = {categories!r}: give a list of different ones out of {', '.join(FEW_SHOT)}")
    if not isinstance(prompt, str) or not prompt.strip() or not prompt.isprintable():
        raise DataError(f"prompt {prompt!r:.80}: give one line of text")
    parts = [f"{INSTRUCTION}{REFERENCE if categories else ''}. {FORMAT}"]
    for category in categories:
        example = FEW_SHOT[category]
        parts.append(
            f"Category: {category.capitalize()}\nInput: {_quoted(example.prompt)}\nOutput: {_quoted(example.captions)}"
        )
    return "\n\n".join([*parts, f"Input: {_quoted(prompt)}\nOutput:"])


def answer_length(categories: Sequence[str]) -> float:
    """Characters to expect of an answer: the mean of table 3 over these categories, or over all if there are none."""
    lengths = [len(_quoted(FEW_SHOT[category].captions)) for category in categories or FEW_SHOT]
    return sum(lengths) / len(lengths)


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class AnswerError(DataError):
    """An answer that holds no list of captions, or one that cannot be trusted; the message is the reason alone."""


class Answer(NamedTuple):
    """The captions of an answer, and what was dropped from it."""

    captions: list[str]
    own: int  # times the prompt itself was among them
    duplicates: int


def parse_answer(text: str, prompt: str) -> Answer:
    """The captions in ``text``, without ``prompt`` itself and without duplicates, in their order.

    Two captions are the same if only case, white space or a final full stop differ. From its first bracket to its last
    ``text`` must be one list of strings in JSON; prose, a code fence or an object may surround it. Nothing is evaluated
    or guessed, since a caption lost or made up changes a reward.

    Raises ``AnswerError`` for anything else, for an answer of more than ``LONGEST_ANSWER`` characters, for an entry
    that is empty, longer than ``LONGEST_CAPTION`` or not plain text (control characters, Markdown), and where only the
    prompt is left.
    """
    if len(text) > LONGEST_ANSWER:
        raise AnswerError(f"it has {len(text):,} characters, more than {LONGEST_ANSWER:,}")
    try:
        entries = json.loads(text[text.find("[") : text.rfind("]") + 1])
    except (ValueError, RecursionError):
        raise AnswerError("it holds no list, or not one plain list as JSON writes it") from None
    if not entries or not all(isinstance(entry, str) for entry in entries):
        raise AnswerError("its list is empty or holds something else than strings in quotation marks")
    captions = [_caption(entry, number) for number, entry in enumerate(entries, start=1)]
    others = [caption for caption in captions if _same(caption) != _same(prompt)]
    distinct: dict[str, str] = {}
    for caption in others:
        distinct.setdefault(_same(caption), caption)
    if not distinct:
        raise AnswerError("its list holds nothing but the prompt itself")
    return Answer(list(distinct.values()), len(captions) - len(others), len(others) - len(distinct))


def _caption(entry: str, number: int) -> str:
    caption = " ".join(entry.split())
    if not caption:
        raise AnswerError(f"entry {number} is empty")
    if len(caption) > LONGEST_CAPTION:
        raise AnswerError(f"entry {number} has {len(caption):,} characters, more than {LONGEST_CAPTION}")
    if any(unicodedata.category(character)[0] == "C" or character in "\u2028\u2029" for character in entry):
        raise AnswerError(f"entry {number} holds control or invisible characters")
    if "**" in caption or "`" in caption:
        raise AnswerError(f"entry {number} holds Markdown")
    return caption


def _same(caption: str) -> str:
    return " ".join(caption.split()).casefold().removesuffix(".")
