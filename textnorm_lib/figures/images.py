"""Sheets of images: axes whose unit is an image's side, an image in its place, and the votes on it as marks."""

import io

import matplotlib.image
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from textnorm_lib.figures.style import TEXT_WIDTH, new_figure

MARKS = {1: "✓", 0: "✗", -1: "–"}
MARGIN = 0.03  # around an image, of its side


def new_sheet(width: float, height: float, *, room: float = 0.15) -> tuple[Figure, Axes]:
    """A figure as wide as the text that holds so many images' sides, and ``room`` inches more in height."""
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
    """``vote_1`` to ``vote_3`` of a row."""
    return " ".join(MARKS[image[f"vote_{slot}"]] for slot in (1, 2, 3))
