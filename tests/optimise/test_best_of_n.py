"""Best-of-n against every subset, against closed forms and fresh draws; Gao's fits against curves that are known."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import curve_fit

from textnorm_lib.optimise.best_of_n import (
    choose_best,
    expected_gold,
    fit_gold,
    gain_realised,
    gold_curves,
    kl_best_of_n,
)
from textnorm_lib.stats.metrics import summarise
from textnorm_lib.study.errors import DataError

BOOTSTRAP = {"resamples": 200, "confidence": 0.9, "seed": 3}
SIZES = (1, 2, 4, 8, 16, 32)


def one_pool(seed: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Proxy (with ties in every second seed) and gold of one prompt's images."""
    rng = np.random.default_rng(seed)
    gold = rng.normal(size=size)
    proxy = gold + rng.normal(size=size)
    return proxy.round() if seed % 2 else proxy, gold


def best_by(proxy: np.ndarray, gold: np.ndarray) -> float:
    return gold[proxy == proxy.max()].mean()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
def test_it_is_the_mean_over_all_subsets_of_the_pool(seed, n):
    proxy, gold = one_pool(seed, 8)
    subsets = [list(subset) for subset in combinations(range(8), n)]
    expected = np.mean([best_by(proxy[subset], gold[subset]) for subset in subsets])
    assert expected_gold(proxy, gold, n) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_it_is_what_a_hundred_thousand_draws_from_the_pool_give(seed):
    proxy, gold = one_pool(seed, 24)
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(24), (100_000, 1)), axis=1)[:, :6]
    top = proxy[order] == proxy[order].max(axis=1, keepdims=True)
    drawn = (gold[order] * top).sum(axis=1) / top.sum(axis=1)
    assert expected_gold(proxy, gold, 6) == pytest.approx(drawn.mean(), abs=4 * drawn.std() / np.sqrt(100_000))


@pytest.mark.parametrize(("size", "n"), [(10, 3), (64, 64), (300, 16), (5000, 256), (5000, 4999)])
def test_evenly_spread_gold_gives_the_uniform_maximum(size, n):
    gold = np.arange(1, size + 1) / (size + 1)  # what N uniform numbers are on average, in order
    assert expected_gold(gold, gold, n) == pytest.approx(n / (n + 1), rel=1e-12)


def test_pools_of_any_size_estimate_independent_draws_without_bias():
    rng = np.random.default_rng(0)
    for size in (8, 9, 30):
        gold = rng.random((1000, size))
        found = [expected_gold(pool, pool, 8) for pool in gold]
        assert np.mean(found) == pytest.approx(8 / 9, abs=4 * np.std(found) / np.sqrt(1000))


@pytest.mark.parametrize("seed", range(4))
def test_only_the_order_of_the_proxy_counts_and_not_that_of_the_images(seed):
    proxy, gold = one_pool(seed, 40)
    value = expected_gold(proxy, gold, 9)
    order = np.random.default_rng(seed).permutation(40)
    assert expected_gold(proxy[order], gold[order], 9) == pytest.approx(value, abs=1e-12)
    assert expected_gold(np.exp(3 * proxy) - 7, gold, 9) == pytest.approx(value, abs=1e-12)
    assert expected_gold(proxy, 2 * gold + 5, 9) == pytest.approx(2 * value + 5, abs=1e-12)


@pytest.mark.parametrize("n", [1, 5, 20])
def test_a_constant_proxy_gives_the_mean_of_the_pool(n):
    gold = np.random.default_rng(n).normal(size=20)
    assert expected_gold(np.full(20, 0.1), gold, n) == pytest.approx(gold.mean(), abs=1e-12)


def test_the_best_of_one_is_the_mean_and_of_all_the_best():
    proxy, gold = one_pool(0, 30)
    assert expected_gold(proxy, gold, 1) == pytest.approx(gold.mean(), abs=1e-12)
    assert expected_gold(proxy, gold, 30) == gold[proxy.argmax()]


