"""The metrics against hand-computed cases, against scikit-learn and scipy, and against what must not change them."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from textnorm_lib.stats.metrics import (
    METRICS,
    alignment_metrics,
    calibrate_ties,
    compare,
    pairwise_accuracy,
    prompt_metrics,
    ranking_metrics,
    summarise,
)
from textnorm_lib.study.errors import DataError

BOOTSTRAP = {"resamples": 400, "confidence": 0.9, "seed": 3}


def one_prompt(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rewards (tied in every second seed), labels and ratings of 7 to 60 images."""
    rng = np.random.default_rng(seed)
    votes = rng.integers(0, 2, (rng.integers(7, 60), 3))
    votes[:2] = [[1], [0]]  # both labels occur
    rewards = votes.mean(axis=1) + rng.normal(size=len(votes))
    return rewards.round(0) if seed % 2 else rewards, (votes.sum(axis=1) >= 2).astype(int), votes.mean(axis=1)


def tidy(values: dict[str, list[float]], *, set_name: str = "counting", metric: str = "auroc") -> pd.DataFrame:
    """Per-prompt values of each reward as the tidy table that ``summarise`` and ``compare`` take."""
    rows = [
        (set_name, f"{set_name} {i}", reward, metric, value)
        for reward, column in values.items()
        for i, value in enumerate(column)
    ]
    return pd.DataFrame(rows, columns=["set", "prompt", "reward", "metric", "value"])


def test_no_ties_by_hand():
    metrics = alignment_metrics([6, 5, 4, 3, 2, 1], [1, 0, 1, 1, 0, 0], [1, 1 / 3, 2 / 3, 1, 0, 0])
    assert tuple(metrics) == METRICS
    assert metrics["auroc"] == pytest.approx(7 / 9)  # the good ones beat 3, 2 and 2 of the 3 bad ones
    assert metrics["auprc"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 4) / 3)
    assert metrics["ap5"] == metrics["ap10"] == metrics["ap25"] == metrics["auprc"]  # all hits in the top 5; n < 10
    # Centred ranks of the rewards: 2.5 1.5 .5 -.5 -1.5 -2.5, of the ratings: 2 -.5 .5 2 -2 -2; products sum to 11.5.
    assert metrics["spearman"] == pytest.approx(11.5 / np.sqrt(17.5 * 16.5))
    # Of 15 pairs 10 are concordant, 3 discordant, 2 tied in the ratings.
    assert metrics["kendall"] == pytest.approx((10 - 3) / np.sqrt(15 * 13))


def test_ties_by_hand():
    metrics = alignment_metrics([2, 1, 1, 0], [1, 1, 0, 0], [1, 1, 0, 0])
    assert metrics["auroc"] == pytest.approx(3.5 / 4)  # 2 wins; half a win and a win
    assert metrics["auprc"] == pytest.approx((1 / 1 + 2 / 3) / 2)  # the tied two take places 2 and 3 together


def test_tie_across_the_cut_shares_the_places_left():
    metrics = alignment_metrics([9, 8, 7, 5, 5, 5, 5, 1], [1, 0, 0, 1, 1, 0, 0, 0], [1, 0, 0, 1, 1, 0, 0, 0])
    # Four share places 4 and 5, half a place each: their two good ones are one hit, at precision 2 / 5.
    assert metrics["ap5"] == pytest.approx((1 * 1 + 1 * 2 / 5) / 2)


@pytest.mark.parametrize(
    ("labels", "ap5"),
    [
        ([1, 0, 0, 0, 0, 0, 1], 1.0),  # one hit, at rank 1
        ([0, 0, 0, 0, 0, 1, 1], 0.0),  # no hit in the top 5
        ([1, 1, 0, 1, 1, 0, 0], (1 + 1 + 3 / 4 + 4 / 5) / 4),  # .8875, a value among the released ones
    ],
)
def test_ap5_is_normalised_by_the_hits_in_the_top_five(labels, ap5):
    assert alignment_metrics(range(7, 0, -1), labels, labels)["ap5"] == pytest.approx(ap5)


def test_undefined_values_are_nan():
    assert all(np.isnan(value) for value in alignment_metrics([1, 2, 3], [1, 1, 1], [1, 2 / 3, 1]).values())
    equal = alignment_metrics([1, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 1 / 3])
    assert np.isnan(equal["spearman"]) and np.isnan(equal["kendall"])
    assert (equal["auroc"], equal["auprc"], equal["ap5"]) == (0.5, 0.25, 0.25)
    unrated = alignment_metrics([1, 2], [1, 0], [0.5, 0.5])
    assert np.isnan(unrated["spearman"]) and np.isnan(unrated["kendall"]) and unrated["auroc"] == 0


