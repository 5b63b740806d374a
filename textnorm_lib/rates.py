"""How long a kind of work (``workload.py``) takes here and now, and how much memory: what a short try of it tells.

    for trial in trials(profile, device="cuda"):        # rate_trials.py
        rates |= measure(trial, device="cuda")          # {"RWR steps": Rate(...), ...}

As in a run on a CPU a try is done by one thread. Processes beside it, and others' work on the machine, slow it.
"""

import contextlib
import gc
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from textnorm_lib.errors import StudyError
from textnorm_lib.workers import in_workers
from textnorm_lib.workload import Work

Seconds = dict[str, tuple[float, float]]  # by kind of work: of an item and of a part


@dataclass(frozen=True)
class Rate:
    """Seconds of an item of a kind of work and of each of its parts, and the most memory that it takes, in GiB."""

    item: float
    part: float
    gib: float

    def seconds(self, work: Work) -> float:
        """How long ``work`` takes one process."""
        return self.item * work.items + self.part * work.parts


@dataclass(frozen=True)
class Trial:
    """A try: its name, the key of the profile that its memory grows with, and what does it, given an empty folder."""

    name: str
    key: str
    run: Callable[[Path], Seconds]


def measure(trial: Trial, *, device: str) -> dict[str, Rate]:
    """The rate of each kind of work that ``trial`` tries, on "cpu" or "cuda".

    Raises ``StudyError`` where memory runs out, with the key to lower, and what the try itself raises.
    """
    _forget_peak(device)
    free = torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available
    try:
        with tempfile.TemporaryDirectory() as folder:
            (found,) = in_workers(trial.run, [Path(folder)], workers=1)
    except (torch.OutOfMemoryError, StudyError) as error:
        if not any(isinstance(one, torch.OutOfMemoryError) for one in (error, error.__cause__)):
            raise
        raise StudyError(
            f"{trial.name}: out of memory on {device}: more than {_peak_gib(device):.1f} GiB are needed, "
            f"{free / 2**30:.1f} GiB were free; lower {trial.key} in the profile"
        ) from None
    return {kind: Rate(*seconds, _peak_gib(device)) for kind, seconds in found.items()}


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    started = time.monotonic()
    work()
    return time.monotonic() - started


def split(few: tuple[int, float], more: tuple[int, float], items: int) -> tuple[float, float]:
    """Seconds of each of ``items`` by itself and of each of its parts, by two tries: parts of an item, seconds."""
    part = max(more[1] - few[1], 0) / (more[0] - few[0])
    return max(few[1] - few[0] * part, 0) / items, part / items


def _forget_peak(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):  # only Linux has it; elsewhere the peak is this process's so far
        Path("/proc/self/clear_refs").write_text("5")


def _peak_gib(device: str) -> float:
    """The most memory since ``_forget_peak``: allocated on a GPU, resident on a CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    try:
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20
    except OSError:
        return psutil.Process().memory_info().rss / 2**30
