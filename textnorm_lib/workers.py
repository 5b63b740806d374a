"""One function over many tasks in several processes of one thread each: on a CPU faster than threads in one process.

If the result of a task depends on nothing but the task, it does not depend on the number of processes either: here
and there the arithmetic is done by one thread.

Importing torch and transformers takes a process longer than many a task. So on Linux the processes are forked from a
server that has them imported ("forkserver") and lives as long as this process; elsewhere each starts anew ("spawn").
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

import torch

from textnorm_lib.errors import StudyError
from textnorm_lib.processes import launched

Task, Result = TypeVar("Task"), TypeVar("Result")


def in_workers(function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int) -> Iterator[Result]:
    """``function(task)`` for each task, in order; in this process with one worker, one task or others ``launched``.

    Otherwise function and tasks are pickled, and a script needs its ``if __name__ == "__main__"``. What a task raises
    ends all of it; ``StudyError`` says so if a process is killed.
    """
    workers = min(workers, len(tasks))
    if workers <= 1 or launched() > 1:
        for task in tasks:
            with _one_thread():
                result = function(task)
            yield result
        return
    pool = ProcessPoolExecutor(workers, _context(), initializer=_prepare)
    try:
        yield from pool.map(function, tasks)
    except BrokenProcessPool:
        raise StudyError(
            f"one of {workers} worker processes was killed, as the system does where memory runs out; "
            "what is finished is kept: run again, with fewer workers if it happens again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)  # what runs is finished, what waits is dropped


def _context() -> multiprocessing.context.BaseContext:
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["textnorm_lib.heavy_imports"])
    return context


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _prepare() -> None:
    """In a new worker: one thread; leave interrupts to the main process, and do not outlive it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
