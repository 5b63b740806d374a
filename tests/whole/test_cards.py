"""The cards say what the code does: recipes, sizes and the split by class."""

import re
from pathlib import Path

import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from textnorm_lib.mini.training import plan
from textnorm_lib.prompts import sets as prompts

DOCS = Path(__file__).parents[2] / "docs"
PLAN = plan.BUNDLED


FITS = {  # the row's name -> its recipe
    "autoencoder": PLAN.autoencoder,
    "generator": PLAN.generator,
    "annotators": PLAN.detector,
    "annotators, half-finished and broken scenes too": PLAN.detector_tuning,
    "quality judges": PLAN.quality,
    "student": PLAN.student,
    "student, once more": PLAN.student_tuning,
    "student, to finish": PLAN.student_finish,
    "start (a CLIP)": PLAN.start,
    "CLIP": PLAN.clip,
    "BLIP-2": PLAN.blip2,
    "PickScore": PLAN.pickscore,
    "BLIP, from which ImageReward goes on": PLAN.blip,
    "ImageReward": PLAN.imagereward,
}


def rows(card, heading):
    """The cells of the rows of the card's table whose first column has this heading."""
    lines = (DOCS / card).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def test_the_model_card_gives_the_recipes_of_the_bundled_plan():
    found = {name: [float(cell.replace(",", "")) for cell in cells] for name, *cells in rows("model_card.md", "fit")}
    expected = {}
    for name, recipe in FITS.items():
        rates = (recipe.learning_rate, recipe.warmup, recipe.average_decay, recipe.weight_decay)
        expected[name] = [recipe.steps, recipe.batch_size, *rates]
    assert found == expected


def test_the_data_card_gives_the_numbers_of_scenes():
    found = {
        name: (int(seed), int(number.replace(",", ""))) for name, seed, number, _ in rows("data_card.md", "scenes")
    }
    seeds = {**plan.SCENE_SEEDS, **plan.QUALITY_JUDGES}
    counts = {"scenes": PLAN.scenes, "judges": PLAN.annotator_scenes, "preferences": PLAN.annotator_scenes}
    counts |= dict.fromkeys(plan.QUALITY_JUDGES, PLAN.quality_scenes)
    held_out = found.pop("held out")
    assert found == {f"`{name}`": (seed, counts[name]) for name, seed in seeds.items()}
    assert held_out == (999, 1000)  # mini/training/measure.py


@pytest.mark.parametrize(
    ("side", "classes"), [("Development", prompts.DEVELOPMENT_CLASSES), ("Sealed", prompts.SEALED_CLASSES)]
)
def test_the_data_card_lists_the_split_by_class(side, classes):
    text = (DOCS / "data_card.md").read_text(encoding="utf-8")
    (number, listed) = re.search(rf"^- \*{side} \((\d+)\):\* (.+)\.$", text, re.MULTILINE).groups()
    assert int(number) == len(classes)
    assert re.split(r"[,;] ", listed) == list(classes)


@pytest.mark.parametrize("name", prompts.SETS)
def test_the_data_card_counts_the_prompts_of_each_side(name):
    found = {row[0]: row[1:] for row in rows("data_card.md", "set")}[name]
    sides = [prompts.split(prompt) for prompt in prompts.mini_prompts(name)]
    expected = [len(sides), *(sides.count(side) for side in ("development", "sealed", "mixed"))]
    assert [int(cell.replace("–", "0")) for cell in found] == expected


@pytest.mark.parametrize("sample", ["generated", "distorted"])
def test_the_model_card_gives_the_agreement_that_was_counted_by_eye(sample):
    images = pd.read_csv(DOCS / "by_eye" / f"{sample}.csv")
    assert ((images[["vote_1", "vote_2", "vote_3"]] == 1).sum(axis=1) >= 2).eq(images["label"] == 1).all()
    told = images[images["by_eye"] >= 0]
    agree = int((told["by_eye"] == told["label"]).sum())
    low, high = proportion_confint(agree, len(told), method="wilson")
    strict = int((images["by_eye"].clip(lower=0) == images["label"]).sum())
    interval = ", ".join(f"{value:.3f}".removeprefix("0") for value in (low, high))
    counted = (
        f"the other {len(told)} the judges' label agrees on {agree}",
        f"the other {len(told)} the label agrees on {agree}",
    )
    text = re.sub(r"\s+", " ", (DOCS / "model_card.md").read_text(encoding="utf-8"))
    assert any(f"{words}: {agree / len(told):.3f} [{interval}]".replace(" 0.", " .") in text for words in counted)
    assert f"{len(images) - len(told)} could not be told" in text and f"{strict} of {len(images)}" in text
    assert len(told) >= 120 and agree / len(told) >= 0.9
