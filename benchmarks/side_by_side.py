"""What the benchmarks share: sides that take turns in processes of their own, what each spends, ratios and their range.

On a CPU a process has one thread, seconds are the processor's, which other work on the machine changes far less than
the clock's, and memory is the most that was resident, as Linux tells it. On a GPU seconds are the clock's, once it has
done all that it was given, and memory is the most that torch had allocated there. Operations are those of matrix
products, convolutions and attention; the device's peak is measured as a large matrix product. In float32 on a GPU
torch's convolutions use TF32, which is faster than that product.
"""

import argparse
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import pandas as pd
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from textnorm_lib.images.sampling import autocast
from textnorm_lib.study.errors import ConfigError, StudyError
from textnorm_lib.study.progress import progress

DEVICES = ("cpu", "cuda")
PRODUCTS = {"cpu": (2048, 1.5), "cuda": (8192, 0.3)}  # rows of a square matrix, seconds of products by it
CPU_ATTENTION = {  # which torch's counter does not know
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **_: sdpa_flop_count(*shapes[:3]),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda *shapes, **_: sdpa_backward_flop_count(*shapes[:4])
    ),
}


@dataclass
class Spent:
    """What a process, this one or another, spends on what is ``timed``; where ``counting``, its operations instead."""

    device: str
    counting: bool = False
    process: int = field(default_factory=os.getpid)
    done: int = 0  # images, steps or pairs
    seconds: float = 0.0
    wall: float = 0.0
    before_mib: float = 0.0  # the most before
    peak_mib: float = 0.0
    operations: int = 0

    @property
    def rate(self) -> float:
        """How much is done in a second."""
        return self.done / self.seconds

    @contextmanager
    def timed(self, done: int) -> Iterator[None]:
        """Within it ``done`` images, steps or pairs are done."""
        self.done, self.before_mib = done, self._peak_mib()
        self._forget_peak()
        with operations_counted() if self.counting else nullcontext() as counter:
            seconds, wall = self.clock(), time.monotonic()
            yield
            self.seconds, self.wall = self.clock() - seconds, time.monotonic() - wall
        self.peak_mib = self._peak_mib()
        if counter:
            self.operations = counter.get_total_flops()

    def clock(self) -> float:
        """Seconds, of the processor on a CPU."""
        if self.device == "cpu":
            return time.clock_gettime((~self.process << 3) | 2)  # its own clock, as clock_getcpuclockid(3) finds it
        torch.cuda.synchronize()
        return time.monotonic()

    def _forget_peak(self) -> None:
        if self.device == "cpu":
            Path(f"/proc/{self.process}/clear_refs").write_text("5")
        else:
            torch.cuda.reset_peak_memory_stats()

    def _peak_mib(self) -> float:
        """Nan for another process on a GPU, which torch here knows nothing of."""
        if self.device == "cpu":
            return resident_mib("VmHWM", self.process)
        return torch.cuda.max_memory_allocated() / 2**20 if self.process == os.getpid() else math.nan


