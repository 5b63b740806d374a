"""What checks of arguments share: is it a number in its range, and how is a value shown on one short line."""

from numbers import Real
from typing import Any

LONGEST, LONGEST_PATH = 80, 300  # characters of a value and of a path in a message


def is_number(value: Any, low: float, high: float) -> bool:
    """Whether ``value`` is a single real number, no truth value, from ``low`` to ``high`` (nan is not)."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return bool(low <= float(value) <= high)
    except OverflowError:  # a whole number that no float holds
        return False


def shown(value: Any, longest: int = LONGEST) -> str:
    """``value`` for a message: one line of at most ``longest`` characters, whatever it is."""
    try:
        text = " ".join(str(value).split())
    except ValueError:  # Python prints no whole number of more than 4,300 digits
        text = f"a huge {type(value).__name__}"
    text = "".join(letter if letter.isprintable() else "?" for letter in text[: longest + 1])
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
