"""Rewards as probabilities: the cross-validated map, ECE and Brier score, the reliability curve."""

import numpy as np
import pandas as pd
import pytest

from textnorm_lib.stats.calibration import calibration_errors, out_of_fold_probabilities, reliability_curves
from textnorm_lib.study.errors import DataError

BOOTSTRAP = {"resamples": 200, "confidence": 0.95, "seed": 0}


def _images(n_prompts, per_prompt, *, seed=0):
    """Images whose labels follow from their score by a known logistic law."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=(n_prompts, per_prompt))
    true = 1 / (1 + np.exp(-(0.5 + 1.5 * score)))
    frame = pd.DataFrame({"clip": score.ravel(), "true": true.ravel()})
    frame["label"] = (rng.random(frame.shape[0]) < frame["true"]).astype(int)
    frame["prompt"] = np.repeat([f"prompt {index}" for index in range(n_prompts)], per_prompt)
    return frame.assign(set="counting", image=[f"{index}.png" for index in range(len(frame))])


def _stated(probability, label, *, prompts=None, set_name="counting"):
    """Probabilities as ``out_of_fold_probabilities`` returns them; each image its own prompt unless given."""
    prompts = range(len(label)) if prompts is None else prompts
    frame = pd.DataFrame({"probability": probability, "label": label, "prompt": [f"prompt {p}" for p in prompts]})
    return frame.assign(set=set_name, reward="clip", image="x.png")


def _errors(frame, **options):
    return calibration_errors(frame, **{**BOOTSTRAP, **options}).set_index(["set", "metric"])


def test_the_map_recovers_a_logistic_law():
    images = _images(100, 40)
    found = out_of_fold_probabilities(images, rewards=["clip"], seed=0)
    assert list(found) == ["set", "prompt", "image", "label", "reward", "probability"]
    assert np.abs(found["probability"] - images["true"]).max() < 0.06
    ece = _errors(found).loc[("all", "ece")]
    assert ece["value"] <= ece["reference"] and ece["low"] == 0


def test_the_scale_and_the_level_of_a_reward_do_not_matter_but_its_sign_does():
    images = _images(20, 10)
    images = images.assign(scaled=1000 * images["clip"] - 7, turned=-images["clip"])
    found = out_of_fold_probabilities(images, rewards=["clip", "scaled", "turned"], seed=0)
    wide = found.pivot(index="image", columns="reward", values="probability")
    assert np.allclose(wide["clip"], wide["scaled"]) and np.allclose(wide["clip"], wide["turned"])
    assert wide["clip"].corr(images.set_index("image")["clip"]) > 0.9


def test_an_image_has_no_say_in_the_probabilities_of_its_own_prompt():
    images = _images(12, 10)
    mine = images["prompt"] == "prompt 3"
    other = images.assign(label=images["label"].where(~mine, 1 - images["label"]))
    before, after = (
        out_of_fold_probabilities(frame, rewards=["clip"], seed=0, folds=4)["probability"] for frame in (images, other)
    )
    assert before[mine].equals(after[mine]) and not before[~mine].equals(after[~mine])


def test_a_constant_reward_gets_the_share_of_good_images_of_the_other_prompts():
    images = _images(4, 5).assign(clip=2.5)
    found = out_of_fold_probabilities(images, rewards=["clip"], seed=0, folds=4)
    for prompt, rows in found.groupby("prompt"):
        expected = images.loc[images["prompt"] != prompt, "label"].mean()
        assert np.allclose(rows["probability"], expected, atol=1e-3)


def test_a_reward_that_separates_the_labels_gets_finite_probabilities_near_zero_and_one():
    images = _images(20, 10)
    images["clip"] = images["label"] * 2.0 - 1
    found = out_of_fold_probabilities(images, rewards=["clip"], seed=0)
    assert np.abs(found["probability"] - found["label"]).max() < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images[images["prompt"].isin(["prompt 1", "prompt 2"])], "2 prompts .* 3 folds"),
        (lambda images: images.assign(label=1), "label is 1"),
        (lambda images: images.assign(label=(images["prompt"] == "prompt 1").astype(int)), "label is 0"),
        (lambda images: images.drop(columns="clip"), "no column 'clip'"),
        (lambda images: images.assign(clip=images["clip"].where(images["image"] != "7.png")), "clip of '7.png' is nan"),
    ],
)
def test_what_cannot_be_calibrated_is_said_in_one_line(change, message):
    with pytest.raises(DataError, match=message) as error:
        out_of_fold_probabilities(change(_images(6, 4)), rewards=["clip"], seed=0, folds=3)
    assert "\n" not in str(error.value)


def test_ece_and_brier_score_by_hand():
    found = _errors(_stated([0.1, 0.1, 0.9, 0.9], [0, 1, 1, 1]), bins=2)
    assert found.loc[("all", "ece"), "value"] == pytest.approx((0.8 + 0.2) / 4)
    brier = found.loc[("counting", "brier")]
    assert brier["value"] == pytest.approx((0.01 + 0.81 + 0.01 + 0.01) / 4)
    assert brier["reference"] == pytest.approx(0.75 * 0.25)
    assert (brier["n_prompts"], brier["n_images"]) == (4, 4)


def test_images_of_equal_probability_share_a_bin_whatever_their_order():
    stated = _stated([0.5] * 8 + [0.2, 0.9], [0, 1] * 4 + [0, 1])
    values = [_errors(stated.sample(frac=1, random_state=seed), bins=3)["value"].to_numpy() for seed in range(5)]
    assert np.allclose(values, values[0])
    assert values[0][0] == pytest.approx((0.2 + 0.1) / 10)  # the eight are right on average


def test_an_error_beyond_chance_has_an_interval_above_zero_and_one_within_it_has_not():
    rng = np.random.default_rng(0)
    prompts = np.repeat(range(50), 4)
    label = (rng.random(200) < 0.5).astype(int)
    for said, beyond in ((label.mean() + 0.3, True), (label.mean() + 0.02, False)):
        ece = _errors(_stated(said, label, prompts=prompts)).loc[("all", "ece")]
        assert ece["value"] == pytest.approx(abs(said - label.mean()))
        assert (ece["value"] > ece["reference"], ece["low"] > 0) == (beyond, beyond)
        assert ece["low"] <= ece["value"] <= ece["high"]


def test_each_set_is_measured_for_itself_against_the_share_of_good_images_in_all():
    stated = pd.concat([_stated(0.5, [1] * 4), _stated(0.5, [0] * 4, set_name="composition")])
    found = _errors(stated)
    assert found["value"].xs("ece", level="metric").to_dict() == {"counting": 0.5, "composition": 0.5, "all": 0.0}
    assert found.loc[("counting", "brier"), "reference"] == 0.25


def test_one_prompt_has_values_but_no_interval_and_no_reference():
    ece = _errors(_stated([0.2, 0.2, 0.8, 0.8], [0, 0, 1, 1], prompts=[0] * 4), bins=2).loc[("all", "ece")]
    assert ece["value"] == pytest.approx(0.2) and ece[["low", "high", "reference"]].isna().all()


def test_the_reliability_curve_by_hand():
    stated = _stated([0.1, 0.2, 0.3, 0.6, 0.7, 0.8], [0, 0, 1, 0, 1, 1], prompts=[0, 1, 2] * 2)
    curve = reliability_curves(stated, bins=2, **BOOTSTRAP).query("set == 'all'")
    assert curve["bin"].tolist() == [0, 1] and curve["n_images"].tolist() == curve["n_prompts"].tolist() == [3, 3]
    assert curve["probability"].tolist() == pytest.approx([0.2, 0.7])
    assert curve["share_good"].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert curve["low"].tolist() == [0, 0] and curve["high"].tolist() == [1, 1]


def test_the_bins_of_a_curve_hold_equally_many_images_from_low_to_high():
    found = out_of_fold_probabilities(_images(20, 10), rewards=["clip"], seed=0)
    curve = reliability_curves(found, bins=8, **BOOTSTRAP).query("set == 'all'")
    assert curve["n_images"].tolist() == [25] * 8 and curve["probability"].is_monotonic_increasing
    assert (curve["low"] <= curve["share_good"]).all() and (curve["share_good"] <= curve["high"]).all()


def test_a_bin_that_a_resample_may_miss_has_no_interval():
    stated = _stated([0.1, 0.9], [0, 1])
    curve = reliability_curves(stated, bins=2, **BOOTSTRAP)
    assert len(curve) == 4 and curve[["low", "high"]].isna().all(axis=None) and curve["share_good"].notna().all()
