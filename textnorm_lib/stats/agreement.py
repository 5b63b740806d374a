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
    """Krippendorff's alpha, nominal, at most 1; images with fewer than two votes do not count (Krippendorff 2011)."""
    votes = _checked(votes)
    _, good, bad = _pairable(votes).sum(axis=0)
    if good == 0 or bad == 0:
        return np.nan
    return float(krippendorff.alpha(value_counts=_counts(votes), level_of_measurement="nominal"))


def alpha_interval(
    votes: ArrayLike, groups: ArrayLike, *, resamples: int, confidence: float, seed: int
) -> tuple[float, float, float]:
    """``krippendorff_alpha`` and its percentile bootstrap interval: (alpha, low, high).

    ``groups`` (n_images,) names each image's prompt; whole prompts are drawn again. The bounds are nan with fewer than
    two prompts, or where a resample holds one value only. Raises ``DataError`` for bad votes or another length.
    """
    votes, groups = _checked(votes), np.asarray(groups)
    if groups.shape != votes.shape[:1]:
        raise DataError(f"groups has shape {groups.shape}, votes {votes.shape}: one prompt an image is needed")
    if pd.isna(groups).any():
        raise DataError(f"groups[{pd.isna(groups).argmax()}] is missing: one prompt an image is needed")
    sums = pd.DataFrame(_pairable(votes)).groupby(groups).sum().to_numpy()

    def alphas(counts: np.ndarray) -> np.ndarray:
        disagreeing, good, bad = (counts @ sums).T
        with np.errstate(invalid="ignore"):  # 0 / 0: a resample with one value only
            return 1 - (good + bad - 1) * disagreeing / (2 * good * bad)

    low, high = prompt_bootstrap(alphas, len(sums), resamples=resamples, confidence=confidence, seed=seed)
    return krippendorff_alpha(votes), float(low), float(high)


def fleiss_kappa(votes: ArrayLike) -> float:
    """Fleiss' kappa (Fleiss 1971) over the images that nobody skipped, because it needs equally many votes on each."""
    votes = _checked(votes)
    complete = votes[(votes >= 0).all(axis=1)]
    if np.unique(complete).size < 2:
        return np.nan
    return float(fleiss_kappa_of_counts(_counts(complete)))


def cohen_kappas(votes: ArrayLike) -> pd.DataFrame:
    """Cohen's kappa (Cohen 1960) of every two slots: pair ("1-2", slots counted from 1), kappa, n.

    ``n`` images have a vote in both slots; the others are left out of that pair.
    """
    votes = _checked(votes)
    rows = []
    for first, second in itertools.combinations(range(votes.shape[1]), 2):
        both = votes[(votes[:, first] >= 0) & (votes[:, second] >= 0)]
        one, other = both[:, first], both[:, second]
        kappa = cohen_kappa_score(one, other) if np.unique([one, other]).size == 2 else np.nan
        rows.append((f"{first + 1}-{second + 1}", float(kappa), len(both)))
    return pd.DataFrame(rows, columns=["pair", "kappa", "n"])


def dawid_skene(votes: ArrayLike) -> tuple[np.ndarray, pd.DataFrame]:
    """Labels and each slot's reliability by expectation-maximisation, started from the majority (Dawid and Skene 1979).

    Returns the posterior (n_images,) that an image is good, nan where every slot skipped, and the confusion of each
    slot, tidy: slot (from 1), truth, vote (1 good, 0 bad), probability = P(vote | truth); a slot without votes has no
    rows. Nothing is random. Raises ``DataError`` for bad votes, and where one value only occurs: nothing is to be told
    apart then.
    """
    from crowdkit.aggregation import DawidSkene  # a second of imports

    votes = _checked(votes)
    image, slot = np.nonzero(votes >= 0)
    answers = pd.DataFrame({"task": image, "worker": slot + 1, "label": votes[image, slot]})
    if answers["label"].nunique() < 2:
        raise DataError("votes must hold both good (1) and bad (0) ones for Dawid-Skene; one of the two is missing")
    model = DawidSkene(n_iter=1000, tol=1e-9)  # its default tolerance, 1e-5, stops with confusions off by .002
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # crowd-kit 1.4 calls pandas as before version 3
        posterior = model.fit_predict_proba(answers)
    cells = pd.MultiIndex.from_product([np.unique(slot + 1), [0, 1]], names=["slot", "vote"])
    confusion = model.errors_.reindex(cells, fill_value=0.0)  # no row: a vote that the slot never gave
    confusion = confusion.rename_axis(columns="truth").reset_index().melt(["slot", "vote"], value_name="probability")
    confusion = confusion[["slot", "truth", "vote", "probability"]].astype({"truth": int})
    good = posterior[1].reindex(range(len(votes))).to_numpy()
    return good, confusion.sort_values(["slot", "truth", "vote"], ignore_index=True)


def _checked(votes: ArrayLike) -> np.ndarray:
    """``votes`` as integers (n_images, n_slots), at least one image and two slots; otherwise ``DataError``."""
    votes = np.asarray(votes)
    if votes.ndim != 2 or votes.shape[0] < 1 or votes.shape[1] < 2:
        raise DataError(f"votes has shape {votes.shape}: (images, slots), one image and two slots at least, is needed")
    wrong = np.argwhere(~np.isin(votes, (1, 0, -1)))
    if wrong.size:
        row, slot = wrong[0]
        raise DataError(f"votes[{row}, {slot}] is {votes[row, slot]}: 1 (good), 0 (bad) or -1 (skip) is needed")
    return votes.astype(int)


def _counts(votes: np.ndarray) -> np.ndarray:
    """Bad and good votes of each image: (n_images, 2)."""
    return np.stack([(votes == 0).sum(axis=1), (votes == 1).sum(axis=1)], axis=1)


def _pairable(votes: np.ndarray) -> np.ndarray:
    """Per image 2 a b / (m - 1), a and b of the module's equation, 0 with fewer than two votes: (n_images, 3)."""
    bad, good = _counts(votes).T
    total = good + bad
    return np.stack([2 * good * bad / np.maximum(total - 1, 1), good, bad], axis=1) * (total >= 2)[:, None]
