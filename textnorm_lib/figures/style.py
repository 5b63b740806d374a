"""What figures and tables share: colours, intervals, legends, heat maps, judges' verdicts, sheets of images, cells."""

import io
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import matplotlib
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from textnorm_lib.judging.verdicts import OUTCOMES
from textnorm_lib.prompts.templates import PREFIX
from textnorm_lib.stats.metrics import ALL_SETS
from textnorm_lib.stats.names import (
    ALL_FOUR,
    ENSEMBLES,
    FOUR,
    METRIC_NAMES,
    PAIR,
    REWARD_NAMES,
    SET_ORDER,
    choosers_of,
    ensemble_name,
)
from textnorm_lib.study.drawing import TEXT_WIDTH, new_panels
from textnorm_lib.study.printed import STAR, interval, percent, short
from textnorm_lib.tia2.released import grid

_PALETTE = sns.color_palette("colorblind")

COLOURS = {name: _PALETTE[index] for name, index in zip(REWARD_NAMES, (7, 4, 1, 0, 2), strict=True)}
MARKERS = dict(zip(REWARD_NAMES, ("s", "v", "^", "D", "o"), strict=True))
SETS = SET_ORDER[:3]
SET_LOOKS = {  # shades of grey: colours belong to the rewards
    name: {"color": shade, "linestyle": line}
    for name, shade, line in zip(SETS, ("black", "0.45", "0.7"), ("-", "--", "-"), strict=True)
}
DOTTED = {"color": "0.6", "linewidth": 0.6, "linestyle": ":"}  # a line for reference: no gain, chance, the start, ...
ABOVE = {"frameon": False, "loc": "outside upper center"}  # where a figure's legend stands


def errorbar(
    axes: Axes, places: ArrayLike, rows: pd.DataFrame | pd.Series, middle: str = "mean", *, lying: bool = False, **style
) -> None:
    """Points at ``rows[middle]`` with their intervals from "low" to "high": upright, or ``lying`` along the x-axis.

    ``rows``: a frame, or a single row and its place.
    """
    reach = np.maximum([rows[middle] - rows["low"], rows["high"] - rows[middle]], 0)  # rounding may put a limit inside
    data = {"x": places, "y": rows[middle], "yerr": reach.reshape(2, -1)}
    if lying:
        data = {"x": rows[middle], "y": places, "xerr": data["yerr"]}
    axes.errorbar(**data, **{"capsize": 2, "elinewidth": 0.8, **style})


def bare(axes: Axes) -> None:
    """Take away the frame and the ticks' lines of a panel; the labels stay."""
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def look_of(reward: str, **more) -> dict:
    """Colour and marker of a reward; and ``more``."""
    return {"color": COLOURS[reward], "marker": MARKERS[reward], **more}


def sentence(frame: str) -> Callable:
    """A decorator for alt texts: what a function yields stands in ``frame`` for {}, with semicolons between.

    {name} stands for the function's option of that name.
    """

    def decorate(tell: Callable[..., Iterator[str]]) -> Callable[..., str]:
        return lambda *data, **options: frame.format("; ".join(tell(*data, **options)), **options)

    return decorate


def rewards_of(frame: pd.DataFrame, column: str = "reward") -> list[str]:
    """The rewards that a column of a tidy frame names, in print's order."""
    return choosers_of(frame[column], REWARD_NAMES)


# ---- ensembles: a colour and a marker each, hollow for the raw score, filled under TextNorm

HOLLOW, HALF, PALE, FULL = "hollow", "half", "pale", "full"
RAW_LINE = {"linestyle": "--", "linewidth": 0.8}
_ENSEMBLE_LOOKS = {
    **{name: (COLOURS[name], MARKERS[name]) for name in FOUR},
    PAIR: (COLOURS["textnorm"], MARKERS["textnorm"]),
    ALL_FOUR: ("black", "h"),
}


