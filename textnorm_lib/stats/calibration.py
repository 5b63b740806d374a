"""From a reward to a probability: a logistic map, its errors and its reliability curve.

A reward is a number on a scale of its own. Read as a probability it needs a map; here one map per reward serves all
prompts,

    P(good | score s) = 1 / (1 + exp(-(a + b s))),

fitted to the images of some prompts and applied to those of others, so that no image has a say in its own probability.
With p_i that probability, z_i the label, and B_1 .. B_m bins of equally many images by p,

    ECE = sum over bins b of |sum over i in b of (p_i - z_i)| / n,      Brier = sum over i of (p_i - z_i)^2 / n

(Naeini, Cooper and Hauskrecht 2015; Brier 1950). Intervals draw whole prompts again with the bins held fixed.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from textnorm_lib.stats.intervals import prompt_bootstrap
from textnorm_lib.stats.metrics import each_set_and_all
from textnorm_lib.stats.rankings import check_scores
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import step

FOLDS = 10  # two numbers are fitted to nine tenths of the prompts: more folds would change next to nothing
BINS = 10
WEAK = 1e4  # scikit-learn's C: the penalty only keeps a reward that separates the labels from an infinite slope


@step(1)
def out_of_fold_probabilities(
    images: pd.DataFrame, *, rewards: Sequence[str], seed: int, folds: int = FOLDS
) -> pd.DataFrame:
    """P(good) of every image by each reward, from a map fitted to other prompts.

    ``images``: set, prompt, image, label in {0, 1} and a column of scores per name in ``rewards``. The prompts are
    dealt into ``folds`` at random, a prompt's images together. A reward that gives all images one score tells nothing
    of them, and their probability is the share of good ones in the other folds. Returns set, prompt, image, label,
    reward, probability in [0, 1]. Raises ``DataError`` as ``check_scores`` does, for fewer prompts than folds, and
    where the prompts outside a fold have one label only: no map can be fitted to them.
    """
    images = check_scores(images, rewards)
    prompts, labels = images["prompt"], images["label"].to_numpy()
    if prompts.nunique() < folds:
        raise DataError(f"{prompts.nunique()} prompts cannot be dealt into {folds} folds; give fewer folds")
    found = pd.DataFrame(index=images.index, columns=list(rewards), dtype=float)
    for train, test in GroupKFold(folds, shuffle=True, random_state=seed).split(images, labels, prompts):
        if np.unique(labels[train]).size < 2:
            raise DataError(
                f"label is {labels[train][0]} on all prompts outside a fold: good and bad images are needed"
            )
        for reward in rewards:
            model = make_pipeline(StandardScaler(), LogisticRegression(C=WEAK))
            model.fit(images.loc[train, [reward]], labels[train])
            found.loc[test, reward] = model.predict_proba(images.loc[test, [reward]])[:, 1]
    keys = ["set", "prompt", "image", "label"]
    return images[keys].join(found).melt(keys, var_name="reward", value_name="probability")


@step(1)
def calibration_errors(
    probabilities: pd.DataFrame, *, resamples: int, confidence: float, seed: int, bins: int = BINS
) -> pd.DataFrame:
    """ECE and Brier score of each set and of all together, with percentile bootstrap intervals over prompts.

    Takes what ``out_of_fold_probabilities`` returns. Returns set, reward, metric ("ece" or "brier"), value, low, high,
    reference, n_prompts, n_images. The ECE adds up amounts without their signs, so chance alone makes it positive and
    every resample more so. Its ``reference`` is how far: the upper end of the interval that these prompts would give
    were each bin right on average (nan if a bin holds one prompt only); where the value is not above it ``low`` is 0.
    The ``reference`` of the Brier score is its value if all images had one probability, the share of good ones in all
    sets.
    """
    rows = []
    constant = probabilities["label"].mean()
    for name, reward, group in progress(_groups(probabilities), "calibration", unit="rewards"):
        sums = _sums_of_prompts(group, bins)
        value, low, high = _errors(sums, resamples=resamples, confidence=confidence, seed=seed)
        low[0] *= value[0] > high[2]
        of_constant = ((constant - group["label"]) ** 2).mean()
        rows.append((name, reward, "ece", value[0], low[0], high[0], high[2], len(sums), len(group)))
        rows.append((name, reward, "brier", value[1], low[1], high[1], of_constant, len(sums), len(group)))
    columns = ["set", "reward", "metric", "value", "low", "high", "reference", "n_prompts", "n_images"]
    return pd.DataFrame(rows, columns=columns)


@step(1)
def reliability_curves(
    probabilities: pd.DataFrame, *, resamples: int, confidence: float, seed: int, bins: int = BINS
) -> pd.DataFrame:
    """The share of good images by their probability, for each set and for all together.

    Takes what ``out_of_fold_probabilities`` returns. Returns set, reward, bin (0 is the lowest), probability (mean in
    the bin), share_good with its percentile bootstrap interval low and high, n_prompts, n_images (in the bin). Equal
    probabilities share a bin, so there may be fewer than ``bins``. The interval is nan with fewer than two prompts, or
    so few that a resample may leave the bin empty.
    """
    tables = []
    for name, reward, group in progress(_groups(probabilities), "reliability", unit="rewards"):
        sums = _sums_of_prompts(group, bins)
        good, size = sums["good"].to_numpy(), sums["images"].to_numpy()

        def shares(counts: np.ndarray, good=good, size=size) -> np.ndarray:
            with np.errstate(invalid="ignore"):  # 0 / 0: a resample that leaves a bin empty
                return ((counts @ good) / (counts @ size)).T

        low, high = prompt_bootstrap(shares, len(sums), resamples=resamples, confidence=confidence, seed=seed)
        total = sums.sum().unstack(level=0)
        curve = total[["probability", "good"]].div(total["images"], axis=0).rename(columns={"good": "share_good"})
        curve = curve.assign(low=low, high=high, n_prompts=(size > 0).sum(axis=0), n_images=total["images"].astype(int))
        tables.append(curve.reset_index().assign(set=name, reward=reward))
    columns = ["set", "reward", "bin", "probability", "share_good", "low", "high", "n_prompts", "n_images"]
    return pd.concat(tables, ignore_index=True)[columns]


def _groups(probabilities: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Set, reward and their rows, also of all sets together."""
    return [
        (name, reward, group)
        for name, rows in each_set_and_all(probabilities)
        for reward, group in rows.groupby("reward", sort=False)
    ]


