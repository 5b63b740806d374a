"""Figures of best-of-n in images: what rewards choose, and what they love though the annotators reject it."""

import textwrap

import pandas as pd
from matplotlib.figure import Figure

from textnorm_lib.figures.style import draw_image, new_sheet, ordinal, votes_as_marks
from textnorm_lib.items import Item
from textnorm_lib.names import REWARD_NAMES, choosers_of
from textnorm_lib.tia2.prompts import PREFIX

PER_SET, BESIDE, BETWEEN, ABOVE = 4, 1.7, 0.3, 1.15  # the sheet of grids: images a set, then in images' sides
MOST_SETS = 3  # a row, for which the sheet's width is made
ABREAST, LOVED_BESIDE, PITCH = 6, 0.2, 1.62  # the gallery: images a row, in images' sides the room left and the rows


def draw_grids(frame: pd.DataFrame) -> Figure:
    """``pick_grids``: a block a prompt, a row a reward, four images an n; framed where the majority calls it good."""
    rewards = choosers_of(frame["model"], REWARD_NAMES)
    prompts, sizes = frame["prompt"].unique(), sorted(frame["n"].unique())
    width = BESIDE + MOST_SETS * PER_SET + (MOST_SETS - 1) * BETWEEN
    height = len(prompts) * (ABOVE + len(rewards))
    figure, axes = new_sheet(width, height)
    for block, prompt in enumerate(prompts):
        top = block * (ABOVE + len(rewards)) + ABOVE
        axes.text(0, top - 0.5, prompt, size=7, va="bottom")
        for column, n in enumerate(sizes):
            left = BESIDE + column * (PER_SET + BETWEEN)
            axes.text(left + 0.03, top - 0.03, f"best of {n}", size=6, va="bottom")
            of_n = frame[(frame["prompt"] == prompt) & (frame["n"] == n)]
            for row, reward in enumerate(rewards):
                for one in of_n[of_n["model"] == reward].itertuples():
                    draw_image(axes, left + one.place - 1, top + row, one.png, framed=one.label == 1)
        for row, reward in enumerate(rewards):
            axes.text(0, top + row + 0.5, REWARD_NAMES[reward], size=6, va="center")
    return figure


def describe_grids(frame: pd.DataFrame) -> str:
    """Good images among the four of each reward, at the smallest and the largest n."""
    if frame["label"].isna().all():
        return f"The four best of n images by each reward, of {', '.join(frame['prompt'].unique())}."
    sizes, words = frame["n"].agg(["min", "max"]), []
    for prompt, rows in frame.groupby("prompt", sort=False):
        good = rows.pivot_table(index="model", columns="n", values="label", aggfunc="sum")
        told = [
            f"{REWARD_NAMES[one]} {good.loc[one, sizes['min']]} and {good.loc[one, sizes['max']]}"
            for one in choosers_of(rows["model"], REWARD_NAMES)
        ]
        words.append(f"{prompt}: {', '.join(told)}")
    return (
        f"The four best of n images by each reward. Good by the majority of the four at n = {sizes['min']} and "
        f"{sizes['max']}. {'; '.join(words)}."
    )


def draw_loved(frame: pd.DataFrame) -> Figure:
    """``pick_loved``: a row a reward."""
    rewards = [name for name in REWARD_NAMES if name in frame]
    width, height = LOVED_BESIDE + ABREAST, len(rewards) * PITCH
    figure, axes = new_sheet(width, height)
    for row, reward in enumerate(rewards):
        axes.text(0, row * PITCH + 0.5, REWARD_NAMES[reward], size=7, va="center", rotation=90)
        shown = frame[frame["reward"] == reward].head(ABREAST)
        for column, (_, one) in enumerate(shown.iterrows()):
            left = LOVED_BESIDE + column
            draw_image(axes, left, row * PITCH, one["png"])
            others = " ".join(f"{round(one[name], 1) + 0.0:.1f}" for name in rewards if name != reward)  # 0.0, not -0.0
            lines = [f"{one[reward]:+.1f}, {ordinal(one['rank'])}   {votes_as_marks(one)}", f"({others})"]
            text = "\n".join([*lines, textwrap.fill(one["prompt"].removeprefix(PREFIX), 18)])
            axes.text(left + 0.03, row * PITCH + 1.0, text, size=5.5, va="top", linespacing=1.1)
        if shown.empty:
            axes.text(LOVED_BESIDE + 0.03, row * PITCH + 0.5, "none found", size=6.5)
    return figure


def describe_loved(frame: pd.DataFrame) -> str:
    """What is shown, reward by reward."""
    words = []
    for reward in [name for name in REWARD_NAMES if name in frame]:
        shown = [
            f"{one['prompt'].removeprefix(PREFIX)} ({one[reward]:+.1f}, {ordinal(one['rank'])} of {one['n_images']})"
            for _, one in frame[frame["reward"] == reward].head(ABREAST).iterrows()
        ]
        words.append(f"{REWARD_NAMES[reward]}: {', '.join(shown) or 'none'}")
    return f"Images that a reward loves and all three annotators reject. {'; '.join(words)}."


ITEMS = [
    Item(
        name="fig50_best_of_n_images",
        notebook="04_best_of_n",
        caption="The four best of n images by each of five rewards, for one prompt of each set: that of which nearest "
        "to half of the pool is good, or the first where nobody votes. Framed: good by the majority of the annotators.",
        build=draw_grids,
        describe=describe_grids,
        needs="prompts",
        paper_item="Figure 4",
    ),
    Item(
        name="fig54_loved_and_rejected",
        notebook="04_best_of_n",
        caption="Images that a reward loves and all three annotators reject, though a fifth of the pool or more is "
        "good; found by rule. Below: the reward's score in the pool's standard deviations, its rank in the pool and "
        "the votes; in brackets the other rewards' scores, in the order of the rows.",
        build=draw_loved,
        describe=describe_loved,
        needs="annotators",
    ),
]
