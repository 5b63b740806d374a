"""The programs of benchmarks/ as modules, at their smallest."""

import importlib
import math
import pickle

from benchmarks import side_by_side

PEAK = 1e11  # operations a second


def benchmark_module(name: str, monkeypatch):
    """The program, with what it runs in processes of their own run here, which saves many imports."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    program = importlib.import_module(f"benchmarks.{name}")
    for module in (program, side_by_side):
        monkeypatch.setattr(module, "alone", _here, raising=False)
    monkeypatch.setattr(program, "peak_rate", _peak, raising=False)
    return program


def check_whole(column: dict) -> None:
    """All numbers are finite and not negative; what is never 0 is not."""
    numbers = [number for value in column.values() for number in (value if isinstance(value, tuple) else [value])]
    assert all(math.isfinite(number) and number >= 0 for number in numbers)
    for row in ("times faster", "by the clock", "MiB, original", "MiB, ours", "% of peak, ours"):
        assert column[row].smallest > 0


def _here(function, *arguments):
    """What another process would be sent, and what it would send back."""
    function, arguments = pickle.loads(pickle.dumps((function, arguments)))
    return pickle.loads(pickle.dumps(function(*arguments)))


def _peak(_device: str, _dtype: str) -> float:
    return PEAK
