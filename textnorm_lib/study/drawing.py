"""A figure as a file: one style, its final size, the same bytes for the same figure."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

TEXT_WIDTH = 5.5  # inches: the width of ICLR's text block

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


@contextmanager
def house_style() -> Iterator[None]:
    """The study's matplotlib settings, for the time of one figure only."""
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_RC}):
        yield


def new_figure(height: float, width: float = TEXT_WIDTH) -> Figure:
    """An empty figure of its final size in inches, outside pyplot: nothing to close, nothing shown twice."""
    return Figure(figsize=(width, height))


def new_panels(height: float, rows: int = 1, columns: int = 1, *, width: float = TEXT_WIDTH, **options) -> tuple:
    """An empty figure of its final size in inches, and its panels as ``Figure.subplots`` makes them."""
    figure = new_figure(height, width)
    return figure, figure.subplots(rows, columns, **options)


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
    """A small PNG of a figure, for a notebook that is kept under version control."""
    return shrink(render(figure, "png"))


def shrink(png: bytes) -> bytes:
    """Half the size, and 128 well-chosen colours."""
    image = Image.open(io.BytesIO(png)).convert("RGB").reduce(2)
    buffer = io.BytesIO()
    image.quantize(128, kmeans=2, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
