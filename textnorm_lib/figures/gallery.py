"""A gallery of images on which rewards and annotators disagree, as the paper's figures 2 and 8 (notebook 02)."""

import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from textnorm_lib.figures.images import draw_image, new_sheet, votes_as_marks
from textnorm_lib.items import Item
from textnorm_lib.names import REWARD_NAMES
from textnorm_lib.rankings import HIGH, LOW
from textnorm_lib.tia2.prompts import PREFIX

HEADS = {HIGH: "three votes for bad, but ranked high", LOW: "three votes for good, but ranked low"}
PER_KIND = 3
BESIDE, BETWEEN, ABOVE, BELOW = 0.25, 0.25, 0.2, 0.75  # room left of a row, between the kinds, and so on; images' sides


def draw_disagreements(frame: pd.DataFrame) -> Figure:
    """``pick_disagreements``, a row a reward: bad images that it ranks high, good ones that it ranks low.

    The unit of the axes is an image's side.
    """
    rewards = [reward for reward in REWARD_NAMES if reward in frame]
    width, height = BESIDE + 2 * PER_KIND + BETWEEN, ABOVE + len(rewards) * (1 + BELOW)
    figure, axes = new_sheet(width, height, room=0)
    for left, kind in ((BESIDE, HIGH), (BESIDE + PER_KIND + BETWEEN, LOW)):
        axes.text(left + 0.03, ABOVE - 0.05, HEADS[kind], size=7, va="bottom")
        for row, reward in enumerate(rewards):
            top = ABOVE + row * (1 + BELOW)
            shown = frame[(frame["reward"] == reward) & (frame["kind"] == kind)].head(PER_KIND)
            for column, (_, one) in enumerate(shown.iterrows()):
                _draw_one(axes, left + column, top, one, one[[name for name in rewards if name != reward]].tolist())
            if shown.empty:
                axes.text(left + 0.03, top + 0.5, "none", size=6.5)
    for row, reward in enumerate(rewards):
        axes.text(0, ABOVE + row * (1 + BELOW) + 0.5, REWARD_NAMES[reward], size=8, va="center", rotation=90)
    return figure


def _draw_one(axes: Axes, left: float, top: float, one: pd.Series, others: list[int]) -> None:
    """The image with what was asked for, its rank, its votes, and the other rewards' ranks."""
    draw_image(axes, left, top, one["png"])
    lines = [
        f"{ordinal(one['rank'])} of {one['n_images']}   {votes_as_marks(one)}",
        f"others {', '.join(map(str, others))}",
    ]
    text = "\n".join([*lines, textwrap.fill(one["prompt"].removeprefix(PREFIX), 18)])
    axes.text(left + 0.03, top + 1.0, text, size=5.5, va="top", linespacing=1.1)


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def describe_disagreements(frame: pd.DataFrame) -> str:
    """What is shown, reward by reward."""
    words = []
    for reward in [reward for reward in REWARD_NAMES if reward in frame]:
        for kind, rows in frame[frame["reward"] == reward].groupby("kind", sort=False):
            shown = [
                f"{row.prompt.removeprefix(PREFIX)} ({ordinal(row.rank)} of {row.n_images})"
                for row in rows.head(PER_KIND).itertuples()
            ]
            words.append(f"{REWARD_NAMES[reward]}, {kind}: {', '.join(shown)}")
    return f"Images on which a reward and all three annotators disagree. {'; '.join(words)}."


ITEMS = [
    Item(
        name="fig31_mini_disagreements",
        notebook="02b_benchmark_mini_rewards",
        caption="Where mini rewards and annotators disagree most, found by a rule: images that all three annotators "
        "call bad among a reward's first of the prompt, and images that all call good among its last. Below: rank and "
        'votes, the other rewards\' ranks, the prompt ("a realistic photo of" left out).',
        build=draw_disagreements,
        describe=describe_disagreements,
        needs="labels",
        paper_item="Figures 2 and 8",
    ),
]
