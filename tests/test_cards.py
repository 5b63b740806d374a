"""The cards say what the code does: recipes, sizes and the split by class."""

import inspect
import re
from pathlib import Path

import pytest

from textnorm_lib.mini import plan, prompts, train, train_annotators, train_rewards

DOCS = Path(__file__).parents[1] / "docs"
PLAN = plan.BUNDLED
FITS = {  # the row's name -> its recipe and the function whose default is the batch size
    "autoencoder": (PLAN.autoencoder, train.train_autoencoder),
    "generator": (PLAN.generator, train.train_generator),
    "annotators": (PLAN.detector, train_annotators.train_detector),
    "annotators, half-finished too": (PLAN.detector_tuning, train_annotators.train_detector),
    "CLIP": (PLAN.clip, train_rewards.train_clip),
    "BLIP-2": (PLAN.blip2, train_rewards.train_blip2),
    "PickScore": (PLAN.pickscore, train_rewards.train_pickscore),
    "ImageReward": (PLAN.imagereward, train_rewards.train_imagereward),
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
    for name, (recipe, function) in FITS.items():
        batch = inspect.signature(function).parameters["batch_size"].default
        rates = (recipe.learning_rate, recipe.warmup, recipe.average_decay, recipe.weight_decay)
        expected[name] = [recipe.steps, batch, *rates]
    assert found == expected


def test_the_data_card_gives_the_numbers_of_scenes():
    found = {
        name: (int(seed), int(number.replace(",", ""))) for name, seed, number, _ in rows("data_card.md", "scenes")
    }
    counts = {"scenes": PLAN.scenes, "judges": PLAN.annotator_scenes, "preferences": PLAN.annotator_scenes}
    held_out = found.pop("held out")
    assert found == {f"`{name}`": (seed, counts[name]) for name, seed in plan.SCENE_SEEDS.items()}
    assert held_out == (999, 1000)  # mini/measure.py


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
