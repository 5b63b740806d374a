"""Numbers as nobody should give them: any shape, type and value gives a finite result or one clear line."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from textnorm_lib.confidence.textnorm import TextNormReward, mean_ensemble, textnorm, uncertainty_ensemble
from textnorm_lib.judging.verdicts import comparisons_needed, sign_test_power, win_tie_loss
from textnorm_lib.optimise.best_of_n import choose_best, expected_gold, kl_best_of_n
from textnorm_lib.optimise.policy_gradient import RunningStatistics, clipped_loss
from textnorm_lib.stats.metrics import METRICS, alignment_metrics, calibrate_ties, pairwise_accuracy
from textnorm_lib.study.errors import StudyError
from textnorm_lib.tia2 import consolidate

EXAMPLES = 40
hostile = settings(max_examples=EXAMPLES, derandomize=True, deadline=None)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=5),
    st.binary(max_size=5),
) | st.sampled_from([10**400, 5e-324, 1.8e308, np.float16(6e4), float, object(), pd.NA, np.datetime64("2020")])
DTYPES = st.sampled_from(
    [np.float16, np.float32, np.float64, np.int8, np.uint64, np.bool_, np.complex64, ">f8", "U3", "M8[s]"]
)
ARRAYS = npst.arrays(DTYPES, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
TENSORS = st.sampled_from([
    torch.tensor(1.0), torch.zeros(0, 3), torch.tensor([1.0, float("nan")]), torch.tensor([True, False]),
    torch.tensor([1j]), torch.ones(2, requires_grad=True), torch.ones(2).to_sparse(),
    torch.ones(2, dtype=torch.float8_e5m2),
])  # fmt: skip
ANYTHING = st.one_of(
    SCALARS, ARRAYS, TENSORS, st.lists(SCALARS, max_size=4), st.lists(st.lists(st.floats(), max_size=3), max_size=3),
    st.builds(pd.Series, st.lists(st.floats(), max_size=3)),
    st.dictionaries(st.text(max_size=2), st.floats(), max_size=2),
)  # fmt: skip
FINITE = st.floats(-1e6, 1e6)


def numbers_in(result):
    if isinstance(result, torch.Tensor):
        return result.detach().double().numpy().ravel()
    parts = list(result.values()) if isinstance(result, dict) else result
    parts = parts if isinstance(parts, tuple | list) else [parts]
    return np.concatenate([np.ravel(np.asarray(part, dtype=float)) for part in parts])


def refused_or_finite(call, *, may_be_nan=False):
    """The result, all numbers; None where it was refused by one short line of the study's own."""
    try:
        with np.errstate(all="ignore"):
            result = call()
    except StudyError as error:
        assert str(error).isprintable() and 0 < len(str(error)) < 600
        return None
    found = numbers_in(result)
    assert np.isfinite(found[~np.isnan(found)] if may_be_nan else found).all()
    return result


@hostile
@given(ANYTHING)
def test_whatever_stands_for_scores_a_temperature_or_a_mask_is_refused_or_gives_a_share(value):
    for call in (lambda: textnorm(value, 0.5), lambda: textnorm(np.ones((2, 2)), value)):
        found = refused_or_finite(call)
        assert found is None or ((numbers_in(found) >= 0) & (numbers_in(found) <= 1)).all()
    refused_or_finite(lambda: textnorm(np.ones((2, 2)), 0.5, mask=value))


@hostile
@given(ANYTHING)
def test_whatever_stands_for_an_ensembles_rewards_or_its_penalty_is_refused_or_gives_numbers(value):
    refused_or_finite(lambda: mean_ensemble(value))
    refused_or_finite(lambda: uncertainty_ensemble(value, 0.5))
    refused_or_finite(lambda: uncertainty_ensemble(np.array([0.2, 0.4]), value))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rewards_whose_sum_or_variance_no_float_holds_are_refused_and_not_infinite(dtype):
    huge = np.full(3, np.finfo(dtype).max, dtype=dtype) * np.array([1, -1, 1], dtype=dtype)
    with pytest.raises(StudyError, match="too large to be added up"):
        uncertainty_ensemble(huge, 0.5)


@hostile
@given(npst.arrays(np.float64, (3, 4), elements=FINITE), st.floats(-1e3, 1e3), st.floats(1e-2, 1e3))
def test_a_shift_of_all_scores_changes_nothing_and_numpy_gives_what_torch_gives(scores, shift, temperature):
    values = textnorm(scores, temperature)
    np.testing.assert_allclose(textnorm(scores + shift, temperature), values, atol=1e-5)
    np.testing.assert_array_equal(textnorm(torch.from_numpy(scores), temperature).numpy(), values)
    np.testing.assert_allclose(textnorm(scores[:, [0, 3, 1, 2]], temperature), values, rtol=1e-9, atol=1e-300)


class _Echo:
    """A reward that gives an image's first pixel plus the length of the prompt."""

    name = "echo"

    def score_matrix(self, images, prompts):
        return np.array([[image[0, 0, 0] / 64 + len(prompt) for prompt in prompts] for image in images], np.float32)


