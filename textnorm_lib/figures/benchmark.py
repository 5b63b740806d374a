"""Figures of the released data: what TIA2 holds (notebook 01) and how the rewards fare against people (notebook 02)."""

import warnings

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from textnorm_lib.figures.style import COLOURS, MARKERS, new_figure
from textnorm_lib.items import Item
from textnorm_lib.names import HINDSIGHT, METRIC_NAMES, REWARD_NAMES, SET_ORDER

SETS = SET_ORDER[:3]
SET_SHADES = {"comprehensive": "black", "counting": "0.45", "composition": "0.7"}  # colours belong to the rewards
SET_LINES = {"comprehensive": "-", "counting": "--", "composition": "-"}


def errorbar(axes: Axes, x: np.ndarray, rows: pd.DataFrame, middle: str, **style) -> None:
    """Points with their intervals."""
    reach = [rows[middle] - rows["low"], rows["high"] - rows[middle]]
    axes.errorbar(x, rows[middle], reach, capsize=2, elinewidth=0.8, **style)


def draw_share_good(share: pd.DataFrame, by_count: pd.DataFrame) -> Figure:
    """Left: how the share of good images is spread over prompts; right: its mean by the count asked for."""
    figure = new_figure(2.3)
    left, right = figure.subplots(1, 2)
    for name in SETS:
        values = share.loc[share["set"] == name, "value"]
        curve = stats.ecdf(values).cdf
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # at the last step, where the band has no width
            band = curve.confidence_interval(0.95)
        x = curve.quantiles
        left.fill_between(
            x, band.low.evaluate(x), band.high.evaluate(x), step="post", color=SET_SHADES[name], alpha=0.15, linewidth=0
        )
        style = {"color": SET_SHADES[name], "linestyle": SET_LINES[name]}
        left.step(x, curve.probabilities, where="post", label=f"{name} (n = {len(values)})", **style)
    left.set(xlabel="share of good images", ylabel="cumulative share of prompts", xlim=(0, 1), ylim=(0, 1))
    figure.legend(*left.get_legend_handles_labels(), ncols=3, frameon=False, loc="outside upper left")
    rows = by_count[by_count["set"] != "all"]
    errorbar(right, rows["set"].astype(int), rows, "mean", color="black", marker="o")
    right.set(xlabel="count asked for (25 prompts each)", ylabel="share of good images", ylim=(0, 1))
    return figure


def describe_share_good(share: pd.DataFrame, by_count: pd.DataFrame) -> str:
    """The medians and the two ends of the right panel."""
    medians = share.groupby("set")["value"].median()
    counts = by_count.set_index("set")["mean"]
    return (
        "Left: cumulative share of prompts by share of good images; medians "
        + ", ".join(f"{medians[name]:.2f} ({name})" for name in SETS)
        + f". Right: its mean by the count asked for, from {counts['1']:.2f} for one to {counts['6']:.2f} for six."
    )


def draw_vote_slots(slots: pd.DataFrame) -> Figure:
    """Share of good votes of each slot and of the majority label, per set."""
    figure = new_figure(2.2)
    axes = figure.subplots()
    kinds = list(slots["reward"].unique())
    for index, kind in enumerate(kinds):
        rows = slots[slots["reward"] == kind].set_index("set").loc[list(SETS)]
        style = {"color": "black", "marker": "*", "markersize": 8}
        if kind != "majority":
            style = {"color": "0.5", "marker": "o^s"[index]}
        errorbar(axes, np.arange(3) + (index - 1.5) * 0.2, rows, "mean", label=kind, linestyle="none", **style)
    axes.set_xticks(range(3), SETS)
    axes.set(ylabel="share of good votes", ylim=(0, 1))
    axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.18))
    return figure


