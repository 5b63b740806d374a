"""Figures of the mini world's rewards against its annotators (notebook 02)."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from textnorm_lib.figures.benchmark import (
    SET_LINES,
    SET_SHADES,
    SETS,
    at_both_ends,
    draw_counts,
    errorbar,
    label_counts,
)
from textnorm_lib.figures.heatmaps import draw_cells, draw_scale, each_once
from textnorm_lib.figures.style import COLOURS, MARKERS, new_figure
from textnorm_lib.items import Item
from textnorm_lib.names import REWARD_NAMES
from textnorm_lib.rankings import RATING
from textnorm_lib.released import grid
from textnorm_lib.tables.style import interval, short


def draw_by_rating(frame: pd.DataFrame) -> Figure:
    """``scores_by_rating``, a panel a reward: the middle half and nine tenths of the images in grey, and the mean."""
    figure = new_figure(3.9)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, reward in zip(panels.flat, _rewards(frame), strict=True):
        rows = frame[frame["reward"] == reward].sort_values("rating")
        axes.vlines(rows["rating"], rows["p5"], rows["p95"], color="0.7", linewidth=0.8, zorder=1)
        axes.vlines(rows["rating"], rows["p25"], rows["p75"], color="0.85", linewidth=10, zorder=1)
        style = {"color": COLOURS[reward], "marker": MARKERS[reward], "linestyle": "none"}
        errorbar(axes, rows["rating"], rows, "mean", **style)
        axes.axhline(0, color="0.6", linewidth=0.6, linestyle=":")
        ticks = [f"{_fraction(row.rating)}\n({row.n_images:,})" for row in rows.itertuples()]
        axes.set_xticks(rows["rating"], ticks, size=6.5)
        axes.set(title=REWARD_NAMES[reward], xlim=(-0.08, 1.08))
    figure.supylabel("score, in its prompt's standard deviations", size=8)
    for axes in panels[1]:
        axes.set_xlabel("rating (images)")
    return figure


def describe_by_rating(frame: pd.DataFrame) -> str:
    """Mean and middle half at the lowest and at the highest rating."""
    words = []
    for reward in _rewards(frame):
        ends = frame[frame["reward"] == reward].sort_values("rating").iloc[[0, -1]]
        low, high = (f"{row.mean:+.2f} ({row.p25:+.2f} to {row.p75:+.2f})" for row in ends.itertuples())
        words.append(f"{REWARD_NAMES[reward]} {low} and {high}")
    return (
        "Scores in their prompt's standard deviations by the image's rating. Mean and middle half of the images at the "
        f"lowest and at the highest rating: {'; '.join(words)}."
    )


def draw_reliability(curves: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """Share of good images against their probability: of all with intervals, of each set as a line; the ECE of all."""
    figure = new_figure(5.0)
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    ece = errors.query("set == 'all' and metric == 'ece'").set_index("reward")
    for axes, reward in zip(panels.flat, _rewards(curves), strict=True):
        axes.axline((0, 0), slope=1, color="0.6", linewidth=0.6, linestyle=":")
        rows = curves[curves["reward"] == reward].set_index("set")
        for name in SETS:
            style = {"color": SET_SHADES[name], "linestyle": SET_LINES[name], "linewidth": 0.7, "label": name}
            axes.plot("probability", "share_good", data=rows.loc[[name]], **style)
        style = {"color": COLOURS[reward], "marker": MARKERS[reward], "linestyle": "none"}
        errorbar(axes, rows.loc["all", "probability"], rows.loc["all"], "share_good", **style)
        one = ece.loc[reward]
        text = f"ECE {interval(one, middle='value')},\nby chance up to {short(one['reference'])}"
        axes.text(0.98, 0.02, text, size=6.5, ha="right", va="bottom", transform=axes.transAxes)
        axes.set(title=REWARD_NAMES[reward], xlim=(0, 1), ylim=(0, 1), aspect="equal")
    for axes in panels[1]:
        axes.set_xlabel("probability of a good image")
    for axes in panels[:, 0]:
        axes.set_ylabel("share of good images")
    sets = errors[errors["metric"] == "ece"].drop_duplicates("set").set_index("set")
    names = [f"{name} (n = {sets.loc[name, 'n_images']:,})" for name in SETS]
    figure.legend(panels[0, 0].lines[1 : 1 + len(SETS)], names, ncols=3, frameon=False, loc="outside upper center")
    return figure


def describe_reliability(curves: pd.DataFrame, errors: pd.DataFrame) -> str:
    """The range of each reward's probabilities, and its ECE."""
    ece = errors.query("set == 'all' and metric == 'ece'").set_index("reward")
    means = curves[curves["set"] == "all"].groupby("reward")["probability"]
    words = [
        f"{REWARD_NAMES[reward]} bins from {means.min()[reward]:.2f} to {means.max()[reward]:.2f}, ECE "
        f"{ece.loc[reward, 'value']:.3f} (by chance up to {ece.loc[reward, 'reference']:.3f})"
        for reward in _rewards(curves)
    ]
    return f"Share of good images against the probability that a reward gives them: {'; '.join(words)}."


