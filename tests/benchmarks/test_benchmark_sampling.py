"""The side-by-side benchmark of sampling, at its smallest: both sides make the same images, and its report is whole."""

import sys

import pytest
from benchmark_programs import PEAK, benchmark_module, check_whole

from textnorm_lib.images import sampling

SMALLEST = {"steps": 2, "guidance_scale": 2.0, "batch_size": 2, "batches": 1}

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it reads peaks of memory as Linux tells them"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def benchmark(monkeypatch):
    return benchmark_module("sampling", monkeypatch)


def test_both_sides_make_the_same_images_in_float32(benchmark, monkeypatch):
    monkeypatch.setattr(sampling, "_has_bfloat16", lambda: True)  # emulated, if need be: float32 would be no difference
    work = benchmark.Work("bundled:generator", "cpu", **SMALLEST)
    columns = benchmark.compare(work, {"float32": PEAK, "bfloat16": PEAK}, repeats=1)
    assert list(columns) == ["float32", "bfloat16"]
    assert columns["float32"]["difference"] == 0 < columns["bfloat16"]["difference"] < 20
    for column in columns.values():
        assert sum(share for row, share in column.items() if row.startswith("% of time")) == pytest.approx(100)
        assert column["% of time, U-Net"] > column["% of time, text encoder"]
        check_whole(column)


def test_the_operations_of_an_image_grow_with_the_steps(benchmark):
    few, more, most = (
        benchmark.ours(benchmark.Work("bundled:generator", "cpu", **{**SMALLEST, "steps": steps}), counting=True)
        for steps in (1, 2, 3)
    )
    assert most.operations - more.operations == more.operations - few.operations > few.operations / 10
    assert few.done == 2


def test_the_command_prints_a_table_and_says_how_busy_the_machine_was(benchmark, capsys):
    sizes = [part for name, size in SMALLEST.items() for part in (f"--{name.replace('_', '-')}", str(size))]
    benchmark.main(["--device", "cpu", "--repeats", "2", "--dtypes", "float32", *sizes])
    printed = capsys.readouterr().out
    rows = {line.split("|")[1].strip(): line.split("|")[2] for line in printed.splitlines() if line.startswith("|")}
    assert rows[""].strip() == "float32" and "[" in rows["times faster"] and "% of peak, ours" in rows
    assert "CPU, one thread" in printed and "float32 100 GFLOP/s" in printed and "load of" in printed


def test_a_model_that_is_not_there_is_said_in_one_line(benchmark):
    with pytest.raises(SystemExit, match="weights '/nowhere': there is no such file or folder") as caught:
        benchmark.main(["--device", "cpu", "--model", "/nowhere", "--dtypes", "float32"])
    assert "\n" not in caught.value.code
