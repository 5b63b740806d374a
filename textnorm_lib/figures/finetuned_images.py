"""The figure of tuned models in images: the same prompt and seed over training (the paper's figures 1 and 5)."""

import pandas as pd
from matplotlib.figure import Figure

from textnorm_lib.figures.finetuning import item
from textnorm_lib.figures.style import draw_image, new_sheet
from textnorm_lib.names import BASE, REWARD_NAMES, choosers_of

BESIDE, BETWEEN, ABOVE = 1.7, 0.3, 0.95  # room left of the rows, between two seeds, above a prompt; in images' sides
NARROWEST = 13.5  # so many images' sides is the sheet wide at least: larger images would make it too high


def draw_samples(samples: pd.DataFrame, *, unit: str) -> Figure:
    """``pick_samples``: a block a prompt, a row a reward; by seed the base and the checkpoints, framed if good."""
    rewards, prompts = choosers_of(samples["tuned_on"], REWARD_NAMES), samples["prompt"].unique()
    checkpoints = sorted(samples["checkpoint"].unique())
    seeds = samples.groupby("prompt")["seed"].rank(method="dense").astype(int) - 1  # the first, the second, of a prompt
    width = max(BESIDE + (seeds.max() + 1) * (len(checkpoints) + BETWEEN) - BETWEEN, NARROWEST)
    height = len(prompts) * (ABOVE + len(rewards))
    figure, axes = new_sheet(width, height)
    for block, prompt in enumerate(prompts):
        top = block * (ABOVE + len(rewards)) + ABOVE
        axes.text(0, top - 0.4, prompt, size=7, va="bottom")
        axes.text(0, top - 0.03, unit, size=6, va="bottom")
        for row, reward in enumerate(rewards):
            axes.text(0, top + row + 0.5, REWARD_NAMES[reward], size=6, va="center")
        for seed in range(seeds.max() + 1):
            start = BESIDE + seed * (len(checkpoints) + BETWEEN)
            shown = samples[(samples["prompt"] == prompt) & (seeds == seed)]
            for column, checkpoint in enumerate(checkpoints):
                name = BASE if checkpoint == 0 else checkpoint
                axes.text(start + column + 0.5, top - 0.03, name, size=6, ha="center", va="bottom")
                for one in shown[shown["checkpoint"] == checkpoint].itertuples():
                    for row in range(len(rewards)) if one.tuned_on == BASE else [rewards.index(one.tuned_on)]:
                        draw_image(axes, start + column, top + row, one.png, framed=one.label == 1)
    return figure


def describe_samples(samples: pd.DataFrame) -> str:
    """Of the images shown, which are good: the base's, and each reward's at the last checkpoint."""
    if samples["label"].isna().all():
        return f"The same prompts and seeds over training: {', '.join(samples['prompt'].unique())}."
    words = []
    for prompt, rows in samples.groupby("prompt", sort=False):
        labels = rows[rows["checkpoint"].isin([0, rows["checkpoint"].max()])].groupby("tuned_on")["label"]
        good = labels.sum().astype(str) + " of " + labels.size().astype(str)
        told = [f"{REWARD_NAMES[name]} {good[name]}" for name in choosers_of(rows["tuned_on"], REWARD_NAMES)]
        words.append(f"{prompt}: base {good[BASE]}, {', '.join(told)}")
    return f"The same prompts and seeds over training. Good at first and at last: {'; '.join(words)}."


ITEMS = [
    item(
        name,
        f"Images over {method}'s training on each reward, for one prompt of each set (that of which nearest to half of "
        "the base's images is good, or the first where nobody votes), the same seeds throughout, of each model the "
        "first run. Framed: good by the majority of the annotators.",
        draw_samples,
        describe_samples,
        paper_item="Figures 1 and 5",
        unit=unit,
        needs="prompts",
    )
    for name, method, unit in (("fig58_rwr_samples", "RWR", "step"), ("fig63_ddpo_samples", "DDPO", "epoch"))
]
