"""The student beside the generator, at its smallest: both sides are timed and judged on the same prompts and seeds."""

import sys

import pandas as pd
import pytest
from benchmark_programs import benchmark_module

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads a process's own clock as Linux tells it")


@pytest.fixture
def benchmark(monkeypatch):
    module = benchmark_module("student", monkeypatch)
    few = pd.DataFrame({"set": ["counting", "counting"], "prompt": ["a realistic photo of a bird", "two deer"]})
    monkeypatch.setattr(module, "development_prompts", lambda: few)
    monkeypatch.setattr(module, "BATCH", 4)
    return module


def test_the_command_prints_speed_and_paired_quality(benchmark, capsys):
    benchmark.main(["--device", "cpu", "--repeats", "1", "--batches", "1", "--images", "8", "--workers", "1"])
    printed = capsys.readouterr().out
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in printed.splitlines() if line.startswith("|")}
    assert float(rows["times faster"][0].split()[0]) > 1.5
    for name in ("counting, good", "counting, quality"):
        generator, student, change, low, high = (float(value) for value in rows[name][:5])
        assert 0 <= generator <= 1 and change == pytest.approx(student - generator, abs=2e-3) and low <= change <= high


def test_both_sides_are_asked_for_the_same_images(benchmark, monkeypatch):
    asked = []
    monkeypatch.setattr(
        benchmark,
        "_judged",
        lambda prompts, side, images, *_: (
            asked.append((prompts["prompt"].tolist(), images))
            or pd.DataFrame({"prompt": prompts["prompt"].repeat(2), "good": 1.0, "quality": 0.5 + 0.1 * side["steps"]})
        ),
    )
    table = benchmark.quality(5, 1)
    assert asked[0] == asked[1] and asked[0][1] == 3  # five images of two prompts
    assert (
        table.loc["counting, quality", "change"] == pytest.approx(-0.4) and table.loc["counting, good", "change"] == 0
    )
