"""The figures and tables of notebook 07 show the numbers that they are given."""

import numpy as np
import pandas as pd
import pytest
from toys import draw

from textnorm_lib.judging.human_evaluation import power_curves, prompts_needed
from textnorm_lib.study.items import FIGURES, TABLES

SLIPS = (0.0, 0.2, 0.5)


@pytest.fixture
def outcomes():
    """Wins fall and losses rise with slips; two opponents, two questions."""
    rows = [
        {
            **{"opponent": opponent, "question": question, "slip": slip, "outcome": outcome},
            **{"share": share, "low": max(share - 0.1, 0), "high": share + 0.1, "n_comparisons": 48, "n_prompts": 24},
            **{"prompts_won": 6, "prompts_tied": 14, "prompts_lost": 4, "p_sign": 0.754},
        }
        for opponent in ("rating", "clip")
        for question in ("alignment", "quality")
        for slip in SLIPS
        for outcome, share in (("win", 0.4 - slip / 2), ("tie", 0.5), ("loss", 0.1 + slip / 2))
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def agreement():
    rows = [
        (slip, question, 96, 0.9 - slip, 0.86 - slip, 1 - slip)
        for slip in SLIPS
        for question in ("alignment", "quality")
    ]
    return pd.DataFrame(rows, columns=["slip", "question", "n", "same", "alpha", "kappa_of_majorities"])


@pytest.fixture
def power():
    curves = power_curves(ratio=2.0, ties=[0.0, 0.5], prompts=[10, 30, 100])
    return curves, prompts_needed(ratios=[2.0, 4.0], ties=[0.0, 0.5], power=0.8)


def test_slips_are_drawn_with_intervals_an_opponent_a_panel(outcomes, agreement):
    figure = draw("fig70_slips", outcomes, agreement)
    clip, annotators, alike = figure.axes
    assert clip.get_title() == "against CLIP\n(24 prompts, 48 sets)" and "annotators" in annotators.get_title()
    wins, _, losses = (container.lines[0] for container in clip.containers)
    assert np.allclose(wins.get_ydata(), [0.4, 0.3, 0.15]) and np.allclose(losses.get_ydata(), [0.1, 0.2, 0.35])
    assert np.allclose(wins.get_xdata(), SLIPS, atol=0.01)
    (bars,) = clip.containers[0].lines[2]
    assert np.allclose([path[:, 1] for path in bars.get_segments()], [[0.3, 0.5], [0.2, 0.4], [0.05, 0.25]])
    people, majorities = alike.lines[:2]
    assert np.allclose(people.get_ydata(), [0.86, 0.66, 0.36]) and np.allclose(majorities.get_ydata(), [1, 0.8, 0.5])
    alt = FIGURES["fig70_slips"].describe(outcomes, agreement)
    assert "against CLIP 40.0% won and 10.0% lost with 0% slips" in alt and "falls from .86 to .36" in alt


def test_power_is_drawn_by_ties_with_the_papers_number_marked(power):
    left, right = draw("fig71_power", *power).axes
    assert np.allclose(left.lines[0].get_ydata(), power[0]["power"][:3])
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["0%", "50%"]
    assert np.allclose(right.lines[0].get_ydata(), power[1].query("ties == 0")["prompts"])
    assert left.lines[2].get_xdata()[0] == 30
    assert "with 30 prompts: .43 with 0% tied (80% power needs 72)" in FIGURES["fig71_power"].describe(*power)


def test_the_tables_have_a_row_a_slip_and_a_row_a_ratio(outcomes, agreement, power):
    table = TABLES["tab41_human_evaluation"].build(outcomes, agreement)
    assert len(table) == 2 * 2 * len(SLIPS)
    first = table.iloc[0]
    assert (first["TextNorm against"], first["question"], first["slips"]) == ("CLIP", "alignment", "0%")
    assert (first["win"], first["alpha"]) == (".40 [.30,\u00a0.50]", ".86")
    assert first["prompts won / tied / lost"] == "6 / 14 / 4"
    needed = TABLES["tab42_prompts_needed"].build(power[1])
    assert needed.to_dict("list") == {"wins for each loss": ["2", "4"], "0% tied": [72, 20], "50% tied": [149, 46]}
