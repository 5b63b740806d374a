"""The sheet for a count by eye: which images, what their voter sees, what is refused; and the committed one."""

import io
from pathlib import Path

import by_eye
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from statsmodels.stats.proportion import proportion_confint

from textnorm_lib.optimise.pool import CHOOSERS
from textnorm_lib.prompts.sets import SEALED, mini_prompts, side_of
from textnorm_lib.study.drawing import house_style
from textnorm_lib.study.errors import DataError

DOCS = Path(__file__).parents[2] / "docs"
CHOSEN_BY = {"best_of_n": set(CHOOSERS), "rwr": {"textnorm", "imagereward"}, "ddpo": {"textnorm", "clip"}}
TUNED = ("rwr", "ddpo")
REWARDS = ["clip", "textnorm"]


@pytest.fixture
def picked(images, chosen, folder):
    return by_eye.pick_for_eye(folder, images, chosen, number=12, seed=0)


@pytest.fixture
def images():
    rows = [
        (name, f"prompt of {name}", f"{name}_{index}.png") for name in ("counting", "composition") for index in range(8)
    ]
    frame = pd.DataFrame(rows, columns=["set", "prompt", "image"])
    return frame.assign(vote_1=1, vote_2=0, vote_3=np.arange(16) % 2, label=np.arange(16) % 2)


@pytest.fixture
def chosen(images):
    """Of each set clip and textnorm chose four images, two of them the same; the annotators others."""
    rows = []
    for name, own in images.groupby("set"):
        for model, first in (("clip", 0), ("textnorm", 2), ("rating", 4)):
            rows += [(name, model, 8, image) for image in own["image"].iloc[first : first + 4]]
            rows += [(name, model, 4, image) for image in own["image"].iloc[4:]]
    return pd.DataFrame(rows, columns=["set", "model", "n", "image"])


@pytest.fixture
def folder(images, tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "PNG")
    for name in images["image"]:
        (tmp_path / name).write_bytes(buffer.getvalue())
    return tmp_path


def test_different_images_of_the_largest_n_are_picked_evenly_and_say_who_chose_them(picked, images):
    assert picked["number"].tolist() == list(range(1, 13))
    assert picked["set"].value_counts().to_dict() == {"counting": 6, "composition": 6}
    assert set(picked["chosen_by"]) == {"clip", "textnorm", "clip+textnorm"}
    assert picked["prompt"].tolist() != sorted(picked["prompt"])  # in random order


def test_more_images_than_were_chosen_are_refused(images, chosen, folder):
    with pytest.raises(DataError, match="number is 13, but the rewards chose 12 different images"):
        by_eye.pick_for_eye(folder, images, chosen, number=13, seed=0)


def test_the_sheet_shows_number_and_prompt_and_nothing_else(picked):
    with house_style():
        (axes,) = by_eye.draw_blind(picked).axes
    assert [text.get_text() for text in axes.texts] == [f"{one.number}: {one.prompt}" for one in picked.itertuples()]
    assert len(axes.images) == 12


def test_a_filled_ballot_stands_beside_the_judges_votes(picked, tmp_path):
    by_eye.write_sheet(picked, tmp_path)
    ballot = pd.read_csv(tmp_path / by_eye.BALLOT)
    assert list(ballot) == ["number", "prompt", "by_eye"]
    with pytest.raises(DataError, match="number 1 has no answer 1, 0 or -1"):
        by_eye.counted(tmp_path)
    ballot.assign(by_eye=[1, 0, -1] * 4).sample(frac=1, random_state=0).to_csv(tmp_path / by_eye.BALLOT, index=False)
    table = by_eye.counted(tmp_path)
    assert list(table) == ["set", "prompt", "chosen_by", "vote_1", "vote_2", "vote_3", "label", "by_eye"]
    assert sorted(table["by_eye"]) == [-1] * 4 + [0] * 4 + [1] * 4
    with pytest.raises(DataError, match=r"ballot.csv holds votes; give another folder"):
        by_eye.write_sheet(picked, tmp_path)


@pytest.fixture(scope="module")
def committed():
    return {name: by_eye.counted(DOCS / "by_eye" / name) for name in CHOSEN_BY}


