"""The heat maps of appendix 8.3 for the mini world's rewards and for TextNorm, in the layout of the released ones."""

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from textnorm_lib.figures.benchmark import draw_cells, draw_scale, each_once
from textnorm_lib.figures.mini_benchmark import describe_grids
from textnorm_lib.figures.style import new_figure, short
from textnorm_lib.items import Item
from textnorm_lib.names import PAIR, REWARD_NAMES, UNDER_TEXTNORM
from textnorm_lib.released import grid

ONE_LABEL = "–"


def five_rewards(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the four rewards and of TextNorm of the pair, which is then called "textnorm"."""
    named = frame.assign(reward=frame["reward"].replace(f"{UNDER_TEXTNORM}{PAIR}", "textnorm"))
    return named[named["reward"].isin(REWARD_NAMES)]


def draw_counts(frame: pd.DataFrame) -> Figure:
    """Five matrices of classes against counts one to six, abreast."""
    frame = five_rewards(frame)
    rewards = [reward for reward in REWARD_NAMES if reward in set(frame["reward"])]
    figure = new_figure(4.9)
    panels = figure.subplots(1, len(rewards), sharex=True, sharey=True, squeeze=False)[0]
    for axes, reward in zip(panels, rewards, strict=True):
        mesh = _draw_panel(axes, frame, reward, grid(frame, reward).reindex(columns=range(1, 7)), size=4.6)
        axes.tick_params(labelsize=6)
        axes.set_xlabel("count")
    draw_scale(figure, mesh, list(panels))
    figure.legend(handles=_empty_cells(), ncols=2, frameon=False, loc="outside upper center")
    return figure


def draw_pairs(frame: pd.DataFrame) -> Figure:
    """Five matrices of classes against classes, two abreast; what colours and empty cells mean in the sixth place."""
    frame = five_rewards(frame)
    rewards = [reward for reward in REWARD_NAMES if reward in set(frame["reward"])]
    figure = new_figure(7.6)
    panels = figure.subplots(3, 2).ravel()
    for axes, reward in zip(panels, rewards, strict=False):
        mesh = _draw_panel(axes, frame, reward, grid(frame, reward), size=None)
        axes.tick_params(labelsize=4.8, pad=1)
    for axes in panels[len(rewards) :]:
        axes.set_axis_off()
    panels[-1].legend(handles=_empty_cells(), frameon=False, loc="center")
    draw_scale(figure, mesh, panels[-1])
    return figure


def _draw_panel(axes: Axes, frame: pd.DataFrame, reward: str, matrix: pd.DataFrame, *, size: float | None) -> AxesImage:
    """One reward's cells, a dash where all images of a prompt have one label, the mean and n in the title."""
    mesh = draw_cells(axes, matrix, size=size)
    asked = frame[(frame["reward"] == reward) & frame["auroc"].isna()]
    for row, column in zip(asked["row"], asked["column"], strict=True):
        place = matrix.columns.get_loc(column), matrix.index.get_loc(row)
        axes.text(*place, ONE_LABEL, size=size or 4, ha="center", va="center")
    axes.hlines(np.arange(len(matrix) - 1) + 0.5, -0.5, matrix.shape[1] - 0.5, color="white", linewidth=0.4)
    axes.vlines(np.arange(matrix.shape[1] - 1) + 0.5, -0.5, len(matrix) - 0.5, color="white", linewidth=0.4)
    values = pd.Series(each_once(matrix))
    axes.set_title(f"{REWARD_NAMES[reward]}\n{short(values.mean())} (n = {len(values)})")
    return mesh


def _empty_cells() -> list[Patch]:
    return [
        Patch(color="0.88", label="no such prompt judged in this profile"),
        Patch(fill=False, linewidth=0, label=f"{ONE_LABEL}  all images have one label"),
    ]


def _describe(frame: pd.DataFrame, *, what: str) -> str:
    return describe_grids(five_rewards(frame), what=what)


_SCALE = (
    "in the titles the mean and the number of prompts. TextNorm is that of ImageReward + PickScore. Colours as in the "
    "released heat maps: white .75, blue above, red below."
)
ITEMS = [
    Item(
        name="fig48_mini_heatmaps_counting",
        notebook="03_textnorm_ablations",
        caption=f"AUROC by class and count for the mini world, as in appendix 8.3; {_SCALE}",
        build=draw_counts,
        describe=partial(_describe, what="class and count"),
        needs="labels",
        paper_item="Appendix 8.3",
    ),
    Item(
        name="fig49_mini_heatmaps_composition",
        notebook="03_textnorm_ablations",
        caption=f"AUROC by pair of classes for the mini world, as in appendix 8.3; {_SCALE}",
        build=draw_pairs,
        describe=partial(_describe, what="pair of classes"),
        needs="labels",
        paper_item="Appendix 8.3",
    ),
]
