"""Figures of notebook 03: TextNorm against its temperature, its penalty and the number of contrastive prompts."""

from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from textnorm_lib.figures.ensembles import (
    HOLLOW,
    METRICS,
    RAW_LINE,
    broken,
    marker_style,
    prompts_of,
    reach_of,
    rows_of,
)
from textnorm_lib.figures.style import new_figure
from textnorm_lib.items import Item
from textnorm_lib.names import ALL_FOUR, ENSEMBLES, FOUR, PAIR, ensemble_name


def draw_settings(
    frame: pd.DataFrame, raw: pd.DataFrame, *, by: str, lines: Sequence, height: float, label: str, scale: Callable
) -> Figure:
    """Each of ``lines`` (metric, ensembles) is a row of panels, an ensemble each, against the setting in column ``by``.

    ``scale`` arranges the axis of the setting and returns where on it the raw value stands.
    """
    figure = new_figure(height)
    share = "row" if len({metric for metric, _ in lines}) > 1 else "all"
    panels = figure.subplots(len(lines), len(lines[0][1]), sharex=True, sharey=share, squeeze=False)
    titled = set()
    for line, (metric, ensembles) in zip(panels, lines, strict=True):
        line[0].set_ylabel(METRICS[metric])
        for axes, rewards in zip(line, ensembles, strict=True):
            rows, one = (rows_of(some, metric, rewards) for some in (frame, raw))
            _draw_curve(axes, by, rows.sort_values(by), one.iloc[0], scale(axes))
            name = ensemble_name(rewards) if len(ensembles) < 4 else broken(rewards)
            axes.set_title("" if rewards in titled else name)
            titled.add(rewards)
    for axes in panels[-1]:
        axes.set_xlabel(label)
    _explain_curves(figure, prompts_of(frame))
    return figure


def _draw_curve(axes: Axes, by: str, rows: pd.DataFrame, raw: pd.Series, raw_at: float) -> None:
    """TextNorm's means with their band against column ``by``; the raw value with its interval, dashed across.

    ``rows`` and ``raw``: rewards (one only), mean, low, high; ``raw_at``: where on the axis the raw value stands.
    """
    style = marker_style(raw["rewards"])
    axes.fill_between(rows[by], rows["low"], rows["high"], color=style["color"], alpha=0.2, linewidth=0)
    axes.plot(rows[by], rows["mean"], markersize=3, **style)
    axes.axhline(raw["mean"], color=style["color"], **RAW_LINE)
    hollow = {**marker_style(raw["rewards"], HOLLOW), "markersize": 3.5, "elinewidth": 0.8, "linestyle": "none"}
    axes.errorbar([raw_at], [raw["mean"]], reach_of(raw), **hollow)


def _explain_curves(figure: Figure, prompts: str) -> None:
    """What ``_draw_curve`` draws, in grey, with the number of prompts."""
    line = Line2D([], [], color="0.3", marker="o", markersize=3)
    raw = Line2D([], [], color="0.3", marker="o", markersize=3.5, markerfacecolor="white", **RAW_LINE)
    words = [f"TextNorm (n = {prompts} prompts)", "raw"]
    figure.legend([line, raw], words, ncols=2, frameon=False, loc="outside upper center")


def scale_temperature(axes: Axes) -> float:
    """Logarithmic."""
    axes.set(xscale="log", xlim=(0.008, 14))
    return _ticks(axes, 0.015, [0.1, 1, 10])


def scale_penalty(axes: Axes) -> float:
    """Linear up to 0.1, then logarithmic."""
    axes.set_xscale("symlog", linthresh=0.1, linscale=0.6)
    axes.set_xlim(-0.17, 5.5)
    return _ticks(axes, -0.1, [0, 0.1, 0.5, 1, 2, 4])


def scale_size(axes: Axes) -> float:
    """Logarithmic to the base two."""
    axes.set_xscale("log", base=2)
    axes.set_xlim(0.36, 21)
    return _ticks(axes, 0.5, [1, 2, 4, 8, 16])


def _ticks(axes: Axes, raw: float, values: Sequence[float]) -> float:
    axes.set_xticks([raw, *values], ["raw", *(f"{value:g}" for value in values)], size=6.5)
    axes.set_xticks([], minor=True)
    return raw


def describe_settings(frame: pd.DataFrame, raw: pd.DataFrame, *, by: str, what: str, ensembles: Sequence[str]) -> str:
    """Each ensemble's range of AUROC, where its best is, and its raw AUROC."""
    words = []
    for rewards in ensembles:
        rows, one = (rows_of(some, "auroc", rewards) for some in (frame, raw))
        best = rows.loc[rows["mean"].idxmax()]
        words.append(
            f"{ensemble_name(rewards)} {rows['mean'].min():.3f} to {best['mean']:.3f} (best at {best[by]:g}), raw "
            f"{one['mean'].item():.3f}"
        )
    return f"TextNorm against {what}, beside the raw reward. AUROC: {'; '.join(words)}."


def _item(name: str, caption: str, drawing: dict, describe: Callable) -> Item:
    build = partial(draw_settings, **drawing)
    return Item(name, "03_textnorm_ablations", caption, build, describe, needs="labels")


_MEAN = "mean and 95% bootstrap interval over prompts"
_TEMPERATURE = {
    "by": "temperature",
    "lines": [(metric, (*FOUR, PAIR)) for metric in METRICS],
    "height": 3.6,
    "label": "temperature\n(reward's units)",
    "scale": scale_temperature,
}
_PENALTY = {
    "by": "penalty",
    "lines": [(metric, (PAIR, ALL_FOUR)) for metric in METRICS],
    "height": 3.4,
    "label": "penalty",
    "scale": scale_penalty,
}
_SIZE = {
    "by": "most",
    "lines": [("auroc", ENSEMBLES[:3]), ("auroc", ENSEMBLES[3:])],
    "height": 3.6,
    "label": "contrastive prompts",
    "scale": scale_size,
}

ITEMS = [
    _item(
        "fig37_temperature",
        "TextNorm against its temperature, counted in units of the reward: the standard deviation of its scores of one "
        f"prompt's images. AUROC and AP (mean of AP@5, 10 and 25), {_MEAN}; dashed: the raw reward.",
        _TEMPERATURE,
        partial(describe_settings, by="temperature", what="its temperature", ensembles=(*FOUR, PAIR)),
    ),
    _item(
        "fig38_penalty",
        "TextNorm of two ensembles against the penalty on their disagreement (equation 3; 0 is equation 2), each at "
        f"its best temperature. AUROC and AP (mean of AP@5, 10 and 25), {_MEAN}; dashed: the raw rewards' mean.",
        _PENALTY,
        partial(describe_settings, by="penalty", what="its penalty", ensembles=(PAIR, ALL_FOUR)),
    ),
    _item(
        "fig40_set_size",
        f"AUROC against the number of contrastive prompts; {_MEAN}, settings held out; dashed: the raw reward.",
        _SIZE,
        partial(describe_settings, by="most", what="the number of contrastive prompts", ensembles=ENSEMBLES),
    ),
]
