"""Simulated people, their agreement, and how many prompts a result needs."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import stats

from textnorm_lib.judging.human_evaluation import (
    agreement_by_slip,
    outcomes_by_slip,
    pair_sets,
    power_curves,
    prompts_needed,
    simulate_sittings,
)
from textnorm_lib.judging.verdicts import sign_test_power, win_tie_loss
from textnorm_lib.study.errors import DataError

PROMPTS = 20


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Sets of two choosers, and three judges who always prefer textnorm in alignment and see no other difference."""
    folder = tmp_path_factory.mktemp("images")
    rows = []
    for prompt in range(PROMPTS):
        for model in ("textnorm", "clip"):
            for number in range(8):
                name = f"{model}_{prompt}_{number}.png"
                Image.new("RGB", (2, 2)).save(folder / name)
                rows.append(("counting", f"prompt {prompt}", model, 4, number // 4 + 1, number % 4 + 1, name))
    columns = ["set", "prompt", "model", "n", "number", "place", "image"]
    compared = pair_sets(pd.DataFrame(rows, columns=columns), model="textnorm", opponents=["clip"], n=4, seed=0)
    about = compared[["comparison", "set", "prompt", "model", "opponent", "left_model"]]
    better = np.where(about["left_model"] == "textnorm", "left", "right")
    judged = [
        about.assign(judge=f"judge_{judge}", question=question, answer=answer)
        for judge in (1, 2, 3)
        for question, answer in (("alignment", better), ("quality", "tie"))
    ]
    return compared, pd.concat(judged, ignore_index=True).assign(n=4), folder


def test_without_slips_people_are_the_judges(world):
    compared, judged, folder = world
    votes = simulate_sittings(compared, judged, folder, n=4, slips=[0.0], seed=0)
    expected = win_tie_loss(judged)
    pd.testing.assert_frame_equal(win_tie_loss(votes.drop(columns="slip")), expected)
    agreed = agreement_by_slip(votes).set_index("question")
    assert agreed.loc["alignment", "same"] == 1 and agreed.loc["alignment", "alpha"] == 1
    assert np.isnan(agreed.loc["quality", "alpha"])  # ties only: nothing to agree about


def test_slips_make_answers_random(world):
    compared, judged, folder = world
    votes = simulate_sittings(compared, judged, folder, n=4, slips=[0.0, 0.5, 1.0], seed=0)
    outcomes = outcomes_by_slip(votes, confidence=0.95)
    wins = outcomes[(outcomes["question"] == "alignment") & (outcomes["outcome"] == "win")].set_index("slip")["share"]
    assert wins[0.0] == 1 and wins[0.0] > wins[0.5] > wins[1.0]
    assert abs(wins[1.0] - 7 / 27) < 4 * np.sqrt(7 / 27 * 20 / 27 / (2 * PROMPTS))
    agreed = agreement_by_slip(votes).set_index(["slip", "question"])
    assert abs(agreed.loc[(1.0, "alignment"), "alpha"]) < 0.3
    same = (1 - 0.5) ** 2 + (1 - (1 - 0.5) ** 2) / 3
    assert abs(agreed.loc[(0.5, "alignment"), "same"] - same) < 0.2


def test_a_simulation_is_the_same_again(world):
    compared, judged, folder = world
    first, again = (simulate_sittings(compared, judged, folder, n=4, slips=[0.3], seed=5) for _ in range(2))
    pd.testing.assert_frame_equal(first, again)


def test_sets_that_were_not_chosen_are_named():
    with pytest.raises(DataError, match="no sets of 'clip' for n = 8"):
        pair_sets(pd.DataFrame({"n": [8], "model": ["textnorm"]}), model="textnorm", opponents=["clip"], n=8, seed=0)


def test_power_and_prompts_needed_fit_together():
    needed = prompts_needed(ratios=[2.0], ties=[0.5], power=0.8).iloc[0]
    curve = power_curves(ratio=2.0, ties=[0.5], prompts=[30, int(needed["prompts"])])
    assert curve["power"].iloc[1] >= 0.8 > sign_test_power(int(needed["prompts"]) - 1, win=1 / 3, loss=1 / 6)
    # Thirty prompts by hand: the decided ones are binomial, the test on them two-sided at .05.
    total = 0.0
    for decided in range(1, 31):
        wins = np.arange(decided + 1)
        found = np.array([stats.binomtest(int(k), decided).pvalue < 0.05 for k in wins])
        total += stats.binom.pmf(decided, 30, 0.5) * stats.binom.pmf(wins, decided, 2 / 3)[found].sum()
    assert curve["power"].iloc[0] == pytest.approx(total, abs=1e-9)