def look_of_ensemble(rewards: str, fill: str = FULL, **more) -> dict:
    """Colour and marker of an ensemble, filled in one of four ways; and ``more``."""
    colour, marker = _ENSEMBLE_LOOKS.get(rewards, ("0.35", "o"))
    return {"color": colour, "marker": marker, **_filled(colour, fill), **more}


def _filled(colour: str | tuple, fill: str) -> dict:
    faces = {HOLLOW: "white", PALE: tuple(0.5 + 0.5 * part for part in to_rgb(colour))}
    half = {"fillstyle": "left", "markerfacecoloralt": "white"} if fill == HALF else {}
    return {"markerfacecolor": faces.get(fill, colour), "markeredgewidth": 0.8, **half}


def draw_dot(axes: Axes, row: pd.Series, place: float, **look) -> None:
    """A mean with its interval, lying; ``row``: mean, low, high."""
    errorbar(axes, place, row, lying=True, linestyle="none", capsize=0, **look)


def label_lines(axes: Axes, labels: Sequence[str]) -> None:
    """Names down the left of a panel, the first at the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def explain_fills(figure: Figure, fills: Mapping[str, str]) -> None:
    """A legend above the figure: what each filling means."""
    look = {"linestyle": "none", "color": "0.3", "marker": "o"}
    handles = [Line2D([], [], **look, **_filled("0.3", fill)) for fill in fills.values()]
    figure.legend(handles, list(fills), ncols=len(fills), **ABOVE)


def prompts_of(frame: pd.DataFrame) -> str:
    """71, or 66 to 71 where rows differ in their number of prompts."""
    low, high = np.min(frame["n_prompts"]), np.max(frame["n_prompts"])
    return f"{low}" if low == high else f"{low} to {high}"


def rows_of(frame: pd.DataFrame, metric: str, rewards: str) -> pd.DataFrame:
    """The rows of one metric and ensemble."""
    return frame[(frame["metric"] == metric) & (frame["rewards"] == rewards)]


def means_in_words(
    frame: pd.DataFrame, form: str, *, metric: str = "auroc", sign: str = "", ensembles: Sequence[str] = ENSEMBLES
) -> str:
    """Each ensemble's means, in the order of ``frame``: CLIP none 0.701, rules 0.744; BLIP-2 none ..."""
    words = []
    for rewards in ensembles:
        rows = rows_of(frame, metric, rewards)
        means = ", ".join(f"{name} {mean:{sign}.3f}" for name, mean in zip(rows[form], rows["mean"], strict=True))
        words.append(f"{ensemble_name(rewards)} {means}")
    return "; ".join(words)


# ---- heat maps of AUROC

CENTRE = 0.75  # appendix 8.3: a cell at .75 is uncoloured, blue is above, red below
REACH = 0.25  # from chance (.5) to perfect (1); below chance the colour stays at its deepest red, the number tells
ONE_LABEL = "–"  # in a cell without an AUROC, since all images of the prompt have one label


def draw_cells(axes: Axes, matrix: pd.DataFrame, *, size: float | None) -> AxesImage:
    """A matrix of AUROCs as cells coloured on the one scale of all heat maps; grey: nan. ``size``: of their numbers."""
    colours = plt.get_cmap("RdBu").with_extremes(bad="0.88")
    mesh = axes.imshow(np.ma.masked_invalid(matrix), cmap=colours, norm=CenteredNorm(CENTRE, REACH), aspect="auto")
    for (row, column), value in np.ndenumerate(matrix):
        if size and np.isfinite(value):
            text = "1.0" if value > 0.995 else f"{value:.2f}"[1:]
            dark = value < CENTRE - 0.7 * REACH or value > CENTRE + 0.7 * REACH
            axes.text(column, row, text, size=size, color="white" if dark else "black", ha="center", va="center")
    axes.set_xticks(range(matrix.shape[1]), matrix.columns, rotation=90 if matrix.shape[1] > 10 else 0)
    axes.set_yticks(range(matrix.shape[0]), matrix.index)
    bare(axes)
    return mesh


