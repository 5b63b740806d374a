"""What the figures share: colours and markers of rewards, intervals, sheets of images."""

import io

import matplotlib
import matplotlib.image
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from textnorm_lib.stats.names import REWARD_NAMES, SET_ORDER
from textnorm_lib.study.drawing import TEXT_WIDTH, new_figure

_PALETTE = sns.color_palette("colorblind")

COLOURS = {name: _PALETTE[index] for name, index in zip(REWARD_NAMES, (7, 4, 1, 0, 2), strict=True)}
MARKERS = dict(zip(REWARD_NAMES, ("s", "v", "^", "D", "o"), strict=True))
SETS = SET_ORDER[:3]
SET_SHADES = dict(zip(SETS, ("black", "0.45", "0.7"), strict=True))  # colours belong to the rewards
SET_LINES = dict(zip(SETS, ("-", "--", "-"), strict=True))

MARKS = {1: "✓", 0: "✗", -1: "–"}  # votes
MARGIN = 0.03  # around an image on a sheet, as a share of its side


def errorbar(axes: Axes, places: np.ndarray, rows: pd.DataFrame, middle: str, *, lying: bool = False, **style) -> None:
    """Points at ``rows[middle]`` with their intervals from "low" to "high": upright, or ``lying`` along the x-axis."""
    reach = [rows[middle] - rows["low"], rows["high"] - rows[middle]]
    data = {"x": rows[middle], "y": places, "xerr": reach} if lying else {"x": places, "y": rows[middle], "yerr": reach}
    axes.errorbar(**data, **{"capsize": 2, "elinewidth": 0.8, **style})


# ---- sheets of images: the unit of the axes is an image's side


def new_sheet(width: float, height: float, *, room: float = 0.15) -> tuple[Figure, Axes]:
    """A figure as wide as the text, ``width`` by ``height`` images' sides, with ``room`` inches more in height."""
    figure = new_figure(TEXT_WIDTH / width * height + room)
    axes = figure.subplots()
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axes.set_axis_off()
    return figure, axes


def draw_image(axes: Axes, left: float, top: float, png: bytes, *, framed: bool = False) -> None:
    """A PNG file's bytes in the unit square whose corner is at ``left``, ``top``, with a little room around it."""
    near, far = MARGIN, 1 - MARGIN
    extent = (left + near, left + far, top + far, top + near)
    axes.imshow(matplotlib.image.imread(io.BytesIO(png)), extent=extent, interpolation="none")
    if framed:
        axes.add_patch(Rectangle((left + near, top + near), far - near, far - near, fill=False, linewidth=1.0))


def votes_as_marks(image: pd.Series) -> str:
    """✓ ✗ – for a row whose ``vote_1`` to ``vote_3`` are 1, 0 and -1."""
    return " ".join(MARKS[image[f"vote_{slot}"]] for slot in (1, 2, 3))
