"""What all figures and tables share: one style and final size, intervals, sheets of images, numbers in print, files."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import matplotlib
import matplotlib.image
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from textnorm_lib.names import REWARD_NAMES, SET_ORDER

TEXT_WIDTH = 5.5  # inches: the width of ICLR's text block
_PALETTE = sns.color_palette("colorblind")

COLOURS = {name: _PALETTE[index] for name, index in zip(REWARD_NAMES, (7, 4, 1, 0, 2), strict=True)}
MARKERS = dict(zip(REWARD_NAMES, ("s", "v", "^", "D", "o"), strict=True))
SETS = SET_ORDER[:3]
SET_SHADES = dict(zip(SETS, ("black", "0.45", "0.7"), strict=True))  # colours belong to the rewards
SET_LINES = dict(zip(SETS, ("-", "--", "-"), strict=True))

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.0,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
}

MARKS = {1: "✓", 0: "✗", -1: "–"}  # votes
MARGIN = 0.03  # around an image on a sheet, as a share of its side
NO_BREAK = "\u00a0"
STAR, MINUS = f"{NO_BREAK}*", f"{NO_BREAK}-"


@contextmanager
def house_style() -> Iterator[None]:
    """The study's matplotlib settings, for the time of one figure only."""
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_RC}):
        yield


def new_figure(height: float, width: float = TEXT_WIDTH) -> Figure:
    """An empty figure of its final size in inches, outside pyplot: nothing to close, nothing shown twice."""
    return Figure(figsize=(width, height))


def errorbar(axes: Axes, places: np.ndarray, rows: pd.DataFrame, middle: str, *, lying: bool = False, **style) -> None:
    """Points at ``rows[middle]`` with their intervals from "low" to "high": upright, or ``lying`` along the x-axis."""
    reach = [rows[middle] - rows["low"], rows["high"] - rows[middle]]
    data = {"x": rows[middle], "y": places, "xerr": reach} if lying else {"x": places, "y": rows[middle], "yerr": reach}
    axes.errorbar(**data, **{"capsize": 2, "elinewidth": 0.8, **style})


# ---- a figure as a file


def stamp(figure: Figure, profile: str) -> None:
    """Write the profile's name on the face of a figure."""
    figure.supxlabel(f"profile: {profile}", x=0.995, ha="right", fontsize=5.5, color="0.45")


def settle(figure: Figure) -> None:
    """Lay the figure out once and for all: constrained layout moves things a little with every drawing."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def render(figure: Figure, kind: str, dpi: int = 200) -> bytes:
    """The bytes of a ``pdf`` or ``png`` file, the same for the same figure: no date, no tool's version."""
    buffer = io.BytesIO()
    metadata = {"CreationDate": None, "Producer": None, "Creator": None} if kind == "pdf" else {"Software": None}
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    return buffer.getvalue()


def thumbnail(figure: Figure) -> bytes:
    """A PNG of 128 well-chosen colours, small enough for a notebook that is kept under version control."""
    image = Image.open(io.BytesIO(render(figure, "png", dpi=100))).convert("RGB")
    buffer = io.BytesIO()
    image.quantize(128, kmeans=2, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


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


# ---- numbers in print


def short(value: float, digits: int = 3) -> str:
    """.764 for 0.7641, -.02 for -0.0200: the habit of the field for numbers between -1 and 1."""
    if pd.isna(value):
        return "–"
    text = f"{round(value, digits) + 0.0:.{digits}f}"  # adding 0.0 turns -0.0 into 0.0
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def percent(value: float) -> str:
    """45.6% for 0.456."""
    return "–" if pd.isna(value) else f"{value:.1%}"


def interval(row: pd.Series, middle: str = "mean", digits: int = 3) -> str:
    """.764 [.750, .778], which a narrow column breaks before the bracket only."""
    return f"{short(row[middle], digits)} [{short(row['low'], digits)},{NO_BREAK}{short(row['high'], digits)}]"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


# ---- a table as a file


def describe(text: str) -> Callable[..., str]:
    """A table's alt text, which does not depend on its numbers."""
    return lambda *frames: text


def as_csv(frame: pd.DataFrame) -> bytes:
    """The tidy numbers behind a table, every digit."""
    return frame.to_csv(index=False, lineterminator="\n").encode()


def as_markdown(table: pd.DataFrame, caption: str, profile: str) -> bytes:
    """The printed table with its caption and profile."""
    cells = _without_markup(_one_line(table))
    return f"{cells.to_markdown(index=False, disable_numparse=True)}\n\n{caption} (Profile: {profile}.)\n".encode()


def as_tex(table: pd.DataFrame, caption: str, profile: str) -> bytes:
    """A booktabs table at footnote size, shrunk to the text's width where it is wider; needs booktabs and graphicx."""
    body = _one_line(table).to_latex(index=False, escape=True).rstrip()
    text = f"{caption} (Profile: {profile}.)".replace("%", r"\%").replace("_", r"\_").replace("&", r"\&")
    text = text.replace("<", r"$<$")
    fitted = f"\\resizebox{{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}}{{!}}{{%\n{body}}}"
    return f"\\begin{{table}}\n\\footnotesize\n\\caption{{{text}}}\n{fitted}\n\\end{{table}}\n".encode()


def _one_line(table: pd.DataFrame) -> pd.DataFrame:
    """Text without line breaks and control characters, which would end a row or steer a terminal."""
    return _of_text(table, lambda cell: re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", cell))


def _without_markup(table: pd.DataFrame) -> pd.DataFrame:
    """Text that begins no column, tag, picture or link of Markdown; "<.001" and "[.75, .78]" stay as they are."""
    replaced = ((r"<(?=[A-Za-z/!?])", "&lt;"), (r"\|", "&#124;"), (r"\]\(", r"]\\("))
    for pattern, harmless in replaced:
        table = _of_text(table, partial(re.sub, pattern, harmless))
    return table


def _of_text(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    return table.map(lambda cell: change(cell) if isinstance(cell, str) else cell)