@pytest.mark.parametrize("name", CHOSEN_BY)
def test_the_committed_sheets_ballots_and_votes_belong_together(committed, name):
    images, folder = committed[name], DOCS / "by_eye" / name
    ballot, votes = (pd.read_csv(folder / file) for file in (by_eye.BALLOT, by_eye.VOTES))
    assert ballot["number"].tolist() == votes["number"].tolist() == list(range(1, len(images) + 1))
    rows = -(-len(images) // by_eye.ABREAST)
    width, height = by_eye.ABREAST * by_eye.SIDE, rows * by_eye.PITCH * by_eye.SIDE
    with Image.open(folder / by_eye.SHEET) as sheet:
        assert sheet.size == (round(width * by_eye.DPI), round(height * by_eye.DPI))
    assert all(one.prompt in mini_prompts(one.set) and side_of(one.prompt) == SEALED for one in images.itertuples())
    assert set("+".join(images["chosen_by"]).split("+")) == CHOSEN_BY[name]
    majority = (images[["vote_1", "vote_2", "vote_3"]] == 1).sum(axis=1) >= 2
    assert (images["label"] == majority).all()


def _agreement(images: pd.DataFrame) -> tuple[int, int, str]:
    """How many could be told, on how many of them the label agrees, and the latter as the documents write it."""
    told = images[images["by_eye"] >= 0]
    agree = int((told["by_eye"] == told["label"]).sum())
    bounds = proportion_confint(agree, len(told), method="wilson")
    share, low, high = (f"{value:.3f}".removeprefix("0") for value in (agree / len(told), *bounds))
    return len(told), agree, f"{agree}: {share} [{low}, {high}]"


@pytest.mark.parametrize(("names", "most_doubted"), [(("best_of_n",), 12), (TUNED, 20)])
def test_the_judges_hold_where_rewards_choose_and_where_models_are_tuned_on_them(committed, names, most_doubted):
    images = pd.concat([committed[name] for name in names])
    told, agree, _ = _agreement(images)
    assert told >= len(images) - most_doubted and agree / told >= 0.85
    assert (images["by_eye"].clip(lower=0) == images["label"]).mean() >= 0.85  # doubt counted as bad


def test_the_documents_give_the_agreement_of_every_sample(committed):
    text = (DOCS / "by_eye" / "README.md").read_text(encoding="utf-8")
    card = (DOCS / "model_card.md").read_text(encoding="utf-8")
    samples = {name: pd.read_csv(DOCS / "by_eye" / f"{name}.csv") for name in ("generated", "distorted")}
    for name, images in {**samples, **committed}.items():
        told, _, agree = _agreement(images)
        strict = f"{(images['by_eye'].clip(lower=0) == images['label']).sum()} of {len(images)}"
        assert f"| `{name}` | {len(images)} | {told} | {agree} | {strict} |" in text.splitlines()
        if name == "best_of_n":
            assert f"the other {told} the label agrees on {agree}" in card and f"as bad: {strict}" in card
    for answer, words in zip(by_eye.ANSWERS, ("good", "bad", "cannot be told"), strict=True):
        labels = committed["best_of_n"].groupby("by_eye")["label"].get_group(answer)
        assert f"| {words} | {(labels == 1).sum()} | {(labels == 0).sum()} |" in text.splitlines()


def test_the_documents_give_the_agreement_on_tuned_models_images(committed):
    images = pd.concat([committed[name] for name in TUNED])
    told, agree, _ = _agreement(images)
    bad = images[images["by_eye"] == 0]
    card, text = ((DOCS / name).read_text(encoding="utf-8") for name in ("model_card.md", "by_eye/README.md"))
    assert len(images) >= 120 and bad["label"].sum() == 0
    doubt = f"On {len(images)} images of models tuned on rewards: {len(images) - told} could not be told"
    assert f"{doubt}, on the other {told} the label agrees on {agree}; of the {len(bad)} that are bad" in card
    assert f"Together {agree} of the {told} that could be told agree" in text and f"(0 of {len(bad)})" in text
