"""Rewards against human labels: the seven metrics, their intervals, paired tests and ties (sections 3.2 and 4.3).

One prompt has n images with rewards r (n,), labels z (n,) in {0, 1} and ratings y (n,) in [0, 1], a rating being the
mean of three votes with skip = 0.5. With h(t) good images among the t best rewarded,

    AUROC = P(r_good > r_bad) + P(r_good = r_bad) / 2
    AP@k  = sum over places t <= k of (h(t) - h(t - 1)) / h(k) * h(t) / t,      AUPRC = AP@n

and Spearman's rho and Kendall's tau-b relate r to y. Images with the same reward take their places together, and those
tied across place k share equally what is left up to k: no metric depends on the order of the images.
Metrics are computed per prompt and averaged over prompts. A resample redraws whole prompts, because the images of one
prompt are not independent.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from sklearn.metrics import confusion_matrix_at_thresholds
from statsmodels.stats.multitest import multipletests

from textnorm_lib.stats.intervals import prompt_bootstrap
from textnorm_lib.study.errors import DataError, is_number, shown
from textnorm_lib.study.store import step

METRICS = ("auroc", "auprc", "ap5", "ap10", "ap25", "spearman", "kendall")
ALL_SETS = "all"

_ROUNDING_DECIMALS = 12  # two orders of summation can leave equal values some 1e-16 apart; that is no win and no loss


def alignment_metrics(rewards: ArrayLike, labels: ArrayLike, ratings: ArrayLike) -> dict[str, float]:
    """The seven ``METRICS`` of one prompt (section 3.2).

    ``rewards`` (n,) finite; ``labels`` (n,) in {0, 1}; ``ratings`` (n,) in [0, 1]. AUROC, AUPRC and AP@k lie in [0, 1],
    the correlations in [-1, 1]. AP@k is normalised by the hits inside the top k: one hit at rank 1 gives 1, no hit 0;
    with n < k all images count. All seven are nan where only one label occurs, the correlations also where all
    rewards or all ratings are equal. Raises ``DataError`` for lengths that differ, no image, or a value out of range.
    """
    rewards = finite_column("rewards", rewards)
    labels = column("labels", labels, lambda x: (x == 0) | (x == 1), "0 or 1 is needed")
    ratings = column("ratings", ratings, lambda x: (x >= 0) & (x <= 1), "a number from 0 to 1 is needed")
    if not rewards.size == labels.size == ratings.size:
        raise DataError(
            f"rewards has {rewards.size} values, labels {labels.size}, ratings {ratings.size}: one an image"
        )
    if np.ptp(labels) == 0:
        return dict.fromkeys(METRICS, np.nan)
    _, false, _, true, _ = confusion_matrix_at_thresholds(labels, rewards)  # one point a distinct reward, best first
    bad, good = np.append(0, false), np.append(0, true)
    values = {"auroc": np.trapezoid(good, bad) / (good[-1] * bad[-1])}
    for name, k in (("auprc", labels.size), ("ap5", 5), ("ap10", 10), ("ap25", 25)):
        values[name] = _average_precision(good, good + bad, k)
    constant = np.ptp(rewards) == 0 or np.ptp(ratings) == 0
    values["spearman"] = np.nan if constant else stats.spearmanr(rewards, ratings).statistic
    values["kendall"] = np.nan if constant else stats.kendalltau(rewards, ratings).statistic
    return {name: float(values[name]) for name in METRICS}


@step(1)
def prompt_metrics(images: pd.DataFrame, rewards: Sequence[str]) -> pd.DataFrame:
    """``alignment_metrics`` of every prompt and reward, tidy: (set,) prompt, reward, metric, value.

    ``images`` has one row per image with the columns prompt, label, rating, one column per name in ``rewards`` and
    possibly set. Prompts keep the order in which they first occur. Raises ``DataError`` as ``alignment_metrics`` does,
    naming the prompt and the reward, and for a missing column or a row without a prompt.
    """
    keys = ["set", "prompt"] if "set" in images else ["prompt"]
    columns = [*keys, "label", "rating", *rewards]
    if missing := [column for column in columns if column not in images]:
        raise DataError(f"images has no column {missing[0]!r}; needed are {', '.join(columns)}")
    if images.empty:
        raise DataError("images has no rows")
    if (nameless := images["prompt"].isna()).any():
        raise DataError(f"images: row {nameless.argmax()} has no prompt")
    rows = []
    for key, group in images.groupby(keys, sort=False, observed=True):
        labels, ratings = group["label"].to_numpy(), group["rating"].to_numpy()
        for reward in rewards:
            try:
                values = alignment_metrics(group[reward].to_numpy(), labels, ratings)
            except DataError as error:
                raise DataError(f"prompt {key[-1]!r}, reward {reward!r}: {error}") from None
            rows += [(*key, reward, metric, value) for metric, value in values.items()]
    return pd.DataFrame(rows, columns=[*keys, "reward", "metric", "value"])


@step(1)
def summarise(per_prompt: pd.DataFrame, *, resamples: int, confidence: float, seed: int) -> pd.DataFrame:
    """Mean over prompts of each set, reward and metric, with its percentile bootstrap interval (section 4.3, table 1).

    ``per_prompt`` is tidy: set, prompt, reward, metric, value; a prompt without a value (nan) is left out of the mean.
    Returns set (each and ``"all"``, the prompts of all sets together), reward, metric, mean, low, high, n_prompts. All
    rewards and metrics of a set share their resamples. The interval is nan with fewer than two prompts, or so few that
    a resample may hold none with a value.
    """
    tables = []
    for name, values in _values_of_sets(per_prompt).items():
        low, high = _interval_of_means(values, resamples=resamples, confidence=confidence, seed=seed)
        table = pd.DataFrame({"mean": values.mean(), "low": low, "high": high, "n_prompts": values.count()})
        tables.append(table.reset_index().assign(set=name))
    columns = ["set", "reward", "metric", "mean", "low", "high", "n_prompts"]
    return pd.concat(tables, ignore_index=True)[columns]


@step(1)
def compare(
    per_prompt: pd.DataFrame,
    *,
    reference: str,
    resamples: int,
    confidence: float,
    seed: int,
    metrics: Sequence[str] = METRICS,
) -> pd.DataFrame:
    """The reward ``reference`` against every other one, on the prompts where both have a value.

    ``per_prompt`` as for ``summarise``. Returns set (each and ``"all"``), metric, reward, reference, difference (mean
    of reference minus reward), low, high (paired bootstrap: whole prompts with their differences are redrawn), wins,
    ties, losses (prompts), p_wilcoxon, p_holm. Wilcoxon's signed-rank test is two-sided and keeps tied prompts, half of
    their ranks on each side (``zsplit``): AP@5 ties often, and to drop those prompts would overstate what the others
    show. Holm's family is all comparisons, rewards x metrics, of one set. Raises ``DataError`` for an unknown reward or
    metric.
    """
    sets = _values_of_sets(per_prompt)
    rewards = list(sets[ALL_SETS].columns.unique("reward"))
    if reference not in rewards or len(rewards) == 1:
        raise DataError(f"reference is {reference!r}: one of two or more rewards is needed; per_prompt has {rewards}")
    if unknown := [metric for metric in metrics if metric not in sets[ALL_SETS].columns.unique("metric")]:
        raise DataError(f"metrics names {unknown[0]!r}, which per_prompt does not have")
    rewards.remove(reference)
    pairs = pd.MultiIndex.from_product([rewards, metrics], names=["reward", "metric"])
    tables = []
    for name, values in sets.items():
        own = values.reindex(columns=[(reference, metric) for _, metric in pairs]).set_axis(pairs, axis=1)
        differences = (own - values.reindex(columns=pairs)).round(_ROUNDING_DECIMALS)
        low, high = _interval_of_means(differences, resamples=resamples, confidence=confidence, seed=seed)
        table = pd.DataFrame({"difference": differences.mean(), "low": low, "high": high})
        table["wins"], table["losses"] = (differences > 0).sum(), (differences < 0).sum()
        table["ties"] = (differences == 0).sum()
        table["p_wilcoxon"] = [_wilcoxon(differences[pair].dropna().to_numpy()) for pair in pairs]
        table["p_holm"] = holm(table["p_wilcoxon"].to_numpy())
        tables.append(table.reset_index().assign(set=name, reference=reference))
    columns = ["set", "metric", "reward", "reference", "difference", "low", "high", "wins", "ties", "losses"]
    return pd.concat(tables, ignore_index=True)[[*columns, "p_wilcoxon", "p_holm"]]


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's adjustment (m,) of p-values within the tests that could be made; nan stays nan."""
    adjusted, made = p_values.copy(), ~np.isnan(p_values)
    if made.any():
        adjusted[made] = multipletests(p_values[made], method="holm")[1]
    return adjusted


