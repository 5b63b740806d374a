"""Which prompts recipes are chosen on, and which are kept sealed until the end; what classes a prompt names."""

import hashlib

import pandas as pd

from textnorm_lib.errors import DataError
from textnorm_lib.mini.grammar import parse
from textnorm_lib.mini.prompts import split
from textnorm_lib.store import step

DEVELOPMENT, SEALED, MIXED = "development", "sealed", "mixed"


def classes_of(prompt: str) -> tuple[str, ...]:
    """The classes of objects that a prompt names; a prompt that the grammar cannot read is a class of its own."""
    try:
        return tuple(asked.name for asked in parse(prompt).objects)
    except DataError:
        return (prompt,)


def side_of(prompt: str) -> str:
    """``DEVELOPMENT`` or ``SEALED``, by the prompt's classes, or ``MIXED`` if these are of both sides.

    Prompts that the grammar cannot read (the paper's comprehensive set) are dealt to the two sides by their digest.
    """
    try:
        return split(prompt)
    except DataError:
        return (DEVELOPMENT, SEALED)[hashlib.sha256(prompt.encode()).digest()[0] % 2]


@step(1)
def images_of_side(images: pd.DataFrame, *, side: str) -> pd.DataFrame:
    """The rows of ``images`` whose prompts are of one side."""
    sides = {prompt: side_of(prompt) for prompt in images["prompt"].unique()}
    return images[images["prompt"].map(sides) == side].reset_index(drop=True)
