"""What the benchmarks share: turns, ratios with their range, counted operations, devices."""

import os
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from benchmarks import side_by_side

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads peaks of memory as Linux tells them")


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return side_by_side


@pytest.mark.parametrize(
    ("values", "spread"), [([3.0, 1.0, 2.0], (2, 1, 3)), ([5.0], (5, 5, 5)), ([4.0, 1.0, 2.0, 3.0], (2.5, 1, 4))]
)
def test_a_spread_is_the_median_and_the_range(values, spread, benchmark):
    assert benchmark.Spread.of(values) == spread


def test_a_table_shows_medians_with_their_ranges_and_one_column_a_setting(benchmark):
    spread = benchmark.Spread(1.42, 1.4, 1.45)
    columns = {"a": {"times faster": spread, "rows": 6.0}, "b": {"times faster": spread, "rows": 2070.4}}
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in benchmark.table(columns).splitlines()]
    assert lines[0] == ["", "a", "b"]
    assert lines[2:] == [["times faster", *["1.42 [1.40, 1.45]"] * 2], ["rows", "6.00", "2,070"]]


def test_the_sides_take_turns(benchmark, monkeypatch):
    done = []
    monkeypatch.setattr(benchmark, "alone", lambda side: side())
    given = benchmark.take_turns(3, *(partial(lambda name: done.append(name) or len(done), name) for name in "tou"))
    assert "".join(done) == "toutoutou"
    assert given == [[1, 4, 7], [2, 5, 8], [3, 6, 9]]


def test_alone_is_another_process(benchmark):
    assert benchmark.alone(os.getpid) != os.getpid()


def test_each_ratio_is_of_one_turn_and_the_share_of_the_peak_follows_what_is_done(benchmark):
    def spent(done, seconds, **more):
        return benchmark.Spent("cpu", done=done, seconds=seconds, wall=2 * seconds, **more)

    theirs = [spent(4, 8.0), spent(4, 4.0), spent(4, 2.0)]  # half an image a second, 1, 2
    ours = [spent(8, 4.0), spent(8, 8.0), spent(8, 2.0)]  # 2, 1, 4
    counted = spent(2, 0.0, operations=100)  # 50 an image
    rows = benchmark.side_by_side(theirs, ours, unit="images", counted=counted, peak=1000.0)
    assert rows["images/s, original"] == (1, 0.5, 2) and rows["images/s, ours"] == (2, 1, 4)
    assert rows["times faster"] == rows["by the clock"] == (2, 1, 4)
    assert rows["% of peak, ours"] == (10, 5, 20)


def product():
    return torch.ones(3, 4) @ torch.ones(4, 5)


def attention(requires_grad=False):
    query, key, value = torch.ones(3, 1, 2, 6, 8, requires_grad=requires_grad)
    return torch.nn.functional.scaled_dot_product_attention(query, key, value)


@torch.no_grad()
def fused_layer():
    """Six tokens, eight wide, two heads."""
    tokens = torch.ones(1, 6, 8)
    return torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()(tokens, tokens, tokens, need_weights=False)


@pytest.mark.parametrize(
    ("work", "operations"),
    [
        (product, 2 * 3 * 4 * 5),
        (attention, 2 * (2 * 2 * 6 * 6 * 8)),  # two products a head, which a CPU's attention hides from torch's counter
        (lambda: torch.nn.functional.conv2d(torch.ones(1, 3, 4, 4), torch.ones(5, 3, 3, 3)), 2 * 5 * 2 * 2 * 3 * 9),
        (fused_layer, 4 * (2 * 6 * 8 * 8) + 2 * (2 * 2 * 6 * 6 * 4)),  # four projections, two products a head
        (lambda: torch.ones(9) + 1, 0),
    ],
    ids=["product", "attention", "convolution", "fused layer", "sum"],
)
def test_the_operations_of_known_work_are_counted(work, operations, benchmark):
    spent = benchmark.Spent("cpu", counting=True)
    with spent.timed(1):
        work()
    assert spent.operations == operations


def test_attention_counts_its_way_back_too(benchmark):
    spent = benchmark.Spent("cpu", counting=True)
    with spent.timed(1):
        attention(requires_grad=True).sum().backward()
    assert spent.operations == (2 + 5) * (2 * 2 * 6 * 6 * 8)  # of which one, the scores, is done again


def test_what_is_timed_is_not_counted(benchmark):
    spent = benchmark.Spent("cpu")
    with spent.timed(7):
        product()
        big = torch.ones(2**22)  # 16 MiB
    assert spent.operations == 0 and spent.done == 7
    assert 0 < spent.seconds < 60 and spent.rate == 7 / spent.seconds
    assert spent.peak_mib > big.nbytes / 2**20


def test_on_a_gpu_the_clock_is_read_once_it_has_done_all_and_memory_is_its_own(benchmark, monkeypatch):
    happened = []
    gpu = {
        "synchronize": lambda: happened.append("waited"),
        "reset_peak_memory_stats": lambda: happened.append("forgot"),
        "max_memory_allocated": lambda: 3 * 2**20,
    }
    for name, function in gpu.items():
        monkeypatch.setattr(torch.cuda, name, function)
    monkeypatch.setattr(benchmark.time, "monotonic", lambda: happened.append("read") or len(happened))
    spent, other = benchmark.Spent("cuda"), benchmark.Spent("cuda", process=os.getpid() + 1)
    with spent.timed(1):
        happened.append("worked")
    assert happened[:2] == ["forgot", "waited"]
    after = happened[happened.index("worked") + 1 :]
    assert after[0] == "waited" and set(after[1:]) == {"read"}
    assert spent.peak_mib == 3
    with other.timed(1):
        pass
    assert other.peak_mib != other.peak_mib  # not known


def test_the_peak_is_the_rate_of_the_fastest_product(benchmark, monkeypatch):
    seconds = iter([0.2, 0.1, 0.3, 0.9])
    monkeypatch.setitem(benchmark.PRODUCTS, "cpu", (16, 0.5))
    monkeypatch.setattr(
        benchmark, "Spent", lambda device: SimpleNamespace(timed=benchmark.nullcontext, seconds=next(seconds))
    )
    assert benchmark.peak_rate("cpu", "float32") == 2 * 16**3 / 0.1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "tpu"], "--device is 'tpu'; known: cpu, cuda"),
        (["--device", "cuda"], "torch finds none; take --device cpu"),
        (["--repeats", "0"], "--repeats is 0; 1 or more"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, said, benchmark, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as caught, benchmark.errors_in_one_line():
        benchmark.asked_for(benchmark.argparse.ArgumentParser(), arguments)
    assert said in caught.value.code and "\n" not in caught.value.code


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_the_device_is_a_gpu_where_there_is_one(there, device, benchmark, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    options = benchmark.asked_for(benchmark.argparse.ArgumentParser(), [])
    assert (options.device, options.repeats) == (device, 3)