@contextmanager
def operations_counted() -> Iterator[FlopCounterMode]:
    """Counts the operations within it."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # a layer of attention in one, which the counter does not know
    try:
        with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


class Spread(NamedTuple):
    """What was measured several times: the median, the smallest, the largest."""

    median: float
    smallest: float
    largest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        values = sorted(values)
        return cls(statistics.median(values), values[0], values[-1])


def side_by_side(
    theirs: list[Spent], ours: list[Spent], *, unit: str, counted: Spent, peak: float
) -> dict[str, Spread]:
    """Rates, their ratio turn by turn, memory, and which part of ``peak`` (operations a second) ours reaches.

    ``counted`` is ours with its operations counted, on as much or less of the same work.
    """
    turns = list(zip(theirs, ours, strict=True))
    clock = {"by the clock": Spread.of(b.done / b.wall / (a.done / a.wall) for a, b in turns)}
    each = counted.operations / counted.done
    return {
        f"{unit}/s, original": Spread.of(one.rate for one in theirs),
        f"{unit}/s, ours": Spread.of(one.rate for one in ours),
        "times faster": Spread.of(b.rate / a.rate for a, b in turns),
        **(clock if ours[0].device == "cpu" else {}),
        "MiB, original": Spread.of(one.peak_mib for one in theirs),
        "MiB, ours": Spread.of(one.peak_mib for one in ours),
        "% of peak, ours": Spread.of(100 * each * one.rate / peak for one in ours),
    }


def take_turns(repeats: int, *sides: Callable[[], Any]) -> list[list[Any]]:
    """What each side gives, ``repeats`` times: each of them once, each in a process of its own, then all again."""
    given = [[] for _ in sides]
    for turn in progress(range(repeats * len(sides)), "runs", unit="run"):
        side = turn % len(sides)
        given[side].append(alone(sides[side]))
    return given


def alone(function: Callable, *arguments: Any) -> Any:
    """The function's result from a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def peak_rate(device: str, dtype: str) -> float:
    """Operations a second in the fastest of some large matrix products under autocast to ``dtype``."""
    side, enough = PRODUCTS[device]
    left, right = torch.randn(2, side, side, device=device)
    with autocast(device, dtype):
        computed = (left[:1, :1] @ right[:1, :1]).dtype
    left, right, seconds = left.to(computed), right.to(computed), []
    left @ right  # pays for what is done once
    while sum(seconds) < enough:
        spent = Spent(device)
        with spent.timed(1):
            left @ right
        seconds.append(spent.seconds)
    return 2 * side**3 / min(seconds)


def resident_mib(name: str, process: int) -> float:
    """What /proc says of a process's memory: VmRSS now, VmHWM at most."""
    return int(Path(f"/proc/{process}/status").read_text().split(f"{name}:")[1].split()[0]) / 2**10


def asked_for(parser: argparse.ArgumentParser, arguments: list[str] | None) -> argparse.Namespace:
    """The options, and those of all benchmarks: ``device`` and ``repeats``. On a CPU a process has one thread from now.

    Raises ``ConfigError`` for a device that is unknown or not there, and for less than one repeat.
    """
    there = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if there else "cpu", help="cpu or cuda; cuda, where there is one")
    parser.add_argument("--repeats", type=int, default=3, help="of each side, in turn")
    options = parser.parse_args(arguments)
    if options.device not in DEVICES:
        raise ConfigError(f"--device is {options.device!r}; known: {', '.join(DEVICES)}")
    if options.device == "cuda" and not there:
        raise ConfigError("--device is cuda and torch finds none; take --device cpu, or install a CUDA build of torch")
    if options.repeats < 1:
        raise ConfigError(f"--repeats is {options.repeats}; 1 or more is needed")
    if options.device == "cpu":
        os.environ["OMP_NUM_THREADS"] = "1"
    return options


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """A ``StudyError`` ends the program with its message alone."""
    try:
        yield
    except StudyError as error:
        sys.exit(f"benchmark: {error}")


def where(options: argparse.Namespace) -> str:
    """What is measured on, and how often."""
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU, one thread"
    return f"{name}, torch {torch.__version__}, {options.repeats} times each in turn: median [smallest, largest]"


def busy() -> str:
    """How busy the machine was."""
    return f"load of {os.cpu_count()} cores over the last 15 minutes: {os.getloadavg()[2]:.1f}"


def table(columns: dict[str, dict[str, float | Spread]]) -> str:
    """Markdown: what was measured from top to bottom, the settings from left to right."""
    shown = {name: {row: _shown(value) for row, value in column.items()} for name, column in columns.items()}
    return pd.DataFrame.from_dict(shown).to_markdown(disable_numparse=True)


def _shown(value: float | Spread) -> str:
    if isinstance(value, Spread):
        return f"{_shown(value.median)} [{_shown(value.smallest)}, {_shown(value.largest)}]"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"
