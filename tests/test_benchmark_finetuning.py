"""The side-by-side benchmark of fine-tuning, at its smallest: both sides do the same work, and its report is whole."""

import math
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SAME = 1e-3  # of the way that the adapter went

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it reads peaks of memory as Linux tells them"),
    pytest.mark.filterwarnings("ignore"),  # deprecations inside trl and diffusers
]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)  # its processes look for it there, too
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    import finetuning

    monkeypatch.setattr(finetuning, "alone", lambda function, *arguments: function(*arguments))  # saves many imports
    yield finetuning
    torch.set_num_threads(threads)


def _whole(row: dict[str, float]) -> bool:
    return all(math.isfinite(value) and value >= 0 for value in row.values()) and row["MiB, ours"] > 0


def test_ddpo_as_trl_passes_as_many_rows_as_trl_and_other_settings_fewer(benchmark):
    shape = {"images": 4, "denoising_steps": 3, "guidance_scale": 2.0}
    rows = benchmark.compare_ddpo(benchmark.Work("bundled:generator", "float32", batch_size=2, count=1, **shape))
    assert list(rows) == [f"float32, {name}" for name in benchmark.DDPO_SETTINGS]
    for row, trained in zip(rows.values(), (6, 3, 1), strict=True):
        assert row["rows, original"] == row["rows, ours"] == row["with gradient, original"] == 6  # both branches
        assert row["with gradient, ours"] == trained
        assert _whole(row)


def test_rwr_ends_with_the_plain_loops_adapter(benchmark):
    [row] = benchmark.compare_rwr(benchmark.Work("bundled:generator", "float32", batch_size=2, count=2)).values()
    assert row["difference"] < SAME
    assert _whole(row)


def test_the_command_prints_a_table_and_says_how_busy_the_machine_was(benchmark, capsys):
    benchmark.main(["--parts", "rwr", "--dtypes", "float32", "--batch-size", "2", "--steps", "1"])
    printed = capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("|")][2:] == ["float32"]
    assert "bundled:generator, batches of 2" in printed and "steps/s, ours" in printed and "load of" in printed
