"""The figure of notebook 03 on where TextNorm helps and where it hurts: prompt by prompt."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from textnorm_lib.bootstrap import prompt_bootstrap
from textnorm_lib.errors import DataError
from textnorm_lib.figures.ensembles import label_lines
from textnorm_lib.figures.style import COLOURS, SETS, new_figure
from textnorm_lib.items import Item
from textnorm_lib.mini.grammar import parse
from textnorm_lib.names import FOUR, REWARD_NAMES
from textnorm_lib.tia2.prompts import CLASSES

_INTERVAL = {"resamples": 2000, "confidence": 0.95, "seed": 0}


def draw_gains(gains: pd.DataFrame) -> Figure:
    """A panel a reward: the change in AUROC of every prompt and its mean, by set, objects asked for and class."""
    blocks = list(_blocks(gains))
    labels = [label for block in blocks for label in block["label"].unique()]
    figure = new_figure(0.9 + 0.175 * len(labels))
    panels = figure.subplots(1, len(FOUR), sharex=True, sharey=True)
    reach = 1.05 * gains["gain"].abs().max()
    for axes, reward in zip(panels, FOUR, strict=True):
        axes.axvspan(-reach, 0, color="0.93", linewidth=0)
        for block in blocks:
            for label, rows in block[block["reward"] == reward].groupby("label", sort=False):
                _draw_group(axes, rows["gain"].to_numpy(), labels.index(label), COLOURS[reward])
        for end in np.cumsum([block["label"].nunique() for block in blocks])[:-1]:
            axes.axhline(end - 0.5, color="0.7", linewidth=0.6)
        label_lines(axes, labels)
        axes.set(title=f"{REWARD_NAMES[reward]}\nworse     better", xlabel="change in AUROC", xlim=(-reach, reach))
    return figure


def _blocks(gains: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """By set, by number of objects, by class: reward, gain, label (with the number of prompts)."""
    prompts = gains.drop_duplicates(["reward", "set", "prompt"])
    asked = prompts["prompt"].map(_objects)
    classes = sorted(set(gains["class"]) & set(CLASSES))
    for frame, groups, order in (
        (prompts, prompts["set"], [name for name in SETS if name in set(prompts["set"])]),
        (prompts, asked, sorted(asked.dropna().unique())),
        (gains, gains["class"], classes),
    ):
        for_reward = frame[frame["reward"] == FOUR[0]]
        sizes = groups[for_reward.index].value_counts()
        names = {group: f"{_words(group)} ({sizes[group]})" for group in order}
        block = frame.assign(label=groups.map(names), place=groups.map({group: i for i, group in enumerate(order)}))
        yield block.dropna(subset="label").sort_values("place", kind="stable")


def _objects(prompt: str) -> float:
    """How many objects a prompt asks for; nan where the grammar cannot read it."""
    try:
        return sum(asked.count for asked in parse(prompt).objects)
    except DataError:
        return np.nan


def _words(group: str | float) -> str:
    return group if isinstance(group, str) else f"{group:.0f} object{'s' if group > 1 else ''}"


def _draw_group(axes: Axes, values: np.ndarray, place: int, colour: Sequence[float]) -> None:
    """Every prompt as a pale dot, their mean as a black bar with its 95% bootstrap interval."""
    axes.scatter(values, np.full(len(values), place), s=6, color=colour, alpha=0.6, linewidth=0)
    low, high = prompt_bootstrap(lambda counts: counts @ values / counts.sum(1), len(values), **_INTERVAL)
    axes.plot([low, high], [place, place], color="black", linewidth=0.8)
    axes.plot(values.mean(), place, color="black", marker="|", markersize=6)


def describe_gains(gains: pd.DataFrame) -> str:
    """How many prompts lose, and the class that loses most."""
    words = []
    for reward in FOUR:
        rows = gains[gains["reward"] == reward]
        prompts = rows.drop_duplicates(["set", "prompt"])["gain"]
        classes = rows.groupby("class")["gain"].mean()
        words.append(
            f"{REWARD_NAMES[reward]} mean {prompts.mean():+.3f}, worse on {(prompts < 0).sum()} of {len(prompts)} "
            f"prompts, lowest class {classes.idxmin()} {classes.min():+.3f}"
        )
    return f"Change in AUROC under TextNorm, prompt by prompt: {'; '.join(words)}."


ITEMS = [
    Item(
        name="fig47_where_textnorm_hurts",
        notebook="03_textnorm_ablations",
        caption="What TextNorm changes in each prompt's AUROC (dots; grey side: worse than raw), and the mean with its "
        "95% bootstrap interval over prompts: by set, by the number of objects asked for, and by class, a prompt "
        "counting for each class that it names (prompts in brackets; no interval for one).",
        build=draw_gains,
        describe=describe_gains,
        needs="labels",
    ),
]
