"""The ten heat maps of appendix 8.3: AUROC of each reward by pair of classes, and by class and count."""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from textnorm_lib.figures.style import new_figure
from textnorm_lib.items import Item
from textnorm_lib.names import REWARD_NAMES
from textnorm_lib.released import grid

CENTRE = 0.75  # appendix 8.3: a cell at .75 is uncoloured, blue is above, red below
REACH = 0.25  # from chance (.5) to perfect (1); below chance the colour stays at its deepest red, the number tells


def _colours() -> Colormap:
    return plt.get_cmap("RdBu").with_extremes(bad="0.88")


def draw_cells(axes: Axes, matrix: pd.DataFrame, *, size: float | None) -> AxesImage:
    """A matrix of AUROCs as cells coloured on the one scale of all heat maps; grey: nan. ``size``: of their numbers."""
    mesh = axes.imshow(np.ma.masked_invalid(matrix), cmap=_colours(), norm=CenteredNorm(CENTRE, REACH), aspect="auto")
    for (row, column), value in np.ndenumerate(matrix):
        if size and np.isfinite(value):
            text = "1.0" if value > 0.995 else f"{value:.2f}"[1:]
            dark = value < CENTRE - 0.7 * REACH or value > CENTRE + 0.7 * REACH
            axes.text(column, row, text, size=size, color="white" if dark else "black", ha="center", va="center")
    axes.set_xticks(range(matrix.shape[1]), matrix.columns, rotation=90 if matrix.shape[1] > 10 else 0)
    axes.set_yticks(range(matrix.shape[0]), matrix.index)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return mesh


def draw_scale(figure: Figure, mesh: AxesImage, axes: Axes | list[Axes]) -> None:
    """The bar of colours beside what it explains."""
    bar = figure.colorbar(mesh, ax=axes, extend="min", shrink=0.6, aspect=40, pad=0.01)
    bar.set_ticks([0.5, 0.75, 1.0], labels=[".50", ".75", "1.0"])
    bar.outline.set_visible(False)


def draw_grid(frame: pd.DataFrame, *, reward: str, width: float, height: float, size: float, axis: str) -> Figure:
    """A matrix of AUROCs with a number in each cell; grey where a prompt has one label only or does not exist."""
    matrix = grid(frame, reward)
    figure = new_figure(height, width)
    axes = figure.subplots()
    mesh = draw_cells(axes, matrix, size=size)
    if axis:
        axes.set_xlabel(axis)
    values = each_once(matrix)
    axes.set_title(f"{REWARD_NAMES[reward]}: AUROC, mean {values.mean():.3f} over {values.size} prompts")
    draw_scale(figure, mesh, axes)
    return figure


def describe_grid(frame: pd.DataFrame, *, reward: str) -> str:
    """The extremes and the mean in words."""
    matrix = grid(frame, reward)
    cells = matrix.stack()
    low, high = cells.idxmin(), cells.idxmax()
    values = each_once(matrix)
    return (
        f"Heat map of {REWARD_NAMES[reward]}'s AUROC for {values.size} prompts: mean {values.mean():.3f}, "
        f"{(values > CENTRE).mean():.0%} above .75 (blue), {(values < 0.5).sum()} of them below chance. "
        f"Lowest {cells.min():.2f} ({low[0]}, {low[1]}), highest {cells.max():.2f} ({high[0]}, {high[1]})."
    )


def each_once(matrix: pd.DataFrame) -> np.ndarray:
    """The cells' values, those of a symmetric matrix once."""
    values = matrix.to_numpy()
    if list(matrix.index) == list(matrix.columns):
        values = values[np.tril_indices(len(values), -1)]
    return values[np.isfinite(values)]


def _items() -> list[Item]:
    items = []
    shapes = (
        (11, "pairs", "the 300 pairs of classes", {"width": 5.5, "height": 5.5, "size": 4.6, "axis": ""}),
        (
            16,
            "counts",
            "25 classes and six counts",
            {"width": 3.4, "height": 5.2, "size": 6, "axis": "count"},
        ),
    )
    for first, slug, what, shape in shapes:
        for number, reward in enumerate(REWARD_NAMES, first):
            items.append(
                Item(
                    name=f"fig{number}_heatmap_{slug}_{reward}",
                    notebook="02_benchmark_rewards",
                    caption=f"AUROC of {REWARD_NAMES[reward]} for {what}, from the released scores. White is .75, blue "
                    "above, red below; grey: all 50 images have one label (or no such prompt).",
                    build=partial(draw_grid, reward=reward, **shape),
                    describe=partial(describe_grid, reward=reward),
                    needs="tia2",
                    paper_item="Appendix 8.3",
                )
            )
    return items


ITEMS = _items()