def describe_vote_slots(slots: pd.DataFrame) -> str:
    """The widest and the narrowest spread between slots."""
    wide = slots[slots["reward"] != "majority"].pivot(index="set", columns="reward", values="mean").loc[list(SETS)]
    spread = ", ".join(f"{name} {row.min():.2f} to {row.max():.2f}" for name, row in wide.iterrows())
    return (
        f"Share of good votes by vote slot, the majority's as a star. From the strictest slot to the mildest: {spread}."
    )


def draw_by_count(summary: pd.DataFrame, differences: pd.DataFrame) -> Figure:
    """Left: AUROC of each reward by the count asked for; right: TextNorm minus each other reward."""
    figure = new_figure(2.6)
    left, right = figure.subplots(1, 2)
    rows = summary.query("metric == 'auroc' and set != 'all'")
    draw_counts(left, rows, "mean", "AUROC", chance=0.5)
    others = differences[differences["set"] != "all"]
    draw_counts(right, others, "difference", "AUROC, TextNorm minus the other", chance=0.0)
    label_counts([left, right], rows)
    figure.legend(*left.get_legend_handles_labels(), ncols=5, frameon=False, loc="outside upper center")
    return figure


def draw_counts(axes: Axes, rows: pd.DataFrame, middle: str, title: str, *, chance: float) -> None:
    """The rewards that ``rows`` has, by the count asked for (its column set)."""
    for index, (reward, name) in enumerate(REWARD_NAMES.items()):
        mine = rows[rows["reward"] == reward]
        if len(mine):
            style = {"color": COLOURS[reward], "marker": MARKERS[reward], "label": name}
            errorbar(axes, mine["set"].astype(int) + (index - 2) * 0.08, mine, middle, **style)
    axes.axhline(chance, color="0.6", linewidth=0.6, linestyle=":")
    axes.set_title(title)


def label_counts(panels: list[Axes], rows: pd.DataFrame) -> None:
    """The six counts below each panel, with the prompts that ``rows`` has of each."""
    prompts = rows.groupby("set")["n_prompts"].max()
    for axes in panels:
        axes.set_xticks(range(1, 7), [f"{count}\n({prompts[str(count)]})" for count in range(1, 7)])
        axes.set_xlabel("count asked for (prompts)")


def describe_by_count(summary: pd.DataFrame, differences: pd.DataFrame) -> str:
    """Each reward at one and at six."""
    return f"AUROC by the count asked for, released scores: {at_both_ends(summary)}."


def at_both_ends(summary: pd.DataFrame) -> str:
    """The AUROC of each reward at one object and at six, in words."""
    auroc = summary.query("metric == 'auroc'").set_index(["reward", "set"])["mean"]
    auroc = auroc.map(lambda value: f"{value:.2f}" if np.isfinite(value) else "undefined")
    return "; ".join(
        f"{name} {auroc[reward, '1']} at one object and {auroc[reward, '6']} at six"
        for reward, name in REWARD_NAMES.items()
        if reward in auroc
    )


def draw_tuning(shares: pd.DataFrame) -> Figure:
    """Which values of the grid the released TextNorm uses, per set."""
    figure = new_figure(2.0)
    for axes, parameter, names in zip(figure.subplots(1, 2), ("scale", "penalty"), (SETS, SETS[:2]), strict=True):
        rows = shares[shares["parameter"] == parameter]
        values = sorted(rows["value"].unique())
        width = 0.8 / len(names)
        for index, name in enumerate(names):
            mine = rows[rows["set"] == name].set_index("value").loc[values]
            places = np.arange(len(values)) + (index - (len(names) - 1) / 2) * width
            label = f"{name} (n = {mine['prompts'].sum()})"
            axes.bar(places, mine["share"], width, color=SET_SHADES[name], label=label)
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axes.set(xlabel=f"released {parameter}", ylabel="share of prompts", ylim=(0, 1))
        if parameter == "scale":
            axes.legend(frameon=False)
    return figure