def draw_matrix(axes: Axes, frame: pd.DataFrame, reward: str, matrix: pd.DataFrame, *, size: float | None) -> AxesImage:
    """``draw_cells`` of a reward's ``matrix``, with ``ONE_LABEL`` where ``frame`` says so; in the title mean and n."""
    mesh = draw_cells(axes, matrix, size=size)
    asked = frame[(frame["reward"] == reward) & frame["auroc"].isna()]
    for row, column in zip(asked["row"], asked["column"], strict=True):
        place = matrix.columns.get_loc(column), matrix.index.get_loc(row)
        axes.text(*place, ONE_LABEL, size=size or 4, ha="center", va="center")
    values = pd.Series(each_once(matrix))
    axes.set_title(f"{REWARD_NAMES[reward]}\n{short(values.mean())} (n = {len(values)})")
    return mesh


def draw_scale(figure: Figure, mesh: AxesImage, axes: Axes | list[Axes]) -> None:
    """The bar of colours beside what it explains."""
    bar = figure.colorbar(mesh, ax=axes, extend="min", shrink=0.6, aspect=40, pad=0.01)
    bar.set_ticks([0.5, 0.75, 1.0], labels=[".50", ".75", "1.0"])
    bar.outline.set_visible(False)


def each_once(matrix: pd.DataFrame) -> np.ndarray:
    """The cells' values, those of a symmetric matrix once."""
    values = matrix.to_numpy()
    if list(matrix.index) == list(matrix.columns):
        values = values[np.tril_indices(len(values), -1)]
    return values[np.isfinite(values)]


@sentence("Heat maps of AUROC by {what}: {}.")
def describe_grids(frame: pd.DataFrame, *, what: str) -> Iterator[str]:
    """Mean and prompts below chance, reward by reward."""
    for reward in rewards_of(frame):
        values = pd.Series(each_once(grid(frame, reward)))
        yield (
            f"{REWARD_NAMES[reward]} mean {short(values.mean())} over {len(values)} prompts, {(values < 0.5).sum()} of "
            "them below chance"
        )


# ---- judges' verdicts

QUESTIONS = ("alignment", "quality")
TIE = "0.88"
COUNTED = "prompts won / tied / lost"


def draw_bar(axes: Axes, place: float, shares: pd.DataFrame, winner: Sequence, loser: Sequence) -> None:
    """Wins from the left, losses from the right, each with its colour and interval; ties between.

    ``shares``: share, low and high of the outcomes win and loss.
    """
    win, loss = (shares.loc[outcome, ["share", "low", "high"]].astype(float) for outcome in ("win", "loss"))
    axes.barh(place, 1, 0.75, color=TIE)
    axes.barh(place, win["share"], 0.75, color=winner)
    axes.barh(place, -loss["share"], 0.75, 1, color=loser, alpha=0.75)
    from_right = (1 - loss).rename({"low": "high", "high": "low"})
    for one, shift in ((win, -0.15), (from_right, 0.15)):
        if np.isfinite(one["low"]):
            errorbar(axes, place + shift, one, "share", lying=True, color="black", capsize=1.5)


def frame_bars(axes: Axes, places: Sequence[float], labels: Sequence[str]) -> None:
    """Shares from 0 to 1, a bar at each of ``places`` with its label at the left, the first at the top; no frame."""
    axes.set(xlim=(0, 1), ylim=(places[-1] + 0.5, -0.5))
    axes.set_yticks(places, labels)
    bare(axes)


def compared(rows: pd.DataFrame) -> str:
    """What the bars are shares of: share of 12 comparisons (6 prompts)."""
    return f"share of {rows['n_comparisons'].max()} comparisons ({rows['n_prompts'].max()} prompts)"


def wins_and_losses(share: pd.Series) -> str:
    """``share`` by question and outcome, in words: alignment 45.0% and 30.0%, quality 20.0% and 40.0%."""
    told = [f"{one} {percent(share[one, 'win'])} and {percent(share[one, 'loss'])}" for one in QUESTIONS]
    return ", ".join(told)


