"""How rewards and ensembles of them are drawn: one colour and marker each, hollow if raw, filled under TextNorm."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from textnorm_lib.figures.style import COLOURS, MARKERS
from textnorm_lib.names import ALL_FOUR, FOUR, PAIR, ensemble_name

HOLLOW, HALF, PALE, FULL = "hollow", "half", "pale", "full"
METRICS = {"auroc": "AUROC", "ap": "AP"}
RAW_LINE = {"linestyle": "--", "linewidth": 0.8}

_STYLES = {
    **{name: (COLOURS[name], MARKERS[name]) for name in FOUR},
    PAIR: (COLOURS["textnorm"], MARKERS["textnorm"]),
    ALL_FOUR: ("black", "h"),
}
_OTHER = ("0.35", "o")


def marker_style(rewards: str, fill: str = FULL) -> dict:
    """Colour and marker of an ensemble, filled in one of four ways."""
    colour, marker = _STYLES.get(rewards, _OTHER)
    return {"color": colour, "marker": marker, **_filled(colour, fill)}


def _filled(colour: str | tuple, fill: str) -> dict:
    faces = {HOLLOW: "white", PALE: tuple(0.5 + 0.5 * part for part in to_rgb(colour))}
    half = {"fillstyle": "left", "markerfacecoloralt": "white"} if fill == HALF else {}
    return {"markerfacecolor": faces.get(fill, colour), "markeredgewidth": 0.8, **half}


def draw_dot(axes: Axes, row: pd.Series, place: float, *, style: Mapping) -> None:
    """A mean with its interval, lying; ``row``: mean, low, high."""
    axes.errorbar([row["mean"]], [place], xerr=reach_of(row), linestyle="none", elinewidth=0.8, **style)


def reach_of(row: pd.Series) -> np.ndarray:
    """How far the interval of one mean goes to either side, (2, 1): not below 0 where rounding puts a limit there."""
    return np.maximum([[row["mean"] - row["low"]], [row["high"] - row["mean"]]], 0)


def draw_dots(axes: Axes, frame: pd.DataFrame, *, by: str, groups: Sequence[str], fills: Mapping[str, str]) -> None:
    """A line of the panel for each of ``groups``; in it, from the top, a dot for each of ``fills`` that ``frame`` has.

    ``frame``: rewards, mean, low, high; ``by`` and the column "form" say which group and which of ``fills``.
    """
    rows = frame.set_index([by, "form"])
    for place, group in enumerate(groups):
        for index, (form, fill) in enumerate(fills.items()):
            if (group, form) in rows.index:
                row = rows.loc[(group, form)]
                rewards = group if by == "rewards" else row["rewards"]
                offset = (index - (len(fills) - 1) / 2) * 0.72 / len(fills)
                draw_dot(axes, row, place + offset, style={**marker_style(rewards, fill), "markersize": 3.5})
    label_lines(axes, groups)


def label_lines(axes: Axes, labels: Sequence[str]) -> None:
    """Names down the left of a panel, the first at the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def explain_fills(figure: Figure, fills: Mapping[str, str]) -> None:
    """A legend above the figure: what each filling means."""
    style = {"linestyle": "none", "color": "0.3", "marker": "o"}
    handles = [Line2D([], [], **style, **_filled("0.3", fill)) for fill in fills.values()]
    figure.legend(handles, list(fills), ncols=len(fills), frameon=False, loc="outside upper center")


def broken(rewards: str) -> str:
    """The name of an ensemble, broken where it is long."""
    return ensemble_name(rewards).replace(" + ", "\n+ ", 1)


def prompts_of(frame: pd.DataFrame) -> str:
    """71, or 66 to 71 where rows differ in their number of prompts."""
    low, high = np.min(frame["n_prompts"]), np.max(frame["n_prompts"])
    return f"{low}" if low == high else f"{low} to {high}"


def rows_of(frame: pd.DataFrame, metric: str, rewards: str) -> pd.DataFrame:
    """The rows of one metric and ensemble."""
    return frame[(frame["metric"] == metric) & (frame["rewards"] == rewards)]