def _sums_of_prompts(group: pd.DataFrame, bins: int) -> pd.DataFrame:
    """Per prompt (images, good, probability, squared) x bin, each summed over the prompt's images in the bin."""
    probability, label = group["probability"], group["label"].astype(float)
    edges = np.unique(np.quantile(probability, np.linspace(0, 1, bins + 1)[1:-1]))
    values = {"images": 1.0, "good": label, "probability": probability, "squared": (probability - label) ** 2}
    table = group[["set", "prompt"]].assign(bin=np.searchsorted(edges, probability), **values)
    return table.groupby(["set", "prompt", "bin"]).sum().unstack(fill_value=0.0)


def _errors(sums: pd.DataFrame, **options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """ECE, Brier score and ECE were each bin right on average: value, low and high, each (3,)."""
    size, squared = sums["images"].to_numpy(), sums["squared"].to_numpy().sum(axis=1)
    gaps = (sums["probability"] - sums["good"]).to_numpy()
    seen = (size > 0).sum(axis=0)
    prompts = np.where(seen > 1, seen, np.nan)
    no_gaps = gaps - size * gaps.sum(axis=0) / size.sum(axis=0)
    no_gaps *= np.sqrt(prompts / (prompts - 1))  # drawing few prompts again shows too little of their spread, one none

    def errors(counts: np.ndarray) -> np.ndarray:
        totals = [np.abs(counts @ gaps).sum(axis=1), counts @ squared, np.abs(counts @ no_gaps).sum(axis=1)]
        return np.array(totals) / (counts @ size).sum(axis=1)

    return errors(np.ones((1, len(sums))))[:, 0], *prompt_bootstrap(errors, len(sums), **options)