def verdicts_as_printed(outcomes: pd.DataFrame, tests: pd.DataFrame, keys: list[tuple], by: list[str]) -> pd.DataFrame:
    """A row for each of ``keys``, which are values of ``by``, from the rows of all sets together.

    ``outcomes`` and ``tests`` as from ``outcomes_by_size`` and ``sign_tests_by_size``. Columns: ``by``, each outcome's
    share, the prompts won, tied and lost, p_sign, p_holm (a star: below .05), power.
    """
    shares = with_cells(outcomes[outcomes["set"] == ALL_SETS], "share", digits=2)
    printed = shares.pivot(index=by, columns="outcome", values="cell")[list(OUTCOMES)]
    tests = tests[tests["set"] == ALL_SETS].set_index(by)
    printed["won"] = tests[["prompts_won", "prompts_tied", "prompts_lost"]].astype(str).agg(" / ".join, axis=1)
    printed["p_sign"], p_holm = tests["p_sign"].map(short), tests["p_holm"].map(short)
    printed["p_holm"] = p_holm.mask(tests["p_holm"] < 0.05, p_holm + STAR)
    printed["power"] = tests["power"].map(partial(short, digits=2))
    return printed.loc[keys].reset_index()


# ---- sheets of images: the unit of the axes is an image's side

MARKS = {1: "✓", 0: "✗", -1: "–"}  # votes
MARGIN = 0.03  # around an image on a sheet, as a share of its side


def new_sheet(width: float, height: float, *, room: float = 0.15) -> tuple[Figure, Axes]:
    """A figure as wide as the text, ``width`` by ``height`` images' sides, with ``room`` inches more in height."""
    figure, axes = new_panels(TEXT_WIDTH / width * height + room)
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


def draw_told(axes: Axes, left: float, top: float, one: pd.Series, *lines: str) -> None:
    """A row's image with ``lines`` and its prompt below."""
    draw_image(axes, left, top, one["png"])
    text = "\n".join([*lines, textwrap.fill(one["prompt"].removeprefix(PREFIX), 18)])
    axes.text(left + 0.03, top + 1.0, text, size=5.5, va="top", linespacing=1.1)


def votes_as_marks(image: pd.Series) -> str:
    """✓ ✗ – for a row whose ``vote_1`` to ``vote_3`` are 1, 0 and -1."""
    return " ".join(MARKS[image[f"vote_{slot}"]] for slot in (1, 2, 3))


# ---- tables


def with_cells(frame: pd.DataFrame, middle: str = "mean", digits: int = 3) -> pd.DataFrame:
    """``frame`` with a column cell: its means with their intervals, in print."""
    return frame.assign(cell=frame.apply(interval, axis=1, middle=middle, digits=digits))


def starred(row: pd.Series) -> str:
    """A difference with its interval; a star: p < .05 after Holm's adjustment."""
    return interval(row, "difference") + (STAR if row["p_holm"] < 0.05 else "")


def with_prompts(frame: pd.DataFrame, column: str = "set") -> dict[str, str]:
    """Each value of a column with its number of prompts: counting (149)."""
    return {name: f"{name} ({prompts})" for name, prompts in frame.groupby(column)["n_prompts"].max().items()}


def by_metric(cells: pd.DataFrame, keys: list[str], order: Iterable[tuple]) -> pd.DataFrame:
    """A row for each of ``order`` that there is, which are values of ``keys``; a column for each metric's cell."""
    wide = cells.pivot(index=keys, columns="metric", values="cell")[list(METRIC_NAMES)]
    wide = wide.loc[[key for key in order if key in wide.index]]
    return wide.rename(columns=METRIC_NAMES).rename_axis(columns=None).reset_index()


def by_set(cells: pd.DataFrame, key: str, names: Mapping[str, str]) -> pd.DataFrame:
    """A row for each value of ``key``, in the frame's order; a column for each set's cell, headed by its name."""
    wide = cells.pivot(index=key, columns="set", values="cell").reindex(index=cells[key].unique())
    sets = [name for name in SET_ORDER if name in wide]
    return wide[sets].rename(columns=names).rename_axis(columns=None).reset_index()
