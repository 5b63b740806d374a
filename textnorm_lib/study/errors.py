"""The study's errors, each a line that names what is wrong, where, and what to do about it; what files are refused."""

import dataclasses
import difflib
import errno
import os
import re
import stat
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

LONGEST, LONGEST_PATH, LONGEST_MESSAGE = 80, 300, 500  # characters of a value and of a path in a message, of all of it


class StudyError(Exception):
    """An error that its reader can mend; notebooks show it as one line instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython prints for this error (its documented hook for an exception's own rendering)."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(StudyError, ValueError):
    """A profile, a key or a value that the study does not know."""


class DataError(StudyError, ValueError):
    """Data that are missing, damaged or inconsistent: a file, or what a caller passes."""


class DataUnavailable(DataError):
    """Data that this machine neither has nor can fetch; what needs them is *not attempted*, the rest still runs."""


class StoreError(StudyError):
    """A result that could not be written or read back."""


def shown(value: Any, longest: int = LONGEST) -> str:
    """``value`` for a message: one line of at most ``longest`` characters, whatever it is."""
    try:
        text = " ".join(str(value).split())
    except ValueError:  # Python prints no whole number of more than 4,300 digits
        text = f"a huge {type(value).__name__}"
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: longest + 1])
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def quoted(value: Any) -> str:
    """``value`` as ``shown``, a text in quotation marks, so that "3" and 3 look different."""
    return shown(repr(value) if isinstance(value, str) else value)


def closest(word: str, known: Sequence[str]) -> str:
    """A remedy for a ``word`` that is not among the ``known`` ones: the one that is probably meant, or all of them."""
    match = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {match[0]!r}?" if match else f"known are {', '.join(known)}"


def is_number(value: Any, low: float, high: float) -> bool:
    """Whether ``value`` is one real number from ``low`` to ``high``; a truth value and nan are not."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return bool(low <= float(value) <= high)
    except OverflowError:  # a whole number that no float holds
        return False


def first_defect(error: ValidationError, kind: type) -> str:
    """What is wrong with the values of a ``kind``, a dataclass (of dataclasses): the key, its value and the remedy."""
    # A misspelt key is also a missing one: the first says more.
    defect = min(error.errors(include_url=False), key=lambda defect: defect["type"] != "unexpected_keyword_argument")
    path, value = [str(part) for part in defect["loc"]], defect["input"]
    key, message = shown(".".join(path)), defect["msg"].removeprefix("Value error, ")
    told = f"{key} = {quoted(value)} ({type(value).__name__}): {message[0].lower()}{message[1:]}"
    if defect["type"] == "unexpected_keyword_argument":
        told = f"{key} = {quoted(value)}: unknown key; {closest(path[-1], _keys(kind, path[:-1]))}"
    elif defect["type"] == "missing":
        told = f"{key} is missing; add it (every profile spells out every key)"
    elif defect["type"] == "value_error" and not isinstance(value, list):  # values that do not go together
        told = f"{key}: {message}" if key else message
    elif defect["type"] == "float_type" and isinstance(value, str):
        told += "; YAML reads 1e-4 as text, write 1.0e-4"
    return shown(told, LONGEST_MESSAGE)


def _keys(kind: Any, sections: list[str]) -> list[str]:
    """The keys that the section of ``kind`` at this path knows."""
    for section in sections:
        kind = next(field.type for field in dataclasses.fields(kind) if field.name == section)
        kind = next(iter(get_args(kind)), kind)  # TextNorm | None
    return [field.name for field in dataclasses.fields(kind)]


def check_regular(path: Path | str) -> None:
    """Raise ``OSError``, as opening does, for what is not there, and for a pipe or a device: it may never end."""
    try:
        mode = Path(path).stat().st_mode
    except ValueError:
        raise OSError(errno.EINVAL, "no file can have this name") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe or a device, and no file")


def file_within(folder: Path, name: str) -> Path:
    """``folder / name`` for the name of a file in ``folder`` itself, or in a folder below it.

    Raises ``DataError`` for a name that leads elsewhere: absolute, with "..", with a control character, or a link.
    """
    plain = isinstance(name, str) and name not in ("", ".") and name.isprintable() and not Path(name).is_absolute()
    inside = plain and ".." not in re.split(r"[/\\]", name)
    # Unlike Path.resolve, realpath leads somewhere from a circle of links, too.
    if not inside or not Path(os.path.realpath(folder / name)).is_relative_to(os.path.realpath(folder)):
        raise DataError(f"image {shown(repr(name))} is no file within {folder}; correct the table of images")
    return folder / name
