"""Notebook 00: favourites are those of the rewards, shares and intervals are right, the figure shows what there is."""

import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toys import draw

from textnorm_lib.figures.report import ITEMS
from textnorm_lib.figures.start_here import image_sheet
from textnorm_lib.judging.start_here import join_labels, pick_favourites, share_of_favourites
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.items import FIGURES, TABLES
from textnorm_lib.study.printed import NO_BREAK

CHECKOUT = Path(__file__).parents[2]
NAME = "fig10_start_here"
SETTINGS = {"resamples": 200, "confidence": 0.95, "seed": 0}
PROMPTS = ("a red frog", "a realistic photo of two very long automobiles", "a cat")
VOTES = ["vote_1", "vote_2", "vote_3"]


@pytest.fixture
def images():
    """Three prompts of four images; CLIP rises with the number of the image, TextNorm falls; only the last is good."""
    rows = [
        ("counting", prompt, f"{p}_{i}.png", float(i), 1 - i / 4) for p, prompt in enumerate(PROMPTS) for i in range(4)
    ]
    frame = pd.DataFrame(rows, columns=["set", "prompt", "image", "clip", "textnorm"])
    good = frame["clip"] == 3
    return frame.assign(vote_1=1, vote_2=good.astype(int), vote_3=np.where(good, 1, -1), label=good.astype(int))


@pytest.fixture
def made(images, tmp_path):
    for shade, name in enumerate(images["image"]):
        Image.new("RGB", (64, 64), (shade, 0, 0)).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def nobody_voted(images):
    return join_labels(images.drop(columns=[*VOTES, "label"]).rename(columns={"textnorm": "textnorm:clip"}))


# ---- favourites


def test_each_prompt_has_the_first_image_and_the_favourite_of_each_reward(made, images):
    favourites = pick_favourites(made, images)
    assert favourites["chooser"].tolist() == ["first", "clip", "textnorm"] * 3
    assert favourites["image"].tolist() == [f"{p}_{i}.png" for p in range(3) for i in (0, 3, 0)]
    assert favourites["label"].tolist() == [0, 1, 0] * 3 and (favourites["share_good"] == 0.25).all()
    assert favourites["png"].tolist() == [(made / name).read_bytes() for name in favourites["image"]]


def test_of_equal_values_the_earlier_image_is_the_favourite(made, images):
    favourites = pick_favourites(made, images.assign(clip=[0.0, 1.0, 1.0, 0.0] * 3))
    assert favourites.query("chooser == 'clip'")["image"].tolist() == ["0_1.png", "1_1.png", "2_1.png"]


def test_without_votes_there_are_favourites_and_no_verdicts(made, nobody_voted):
    favourites = pick_favourites(made, nobody_voted)
    assert len(favourites) == 9 and favourites[[*VOTES, "label", "share_good"]].isna().all(axis=None)
    with pytest.raises(DataError, match=r"0_0\.png has no label"):
        share_of_favourites(favourites, **SETTINGS)


def test_an_image_that_nobody_has_seen_is_named(images):
    scores = images.drop(columns=[*VOTES, "label"])
    labels = images[["image", *VOTES, "label"]]
    joined = join_labels(scores, labels)
    assert joined["label"].tolist() == images["label"].tolist()
    with pytest.raises(DataError, match=r"2_3\.png has no label"):
        join_labels(scores, labels.iloc[:-1])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"clip": 1.0}, "clip gives all 4 images of 'a red frog' 1"),
        ({"textnorm": 1.0}, "textnorm gives all 4 images"),
        ({"clip": np.nan}, "clip of '0_0.png' is nan"),
    ],
)
def test_a_reward_that_cannot_choose_is_named(images, changed, said):
    with pytest.raises(DataError, match=re.escape(said)):
        join_labels(images.drop(columns=[*VOTES, "label"]).assign(**changed))


# ---- shares


def test_shares_are_counted_over_prompts_with_exact_intervals(made, images):
    shares = share_of_favourites(pick_favourites(made, images), **SETTINGS).set_index("chooser")
    assert shares.index.tolist() == ["random", "clip", "textnorm"] and (shares["n_prompts"] == 3).all()
    assert shares["share"].tolist() == [0.25, 1.0, 0.0]
    assert shares.loc["random", ["low", "high"]].tolist() == [0.25, 0.25]  # all prompts are alike
    # of three of three the lower bound p has p^3 = .025; of none the upper is 1 - p
    assert shares.loc["clip", ["low", "high"]].tolist() == pytest.approx([0.025 ** (1 / 3), 1.0])
    assert shares.loc["textnorm", ["low", "high"]].tolist() == pytest.approx([0.0, 1 - 0.025 ** (1 / 3)])


def test_prompts_that_differ_widen_the_interval_of_a_random_choice(made, images):
    label = [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0]
    shares = share_of_favourites(pick_favourites(made, images.assign(label=label)), **SETTINGS).set_index("chooser")
    assert shares.loc["random", "share"] == 0.5
    assert shares.loc["random", "low"] < 0.25 and shares.loc["random", "high"] > 0.75


