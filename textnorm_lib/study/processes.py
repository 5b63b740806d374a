"""Several processes: workers of this one on a CPU, and processes that were launched together, one for each GPU.

``in_workers`` runs one function over many tasks in processes of one thread each: on a CPU that is faster than threads
in one process. If the result of a task depends on nothing but the task, it does not depend on the number of processes
either: in a worker as in a lone process, one thread does the arithmetic.

``Processes`` is for what ``accelerate launch`` or ``notebook_launcher`` started. Work is cut into batches that do not
depend on how many processes there are, and process i of p takes batches i, i + p, i + 2p, ...; sums and results are the
same for any p, up to the order in which numbers are added.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import forkserver
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather, reduce

from textnorm_lib.study.errors import StudyError

Item, Task, Result = TypeVar("Item"), TypeVar("Task"), TypeVar("Result")

LONGEST_WAIT = timedelta(days=7)  # of a process for the others; torch's ten minutes are shorter than many a task
# For workers' glibc, in bytes: keep freed memory. By default it gives large tensors back to the system, which then has
# to clear the same pages again for the next ones. The first number is the largest that every version takes.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": 2**25, "MALLOC_TRIM_THRESHOLD_": 2**30, "MALLOC_TOP_PAD_": 2**26}
# Imported once by the server that workers are forked from: what they need to sample and to score takes seconds.
PRELOADED = [
    "textnorm_lib",
    "open_clip",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.blip.modeling_blip_text",
    "transformers.models.blip_2.modeling_blip_2",
    "transformers.models.clip.modeling_clip",
]


def in_workers(function: Callable[[Task], Result], tasks: Sequence[Task], *, workers: int) -> Iterator[Result]:
    """``function(task)`` for each task, in order; in this process with one worker, one task or others ``launched``.

    Otherwise function and tasks are pickled, and a script needs its ``if __name__ == "__main__"``. What a task raises
    ends all of it; ``StudyError`` says so if that line is missing, or if a process is killed.
    """
    workers = min(workers, len(tasks))
    if workers <= 1 or launched() > 1:
        for task in tasks:
            with _one_thread():
                result = function(task)
            yield result
        return
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)  # a worker that is still importing a script without that line: its parent says so
    context = _context()
    begun = context.Event()
    pool = ProcessPoolExecutor(workers, context, initializer=_prepare, initargs=(begun,))
    try:
        yield from pool.map(function, tasks)
    except BrokenProcessPool:
        script = getattr(sys.modules["__main__"], "__file__", None)
        if script and not begun.is_set():
            raise StudyError(
                f"{script} starts {workers} worker processes, and each begins by importing it; "
                'put what it does below a line if __name__ == "__main__": (or take workers=1)'
            ) from None
        raise StudyError(
            f"one of {workers} worker processes was killed, as the system does where memory runs out; "
            "what is finished is kept: run again, with fewer workers if it happens again"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)  # what runs is finished, what waits is dropped


def _context() -> multiprocessing.context.BaseContext:
    """How workers start: on Linux they are forked from a server, elsewhere each starts anew."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    unset = {name: str(value) for name, value in MALLOC.items() if name not in os.environ}
    os.environ.update(unset)
    try:
        forkserver.ensure_running()  # glibc reads them when a process starts; workers are forked from this one
    finally:
        for name in unset:
            del os.environ[name]
    return context


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _prepare(begun) -> None:
    """In a new worker: one thread; leave interrupts to the main process, and do not outlive it."""
    begun.set()
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def launched() -> int:
    """How many processes were launched together: 1 if this one was started alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_share(tasks: Sequence[Item]) -> Sequence[Item]:
    """This process's part of ``tasks``."""
    return Processes().own(tasks) if launched() > 1 else tasks


def wait_for_all() -> None:
    """Until every process that was launched is here."""
    if launched() > 1:
        Processes().state.wait_for_everyone()


class Processes:
    """Which process this is and what it shares with the others. ``device`` is where the model of a lone process is.

    With several GPUs, "cuda" is from then on each process's own.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.state = state = PartialState(cpu=device.type == "cpu", timeout=LONGEST_WAIT)
        self.rank, self.count, self.first = state.process_index, state.num_processes, state.is_main_process
        self.device = state.device if self.count > 1 else device

    def own(self, batches: Sequence[Item]) -> Sequence[Item]:
        """This process's batches."""
        return batches[self.rank :: self.count]

    def gather(self, own: torch.Tensor) -> torch.Tensor:
        """Results of this process's batches (b, ...) to those of all batches, in their order, on the CPU."""
        everyone = gather(own.to(self.device)).cpu()
        return everyone.unflatten(0, (self.count, -1)).transpose(0, 1).flatten(0, 1)

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in one exchange."""
        if self.count == 1:
            return
        tensors = list(tensors)
        total = reduce(torch.cat([tensor.flatten() for tensor in tensors]), "sum")
        for tensor, value in zip(tensors, total.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(value.view_as(tensor))