def describe_tuning(shares: pd.DataFrame) -> str:
    """The most frequent value of each parameter and set."""
    top = shares.loc[shares.groupby(["parameter", "set"], sort=False)["share"].idxmax()]
    words = ", ".join(f"{row.parameter} of {row.set} {row.value:g} ({row.share:.0%})" for row in top.itertuples())
    return f"Bars of the released settings by prompt. Most frequent: {words}."


def draw_hindsight(comparison: pd.DataFrame) -> Figure:
    """TextNorm minus the best of two and of four untouched rewards in hindsight, all prompts of each set."""
    figure = new_figure(2.7)
    panels = figure.subplots(1, 4, sharey=True, sharex=True)
    metrics = list(METRIC_NAMES)
    for axes, name in zip(panels, SET_ORDER, strict=True):
        for index, (reward, label) in enumerate(HINDSIGHT.items()):
            chosen = (comparison["set"] == name) & (comparison["reward"] == reward)
            rows = comparison[chosen].set_index("metric").loc[metrics]
            reach = [rows["difference"] - rows["low"], rows["high"] - rows["difference"]]
            places = np.arange(len(metrics)) + (index - 0.5) * 0.28
            style = {"color": ("black", "#b2182b")[index], "marker": "os"[index], "label": label}
            axes.errorbar(
                rows["difference"],
                places,
                xerr=reach,
                linestyle="none",
                markersize=2.5,
                capsize=1.5,
                elinewidth=0.8,
                **style,
            )
        axes.axvline(0, color="0.6", linewidth=0.6, linestyle=":")
        prompts = rows[["wins", "ties", "losses"]].sum(axis=1).max()
        axes.set(title=f"{name}\n({prompts} prompts)", xlabel="difference")
        axes.set_yticks(range(len(metrics)), METRIC_NAMES.values())
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    names = [f"TextNorm minus {label}" for label in labels]
    figure.legend(handles, names, ncols=2, frameon=False, loc="outside upper center")
    return figure


def describe_hindsight(comparison: pd.DataFrame) -> str:
    """AUROC and AP@5 over all prompts."""
    rows = comparison.query("set == 'all'").set_index(["reward", "metric"])["difference"]
    words = [
        f"{label}: AUROC {rows[reward, 'auroc']:+.3f}, AP@5 {rows[reward, 'ap5']:+.3f}"
        for reward, label in HINDSIGHT.items()
    ]
    return "Released TextNorm minus a choice in hindsight over all prompts; " + "; ".join(words) + "."


ITEMS = [
    Item(
        name="fig21_share_good",
        notebook="01_build_tia2",
        caption="Left: prompts by their share of good images, with 95% bands. Right: the counting set by the "
        "count asked for, mean and 95% bootstrap interval over 25 prompts.",
        build=draw_share_good,
        describe=describe_share_good,
        needs="tia2",
    ),
    Item(
        name="fig22_vote_slots",
        notebook="01_build_tia2",
        caption="Share of good votes by vote slot and by the majority label, mean and 95% bootstrap interval over "
        "prompts.",
        build=draw_vote_slots,
        describe=describe_vote_slots,
        needs="tia2",
    ),
    Item(
        name="fig23_auroc_by_count",
        notebook="02_benchmark_rewards",
        caption="AUROC on the counting set by the count asked for (prompts with both labels), released scores; mean "
        "and 95% bootstrap interval over prompts, paired on the right.",
        build=draw_by_count,
        describe=describe_by_count,
        needs="tia2",
    ),
    Item(
        name="fig24_released_tuning",
        notebook="02_benchmark_rewards",
        caption="The scale and the penalty behind the released TextNorm scores, prompt by prompt.",
        build=draw_tuning,
        describe=describe_tuning,
        needs="tia2",
    ),
    Item(
        name="fig25_hindsight",
        notebook="02_benchmark_rewards",
        caption="Released TextNorm minus a choice between untouched rewards that peeks at the same labels (prompts in "
        "brackets); 95% paired bootstrap interval over prompts.",
        build=draw_hindsight,
        describe=describe_hindsight,
        needs="tia2",
    ),
]
