"""The side-by-side benchmark of score matrices, with small models: both sides agree, and what it reports is whole."""

import math
import sys
from pathlib import Path

import pytest
import torch

from textnorm_lib.rewards.environments import is_made
from textnorm_lib.rewards.isolated import PACKAGES

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SAME = 1e-4  # of the range of the scores: both sides compute in single precision, but in another order

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads peaks of memory as Linux tells them")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)  # its processes look for it there, too
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    import score_matrix

    yield score_matrix
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["clip", "pickscore", "imagereward", "blip2"])
def test_both_sides_give_the_same_scores_and_ours_is_the_faster(name, benchmark, monkeypatch):
    if name in PACKAGES and not is_made(PACKAGES[name].lock):
        pytest.skip(f"the environment of environments/{PACKAGES[name].lock}.txt is not made")
    monkeypatch.setattr(benchmark, "alone", lambda function, *arguments: function(*arguments))  # saves many imports
    result = benchmark.compare(name, images=4, prompts=12, pairs=5, toy=True)
    assert result["pairs timed"] == (8 if name == "pickscore" else 5)  # PickScore is called with all images at once
    assert result["largest difference"] < SAME
    assert result["times faster"] > 1
    assert all(math.isfinite(value) and value >= 0 for value in result.values())


def test_the_command_prints_one_line_for_each_reward(benchmark, capsys):
    benchmark.main(["--toy", "--images", "2", "--prompts", "2", "--pairs", "2", "--rewards", "clip"])
    printed = capsys.readouterr().out
    assert "2 images x 2 prompts" in printed and "one thread" in printed
    assert [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("|")][2:] == ["clip"]
