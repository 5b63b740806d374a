"""Figures and tables of best-of-n: what is drawn, where, and with which labels, on a made-up pool."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toys import draw

from textnorm_lib.figures.best_of_n import CHOOSER_COLOURS, pick_grids, pick_loved
from textnorm_lib.judging import selection
from textnorm_lib.optimise.best_of_n import fit_gold, gain_realised, gold_curves
from textnorm_lib.study.items import FIGURES, TABLES
from textnorm_lib.study.printed import NO_BREAK

REWARDS = ["clip", "blip2", "imagereward", "pickscore", "textnorm"]
PRINTED = ["CLIP", "BLIP-2", "ImageReward", "PickScore", "TextNorm"]
EVERYONE = [*REWARDS, "rating"]
SETTINGS = {"resamples": 100, "confidence": 0.95, "seed": 0}
SIZES, JUDGED, POOL = [1, 2, 4, 8], [4, 8], 16
SETS = ("comprehensive", "counting", "composition")


@pytest.fixture(scope="module")
def images():
    """Two prompts a set; each reward is the rating and noise."""
    rng = np.random.default_rng(0)
    keys = [(name, f"{name} prompt {index}") for name in SETS for index in range(2) for _ in range(POOL)]
    frame = pd.DataFrame(keys, columns=["set", "prompt"])
    votes = rng.choice([0, 1], (len(frame), 3))
    frame[["vote_1", "vote_2", "vote_3"]] = votes
    frame["label"], frame["rating"] = (votes.sum(axis=1) >= 2).astype(int), votes.mean(axis=1)
    frame["image"] = [f"{index}.png" for index in range(len(frame))]
    frame[["quality_1", "quality_2", "quality_3"]] = rng.random((len(frame), 3))
    return frame.assign(**{name: frame["rating"] + rng.normal(size=len(frame)) for name in REWARDS})


@pytest.fixture(scope="module")
def made(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    for name in images["image"]:
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64)).save(buffer, "PNG")
        (folder / name).write_bytes(buffer.getvalue())
    return folder


@pytest.fixture(scope="module")
def gold(images):
    return gold_curves(images, rewards=EVERYONE, gold="rating", sizes=SIZES)


@pytest.fixture(scope="module")
def means(images, gold):
    return selection.mean_curves(gold, selection.proxy_curves(images, rewards=REWARDS, sizes=SIZES), **SETTINGS)


@pytest.fixture(scope="module")
def fits(gold):
    return fit_gold(gold, form="best_of_n", **SETTINGS)


@pytest.fixture(scope="module")
def realised(gold):
    return gain_realised(gold, **SETTINGS)


@pytest.fixture(scope="module")
def chosen(images):
    return selection.choose_sets(images, choosers=EVERYONE, sizes=JUDGED)


@pytest.fixture(scope="module")
def votes(images, chosen):
    others = [name for name in EVERYONE if name != "textnorm"]
    return selection.judge_sets(chosen, images, model="textnorm", opponents=others, quality_tie=0.25, seed=0)


@pytest.fixture(scope="module")
def outcomes(votes):
    return selection.outcomes_by_size(votes, confidence=0.95)


def test_each_item_belongs_to_notebook_04_and_says_what_it_stands_for():
    items = [item for item in (*FIGURES.values(), *TABLES.values()) if item.notebook == "04_best_of_n"]
    figures, tables = [f"fig5{digit}" for digit in range(5)], [f"tab3{digit}" for digit in range(3)]
    assert sorted(item.name[:5] for item in items) == figures + tables
    assert [item.name[:5] for item in items if item.needs != "annotators"] == ["fig50"]
    assert {item.name[:5]: item.paper_item for item in items if item.paper_item} == {
        "fig50": "Figure 4",
        "fig51": "Figure 9",
        "tab30": "Figure 9",
    }


def test_the_sheet_has_four_images_for_every_prompt_reward_and_n(images, chosen, made):
    shown = pick_grids(made, images, chosen)
    (axes,) = draw("fig50_best_of_n_images", shown).axes
    assert len(axes.images) == 3 * 5 * 2 * 4
    rewards = shown[shown["model"] != "rating"]
    assert len(axes.patches) == (rewards["label"] == 1).sum()
    words = [text.get_text() for text in axes.texts]
    assert words.count("best of 8") == 3 and [word for word in words if word in PRINTED] == PRINTED * 3
    text = FIGURES["fig50_best_of_n_images"].describe(shown)
    good = rewards.query("model == 'clip'").groupby(["prompt", "n"], sort=False)["label"].sum()
    assert f"CLIP {good.iloc[0]} and {good.iloc[1]}" in text


def test_wins_stand_left_and_losses_right_with_their_intervals(outcomes):
    figure = draw("fig51_best_of_n_judged", outcomes)
    panels = figure.axes
    assert [axes.get_title() for axes in panels] == [
        f"best of {n}: {question}" for n in JUDGED for question in ("alignment", "quality")
    ]
    assert panels[-1].get_xlabel() == "share of 12 comparisons (6 prompts)"
    names = [label.get_text() for label in panels[0].get_yticklabels()]
    assert names == [*PRINTED[:4], "annotators"]
    rows = outcomes.query("set == 'all' and n == 8 and question == 'quality'").set_index(["opponent", "outcome"])
    for place, opponent in enumerate(name for name in EVERYONE if name != "textnorm"):
        _, win, loss = panels[3].patches[3 * place : 3 * place + 3]
        assert win.get_width() == pytest.approx(rows.loc[(opponent, "win"), "share"])
        assert loss.get_x() + loss.get_width() == 1 - rows.loc[(opponent, "loss"), "share"]
        assert loss.get_facecolor()[:3] == CHOOSER_COLOURS[opponent][:3]
    drawn = [bar.get_paths()[0].vertices[:, 0] for bar in panels[3].collections]
    win = rows.loc[("clip", "win")]
    np.testing.assert_allclose(drawn[0], [win["low"], win["high"]])
    assert "CLIP alignment" in FIGURES["fig51_best_of_n_judged"].describe(outcomes)


def test_gold_and_proxy_are_drawn_over_the_distance_with_their_fit(means, fits):
    panels = draw("fig52_gold_and_proxy", means, fits).axes
    titles = [axes.get_title() for axes in panels]
    assert titles == ["proxy, all sets", "gold, all sets (6 prompts)", *(f"{name} (2 prompts)" for name in SETS)]
    assert len(panels[0].containers) == 5 and len(panels[1].containers) == 6
    fitted = [line for line in panels[1].lines if line.get_linestyle() == "--"]
    a, b = fits.query("set == 'all' and reward == 'clip'").set_index("term").loc[["a", "b"], "value"]
    d = np.sqrt(np.log(8) - 7 / 8)
    np.testing.assert_allclose([fitted[0].get_xdata()[-1], fitted[0].get_ydata()[-1]], [d, d * (a - b * d)])
    assert panels[0].get_xticklabels()[-1].get_text() == f"{d:.1f}\n8"
    text = FIGURES["fig52_gold_and_proxy"].describe(means, fits)
    assert "annotators gold" in text and "CLIP proxy" in text


def test_the_gain_realised_is_drawn_by_n_and_by_set(realised):
    left, right = draw("fig53_gain_realised", realised).axes
    own = realised.query("reward == 'pickscore' and set == 'all' and n > 1")
    assert left.containers[3].lines[0].get_ydata().tolist() == own["share"].tolist()
    at_last = realised.query("reward == 'pickscore' and n == 8").set_index("set")["share"]
    assert right.containers[3].lines[0].get_ydata().tolist() == at_last[[*SETS, "all"]].tolist()
    assert right.get_title() == "best of 8" and right.get_xticklabels()[0].get_text() == "comprehensive\n(2)"
    assert "PickScore" in FIGURES["fig53_gain_realised"].describe(realised)


def test_loved_images_stand_in_their_rewards_row_with_scores_and_votes(images, made):
    loved = pick_loved(made, images, rewards=REWARDS, number=6, within=3)
    (axes,) = draw("fig54_loved_and_rejected", loved).axes
    assert len(axes.images) == len(loved) > 0
    words = "\n".join(text.get_text() for text in axes.texts)
    first = loved.iloc[0]
    assert f"{first['clip']:+.1f}" in words and "✗ ✗ ✗" in words
    (axes,) = draw("fig54_loved_and_rejected", loved.iloc[:0]).axes
    assert [text.get_text() for text in axes.texts].count("none found") == 5
    assert "CLIP: none" in FIGURES["fig54_loved_and_rejected"].describe(loved.iloc[:0])


def test_the_table_of_verdicts_has_a_row_for_each_n_opponent_and_question(outcomes, votes):
    tests = selection.sign_tests_by_size(votes)
    table = TABLES["tab30_best_of_n_judged"].build(outcomes, tests)
    assert len(table) == 2 * 5 * 2 and list(table["n"].unique()) == JUDGED
    row = table.query("n == 8 and question == 'quality'").iloc[0]
    test = tests.query("set == 'all' and n == 8 and question == 'quality' and opponent == 'clip'").iloc[0]
    assert row["TextNorm against"] == "CLIP"
    assert row["prompts won / tied / lost"] == f"{test.prompts_won} / {test.prompts_tied} / {test.prompts_lost}"


def test_the_table_of_fits_says_never_where_nothing_turns_gold_down(fits, gold):
    fits = fits.copy()
    peak = (fits["set"] == "all") & (fits["reward"] == "clip") & (fits["term"] == "peak")
    fits.loc[peak, ["value", "low", "high"]] = [1.24, 0.86, np.inf]
    table = TABLES["tab31_gold_fits"].build(fits, selection.late_gains(gold, **SETTINGS))
    assert list(table)[-1] == "gold from n = 2 to 8"
    table = table.set_index(["set", "chosen by"])
    assert len(table) == 4 * 6
    assert table.loc[("all (6)", "CLIP"), "gold peaks at √KL"] == "1.2 [.9, never]"


def test_the_table_of_gains_compares_textnorm_with_every_other(means, realised, gold):
    comparison = selection.compare_gold(gold, reference="textnorm", **SETTINGS)
    table = TABLES["tab32_gain_realised"].build(means, realised, comparison)
    assert list(table) == [
        "set",
        "chosen by",
        "gain in rating, best of 8",
        "share of the possible",
        "TextNorm minus it",
    ]
    rows = table.set_index(["set", "chosen by"])
    assert rows.loc[("all (6)", "TextNorm"), "TextNorm minus it"] == "–"
    assert rows.loc[("all (6)", "annotators"), "share of the possible"] == f"1.00 [1.00,{NO_BREAK}1.00]"
