"""People against people: how far the three votes on an image agree (sections 3.1, 5.4 and 8.2).

``votes`` is an integer array (n_images, n_slots), three slots in the paper: 1 good, 0 bad, -1 skip. A skip is a missing
vote here; only a rating counts it as one half. A slot is a column of the data: the release does not say who filled it.

Krippendorff's nominal alpha compares the disagreement of votes on the same image with that of votes paired at random.
With a good and b bad votes on an image, m = a + b >= 2 of them, and N = A + B the votes on all such images,

    alpha = 1 - (N - 1) sum 2 a b / (m - 1) / (2 A B)

so that each prompt enters by three sums, and a resample of prompts is a sum of theirs. Kappas: 1 is full agreement, 0
that of chance. A coefficient is nan where chance alone gives full agreement (only one value occurs) or no pair exists.
"""

import itertools
import warnings

import krippendorff
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa as fleiss_kappa_of_counts

from textnorm_lib.stats.intervals import prompt_bootstrap
from textnorm_lib.study.errors import DataError


def krippendorff_alpha(votes: ArrayLike) -> float:
    """Krippendorff's alpha of good and bad votes, at most 1. Raises ``DataError`` for what are no votes."""
    votes = np.asarray(votes)
    if votes.ndim != 2 or votes.shape[0] < 1 or votes.shape[1] < 2:
        raise DataError(f"votes has shape {votes.shape}: (images, slots), one image and two slots at least, is needed")
    wrong = np.argwhere(~np.isin(votes, (1, 0, -1)))
    if wrong.size:
        row, slot = wrong[0]
        raise DataError(f"votes[{row}, {slot}] is {votes[row, slot]}: 1 (good), 0 (bad) or -1 (skip) is needed")
    return nominal_alpha(_counts(votes))


def nominal_alpha(counts: np.ndarray) -> float:
    """Krippendorff's nominal alpha, from how often each item got each answer: (n_items, n_answers).

    Items with fewer than two answers do not count (Krippendorff 2011).
    """
    counts = counts[counts.sum(axis=1) > 1]
    if (counts.sum(axis=0) > 0).sum() < 2:
        return np.nan
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))


def alpha_interval(
    votes: np.ndarray, groups: np.ndarray, *, resamples: int, confidence: float, seed: int
) -> tuple[float, float, float]:
    """``krippendorff_alpha`` and its percentile bootstrap interval: (alpha, low, high).

    ``groups`` (n_images,) names each image's prompt; whole prompts are drawn again. The bounds are nan with fewer than
    two prompts, or where a resample holds one value only.
    """
    bad, good = _counts(votes).T
    total = good + bad
    pairs = np.stack([2 * good * bad / np.maximum(total - 1, 1), good, bad], axis=1) * (total >= 2)[:, None]
    sums = pd.DataFrame(pairs).groupby(groups).sum().to_numpy()

    def alphas(counts: np.ndarray) -> np.ndarray:
        disagreeing, good, bad = (counts @ sums).T
        with np.errstate(invalid="ignore"):  # 0 / 0: a resample with one value only
            return 1 - (good + bad - 1) * disagreeing / (2 * good * bad)

    low, high = prompt_bootstrap(alphas, len(sums), resamples=resamples, confidence=confidence, seed=seed)
    return krippendorff_alpha(votes), float(low), float(high)


def fleiss_kappa(votes: np.ndarray) -> float:
    """Fleiss' kappa (Fleiss 1971) over the images that nobody skipped, because it needs equally many votes on each."""
    complete = votes[(votes >= 0).all(axis=1)]
    return float(fleiss_kappa_of_counts(_counts(complete))) if np.unique(complete).size == 2 else np.nan


def cohen_kappa(one: ArrayLike, other: ArrayLike) -> float:
    """Cohen's kappa (Cohen 1960) of two people's answers to the same items."""
    return float(cohen_kappa_score(one, other)) if np.union1d(one, other).size > 1 else np.nan


def cohen_kappas(votes: np.ndarray) -> list[float]:
    """``cohen_kappa`` of slots 1 and 2, 1 and 3, 2 and 3, each over the images with a vote in both."""
    kappas = []
    for one, other in itertools.combinations(votes.T, 2):
        both = (one >= 0) & (other >= 0)
        kappas.append(cohen_kappa(one[both], other[both]))
    return kappas


def dawid_skene(votes: np.ndarray) -> np.ndarray:
    """The probability (n_images,) that each image is good, by each slot's own error rates (Dawid and Skene 1979).

    Expectation-maximisation from the majority, without anything random; nan where every slot skipped. Raises
    ``DataError`` where only one value occurs, because nothing is to be told apart then.
    """
    from crowdkit.aggregation import DawidSkene  # a second of imports

    image, slot = np.nonzero(votes >= 0)
    answers = pd.DataFrame({"task": image, "worker": slot, "label": votes[image, slot]})
    if answers["label"].nunique() < 2:
        raise DataError("votes must hold both good (1) and bad (0) ones for Dawid-Skene; one of the two is missing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # crowd-kit 1.4 calls pandas as before version 3
        # Its default tolerance, 1e-5, stops with error rates off by .002.
        posterior = DawidSkene(n_iter=1000, tol=1e-9).fit_predict_proba(answers)
    return posterior[1].reindex(range(len(votes))).to_numpy()


def _counts(votes: np.ndarray) -> np.ndarray:
    """Bad and good votes of each image: (n_images, 2)."""
    return np.stack([(votes == 0).sum(axis=1), (votes == 1).sum(axis=1)], axis=1)