def pairwise_accuracy(rewards: ArrayLike, ratings: ArrayLike, *, tie_threshold: float = 0.0) -> float:
    """Tie-aware pairwise accuracy acc_eq, in [0, 1], of Deutsch, Foster and Freitag 2023, "Ties Matter".

    The share of the n (n - 1) / 2 pairs of images that rewards and ratings, both (n,) and finite, order alike or both
    call tied; rewards no more than ``tie_threshold`` apart are tied. Where people often tie and rewards never do,
    Kendall's tau-b favours a reward by its ties; this does not. Raises ``DataError`` for bad values or n < 2.
    """
    if not is_number(tie_threshold, 0, np.inf):
        raise DataError(f"tie_threshold is {shown(tie_threshold)}: a number of 0 or more is needed")
    reward_differences, rating_differences = _pair_differences(rewards, ratings)
    order = np.where(np.abs(reward_differences) <= tie_threshold, 0.0, np.sign(reward_differences))
    return float(np.mean(order == np.sign(rating_differences)))


def calibrate_ties(rewards: Sequence[ArrayLike], ratings: Sequence[ArrayLike]) -> tuple[float, float]:
    """The tie threshold that maximises mean ``pairwise_accuracy`` over prompts, and that mean (their section 5).

    ``rewards`` and ``ratings`` hold one (n_i,) array per prompt, n_i >= 2. Tried are 0 and every observed |difference|
    of rewards; of equally good thresholds the smallest is taken. Calibrate on other prompts than those evaluated: a
    parameter flatters the data that it was fitted to.
    """
    if len(rewards) != len(ratings) or len(rewards) == 0:
        raise DataError(f"rewards has {len(rewards)} prompts, ratings {len(ratings)}: equally many, not 0, are needed")
    sizes, gains = [], []
    for reward_differences, rating_differences in map(_pair_differences, rewards, ratings):
        # A threshold that reaches a pair puts it right if people tie it, and wrong if it was ordered as by people.
        tied, right = rating_differences == 0, np.sign(reward_differences) == np.sign(rating_differences)
        sizes.append(np.abs(reward_differences))
        gains.append((tied.astype(float) - right) / right.size)
    thresholds, where = np.unique(np.concatenate([[0.0], *sizes]), return_inverse=True)
    gain = np.bincount(where, weights=np.concatenate([[0.0], *gains])).cumsum()
    threshold = float(thresholds[np.argmax(gain.round(_ROUNDING_DECIMALS))])
    accuracies = [pairwise_accuracy(*group, tie_threshold=threshold) for group in zip(rewards, ratings, strict=True)]
    return threshold, float(np.mean(accuracies))


