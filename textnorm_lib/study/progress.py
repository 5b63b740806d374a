"""Progress bars that read well in a terminal, in a notebook and in papermill's log."""

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


def progress(
    items: Iterable | None, description: str, *, total: int | None = None, initial: int = 0, unit: str = "it"
) -> tqdm:
    """Iterate with a bar on standard error: what, how much, how fast and how long still; None: ``update`` it yourself.

    Nothing is shown for work that ends within three seconds, nor by worker processes; of several processes that were
    launched together the first shows its own part. Where standard error is not a terminal but a log, a line is written
    at most every five seconds.
    """
    return tqdm(
        items,
        description,
        total=total,
        initial=initial,
        unit=f" {unit}",
        file=sys.stderr,
        delay=3.0,
        mininterval=0.5 if sys.stderr.isatty() else 5.0,
        ncols=100,
        disable=multiprocessing.parent_process() is not None or os.environ.get("RANK", "0") != "0",
    )


@contextmanager
def watch(done: Callable[[], int], description: str, *, total: int, unit: str) -> Iterator[None]:
    """Within it a bar shows ``done()``, looked at every second: for work that other processes do."""
    finished = threading.Event()

    def look() -> None:
        with progress(None, description, total=total, initial=done(), unit=unit) as bar:
            while not finished.wait(1):
                bar.update(done() - bar.n)
            bar.update(done() - bar.n)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()
