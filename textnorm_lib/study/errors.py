"""The study's errors: each message is one line that names what is wrong, where, and what to do about it."""

import difflib
from collections.abc import Sequence
from numbers import Real
from typing import Any

LONGEST, LONGEST_PATH = 80, 300  # characters of a value and of a path in a message


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