def test_kl_by_hand():
    assert kl_best_of_n(1) == 0
    assert kl_best_of_n(np.int64(2)) == pytest.approx(0.6931471806 - 0.5)
    assert kl_best_of_n(256) == pytest.approx(5.5451774445 - 255 / 256)


def test_the_best_of_the_first_n_with_equal_ones_in_order():
    proxy = [0.2, 0.9, 0.5, 0.9, 0.5, 1.0]
    assert choose_best(proxy, 5, 4).tolist() == [1, 3, 2, 4]
    assert choose_best(proxy, 6, 1).tolist() == [5]
    assert choose_best([7, 7, 7], 3, 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expected_gold([1, 2], [1, 2], 3), "n is 3: a whole number from 1 to 2"),
        (lambda: expected_gold([1, 2], [1, 2], 0), "n is 0"),
        (lambda: expected_gold([1, 2], [1, 2], 1.5), "n is 1.5"),
        (lambda: expected_gold([1, 2], [1, 2], True), "n is True"),
        (lambda: expected_gold([1, np.nan], [1, 2], 1), r"proxy\[1\] is nan"),
        (lambda: expected_gold([1, 2], [-np.inf, 2], 1), r"gold\[0\] is -inf"),
        (lambda: expected_gold([1, 2], [1, 2, 3], 1), "proxy has 2 values, gold 3"),
        (lambda: expected_gold([1, "good"], [1, 2], 1), r"proxy\[1\] is good: a finite number is needed"),
        (lambda: expected_gold([], [], 1), r"proxy has shape \(0,\)"),
        (lambda: kl_best_of_n(0), "n is 0: a whole number from 1 up is needed"),
        (lambda: choose_best([1, 2, 3], 4, 1), "n is 4: a whole number from 1 to 3"),
        (lambda: choose_best([1, 2, 3], 2, 3), "k is 3: a whole number from 1 to 2"),
        (lambda: choose_best([1, np.nan, 3], 1, 1), r"proxy\[1\] is nan"),
    ],
)
def test_bad_pools_are_named_in_one_line(call, message):
    with pytest.raises(DataError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


def image_table(prompts: int = 12, size: int = 40) -> pd.DataFrame:
    """Images whose gold the reward ``good`` sees with noise, ``blind`` not at all and ``wrong`` upside down."""
    rng = np.random.default_rng(0)
    tables = []
    for number in range(prompts):
        gold = rng.normal(number, 1, size)
        columns = {"gold": gold, "good": gold + rng.normal(size=size), "blind": 0.5, "wrong": -gold}
        tables.append(pd.DataFrame({"set": "ab"[number % 2], "prompt": f"prompt {number}", **columns}))
    return pd.concat(tables)


def curves_of(*rewards: str, **options) -> pd.DataFrame:
    return gold_curves(image_table(**options), rewards=list(rewards), gold="gold", sizes=SIZES)


def test_curves_are_those_of_each_pool():
    images = image_table(3).sample(frac=1, random_state=0)
    table = gold_curves(images, rewards=["good", "wrong"], gold="gold", sizes=[1, 8])
    assert list(table) == ["set", "prompt", "reward", "n", "gold", "base", "possible"] and len(table) == 3 * 2 * 2
    for row in table.itertuples():
        pool = images[images["prompt"] == row.prompt]
        assert row.set == pool["set"].iloc[0]
        assert row.gold == pytest.approx(expected_gold(pool[row.reward], pool["gold"], row.n))
        assert row.base == pytest.approx(pool["gold"].mean())
        assert row.possible == pytest.approx(expected_gold(pool["gold"], pool["gold"], row.n))
    means = summarise(table.rename(columns={"n": "metric", "gold": "value"}), **BOOTSTRAP)  # they fit what there is
    everywhere = means[(means["set"] == "all") & (means["reward"] == "good") & (means["metric"] == 8)]
    assert everywhere["mean"].item() == pytest.approx(table.query("reward == 'good' and n == 8")["gold"].mean())


def test_the_realised_share_of_known_rewards():
    table = gain_realised(curves_of("gold", "good", "blind", "wrong"), **BOOTSTRAP).set_index(["set", "reward", "n"])
    for n in SIZES[1:]:
        assert table.loc[("all", "gold", n), ["share", "low", "high"]].to_list() == pytest.approx([1, 1, 1])
        assert table.loc[("a", "blind", n), ["share", "low", "high"]].to_list() == pytest.approx([0, 0, 0], abs=1e-9)
        assert table.loc[("all", "wrong", n), "high"] < 0
        low, share, high = table.loc[("all", "good", n), ["low", "share", "high"]]
        assert 0 < low < share < high < 1
    assert table.loc[("all", "good", 1), ["share", "low", "high"]].isna().all()  # one image: nothing to gain
    assert table["n_prompts"].groupby("set").unique().to_dict() == {"a": [6], "all": [12], "b": [6]}


def test_the_realised_share_is_a_ratio_of_means():
    rows = [
        ("a", "one", "r", 4, 0.5, 0.0, 1.0),
        ("a", "two", "r", 4, 2.0, 2.0, 2.0),
        ("a", "three", "r", 4, 3.0, 0.0, 3.0),
    ]
    curves = pd.DataFrame(rows, columns=["set", "prompt", "reward", "n", "gold", "base", "possible"])
    table = gain_realised(curves, **BOOTSTRAP).set_index("set")
    assert table.loc["a", "share"] == pytest.approx(3.5 / 4)  # the second prompt has nothing to gain
    assert table.loc["a", "n_prompts"] == 3


def curves_from(gold_of, distances: dict[str, np.ndarray], *, prompts: int = 8, noise: float = 0.0) -> pd.DataFrame:
    """Curves of prompts with bases of their own, gold_of(d, prompt number) above it."""
    rng = np.random.default_rng(1)
    ((column, values),) = distances.items()
    d = np.sqrt([kl_best_of_n(n) for n in values] if column == "n" else values)
    tables = [
        pd.DataFrame(
            {
                "prompt": str(p),
                column: values,
                "gold": 10 * p + gold_of(d, p) + noise * (d > 0) * rng.normal(size=d.size),
            }
        )
        for p in range(prompts)
    ]
    return pd.concat(tables).assign(set="a", reward="r")


FORMS = {
    "best_of_n": ({"n": np.array([1, 2, 4, 16, 64, 256])}, lambda d, a, b: d * (a - b * d), lambda a, b: a / (2 * b)),
    "rl": (
        {"kl": np.array([0.0, 0.1, 0.5, 1.0, 4.0, 9.0])},
        lambda d, a, b: d * (a - b * np.log(np.where(d > 0, d, 1))),
        lambda a, b: np.exp(a / b - 1),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_known_curve_is_found_with_its_peak(form):
    distances, curve, peak = FORMS[form]
    table = fit_gold(curves_from(lambda d, p: curve(d, 0.7, 0.3), distances), form=form, **BOOTSTRAP)
    everywhere = table[table["set"] == "all"].set_index("term")
    for column in ("value", "low", "high"):
        assert everywhere[column].to_dict() == pytest.approx({"a": 0.7, "b": 0.3, "peak": peak(0.7, 0.3)})
    assert (everywhere["n_prompts"] == 8).all()
    d = np.linspace(0, 5, 100_001)
    assert d[curve(d, 0.7, 0.3).argmax()] == pytest.approx(everywhere.loc["peak", "value"], abs=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_the_fit_is_scipys_and_its_interval_tells_how_prompts_differ(form):
    distances, curve, _ = FORMS[form]
    curves = curves_from(lambda d, p: curve(d, 0.5 + 0.05 * p, 0.3), distances, noise=0.05)
    table = fit_gold(curves, form=form, **BOOTSTRAP).query("set == 'all'").set_index("term")
    d = np.sqrt([kl_best_of_n(n) for n in curves["n"]] if form == "best_of_n" else curves["kl"])
    gain = curves["gold"] - curves["prompt"].astype(int) * 10
    expected, _ = curve_fit(curve, d, gain)
    assert table.loc[["a", "b"], "value"].to_list() == pytest.approx(expected, rel=1e-6)
    assert ((table["low"] < table["value"]) & (table["value"] < table["high"])).all()
    spread = np.std(0.5 + 0.05 * np.arange(8)) / np.sqrt(8)
    assert 2 * spread < table.loc["a", "high"] - table.loc["a", "low"] < 5 * spread  # 3.3 of a normal one
    same = fit_gold(curves.sample(frac=1, random_state=0).sort_values("prompt"), form=form, **BOOTSTRAP)
    assert same.query("set == 'all'")["value"].to_list() == pytest.approx(table["value"].to_list())


@pytest.mark.parametrize(
    ("form", "a", "b", "peak"),
    [
        ("best_of_n", 0.5, -0.1, np.inf),
        ("best_of_n", -0.5, 0.1, 0),
        ("best_of_n", -0.5, -0.1, np.inf),
        ("rl", 0.5, -0.1, np.inf),
        ("rl", -0.5, -0.1, np.inf),
    ],
)
def test_gold_that_rises_in_the_end_or_only_falls_has_no_peak_inside(form, a, b, peak):
    distances, curve, _ = FORMS[form]
    table = fit_gold(curves_from(lambda d, p: curve(d, a, b), distances), form=form, **BOOTSTRAP)
    assert table[table["term"] == "peak"][["value", "low", "high"]].to_numpy().tolist() == [[peak] * 3] * 2


def test_a_peak_that_some_resamples_do_not_have_has_an_open_interval():
    distances, curve, _ = FORMS["best_of_n"]
    curves = curves_from(lambda d, p: curve(d, 0.5, 0.3 if p % 2 else -0.2), distances)
    peak = fit_gold(curves, form="best_of_n", **BOOTSTRAP).query("set == 'all' and term == 'peak'").iloc[0]
    assert np.isfinite(peak["value"]) and np.isfinite(peak["low"]) and peak["high"] == np.inf


def test_one_prompt_has_a_fit_and_no_interval():
    distances, curve, _ = FORMS["best_of_n"]
    table = fit_gold(curves_from(lambda d, p: curve(d, 0.7, 0.3), distances, prompts=1), form="best_of_n", **BOOTSTRAP)
    assert table["value"].notna().all() and table[["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda t: gold_curves(image_table(2), rewards=["good"], gold="gold", sizes=[41]),
            "n is 41: a whole number from 1 to 40",
        ),
        (
            lambda t: gold_curves(image_table(2).assign(good=np.nan), rewards=["good"], gold="gold", sizes=[1]),
            r"proxy\[0\] is nan",
        ),
        (lambda t: fit_gold(t, form="ppo", **BOOTSTRAP), "form is 'ppo'"),
        (lambda t: fit_gold(t[t["n"] > 1], form="best_of_n", **BOOTSTRAP), "prompt 'prompt 0' needs a base"),
        (lambda t: fit_gold(t[t["n"] < 4], form="best_of_n", **BOOTSTRAP), "prompt 'prompt 0' needs a base"),
        (lambda t: fit_gold(t.assign(n=t["n"] - 1), form="best_of_n", **BOOTSTRAP), "n is 0"),
    ],
)
def test_bad_tables_are_named_in_one_line(call, message):
    with pytest.raises(DataError, match=message) as raised:
        call(curves_of("good", prompts=2))
    assert "\n" not in str(raised.value)