@pytest.mark.parametrize("seed", range(40))
def test_equal_to_scikit_learn_and_scipy(seed):
    rewards, labels, ratings = one_prompt(seed)
    expected = {
        "auroc": roc_auc_score(labels, rewards),
        "auprc": average_precision_score(labels, rewards),
        "spearman": stats.spearmanr(rewards, ratings).statistic,
        "kendall": stats.kendalltau(rewards, ratings).statistic,
    }
    for k in (5, 10, 25):
        cut = np.sort(rewards)[::-1][min(k, rewards.size) - 1]
        share = (min(k, rewards.size) - (rewards > cut).sum()) / (rewards == cut).sum()
        weights = np.where(rewards > cut, 1.0, np.where(rewards == cut, share, 0.0))
        hit = (weights * labels).any()  # scikit-learn warns where there is none
        expected[f"ap{k}"] = average_precision_score(labels, rewards, sample_weight=weights) if hit else 0.0
    assert alignment_metrics(rewards, labels, ratings) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_order_and_increasing_transforms_do_not_matter(seed):
    rewards, labels, ratings = one_prompt(seed)
    metrics = alignment_metrics(rewards, labels, ratings)
    order = np.random.default_rng(seed).permutation(rewards.size)
    assert alignment_metrics(rewards[order], labels[order], ratings[order]) == pytest.approx(metrics, abs=1e-12)
    assert alignment_metrics(np.exp(3 * rewards) - 7, labels, ratings) == pytest.approx(metrics, abs=1e-12)


@pytest.mark.parametrize(
    ("rewards", "labels", "ratings", "message"),
    [
        ([1, 2], [1, 0, 0], [1, 0], "rewards has 2 values, labels 3, ratings 2"),
        ([1, np.nan], [1, 0], [1, 0], r"rewards\[1\] is nan"),
        ([np.inf, 1], [1, 0], [1, 0], r"rewards\[0\] is inf"),
        ([1, "high"], [1, 0], [1, 0], r"rewards\[1\] is high"),
        ([1, 2], [1, 2], [1, 0], r"labels\[1\] is 2"),
        ([1, 2], [1, 0], [1, -0.5], r"ratings\[1\] is -0.5"),
        ([[1, 2]], [1, 0], [1, 0], r"rewards has shape \(1, 2\)"),
        ([], [], [], r"rewards has shape \(0,\)"),
    ],
)
def test_bad_input_is_named(rewards, labels, ratings, message):
    with pytest.raises(DataError, match=message):
        alignment_metrics(rewards, labels, ratings)


def image_table() -> pd.DataFrame:
    tables = []
    for seed in range(3):
        rewards, labels, ratings = one_prompt(seed)
        columns = {"prompt": f"prompt {seed}", "label": labels, "rating": ratings, "clip": rewards, "blip2": -rewards}
        tables.append(pd.DataFrame({"set": "counting" if seed else "composition", **columns}))
    return pd.concat(tables)


def test_prompt_metrics_are_those_of_each_prompt():
    images = image_table()
    table = prompt_metrics(images.sample(frac=1, random_state=0), ["clip", "blip2"])
    assert list(table) == ["set", "prompt", "reward", "metric", "value"] and len(table) == 3 * 2 * 7
    for (name, reward), values in table.groupby(["prompt", "reward"]):
        rows = images[images["prompt"] == name]
        expected = alignment_metrics(rows[reward], rows["label"], rows["rating"])
        assert dict(zip(values["metric"], values["value"], strict=True)) == pytest.approx(expected, abs=1e-12)
        assert (values["set"] == rows["set"].iloc[0]).all()
    assert list(prompt_metrics(images.drop(columns="set"), ["clip"])) == ["prompt", "reward", "metric", "value"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda images: images.drop(columns="rating"), "images has no column 'rating'"),
        (lambda images: images.iloc[:0], "images has no rows"),
        (lambda images: images.assign(prompt=None), "images: row 0 has no prompt"),
        (lambda images: images.assign(clip=np.nan), r"prompt 'prompt 0', reward 'clip': rewards\[0\] is nan"),
    ],
)
def test_bad_images_are_named(damage, message):
    with pytest.raises(DataError, match=message):
        prompt_metrics(damage(image_table()), ["clip"])