def test_the_table_prints_each_way_to_choose_with_its_interval(made, images):
    table = TABLES["tab39_start_here"].build(share_of_favourites(pick_favourites(made, images), **SETTINGS))
    assert table["chosen by"].tolist() == ["chance", "CLIP", "TextNorm"]
    assert [cell.replace(NO_BREAK, " ") for cell in table["good"]] == [
        ".25 [.25, .25]",
        "1.00 [.29, 1.00]",
        ".00 [.00, .71]",
    ]
    assert (table["prompts"] == 3).all()


def test_only_what_counts_votes_needs_annotators():
    needs = {name: item.needs for name, item in ITEMS.items() if item.notebook == "00_start_here"}
    assert needs == {NAME: "prompts", "tab39_start_here": "annotators"}


# ---- the figure


def test_the_figure_has_a_column_a_prompt_a_row_a_chooser_and_frames_what_is_good(made, images):
    favourites = pick_favourites(made, images)
    (axes,) = draw(NAME, favourites).axes
    assert len(axes.images) == 9 and len(axes.patches) == 3
    words = [text.get_text() for text in axes.texts]
    assert words[-3:] == [
        "made first\ngood: 0 of 3",
        "CLIP's\nfavourite\ngood: 3 of 3",
        "TextNorm's\nfavourite\ngood: 0 of 3",
    ]
    assert words.count("✓ ✓ ✓") == 3 and words.count("✓ ✗ –") == 6
    assert "two very long\nautomobiles\n(25% good)" in words
    lefts = sorted({round(image.get_extent()[0], 6) for image in axes.images})
    assert len(lefts) == 3 and min(lefts) > 0.5  # room for the rows' names


def test_frames_stand_around_the_images_that_are_good(made, images):
    favourites = pick_favourites(made, images)
    (axes,) = draw(NAME, favourites).axes
    framed = {(round(box.get_x(), 3), round(box.get_y(), 3)) for box in axes.patches}
    expected = {
        (round(image.get_extent()[0], 3), round(image.get_extent()[3], 3))
        for image, label in zip(axes.images, favourites["label"], strict=True)
        if label == 1
    }
    assert framed == expected and len(expected) == 3


def test_no_text_of_the_figure_leaves_its_face(made, images):
    figure = draw(NAME, pick_favourites(made, images))
    width, height = figure.bbox.size
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert min(min(box.x0, box.y0) for box in boxes) >= 0
    assert max(box.x1 for box in boxes) <= width and max(box.y1 for box in boxes) <= height


def test_where_nobody_voted_the_figure_shows_neither_marks_nor_frames(made, nobody_voted):
    favourites = pick_favourites(made, nobody_voted)
    (axes,) = draw(NAME, favourites).axes
    assert len(axes.images) == 9 and not axes.patches
    words = " ".join(text.get_text() for text in axes.texts)
    assert "good" not in words and "✓" not in words
    assert "nobody has voted" in FIGURES[NAME].describe(favourites)


def test_the_text_for_those_who_cannot_see_it_says_whose_image_is_good(made, images):
    said = FIGURES[NAME].describe(pick_favourites(made, images))
    assert "a red frog: CLIP's favourite;" in said and "TextNorm's favourite" not in said.split("annotators:")[1]


def test_the_sheet_has_eight_images_a_row_and_a_text(made, images):
    shown = image_sheet(made, images["image"], alt="twelve images")
    assert Image.open(io.BytesIO(shown.data)).size == (8 * 96, 2 * 96)
    assert shown._repr_mimebundle_()[1]["image/png"]["alt"] == "twelve images"


# ---- the notebook


@pytest.fixture(scope="module")
def cells():
    return nbformat.read(CHECKOUT / "notebooks" / "00_start_here.ipynb", as_version=4).cells


def test_the_map_of_the_study_names_every_other_notebook(cells):
    (study,) = [cell.source for cell in cells if "## A map of the study" in cell.source]
    named = set(re.findall(r"\]\((\w+\.ipynb)\)", study))
    there = {path.name for path in (CHECKOUT / "notebooks").glob("*.ipynb")} - {"00_start_here.ipynb"}
    assert named == there
    shown = re.findall(r"\]\(\.\./papers_figures/(\w+)\.\w+\)", study)
    assert shown and [name for name in shown if name[:3] not in ("fig", "tab")] == []


def test_what_the_maps_point_to_is_there(cells):
    links = {link for cell in cells for link in re.findall(r"\]\(([\w./]+)\)", cell.source)}
    assert len(links) > 20
    assert [link for link in links if not (CHECKOUT / "notebooks" / link).exists()] == []
    (house,) = [cell.source for cell in cells if "## A map of the house" in cell.source]
    rows = [line.split("|")[2] for line in house.splitlines() if line.startswith("| ")][2:]
    modules = [name for row in rows for name in re.findall(r"`([\w/]+)`", row)]
    library = CHECKOUT / "textnorm_lib"
    missing = [name for name in modules if not ((library / name).is_dir() or (library / f"{name}.py").exists())]
    assert len(modules) > 30 and missing == []
