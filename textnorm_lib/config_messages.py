"""What is said of a profile that is not valid: the first defect, in one line."""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from textnorm_lib.checks import shown


def first_defect(error: ValidationError, kind: type) -> str:
    """What is wrong with the values of a ``kind``, a dataclass of dataclasses: the key, its value and the remedy."""
    # A misspelt key is also a missing one: the first says more.
    defect = min(error.errors(include_url=False), key=lambda defect: defect["type"] != "unexpected_keyword_argument")
    path = [str(part) for part in defect["loc"]]
    key = ".".join(path)
    if defect["type"] == "unexpected_keyword_argument":
        return f"{shown(key)} = {defect['input']!r:.80}: unknown key; {closest(path[-1], _keys(kind, path[:-1]))}"
    if defect["type"] == "missing":
        return f"{key} is missing; add it (every profile spells out every key)"
    value = defect["input"]
    whole_section = isinstance(value, dict) and defect["type"] == "value_error"
    given = "" if whole_section else f" = {value!r:.80} ({type(value).__name__})"
    message = _lower(defect["msg"].removeprefix("Value error, "))
    return f"{key}{given}: {message}"


def _keys(kind: Any, sections: list[str]) -> tuple[str, ...]:
    """The keys that the section of ``kind`` at this path knows."""
    for section in sections:
        kind = next(field.type for field in dataclasses.fields(kind) if field.name == section)
    return tuple(field.name for field in dataclasses.fields(kind))


def closest(word: str, known: Sequence[str]) -> str:
    """A remedy for an unknown ``word``: the one that is meant, or all."""
    match = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {match[0]!r}?" if match else f"known are {', '.join(known)}"


def _lower(message: str) -> str:
    return message[0].lower() + message[1:]