def test_summary_by_hand():
    counting = tidy({"clip": [0.2, 0.4, np.nan], "blip2": [0.5, 0.5, 0.5]})
    composition = tidy({"clip": [0.9], "blip2": [0.1]}, set_name="composition")
    table = summarise(pd.concat([counting, composition]), **BOOTSTRAP).set_index(["set", "reward"])
    assert list(table) == ["metric", "mean", "low", "high", "n_prompts"]
    assert table["mean"].to_dict() == pytest.approx(
        {
            ("counting", "clip"): 0.3,  # (.2 + .4) / 2: the third prompt has no value
            ("counting", "blip2"): 0.5,
            ("composition", "clip"): 0.9,
            ("composition", "blip2"): 0.1,
            ("all", "clip"): 0.5,  # (.2 + .4 + .9) / 3: every prompt counts the same
            ("all", "blip2"): 0.4,  # (.5 + .5 + .5 + .1) / 4
        }
    )
    assert table["n_prompts"].to_list() == [2, 3, 1, 1, 3, 4]
    assert table.loc["composition", ["low", "high"]].isna().all(axis=None)  # one prompt has no spread
    assert table.loc[("counting", "blip2"), ["low", "high"]].to_list() == pytest.approx([0.5, 0.5])


def test_interval_is_scipys_deterministic_and_holds_the_mean():
    rng = np.random.default_rng(0)
    values = {"clip": rng.random(30), "blip2": rng.random(30)}
    per_prompt = tidy(values)
    options = {"resamples": 2500, "confidence": 0.9, "seed": 5}  # more than a batch
    table = summarise(per_prompt, **options)
    assert ((table["low"] < table["mean"]) & (table["mean"] < table["high"])).all()
    in_order = per_prompt.pivot(index="prompt", columns="reward", values="value")  # prompts are sorted before drawing
    for reward in values:
        expected = stats.bootstrap(
            (in_order[reward].to_numpy(),),
            np.mean,
            n_resamples=2500,
            confidence_level=0.9,
            method="percentile",
            rng=np.random.default_rng(5),
        ).confidence_interval
        rows = table[table["reward"] == reward]
        np.testing.assert_allclose(rows[["low", "high"]], [expected, expected], rtol=1e-12)
    pd.testing.assert_frame_equal(table, summarise(per_prompt, **options))
    shuffled = summarise(per_prompt.sample(frac=1, random_state=1), **options)
    pd.testing.assert_frame_equal(table, shuffled.sort_values(["set", "reward"], ascending=False, ignore_index=True))
    silent = tidy({"clip": [np.nan], "blip2": [np.nan]}).assign(prompt="one label only")  # is never drawn
    with_silent = summarise(pd.concat([per_prompt, silent]), **options)
    pd.testing.assert_frame_equal(table, with_silent)
    assert not table["low"].equals(summarise(per_prompt, **options | {"seed": 6})["low"])


def test_comparison_by_hand():
    per_prompt = tidy({"textnorm": [0.9, 0.8, 0.7, 0.5, 0.4, 0.3], "clip": [0.5, 0.5, 0.7, 0.6, 0.6, np.nan]})
    row = compare(per_prompt, reference="textnorm", metrics=["auroc"], **BOOTSTRAP).iloc[0]
    assert (row["set"], row["metric"], row["reward"], row["reference"]) == ("counting", "auroc", "clip", "textnorm")
    assert row["difference"] == pytest.approx((0.4 + 0.3 + 0 - 0.1 - 0.2) / 5)  # the sixth prompt has no pair
    assert row[["wins", "ties", "losses"]].to_list() == [2, 1, 2]
    assert row["low"] < row["difference"] < row["high"]
    # The zero has rank 1, half of it on each side; the losses have ranks 2 and 3. Of the 16 subsets of 2, 3, 4, 5 six
    # have a sum of 5 or less (0, 2, 3, 4, 5, 2 + 3): p = 2 * 6 / 16.
    assert row["p_wilcoxon"] == pytest.approx(0.75)


def test_identical_rewards_differ_by_nothing():
    values = np.random.default_rng(0).random(12)
    row = compare(tidy({"a": values, "b": values}), reference="a", metrics=["auroc"], **BOOTSTRAP).iloc[0]
    assert row[["difference", "low", "high"]].to_list() == [0, 0, 0]
    assert row[["wins", "ties", "losses"]].to_list() == [0, 12, 0]
    assert (row["p_wilcoxon"], row["p_holm"]) == (1, 1)


