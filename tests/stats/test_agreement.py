"""Agreement between annotators against hand-computed cases, the packages, and simulated annotators."""

import krippendorff
import numpy as np
import pytest
from scipy import stats

from textnorm_lib.stats.agreement import alpha_interval, cohen_kappas, dawid_skene, fleiss_kappa, krippendorff_alpha
from textnorm_lib.study.errors import DataError

ACCURACY = (0.95, 0.8, 0.9)


def simulated(n: int, *, seed: int = 0, skips: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Truth (n,) and votes (n, 3) of three annotators of known accuracy who skip at random."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, n)
    votes = np.where(rng.random((n, 3)) < ACCURACY, truth[:, None], 1 - truth[:, None])
    return truth, np.where(rng.random((n, 3)) < skips, -1, votes)


def package_alpha(votes: np.ndarray) -> float:
    return krippendorff.alpha(np.where(votes < 0, np.nan, votes).T, level_of_measurement="nominal")


def test_alpha_by_hand():
    # Pairs: (3, 0), (0, 2), (1, 1) good and bad votes; the last image has one vote only and does not count.
    # Disagreement 2 * 1 * 1 / 1 = 2, A = 4, B = 3: 1 - 6 * 2 / (2 * 4 * 3).
    assert krippendorff_alpha([[1, 1, 1], [0, 0, -1], [1, -1, 0], [-1, 0, -1]]) == pytest.approx(0.5)


@pytest.mark.parametrize("votes", [[[1, 1, 1], [1, 1, -1]], [[1, -1, -1], [-1, 0, -1]], [[1, 1, 1], [0, -1, -1]]])
def test_alpha_is_nan_where_undefined(votes):
    assert np.isnan(krippendorff_alpha(votes))
    assert np.isnan(alpha_interval(np.array(votes), np.arange(2), resamples=100, confidence=0.9, seed=0)).all()


def test_alpha_and_its_interval_are_the_packages():
    votes = simulated(240)[1]
    groups = np.repeat([f"prompt {i % 5} {i}" for i in range(12)], 20)
    names = np.unique(groups)
    expected = stats.bootstrap(
        (np.arange(12),),
        lambda drawn: package_alpha(np.concatenate([votes[groups == names[i]] for i in drawn])),
        n_resamples=200,
        vectorized=False,
        confidence_level=0.9,
        method="percentile",
        rng=np.random.default_rng(7),
    ).confidence_interval
    alpha, low, high = alpha_interval(votes, groups, resamples=200, confidence=0.9, seed=7)
    assert alpha == krippendorff_alpha(votes) == pytest.approx(package_alpha(votes), abs=1e-12)
    assert (low, high) == pytest.approx(tuple(expected), abs=1e-12)
    assert low < alpha < high
    order = np.random.default_rng(0).permutation(240)
    again = alpha_interval(votes[order], groups[order], resamples=200, confidence=0.9, seed=7)
    assert again == pytest.approx((alpha, low, high), abs=1e-12)


def test_one_prompt_has_no_interval():
    votes, groups = np.array([[1, 1, 0], [0, 0, 0]]), np.array(["a", "a"])
    alpha, low, high = alpha_interval(votes, groups, resamples=100, confidence=0.9, seed=0)
    assert np.isfinite(alpha) and np.isnan([low, high]).all()


def test_fleiss_by_hand():
    # Agreement 1, 1/3, 1, mean 7/9; good votes 5/9, chance (25 + 16) / 81: (63 - 41) / (81 - 41). The skip is left out.
    votes = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, -1]])
    assert fleiss_kappa(votes) == pytest.approx(22 / 40)
    assert np.isnan(fleiss_kappa(np.array([[1, 1, 1], [0, 0, -1]])))


def test_cohen_by_hand():
    kappas = cohen_kappas(np.array([[1, 1, -1], [1, 0, -1], [0, 0, -1], [0, 0, 1], [-1, 1, 1]]))
    assert kappas[0] == pytest.approx(0.5)  # agree on 3 of 4; by chance .5 * .25 + .5 * .75 = .5
    assert kappas[1] == 0  # 0 against 1, and nothing else
    assert kappas[2] == 0  # 0 1 against 1 1: agree on half, as by chance
    assert np.isnan(cohen_kappas(np.array([[1, 1, -1]]))).all()


def test_perfect_agreement_is_one():
    votes = np.repeat([[1], [0], [1]], 3, axis=1)
    assert krippendorff_alpha(votes) == fleiss_kappa(votes) == 1
    assert cohen_kappas(votes) == [1, 1, 1]


def test_dawid_skene_recovers_the_truth():
    truth, votes = simulated(4000)
    voted = (votes >= 0).any(axis=1)
    assert not voted.all()
    good = dawid_skene(votes)
    np.testing.assert_array_equal(np.isnan(good), ~voted)
    assert ((good[voted] >= 0) & (good[voted] <= 1)).all()
    majority = np.where(votes < 0, 0.5, votes).mean(axis=1) > 0.5
    assert ((good > 0.5) == truth)[voted].mean() > (majority == truth)[voted].mean() > 0.9
    np.testing.assert_array_equal(good, dawid_skene(votes))


def test_dawid_skene_with_a_vote_never_given():
    good = dawid_skene(np.array([[1, 1, 1], [0, 0, 1], [0, 0, 1]]))  # the third slot always says good
    assert (good > 0.5).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: krippendorff_alpha([[1, 0, 2]]), r"votes\[0, 2\] is 2"),
        (lambda: krippendorff_alpha([[1, 0, np.nan]]), r"votes\[0, 2\] is nan"),
        (lambda: krippendorff_alpha([1, 0, 1]), r"votes has shape \(3,\)"),
        (lambda: dawid_skene(np.array([[1, 1, -1]])), "both good"),
        (lambda: dawid_skene(np.array([[-1, -1, -1]])), "both good"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(DataError, match=message):
        call()