def draw_agreement(summary: pd.DataFrame) -> Figure:
    """Spearman's rho within a prompt of each two, all sets together: a triangle of numbers with their intervals."""
    rows = summary[summary["set"] == "all"].set_index(["reward", "metric"])
    rewards = _rewards(summary)
    down, across = [*rewards[1:], RATING], rewards
    figure = new_figure(2.6)
    axes = figure.subplots()
    values = rows["mean"].unstack().T.reindex(index=down, columns=across)
    mesh = axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for (reward, other), row in rows.iterrows():
        low, high = short(row["low"], 2), short(row["high"], 2)
        text = f"{short(row['mean'], 2)}\n[{low}, {high}]"
        dark = abs(row["mean"]) > 0.65
        place = (across.index(reward), down.index(other))
        axes.text(*place, text, size=7, color="white" if dark else "black", ha="center", va="center")
    axes.set_xticks(range(len(across)), [REWARD_NAMES[name] for name in across])
    axes.set_yticks(range(len(down)), [REWARD_NAMES.get(name, name) for name in down])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"Spearman's rho within a prompt, mean over {rows['n_prompts'].max()} prompts")
    bar = figure.colorbar(mesh, ax=axes, shrink=0.8, aspect=30, pad=0.01, ticks=[-1, 0, 1])
    bar.outline.set_visible(False)
    return figure


def describe_agreement(summary: pd.DataFrame) -> str:
    """Every pair's mean."""
    rows = summary[summary["set"] == "all"]
    words = [
        f"{REWARD_NAMES[row.reward]} and {REWARD_NAMES.get(row.metric, row.metric)} {row.mean:.2f}"
        for row in rows.itertuples()
    ]
    return f"Spearman's rho within a prompt, mean over prompts: {'; '.join(words)}."


def draw_auroc_by_count(summary: pd.DataFrame) -> Figure:
    """AUROC of each reward by the count asked for."""
    rows = summary.query("metric == 'auroc' and set != 'all'")
    figure = new_figure(2.6)
    axes = figure.subplots()
    draw_counts(axes, rows, "mean", "AUROC", chance=0.5)
    label_counts([axes], rows)
    figure.legend(*axes.get_legend_handles_labels(), ncols=4, frameon=False, loc="outside upper center")
    return figure


def describe_auroc_by_count(summary: pd.DataFrame) -> str:
    """Each reward at one and at six."""
    return f"AUROC by the count asked for, mini rewards: {at_both_ends(summary)}."