def test_holm_by_hand_within_each_set():
    base = np.array([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    steps = np.array([0.1, 0.2, 0.3, 0.4, 0.35, 0.25])
    mixed = base - np.where(steps == 0.1, -steps, steps)  # one prompt, that of rank 1, points the other way
    rewards = {"ours": base, "worse": base - steps, "mixed": mixed, "same": base}
    sets = [tidy(rewards), tidy(rewards, set_name="composition", metric="ap5")]
    table = compare(pd.concat(sets), reference="ours", **BOOTSTRAP, metrics=["auroc", "ap5"])
    counting = table[(table["set"] == "counting") & (table["metric"] == "auroc")].set_index("reward")
    # All six signs alike: p = 2 / 2^6; rank 1 against: 2 * 2 / 2^6. Holm: 3 * .03125, 2 * .0625, 1 * 1.
    assert counting["p_wilcoxon"].to_dict() == pytest.approx({"worse": 0.03125, "mixed": 0.0625, "same": 1})
    assert counting["p_holm"].to_dict() == pytest.approx({"worse": 0.09375, "mixed": 0.125, "same": 1})
    empty = table[(table["set"] == "counting") & (table["metric"] == "ap5")]  # not measured: not in Holm's family
    assert empty[["difference", "low", "high", "p_wilcoxon", "p_holm"]].isna().all(axis=None)
    both = table[(table["set"] == "all") & (table["reward"] == "worse")]  # six tests: 6 p and max(6 p, 5 p)
    assert both["p_holm"].to_list() == pytest.approx([6 * 0.03125] * 2)


@pytest.mark.parametrize(
    ("rewards", "options", "message"),
    [
        (["a", "b"], {"reference": "c"}, "reference is 'c'"),
        (["a"], {}, "reference is 'a'"),
        (["a", "b"], {"metrics": ["auc"]}, "metrics names 'auc'"),
    ],
)
def test_a_comparison_of_what_is_not_there_is_named(rewards, options, message):
    per_prompt = tidy({reward: [0.1, 0.2] for reward in rewards})
    with pytest.raises(DataError, match=message):
        compare(per_prompt, **{"reference": "a", "metrics": ["auroc"], **BOOTSTRAP, **options})


def test_pairwise_accuracy_by_hand():
    rewards, ratings = [3.0, 2.75, 1.0], [1, 1, 0]
    assert pairwise_accuracy(rewards, ratings) == pytest.approx(2 / 3)  # people tie the first pair, the reward does not
    assert pairwise_accuracy(rewards, ratings, tie_threshold=0.25) == 1
    assert pairwise_accuracy(rewards, ratings, tie_threshold=1.75) == pytest.approx(2 / 3)  # now 2.75 and 1 tie as well
    assert pairwise_accuracy(rewards, ratings, tie_threshold=2) == pytest.approx(1 / 3)
    untied = np.random.default_rng(0).random((2, 20))
    assert pairwise_accuracy(*untied) == pytest.approx((stats.kendalltau(*untied).statistic + 1) / 2)


def test_calibrated_threshold_by_hand():
    first, second = [3.0, 2.75, 1.0], [2.0, 1.75]
    assert calibrate_ties([first], [[1, 1, 0]]) == (0.25, 1.0)
    # At .25 the second prompt's only pair turns wrong: (2/3 + 1) / 2 at 0 against (1 + 0) / 2.
    assert calibrate_ties([first, second], [[1, 1, 0], [1, 0]]) == (0.0, pytest.approx(5 / 6))


@pytest.mark.parametrize("seed", range(6))
def test_calibrated_threshold_is_the_best_of_all(seed):
    rewards, _, ratings = zip(*(one_prompt(100 * seed + i) for i in range(5)), strict=True)
    rewards, ratings = ([column[: 3 + i] for i, column in enumerate(group)] for group in (rewards, ratings))
    observed = {0.0} | {abs(a - b) for x in rewards for a in x for b in x}
    accuracy = {
        t: np.mean([pairwise_accuracy(*group, tie_threshold=t) for group in zip(rewards, ratings, strict=True)])
        for t in sorted(observed)
    }
    threshold, best = calibrate_ties(rewards, ratings)
    assert best == pytest.approx(max(accuracy.values()))
    assert threshold == next(t for t, value in accuracy.items() if value > best - 1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pairwise_accuracy([1], [1]), "rewards has 1 values, ratings 1"),
        (lambda: pairwise_accuracy([1, np.nan], [1, 0]), r"rewards\[1\] is nan"),
        (lambda: pairwise_accuracy([1, 2], [1, 0], tie_threshold=-1), "tie_threshold is -1"),
        (lambda: calibrate_ties([[1, 2]], []), "rewards has 1 prompts, ratings 0"),
    ],
)
def test_bad_pairs_are_named(call, message):
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize("seed", range(20))
def test_many_rewards_at_once_give_the_same_numbers_as_one_by_one(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 40))
    labels = np.r_[0, 1, rng.integers(0, 2, n - 2)]
    rewards = np.concatenate([rng.normal(size=(3, n)), rng.integers(0, 3, (3, n)), np.zeros((1, n))])
    found = ranking_metrics(rewards, labels)
    for place, reward in enumerate(rewards):
        one = alignment_metrics(reward, labels, labels)
        for metric, values in found.items():
            assert values[place] == pytest.approx(one[metric], abs=1e-12), metric
    assert set(found) == {"auroc", "ap5", "ap10", "ap25"}


def test_many_rewards_at_once_need_both_labels():
    with pytest.raises(DataError, match="labels are all 1"):
        ranking_metrics(np.zeros((2, 3)), np.ones(3, int))