def _average_precision(hits: np.ndarray, places: np.ndarray, k: int) -> float:
    """AP@k from the good images (m,) among the ``places`` (m,) best: a 0, then one entry per distinct reward.

    Interpolating the hits at place k gives the block of ties that straddles it the share of the places left to it.
    """
    places_to_k = np.minimum(places[: np.searchsorted(places, k) + 1], k)
    hits_to_k = np.interp(places_to_k, places, hits)
    if hits_to_k[-1] == 0:
        return 0.0
    return np.sum(np.diff(hits_to_k) * hits_to_k[1:] / places_to_k[1:]) / hits_to_k[-1]


def _interval_of_means(values: pd.DataFrame, **options) -> tuple[np.ndarray, np.ndarray]:
    """Bootstrap interval of each column's mean over its rows (prompts) with a value: low (c,), high (c,)."""
    table = values.dropna(how="all").to_numpy()  # a prompt that counts nowhere is not drawn
    present, filled = (~np.isnan(table)).astype(float), np.nan_to_num(table)

    def means(counts: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # 0 / 0: a resample without any value
            return ((counts @ filled) / (counts @ present)).T

    return prompt_bootstrap(means, len(table), **options)


def _values_of_sets(per_prompt: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Per set, and for all together: prompts x (reward, metric), prompts sorted, columns as they first occur."""
    columns = pd.MultiIndex.from_frame(per_prompt[["reward", "metric"]].drop_duplicates())
    wide = per_prompt.pivot(index=["set", "prompt"], columns=["reward", "metric"], values="value")[columns]
    return {name: wide.loc[[name]] for name in per_prompt["set"].unique()} | {ALL_SETS: wide}


def each_set_and_all(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The name and the rows of each set, then ``ALL_SETS`` and all rows."""
    yield from table.groupby("set", sort=False)
    yield ALL_SETS, table


def _wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p of the signed-rank test; nan without a prompt, 1 where no prompt differs."""
    if differences.size == 0:
        return np.nan
    return float(stats.wilcoxon(differences, zero_method="zsplit").pvalue) if differences.any() else 1.0


def _pair_differences(rewards: ArrayLike, ratings: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Differences of all pairs i < j of images, each (n (n - 1) / 2,)."""
    rewards = finite_column("rewards", rewards)
    ratings = finite_column("ratings", ratings)
    if rewards.size != ratings.size or rewards.size < 2:
        raise DataError(
            f"rewards has {rewards.size} values, ratings {ratings.size}: equally many, 2 or more, are needed"
        )
    first, second = np.triu_indices(rewards.size, k=1)
    return rewards[first] - rewards[second], ratings[first] - ratings[second]


def ranking_metrics(rewards: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """AUROC and AP@5, 10, 25 of thousands of rewards at once, for searches over settings: (c, n), labels (n,) -> (c,).

    The numbers and the treatment of ties are those of ``alignment_metrics``; ``rewards`` are finite and belong to one
    prompt. Raises ``DataError`` where one label only occurs.
    """
    good = int(labels.sum())
    bad = labels.size - good
    if not good or not bad:
        raise DataError(f"labels are all {int(labels[0])}: good and bad images are needed")
    ranks = stats.rankdata(rewards, axis=1)  # ties share their mean rank
    values = {"auroc": ((ranks * labels).sum(axis=1) - good * (good + 1) / 2) / (good * bad)}
    order = np.argsort(-rewards, axis=1, kind="stable")
    best_first = np.take_along_axis(rewards, order, axis=1)
    hits = np.c_[np.zeros(len(rewards)), labels[order].cumsum(axis=1)]
    ends = np.c_[np.ones(len(rewards), bool), best_first[:, :-1] != best_first[:, 1:], np.ones(len(rewards), bool)]
    return values | {f"ap{k}": _average_precisions(hits, ends, min(k, labels.size)) for k in (5, 10, 25)}


def _average_precisions(hits: np.ndarray, ends: np.ndarray, k: int) -> np.ndarray:
    """AP@k of c orders at once, (c,): the hits (c, 1 + n) among the t best, and whether a block of ties ends there."""
    places, rows = np.arange(hits.shape[1]), np.arange(len(hits))
    last_end = np.maximum.accumulate(np.where(ends, places, 0), axis=1)
    before, after = last_end[:, k - 1], k + ends[:, k:].argmax(axis=1)
    gained = hits - np.take_along_axis(hits, np.c_[last_end[:, :1], last_end[:, :-1]], axis=1)
    sums = np.where(ends & (places < k), gained * hits / np.maximum(places, 1), 0).sum(axis=1)
    straddling = (hits[rows, after] - hits[rows, before]) * (k - before) / (after - before)
    hits_to_k = hits[rows, before] + straddling
    return np.where(hits_to_k > 0, (sums + straddling * hits_to_k / k) / np.maximum(hits_to_k, 1e-9), 0.0)


def column(name: str, values: ArrayLike, valid: Callable[[np.ndarray], np.ndarray], needed: str) -> np.ndarray:
    """``values`` as floats (n,), n >= 1, all ``valid``; otherwise ``DataError`` with the first position that is not."""
    try:
        numbers = np.asarray(values, dtype=float)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: a tensor within a graph
        values = _listed(values)
        numbers = np.array([_float(value) for value in values])
    if numbers.ndim != 1 or numbers.size == 0:
        raise DataError(f"{name} has shape {numbers.shape}: one number an image, and an image at least, are needed")
    wrong = np.flatnonzero(~valid(numbers))
    if wrong.size:
        raise DataError(f"{name}[{wrong[0]}] is {shown(list(values)[wrong[0]])}: {needed}")
    return numbers


def finite_column(name: str, values: ArrayLike) -> np.ndarray:
    """``column`` of finite numbers."""
    return column(name, values, np.isfinite, "a finite number is needed")


def _listed(values: Any) -> list[Any]:
    """One by one what stands for numbers; what cannot be taken apart as a single one."""
    try:
        return list(values.detach().reshape(-1).tolist() if hasattr(values, "detach") else values)
    except (TypeError, RuntimeError):  # a single value; a tensor without elements in memory
        return [values]


def _float(value: Any) -> float:
    """``value`` as a float, nan for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return np.nan