def draw_grids(
    frame: pd.DataFrame, *, rows: int, height: float, size: float | None, labels: float, axis: str
) -> Figure:
    """The heat maps of all rewards side by side; a dash where all images of a prompt have one label."""
    rewards = _rewards(frame)
    figure = new_figure(height)
    panels = figure.subplots(rows, 4 // rows, sharex=True, sharey=True, squeeze=False)
    for axes, reward in zip(panels.flat, rewards, strict=True):
        matrix = grid(frame, reward)
        mesh = draw_cells(axes, matrix, size=size)
        asked = frame[(frame["reward"] == reward) & frame["auroc"].isna()]
        for row, column in zip(asked["row"], asked["column"], strict=True):
            place = (matrix.columns.get_loc(column), matrix.index.get_loc(row))
            axes.text(*place, "–", size=size or 4, ha="center", va="center")
        values = pd.Series(each_once(matrix))
        axes.set_title(f"{REWARD_NAMES[reward]}\n{short(values.mean())} (n = {len(values)})")
        axes.tick_params(labelsize=labels)
    for axes in panels[-1]:
        axes.set_xlabel(axis)
    draw_scale(figure, mesh, list(panels.flat))
    return figure


def describe_grids(frame: pd.DataFrame, *, what: str) -> str:
    """Mean and prompts below chance, reward by reward."""
    words = []
    for reward in _rewards(frame):
        values = pd.Series(each_once(grid(frame, reward)))
        words.append(
            f"{REWARD_NAMES[reward]} mean {short(values.mean())} over {len(values)} prompts, {(values < 0.5).sum()} of "
            "them below chance"
        )
    return f"Heat maps of AUROC by {what}: {'; '.join(words)}."


def _rewards(frame: pd.DataFrame) -> list[str]:
    """The rewards of a tidy frame, in print's order."""
    return [reward for reward in REWARD_NAMES if reward in set(frame["reward"])]


def _fraction(rating: float) -> str:
    """1/3 for 0.3333."""
    return str(Fraction(rating).limit_denominator(6))


def _item(name: str, caption: str, build: Callable, describe: Callable) -> Item:
    return Item(
        name=name,
        notebook="02b_benchmark_mini_rewards",
        caption=caption,
        build=build,
        describe=describe,
        needs="labels",
    )


ITEMS = [
    _item(
        "fig30_mini_scatter",
        "Mini rewards against the annotators' rating (number of images below it), on prompts with both labels. A score "
        "is counted from its prompt's mean in its prompt's standard deviations. Grey: the middle half and nine tenths "
        "of the images; coloured: mean over prompts with 95% bootstrap interval.",
        draw_by_rating,
        describe_by_rating,
    ),
    _item(
        "fig32_mini_reliability",
        "Mini rewards as probabilities of a good image, by one logistic map a reward fitted to other prompts: ten bins "
        "of equally many images, all sets together with 95% bootstrap intervals over prompts; lines: each set by the "
        "same map. ECE: expected calibration error of all, and how far chance alone takes it.",
        draw_reliability,
        describe_reliability,
    ),
    _item(
        "fig33_mini_reward_agreement",
        "Agreement of the mini rewards with each other and with the rating: Spearman's rho within a prompt, mean over "
        "the prompts with both labels and 95% bootstrap interval.",
        draw_agreement,
        describe_agreement,
    ),
    _item(
        "fig34_mini_auroc_by_count",
        "AUROC on the mini counting set by the count asked for (prompts with both labels); mean and 95% bootstrap "
        "interval over prompts, where there are enough for one.",
        draw_auroc_by_count,
        describe_auroc_by_count,
    ),
    _item(
        "fig35_mini_auroc_by_pair",
        "AUROC of the mini rewards by pair of classes; in the titles the mean and the number of prompts. Colours as in "
        "the released heat maps: white .75, blue above, red below; grey: not asked, or (–) all images have one label.",
        partial(draw_grids, rows=2, height=5.6, size=None, labels=4.5, axis=""),
        partial(describe_grids, what="pair of classes"),
    ),
    _item(
        "fig36_mini_auroc_by_class_and_count",
        "AUROC of the mini rewards by class and count; in the titles the mean and the number of prompts. Colours as in "
        "the released heat maps: white .75, blue above, red below; grey: not asked, or (–) all images have one label.",
        partial(draw_grids, rows=1, height=4.6, size=5, labels=6, axis="count"),
        partial(describe_grids, what="class and count"),
    ),
]
