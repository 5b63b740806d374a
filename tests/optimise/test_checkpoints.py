"""Checkpoint selection: the paper's rule on frames whose answer is known by hand, the oracle, the cost, bad frames."""

import numpy as np
import pandas as pd
import pytest

from textnorm_lib.optimise.checkpoints import count_wins, oracle_choice, papers_choice, selection_costs
from textnorm_lib.study.errors import DataError

BOOTSTRAP = {"resamples": 500, "confidence": 0.95, "seed": 0}


def _images(**scores: list[list[float]]) -> pd.DataFrame:
    """For each score a row a checkpoint (0, 50, 100, ...) with a value an image; two seeds a prompt."""
    rows = len(next(iter(scores.values())))
    width = len(next(iter(scores.values()))[0])
    frame = pd.DataFrame(
        [(50 * row, f"prompt {column // 2}", column % 2) for row in range(rows) for column in range(width)],
        columns=["checkpoint", "prompt", "seed"],
    )
    return frame.assign(**{name: np.ravel(values) for name, values in scores.items()})


# Wins over the base: 1, 3, 3, 2; gold is best at 50 and falls.
RUN = _images(
    clip=[[1, 1, 1, 1], [2, 1, 0, 0], [2, 2, 2, 0], [9, 9, 9, 1], [9, 9, 0, 0]],
    gold=[[0, 0, 1, 0], [1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]],
)


def test_the_earliest_checkpoint_with_the_most_wins_is_chosen():
    wins = count_wins(RUN, scores=["clip"])
    assert wins["checkpoint"].tolist() == [0, 50, 100, 150, 200]
    assert wins["wins"].tolist() == [0, 1, 3, 3, 2]
    assert wins["ties"].tolist() == [4, 1, 0, 1, 0]
    assert wins["losses"].tolist() == [0, 2, 1, 0, 2]
    assert wins["mean"].tolist() == [1.0, 0.75, 1.5, 7.0, 4.5]
    assert papers_choice(RUN, score="clip") == 100


def test_the_order_of_the_rows_and_any_increasing_change_of_the_score_do_not_matter():
    generator = np.random.default_rng(0)
    images = _images(clip=generator.normal(size=(6, 20)).tolist())
    shuffled = images.sample(frac=1, random_state=0).assign(clip=lambda rows: np.exp(3 * rows["clip"]) - 7)
    assert papers_choice(shuffled, score="clip") == papers_choice(images, score="clip")


def test_an_image_is_compared_with_the_bases_image_of_its_own_prompt_and_seed():
    images = _images(clip=[[0, 10], [1, 9], [2, 3]])
    assert count_wins(images, scores=["clip"])["wins"].tolist() == [0, 1, 1]
    assert papers_choice(images, score="clip") == 50


def test_where_no_image_ever_wins_the_base_is_chosen():
    assert papers_choice(_images(clip=[[1, 1], [1, 1], [0, 0]]), score="clip") == 0


def test_the_oracle_is_the_earliest_checkpoint_with_the_highest_mean_gold():
    assert oracle_choice(RUN, gold="gold") == 50
    assert oracle_choice(_images(gold=[[1, 1], [0, 2], [1, 1]]), gold="gold") == 0


def test_the_cost_is_the_gold_that_the_choice_by_the_reward_leaves():
    costs = selection_costs(RUN, scores=["clip", "gold"], gold="gold", **BOOTSTRAP).set_index("reward")
    assert costs.loc["clip", ["chosen", "oracle", "n_prompts"]].tolist() == [100, 50, 2]
    means = costs.loc["clip", ["gold_base", "gold_chosen", "gold_oracle", "cost"]].tolist()
    assert means == [0.25, 0.5, 0.75, 0.25]
    assert costs.loc["clip", "low"] == 0 and costs.loc["clip", "high"] == 0.5  # the prompts' own costs
    assert costs.loc["gold", ["chosen", "cost", "low", "high"]].tolist() == [50, 0, 0, 0]


def test_a_cost_is_never_negative_and_lies_in_its_interval():
    generator = np.random.default_rng(1)
    for _ in range(20):
        shape = (5, 24)
        images = _images(clip=generator.normal(size=shape).tolist(), gold=generator.integers(0, 3, shape).tolist())
        row = selection_costs(images, scores=["clip"], gold="gold", **BOOTSTRAP).iloc[0]
        assert row["cost"] >= 0 and row["low"] <= row["cost"] + 1e-12 and row["cost"] <= row["high"] + 1e-12


def test_prompts_may_have_different_numbers_of_images():
    images = RUN[~((RUN["prompt"] == "prompt 1") & (RUN["seed"] == 1))]
    row = selection_costs(images, scores=["clip"], gold="gold", **BOOTSTRAP).iloc[0]
    assert row["gold_base"] == pytest.approx(1 / 3) and row["cost"] == pytest.approx(1 / 3)


def test_another_checkpoint_may_be_the_base():
    assert count_wins(RUN, scores=["clip"], base=50).set_index("checkpoint")["wins"].to_dict()[0] == 2
    with pytest.raises(DataError, match=r"no base, checkpoint 7; there are 0, 50, 100, 150, 200"):
        count_wins(RUN, scores=["clip"], base=7)


def _with(row: int, column: str, value) -> pd.DataFrame:
    images = RUN.astype({column: object})
    images.loc[row, column] = value
    return images


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (RUN.drop(columns="seed"), "column 'seed' is missing"),
        (RUN.drop(columns="clip"), "column 'clip' is missing"),
        (RUN[:0], "has no rows"),
        (pd.concat([RUN, RUN[6:7]]), "checkpoint 50, prompt 'prompt 1', seed 0 occurs twice"),
        (RUN.drop(index=6), "checkpoint 50 lacks prompt 'prompt 1', seed 0"),
        (RUN.drop(index=2), r"the base \(checkpoint 0\) lacks prompt 'prompt 1', seed 0"),
        (RUN[4:], "no base, checkpoint 0"),
        (_with(5, "clip", np.nan), "clip is nan at checkpoint 50, prompt 'prompt 0', seed 1"),
        (_with(5, "clip", np.inf), "clip is inf at checkpoint 50"),
        (_with(5, "clip", "high"), "clip holds something that is no number"),
        (_with(5, "prompt", None), "prompt is missing in row 5"),
        (_with(5, "checkpoint", "last"), "checkpoint holds 'last'"),
        (_with(5, "checkpoint", 0.5), "checkpoint holds 0.5"),
    ],
)
def test_a_frame_with_gaps_is_refused_in_one_line(images, said):
    for function in (
        lambda: count_wins(images, scores=["clip"]),
        lambda: papers_choice(images, score="clip"),
        lambda: oracle_choice(images, gold="clip"),
        lambda: selection_costs(images, scores=["gold"], gold="clip", **BOOTSTRAP),
    ):
        with pytest.raises(DataError, match=said) as caught:
            function()
        assert "\n" not in str(caught.value)
