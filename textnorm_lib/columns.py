"""Numbers of images as whoever computes with them gives them, checked."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from textnorm_lib.errors import DataError, shown


def column(name: str, values: ArrayLike, valid: Callable[[np.ndarray], np.ndarray], needed: str) -> np.ndarray:
    """``values`` as floats (n,), n >= 1, all ``valid``; otherwise ``DataError`` with the first position that is not."""
    try:
        column = np.asarray(values, dtype=float)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: a tensor within a graph
        values = _listed(values)
        column = np.array([_float(value) for value in values])
    if column.ndim != 1 or column.size == 0:
        raise DataError(f"{name} has shape {column.shape}: one number an image, and an image at least, are needed")
    wrong = np.flatnonzero(~valid(column))
    if wrong.size:
        raise DataError(f"{name}[{wrong[0]}] is {shown(list(values)[wrong[0]])}: {needed}")
    return column


def finite_column(name: str, values: ArrayLike) -> np.ndarray:
    """``column`` of finite numbers."""
    return column(name, values, np.isfinite, "a finite number is needed")


def _listed(values: Any) -> list[Any]:
    """One by one what stands for numbers; what cannot be taken apart as a single one."""
    try:
        return list(values.detach().reshape(-1).tolist() if hasattr(values, "detach") else values)
    except (TypeError, RuntimeError):  # a single value; a tensor without elements in memory
        return [values]


def _float(value: Any) -> float:
    """``value`` as a float, nan for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return np.nan
