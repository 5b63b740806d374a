"""Figures of TIA2 in miniature: images with their votes, and the built set beside the released one (notebook 01)."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from textnorm_lib.figures.images import draw_image, new_sheet, votes_as_marks
from textnorm_lib.figures.style import new_figure
from textnorm_lib.items import Item
from textnorm_lib.names import SET_ORDER
from textnorm_lib.tia2.prompts import CATEGORIES, PREFIX

ABREAST, PER_PROMPT = 2, 4  # a row of the sheet: two prompts, four images each
CAPTION, MARKS_BELOW, GAP = 0.2, 0.2, 0.2  # above and below a prompt's images, between two prompts; in images' sides
SHEET_COLUMNS, SHEET_PITCH = 6, 1.32  # images a row; from one row to the next, in images' sides
WORLDS = {  # name -> how it is drawn
    "released": {"color": "black", "marker": "o", "linestyle": "none"},
    "mini": {"color": "0.5", "marker": "s", "linestyle": "none"},
}
SETS = SET_ORDER[:3]


def draw_samples(samples: pd.DataFrame) -> Figure:
    """The first four images of each prompt, two prompts abreast; below each its votes; framed if the label is good.

    ``samples``: prompt, vote_1, vote_2, vote_3, label, png (the file's bytes); the unit of the axes is an image's side.
    """
    prompts = samples["prompt"].unique()
    width, pitch = ABREAST * (PER_PROMPT + GAP) - GAP, CAPTION + 1 + MARKS_BELOW
    height = pitch * -(-len(prompts) // ABREAST)
    figure, axes = new_sheet(width, height)
    for index, prompt in enumerate(prompts):
        left, top = index % ABREAST * (PER_PROMPT + GAP), index // ABREAST * pitch + CAPTION
        axes.text(left + 0.03, top - 0.03, prompt, size=6.5, va="bottom")
        shown = samples[samples["prompt"] == prompt].head(PER_PROMPT)
        for column, (_, one) in enumerate(shown.iterrows()):
            draw_image(axes, left + column, top, one["png"], framed=one["label"] == 1)
            axes.text(left + column + 0.5, top + 1.0, votes_as_marks(one), size=6.5, ha="center", va="top")
    return figure


def describe_samples(samples: pd.DataFrame) -> str:
    """How many of the images shown are good, prompt by prompt."""
    shown = samples.groupby("prompt", sort=False).head(PER_PROMPT).groupby("prompt", sort=False)["label"]
    words = "; ".join(f"{prompt}: {labels.sum()} of {len(labels)}" for prompt, labels in shown)
    return f"Generated images in rows, a prompt each, with three votes below each image. Good by the majority: {words}."


def draw_sheet(images: pd.DataFrame) -> Figure:
    """Images in rows of six with the prompt below each; ``images``: prompt, png."""
    rows = -(-len(images) // SHEET_COLUMNS)
    figure, axes = new_sheet(SHEET_COLUMNS, rows * SHEET_PITCH)
    for index, one in enumerate(images.itertuples()):
        left, top = index % SHEET_COLUMNS, index // SHEET_COLUMNS * SHEET_PITCH
        draw_image(axes, left, top, one.png)
        text = textwrap.fill(one.prompt.removeprefix(PREFIX), 20)
        axes.text(left + 0.04, top + 1.0, text, size=5.5, va="top", linespacing=0.95)
    return figure


def describe_sheet(images: pd.DataFrame) -> str:
    """What was asked for, image by image."""
    return "Images in rows of six. In order: " + "; ".join(images["prompt"].str.removeprefix(PREFIX)) + "."


def draw_beside(
    released: pd.DataFrame, mini: pd.DataFrame, released_agreement: pd.DataFrame, mini_agreement: pd.DataFrame
) -> Figure:
    """The released and the built benchmark: share of good images by set, count and category; agreement by set."""
    figure = new_figure(4.4)
    panels = dict(zip(("set", "count", "category", "alpha"), figure.subplots(2, 2).flat, strict=True))
    shares = {"released": released, "mini": mini}
    alphas = {"released": released_agreement, "mini": mini_agreement}
    for kind, names in (("set", SETS), ("count", tuple("123456")), ("category", _categories(mini))):
        rows = {world: _rows(frame, kind, names) for world, frame in shares.items()}
        prompts = zip(*(frame["n_prompts"].fillna(0).astype(int) for frame in rows.values()), strict=True)
        ticks = [f"{name} ({old}, {new})" for name, (old, new) in zip(names, prompts, strict=True)]
        _draw_worlds(panels[kind], rows, "mean", ticks, f"good images by {kind}")
    rows = {world: frame.set_index("set").reindex(SETS) for world, frame in alphas.items()}
    _draw_worlds(panels["alpha"], rows, "alpha", list(SETS), "Krippendorff's alpha")
    panels["alpha"].set_xlim(min(0.0, *(frame["low"].min() for frame in rows.values())), 1)
    figure.legend(*panels["set"].get_legend_handles_labels(), ncols=2, frameon=False, loc="outside upper center")
    return figure


def _draw_worlds(axes: Axes, rows: dict[str, pd.DataFrame], middle: str, ticks: list[str], title: str) -> None:
    """The two worlds' values with their intervals, one line of the panel a name."""
    for index, (world, frame) in enumerate(rows.items()):
        reach = [frame[middle] - frame["low"], frame["high"] - frame[middle]]
        places = np.arange(len(frame)) + (index - 0.5) * 0.28
        style = {**WORLDS[world], "capsize": 2, "elinewidth": 0.8, "clip_on": False}  # a share of 0 is to be seen
        axes.errorbar(frame[middle], places, xerr=reach, label=world, **style)
    axes.set_yticks(range(len(ticks)), ticks)
    axes.set(title=title, xlim=(0, 1), ylim=(len(ticks) - 0.5, -0.5))


def _rows(frame: pd.DataFrame, kind: str, names: tuple[str, ...]) -> pd.DataFrame:
    """The rows of ``frame`` for these names, in their order; nan where there is none."""
    return frame.set_index("set").reindex([f"{kind}: {name}" for name in names])


def _categories(mini: pd.DataFrame) -> tuple[str, ...]:
    """The categories that the mini world has."""
    return tuple(name for name in CATEGORIES if f"category: {name}" in set(mini["set"]))


def describe_beside(
    released: pd.DataFrame, mini: pd.DataFrame, released_agreement: pd.DataFrame, mini_agreement: pd.DataFrame
) -> str:
    """Share of good images and agreement of each set in both worlds."""
    shares = [frame.set_index("set")["mean"] for frame in (released, mini)]
    alphas = [frame.set_index("set")["alpha"] for frame in (released_agreement, mini_agreement)]
    good = ", ".join(f"{name} {shares[0][f'set: {name}']:.2f} and {shares[1][f'set: {name}']:.2f}" for name in SETS)
    alpha = ", ".join(f"{name} {alphas[0][name]:.2f} and {alphas[1][name]:.2f}" for name in SETS)
    return (
        "Released and mini beside each other, with intervals. Share of good images, released and mini: "
        f"{good}. Krippendorff's alpha: {alpha}."
    )


ITEMS = [
    Item(
        name="fig26_mini_samples",
        notebook="01_build_tia2",
        caption="Images of the mini world's generator with the votes of its three annotators (✓ good, ✗ bad, – skip); "
        "framed: good by the majority. Prompts at even distances in each set, of each the first images.",
        build=draw_samples,
        describe=describe_samples,
        needs="labels",
    ),
    Item(
        name="fig27_mini_beside_released",
        notebook="01_build_tia2",
        caption="TIA2 as released and in miniature: share of good images and agreement, with 95% bootstrap intervals "
        "over prompts (in brackets: prompts released, prompts built; no interval where they are too few for one).",
        build=draw_beside,
        describe=describe_beside,
        needs="tia2 labels",
    ),
    Item(
        name="fig28_mini_scenes",
        notebook="01_build_tia2",
        caption="Scenes of the mini world as the generator and the rewards learn from them, with their captions "
        '("a realistic photo of" left out).',
        build=draw_sheet,
        describe=describe_sheet,
    ),
    Item(
        name="fig29_mini_failures",
        notebook="01_build_tia2",
        caption="Where the mini world's generator fails: images that the majority of its annotators calls bad for the "
        'prompt below ("a realistic photo of" left out), a prompt each, the prompts at even distances.',
        build=draw_sheet,
        describe=describe_sheet,
        needs="labels",
    ),
]
