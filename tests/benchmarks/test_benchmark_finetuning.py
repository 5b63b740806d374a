"""The side-by-side benchmark of fine-tuning, at its smallest: both sides do the same work, and its report is whole."""

import sys

import pytest
from benchmark_programs import PEAK, benchmark_module, check_whole

SAME = 1e-3  # of the way that the adapter went

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it reads peaks of memory as Linux tells them"),
    pytest.mark.filterwarnings("ignore"),  # deprecations inside trl and diffusers
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def benchmark(monkeypatch):
    return benchmark_module("finetuning", monkeypatch)


def test_ddpo_as_trl_passes_as_many_rows_as_trl_and_other_settings_fewer(benchmark):
    shape = {"images": 4, "denoising_steps": 3, "guidance_scale": 2.0}
    work = benchmark.Work("bundled:generator", "cpu", "float32", batch_size=2, count=1, **shape)
    columns = benchmark.compare_ddpo(work, repeats=1, peak=PEAK)
    assert list(columns) == list(benchmark.DDPO_SETTINGS)
    for column, trained in zip(columns.values(), (6, 3, 1), strict=True):
        assert (
            column["rows, original"] == column["rows, ours"] == column["with gradient, original"] == 6
        )  # two branches
        assert column["with gradient, ours"] == trained
        check_whole(column)


def test_rwr_ends_with_the_plain_loops_adapter(benchmark):
    work = benchmark.Work("bundled:generator", "cpu", "float32", batch_size=2, count=2)
    [column] = benchmark.compare_rwr(work, repeats=2, peak=PEAK).values()
    assert column["difference"] < SAME
    check_whole(column)


def test_the_command_prints_a_table_and_says_how_busy_the_machine_was(benchmark, capsys):
    sizes = ["--batch-size", "2", "--steps", "1", "--repeats", "1"]
    benchmark.main(["--device", "cpu", "--parts", "rwr", "--dtypes", "float32", *sizes])
    printed = capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("|")]
    assert {"steps/s, ours", "times faster", "% of peak, ours", "difference"} < set(rows)
    assert "bundled:generator, batches of 2" in printed and "rwr, float32; peak: 100 GFLOP/s" in printed
    assert "load of" in printed
