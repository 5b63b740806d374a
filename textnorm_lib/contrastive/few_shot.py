"""What a language model is asked for: the instruction, the examples for a prompt's categories, the prompt.

The instruction is the sentence that section 4.1 of the paper prints; the examples are its table 3. The listing of the
assembly (algorithm 10) is an image, absent from the text at hand: the order is that of section 4.1, while the sentence
that asks for a list and the way the parts are set apart are ours. A comma that the print carries inside a caption
("marshmallows,") is left out. All eight inputs of table 3 are prompts of TIA2's comprehensive set themselves: asked for
one of these, the model sees an answer to that very prompt.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from textnorm_lib.errors import ConfigError, DataError

INSTRUCTION = "Create captions that are different from the original input used for the text-to-image generation model"
REFERENCE = ", referencing the provided failure cases"
FORMAT = 'Answer with one list, ["caption", "caption", ...], and nothing else.'


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
