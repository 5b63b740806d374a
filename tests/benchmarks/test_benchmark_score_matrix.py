"""The side-by-side benchmark of score matrices, with small models: both sides agree, and what it reports is whole."""

import sys

import pytest
from benchmark_programs import PEAK, benchmark_module, check_whole

from benchmarks.originals import PACKAGES, is_made

SAME = 1e-4  # of the range of the scores: both sides compute in single precision, but in another order

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="it reads peaks of memory as Linux tells them"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def benchmark(monkeypatch):
    return benchmark_module("score_matrix", monkeypatch)


@pytest.mark.parametrize("name", ["clip", "pickscore", "imagereward", "blip2"])
def test_both_sides_give_the_same_scores_and_ours_is_the_faster(name, benchmark, tmp_path):
    if name in PACKAGES and not is_made(PACKAGES[name].lock):
        pytest.skip(f"the environment of benchmarks/environments/{PACKAGES[name].lock}.txt is not made")
    prompts = list(benchmark.choose_prompts("composition", 12))
    work = benchmark.Work(name, tmp_path, "cpu", benchmark.random_images(4), prompts)
    column = benchmark.compare(work, pairs=5, toy=True, repeats=1, peak=PEAK)
    assert column["pairs timed, original"] == (8 if name == "pickscore" else 5)  # PickScore takes all images at once
    assert column["largest difference"] < SAME
    assert column["times faster"].median > 1
    check_whole(column)


def test_the_command_prints_one_column_for_each_reward(benchmark, capsys):
    sizes = ["--images", "2", "--prompts", "2", "--pairs", "2", "--repeats", "1"]
    benchmark.main(["--toy", "--device", "cpu", "--rewards", "clip", "pickscore", *sizes])
    printed = capsys.readouterr().out
    assert "2 images x 2 prompts" in printed and "one thread" in printed
    head = next(line for line in printed.splitlines() if line.startswith("|"))
    assert [cell.strip() for cell in head.split("|")[2:-1]] == ["clip", "pickscore"]