@hostile
@given(st.lists(st.tuples(st.integers(0, 255), st.text(max_size=8)), min_size=1, max_size=6), st.randoms())
def test_the_order_of_images_and_prompts_only_orders_the_rewards(rows, luck):
    reward = TextNormReward([_Echo()], lambda prompt: [prompt + "!", prompt + "??"], 0.7)

    def score(some):
        return reward.score(np.stack([np.full((2, 2, 3), pixel, np.uint8) for pixel, _ in some]), [p for _, p in some])

    places = luck.sample(range(len(rows)), len(rows))
    np.testing.assert_array_equal(score([rows[place] for place in places]), score(rows)[places])


@hostile
@given(ANYTHING)
def test_whatever_stands_for_rewards_labels_or_ratings_is_refused_or_measured(value):
    calls = [
        lambda: alignment_metrics(value, [0, 1], [0.0, 1.0]),
        lambda: alignment_metrics([0.0, 1.0], value, [0.0, 1.0]),
        lambda: alignment_metrics([0.0, 1.0], [0, 1], value),
    ]
    for call in calls:
        found = refused_or_finite(call, may_be_nan=True)  # nan where one label occurs, as announced
        assert found is None or (
            found.keys() == set(METRICS) and all(-1 <= v <= 1 or np.isnan(v) for v in found.values())
        )
    refused_or_finite(lambda: pairwise_accuracy(value, [0.0, 1.0]))
    refused_or_finite(lambda: pairwise_accuracy([0.0, 1.0], [0.0, 1.0], tie_threshold=value))
    refused_or_finite(lambda: calibrate_ties([value], [value]))


@hostile
@given(ANYTHING)
def test_whatever_stands_for_votes_is_refused_or_consolidated(value):
    found = refused_or_finite(lambda: consolidate(value))
    if found is not None:
        assert set(found[0].ravel()) <= {0, 1} and ((found[1] >= 0) & (found[1] <= 1)).all()


@hostile
@given(ANYTHING)
def test_whatever_stands_for_a_pool_or_its_size_is_refused_or_has_a_gold(value):
    refused_or_finite(lambda: expected_gold(value, [0.0, 1.0], 1))
    refused_or_finite(lambda: expected_gold([0.0, 1.0], value, 1))
    refused_or_finite(lambda: expected_gold([0.0, 1.0], [0.0, 1.0], value))
    refused_or_finite(lambda: choose_best(value, 1, 1))
    if not (isinstance(value, int) and value > 1e308):  # the logarithm of a whole number is that of a float
        refused_or_finite(lambda: kl_best_of_n(value))


@hostile
@given(st.lists(st.tuples(FINITE, st.floats(0, 1)), min_size=1, max_size=8), st.data())
def test_the_best_of_n_lies_between_the_worst_and_the_best_and_ignores_the_order(pool, data):
    n = data.draw(st.integers(1, len(pool)))
    proxy, gold = map(list, zip(*pool, strict=True))
    found = expected_gold(proxy, gold, n)
    assert min(gold) - 1e-9 <= found <= max(gold) + 1e-9
    assert expected_gold(proxy[::-1], gold[::-1], n) == pytest.approx(found, abs=1e-9)


@hostile
@given(ANYTHING)
def test_whatever_stands_for_a_number_or_a_rate_is_refused_at_once_or_has_a_power(value):
    calls = (lambda: sign_test_power(value, win=0.4, loss=0.2), lambda: sign_test_power(9, win=value, loss=0.2))
    for call in calls:
        found = refused_or_finite(call)
        assert found is None or 0 <= found <= 1 + 1e-9
    refused_or_finite(lambda: sign_test_power(9, win=0.4, loss=0.2, alpha=value))


def test_rates_so_alike_that_only_millions_of_comparisons_tell_them_apart_are_refused_at_once():
    with pytest.raises(StudyError, match="so alike"):
        comparisons_needed(0.300001, 0.3)


COLUMNS = ["comparison", "set", "prompt", "model", "opponent", "left_model", "judge", "question", "answer"]
VOTE = dict(zip(COLUMNS, ["c", "s", "p", "m", "o", "m", "1", "alignment", "left"], strict=True))


@hostile
@given(st.sampled_from(COLUMNS), st.lists(st.none() | st.text(max_size=4) | st.floats(), min_size=3, max_size=3))
def test_votes_with_anything_in_one_column_are_refused_or_counted(column, values):
    votes = pd.DataFrame([{**VOTE, "judge": str(number)} for number in range(3)]).assign(**{column: values})
    assume(not any(isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value) for value in values))
    try:
        shares = win_tie_loss(votes)
    except StudyError as error:
        assert "\n" not in str(error)
    else:
        assert shares["share"].between(0, 1).all()


@hostile
@given(npst.arrays(np.float64, st.integers(0, 4), elements=st.floats()))
def test_advantages_are_finite_or_refused_before_anything_is_taken_in(rewards):
    statistics = RunningStatistics(8, 2)
    found = (
        refused_or_finite(lambda: statistics.update(["a", "b", "a"], rewards))
        if np.abs(rewards).max(initial=0) < 1e150
        else 0
    )
    assert found is not None or statistics.buffers == {}


@hostile
@given(st.floats(0, 1e6), st.floats(-1e6, 1e6), st.floats(1e-6, 0.9))
def test_the_clipped_loss_is_never_below_the_plain_one(ratio, advantage, clip_range):
    ratio, advantage = torch.tensor([ratio]), torch.tensor([advantage])
    assert (clipped_loss(ratio, advantage, clip_range) >= -advantage * ratio).all()
