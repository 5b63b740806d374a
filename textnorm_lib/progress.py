"""Progress bars that read well in a terminal, in a notebook and in papermill's log."""

import sys
from collections.abc import Iterable

from tqdm import tqdm


def progress(
    items: Iterable | None, description: str, *, total: int | None = None, initial: int = 0, unit: str = "it"
) -> tqdm:
    """Iterate with a bar on standard error: what, how much, how fast and how long still; None: ``update`` it yourself.

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
