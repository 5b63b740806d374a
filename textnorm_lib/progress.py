"""Progress bars that read well in a terminal, in a notebook and in papermill's log."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(
    items: Iterable[T], description: str, *, total: int | None = None, initial: int = 0, unit: str = "it"
) -> Iterable[T]:
    """Iterate with a bar on standard error: what, how much, how fast and how long still.

    Nothing is shown for work that ends within three seconds. Where standard error is not a terminal (a log), a line is
    written at most every five seconds.
    """
    interval = 0.5 if sys.stderr.isatty() else 5.0
    return tqdm(
        items,
        description,
        total=total,
        initial=initial,
        unit=f" {unit}",
        file=sys.stderr,
        delay=3.0,
        mininterval=interval,
        ncols=100,
    )
