"""Figures of TIA2 in miniature: what is drawn, where, and with which labels, on made-up frames."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from textnorm_lib.figures.tia2 import statistics_table
from textnorm_lib.study.drawing import house_style, settle, stamp
from textnorm_lib.study.items import FIGURES

SETS = ["comprehensive", "counting", "composition"]


def _png(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def samples():
    """Three prompts, five, two and one images."""
    votes = [(1, 1, 0), (0, 0, -1), (1, 1, 1), (0, 0, 0), (1, 1, 1), (0, 0, 0), (-1, 1, 1), (0, 1, 0)]
    frame = pd.DataFrame(votes, columns=["vote_1", "vote_2", "vote_3"])
    frame["prompt"] = ["a cat"] * 5 + ["two dogs"] * 2 + ["a cup"]
    labels = [int(sum(vote == 1 for vote in row) >= 2) for row in votes]
    return frame.assign(set="counting", label=labels, png=[_png(c) for c in ("red", *["blue"] * 7)])


@pytest.fixture
def shares():
    """Groups of prompts with their intervals; the smallest group has none."""
    names = [*(f"set: {name}" for name in SETS), *(f"count: {n}" for n in range(1, 7)), "category: style", "all"]
    frame = pd.DataFrame({"set": names, "mean": np.linspace(0.9, 0.1, len(names)), "n_prompts": 10})
    frame = frame.assign(low=frame["mean"] - 0.05, high=frame["mean"] + 0.05)
    frame.loc[frame["set"] == "category: style", ["low", "high", "n_prompts"]] = (np.nan, np.nan, 1)
    return frame


@pytest.fixture
def agreement():
    return pd.DataFrame({"set": SETS, "alpha": [0.9, 0.5, np.nan], "low": [0.8, -0.1, np.nan], "high": [1.0, 0.9, 1.0]})


def test_the_sheet_shows_every_image_in_its_place_with_its_votes_and_frames_the_good_ones(samples):
    with house_style():
        (axes,) = FIGURES["fig26_mini_samples"].build(samples).axes
    assert axes.images[0].get_array()[0, 0, :3].tolist() == [1.0, 0.0, 0.0]
    corners = [(round(image.get_extent()[0]), int(image.get_extent()[3])) for image in axes.images]
    assert corners == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (0, 1)]  # a fifth image has no room
    written = [text.get_text() for text in axes.texts]
    assert written[:6] == ["a cat", "✓ ✓ ✗", "✗ ✗ –", "✓ ✓ ✓", "✗ ✗ ✗", "two dogs"]
    assert written[6:] == ["✗ ✗ ✗", "– ✓ ✓", "a cup", "✗ ✓ ✗"]
    assert [round(frame.get_x()) for frame in axes.patches] == [0, 2, 5]


def test_the_sheets_text_counts_the_good_images(samples):
    text = FIGURES["fig26_mini_samples"].describe(samples)
    assert text.endswith("a cat: 2 of 4; two dogs: 1 of 2; a cup: 0 of 1.")


def test_both_worlds_stand_beside_each_other_in_every_panel(shares, agreement):
    other = shares.assign(**{name: shares[name] / 2 for name in ("mean", "low", "high")})
    with house_style():
        figure = FIGURES["fig27_mini_beside_released"].build(other, shares, agreement, agreement)
        stamp(figure, "smoke")
        settle(figure)
    by_set, by_count, by_category, alpha = figure.axes
    ticks = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
    assert ticks[0] == [f"{name} (10, 10)" for name in SETS] and ticks[3] == SETS
    assert ticks[1][0] == "1 (10, 10)" and len(ticks[1]) == 6 and ticks[2] == ["style (1, 1)"]
    for axes in figure.axes:
        assert [container.get_label() for container in axes.containers] == ["released", "mini"]
    drawn = [container.lines[0].get_xdata().tolist() for container in by_count.containers]
    expected = shares.set_index("set")["mean"][[f"count: {n}" for n in range(1, 7)]]
    assert drawn[1] == expected.tolist() and drawn[0] == pytest.approx((expected / 2).tolist())
    assert by_set.get_xlim() == by_category.get_xlim() == (0, 1) and alpha.get_xlim() == (-0.1, 1)


def test_the_text_beside_gives_both_numbers(shares, agreement):
    text = FIGURES["fig27_mini_beside_released"].describe(shares, shares, agreement, agreement)
    assert "comprehensive 0.90 and 0.90" in text and "counting 0.50 and 0.50" in text


def test_statistics_without_contrastive_prompts_have_no_such_column():
    columns = ["prompts", "images", "votes", "share_good", "share_skipped", "images_with_skip"]
    frame = pd.DataFrame([("counting", 2, 8, 24, 0.5, 0.0, 0.0, 1, 0)])
    frame.columns = ["set", *columns, "prompts_all_bad", "prompts_all_good"]
    table = statistics_table(frame)
    assert "contrastive prompts" not in table and table["prompts all bad / all good"].item() == "1 / 0"


@pytest.mark.parametrize("name", ["fig28_mini_scenes", "fig29_mini_failures"])
def test_a_sheet_shows_every_image_with_what_was_asked_for(name):
    prompts = [f"a realistic photo of thing {index}" for index in range(9)] + ["a neon sign of a cup"]
    images = pd.DataFrame({"prompt": prompts, "png": [_png((20 * index, 0, 0)) for index in range(10)]})
    with house_style():
        (axes,) = FIGURES[name].build(images).axes
    assert [round(255 * image.get_array()[0, 0, 0]) for image in axes.images] == [20 * index for index in range(10)]
    written = [text.get_text().replace("\n", " ") for text in axes.texts]
    assert written == [*(f"thing {index}" for index in range(9)), "a neon sign of a cup"]
    low, left = axes.texts[6].get_position()[::-1]
    assert low > 1.3 and left < 0.1  # the seventh begins the second row
    assert "thing 3; thing 4" in FIGURES[name].describe(images)
