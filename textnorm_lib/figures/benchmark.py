"""Notebook 02 in print: the released scores of five rewards against people."""

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from textnorm_lib.figures import style
from textnorm_lib.stats.names import HINDSIGHT, METRIC_NAMES, REWARD_NAMES, SET_ORDER
from textnorm_lib.study.drawing import new_panels
from textnorm_lib.study.items import of_notebook
from textnorm_lib.study.printed import MINUS, STAR, interval, short
from textnorm_lib.tia2.released import grid

figure, table = of_notebook("02_benchmark_rewards", needs="tia2")

_PAPERS_ROWS = (  # of table 1: contrastive prompts, ensemble, our name if it is in the release, AUROC, AUPRC
    ("none", "no", "pickscore", ".764", ".669"),
    ("random prompts", "no", None, ".641", ".540"),
    ("LLM prompts", "no", None, ".780", ".704"),
    ("LLM prompts", "ensemble", "textnorm", ".822", ".752"),
)


# ---- metrics


@table(
    "tab04_metric_comparison",
    "Rewards against people, from the released per-prompt metrics: mean over the prompts (their number in brackets) "
    "and 95% bootstrap interval over prompts. A star: released TextNorm is better on the same prompts (Wilcoxon, Holm "
    "within the set, .05); a minus: it is worse. TextNorm's settings differ from prompt to prompt.",
    paper_item="Main metric table (section 4.3)",
)
def metric_table(summary: pd.DataFrame, comparison: pd.DataFrame | None = None) -> pd.DataFrame:
    """Five rewards on three sets and all prompts by seven metrics, each with its interval.

    Without ``comparison`` nothing is marked.
    """
    cells = style.with_cells(summary, digits=2)
    if comparison is not None:
        tested = cells.merge(comparison, on=["set", "reward", "metric"], how="left", suffixes=("", "_of_test"))
        marks = np.where(tested["difference"] > 0, STAR, MINUS)
        cells["cell"] += np.where(tested["p_holm"] < 0.05, marks, "")
    table = style.by_metric(cells, ["set", "reward"], product(SET_ORDER, REWARD_NAMES))
    return table.replace({"set": style.with_prompts(summary), "reward": REWARD_NAMES})


def _differences(comparison: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """TextNorm minus each of the named others on the same prompts, per set and metric; a star: p < .05 after Holm."""
    cells = comparison.assign(cell=comparison.apply(style.starred, axis=1))
    table = style.by_metric(cells, ["reward", "set"], product(names, SET_ORDER))
    return table.replace({"reward": names}).rename(columns={"reward": "TextNorm minus"})


@table(
    "tab13_paired_differences",
    "Released TextNorm minus each other reward on the same prompts; 95% paired bootstrap interval over prompts; a "
    "star: p < .05 (Wilcoxon, Holm within the set).",
    paper_item="Section 4.3: improvements in all measured metrics",
)
def difference_table(comparison: pd.DataFrame) -> pd.DataFrame:
    """Differences per set and metric to CLIP, BLIP-2, ImageReward and PickScore."""
    return _differences(comparison, {name: text for name, text in REWARD_NAMES.items() if name != "textnorm"})


@table(
    "tab01_ablation",
    "The paper's ablation (table 1), averages over the 525 prompts that have both labels; 95% bootstrap interval over "
    "prompts. The release holds the first and the last row only.",
    paper_item="Table 1",
    paper_value="AUROC/AUPRC .764/.669 (PickScore), .641/.540, .780/.704, .822/.752 (TextNorm, ensemble)",
)
def ablation_table(summary: pd.DataFrame) -> pd.DataFrame:
    """PickScore and released TextNorm against the paper's four ablation rows."""
    rows = summary.query("set == 'all'").set_index(["reward", "metric"])
    lines = []
    for prompts, ensemble, reward, *paper in _PAPERS_ROWS:
        ours = [interval(rows.loc[(reward, m)]) if reward else "not in the release" for m in ("auroc", "auprc")]
        lines.append((prompts, ensemble, *ours, *paper))
    columns = ["contrastive prompts", "ensemble", "AUROC", "AUPRC", "AUROC (paper)", "AUPRC (paper)"]
    return pd.DataFrame(lines, columns=columns)


@table(
    "tab14_composition_by_class",
    "Composition set, AUROC: released TextNorm minus each other reward, with 95% intervals from drawing prompts and "
    "from drawing the 25 classes again.",
)
def class_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Two intervals for each of the four differences."""
    limits = "[" + frame["low"].map(short) + ", " + frame["high"].map(short) + "]"
    wide = frame.assign(limits=limits).pivot(index="reward", columns="drawn", values="limits")
    table = frame.drop_duplicates("reward")[["reward", "difference"]].join(wide[frame["drawn"].unique()], on="reward")
    table = table.assign(reward=table["reward"].map(REWARD_NAMES), difference=table["difference"].map(short))
    return table.rename(columns={"reward": "TextNorm minus", "prompts": "prompts drawn", "classes": "classes drawn"})


# ---- the ten heat maps of appendix 8.3


def _describe_heatmap(frame: pd.DataFrame, *, reward: str) -> str:
    matrix = grid(frame, reward)
    cells = matrix.stack()
    low, high = cells.idxmin(), cells.idxmax()
    values = style.each_once(matrix)
    return (
        f"Heat map of {REWARD_NAMES[reward]}'s AUROC for {values.size} prompts: mean {values.mean():.3f}, "
        f"{(values > style.CENTRE).mean():.0%} above .75 (blue), {(values < 0.5).sum()} of them below chance. Lowest "
        f"{cells.min():.2f} ({low[0]}, {low[1]}), highest {cells.max():.2f} ({high[0]}, {high[1]})."
    )


def _draw_heatmap(frame: pd.DataFrame, *, reward: str, width: float, height: float, size: float, axis: str) -> Figure:
    """A matrix of AUROCs with a number in each cell; grey where a prompt has one label only or does not exist."""
    matrix = grid(frame, reward)
    figure, axes = new_panels(height, width=width)
    mesh = style.draw_cells(axes, matrix, size=size)
    axes.set_xlabel(axis)
    values = style.each_once(matrix)
    axes.set_title(f"{REWARD_NAMES[reward]}: AUROC, mean {values.mean():.3f} over {values.size} prompts")
    style.draw_scale(figure, mesh, axes)
    return figure


def _heatmaps(first: int, slug: str, what: str, **shape) -> dict[str, Callable[[pd.DataFrame], Figure]]:
    """Of each reward the function that draws its heat map of AUROCs, entered as figures ``first`` to ``first`` + 4."""
    return {
        reward: figure(
            f"fig{number}_heatmap_{slug}_{reward}",
            f"AUROC of {REWARD_NAMES[reward]} for {what}, from the released scores. White is .75, blue above, red "
            "below; grey: all 50 images have one label (or no such prompt).",
            alt=partial(_describe_heatmap, reward=reward),
            paper_item="Appendix 8.3",
        )(partial(_draw_heatmap, reward=reward, **shape))
        for number, reward in enumerate(REWARD_NAMES, first)
    }


heatmap_pairs = _heatmaps(11, "pairs", "the 300 pairs of classes", width=5.5, height=5.5, size=4.6, axis="")
heatmap_counts = _heatmaps(16, "counts", "25 classes and six counts", width=3.4, height=5.2, size=6, axis="count")


# ---- by the count asked for


def draw_counts(axes: Axes, rows: pd.DataFrame, middle: str, title: str, *, chance: float) -> None:
    """The rewards that ``rows`` has, by the count asked for (its column set)."""
    for index, (reward, name) in enumerate(REWARD_NAMES.items()):
        mine = rows[rows["reward"] == reward]
        if len(mine):
            look = style.look_of(reward, label=name)
            style.errorbar(axes, mine["set"].astype(int) + (index - 2) * 0.08, mine, middle, **look)
    axes.axhline(chance, **style.DOTTED)
    axes.set_title(title)


def label_counts(panels: list[Axes], rows: pd.DataFrame) -> None:
    """The six counts below each panel, with the prompts that ``rows`` has of each."""
    prompts = rows.groupby("set")["n_prompts"].max()
    for axes in panels:
        axes.set_xticks(range(1, 7), [f"{count}\n({prompts[str(count)]})" for count in range(1, 7)])
        axes.set_xlabel("count asked for (prompts)")


def at_both_ends(summary: pd.DataFrame) -> str:
    """The AUROC of each reward at one object and at six, in words."""
    auroc = summary.query("metric == 'auroc'").set_index(["reward", "set"])["mean"]
    auroc = auroc.map(lambda value: f"{value:.2f}" if np.isfinite(value) else "undefined")
    return "; ".join(
        f"{name} {auroc[reward, '1']} at one object and {auroc[reward, '6']} at six"
        for reward, name in REWARD_NAMES.items()
        if reward in auroc
    )


@figure(
    "fig23_auroc_by_count",
    "AUROC on the counting set by the count asked for (prompts with both labels), released scores; mean and 95% "
    "bootstrap interval over prompts, paired on the right.",
    alt=lambda summary, _: f"AUROC by the count asked for, released scores: {at_both_ends(summary)}.",
)
def auroc_by_count(summary: pd.DataFrame, differences: pd.DataFrame) -> Figure:
    """Left: AUROC of each reward by the count asked for; right: TextNorm minus each other reward."""
    figure, (left, right) = new_panels(2.6, 1, 2)
    rows = summary.query("metric == 'auroc' and set != 'all'")
    draw_counts(left, rows, "mean", "AUROC", chance=0.5)
    others = differences[differences["set"] != "all"]
    draw_counts(right, others, "difference", "AUROC, TextNorm minus the other", chance=0.0)
    label_counts([left, right], rows)
    figure.legend(*left.get_legend_handles_labels(), ncols=5, **style.ABOVE)
    return figure


# ---- how the released TextNorm was tuned


@table(
    "tab11_released_tuning",
    "The settings behind the released TextNorm scores differ from prompt to prompt: prompts by value.",
)
def tuning_table(tuning_shares: pd.DataFrame) -> pd.DataFrame:
    """Scale and penalty of the released TextNorm scores per set."""
    used = tuning_shares["value"].map("{:g}".format) + ": " + tuning_shares["prompts"].astype(str)
    groups = tuning_shares.assign(used=used).groupby(["set", "parameter"], sort=False, as_index=False)
    return groups.agg(**{"prompts": ("prompts", "sum"), "prompts by value": ("used", ", ".join)})


def _describe_tuning(shares: pd.DataFrame) -> str:
    top = shares.loc[shares.groupby(["parameter", "set"], sort=False)["share"].idxmax()]
    words = ", ".join(f"{row.parameter} of {row.set} {row.value:g} ({row.share:.0%})" for row in top.itertuples())
    return f"Bars of the released settings by prompt. Most frequent: {words}."


@figure(
    "fig24_released_tuning",
    "The scale and the penalty behind the released TextNorm scores, prompt by prompt.",
    alt=_describe_tuning,
)
def released_tuning(shares: pd.DataFrame) -> Figure:
    """Which values of the grid the released TextNorm uses, per set."""
    figure, panels = new_panels(2.0, 1, 2)
    sets = {"scale": style.SETS, "penalty": style.SETS[:2]}
    for axes, (parameter, names) in zip(panels, sets.items(), strict=True):
        rows = shares[shares["parameter"] == parameter]
        values = sorted(rows["value"].unique())
        width = 0.8 / len(names)
        for index, name in enumerate(names):
            mine = rows[rows["set"] == name].set_index("value").loc[values]
            places = np.arange(len(values)) + (index - (len(names) - 1) / 2) * width
            label = f"{name} (n = {mine['prompts'].sum()})"
            axes.bar(places, mine["share"], width, color=style.SET_LOOKS[name]["color"], label=label)
        axes.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axes.set(xlabel=f"released {parameter}", ylabel="share of prompts", ylim=(0, 1))
        if parameter == "scale":
            axes.legend(frameon=False)
    return figure


@table(
    "tab12_hindsight",
    "Released TextNorm minus a choice between untouched rewards that peeks at the same labels; 95% paired bootstrap "
    "interval over prompts; a star: p < .05 (Wilcoxon, Holm within the set).",
)
def hindsight_table(comparison: pd.DataFrame) -> pd.DataFrame:
    """Differences per set and metric to the best of two and of four rewards in hindsight."""
    return _differences(comparison, HINDSIGHT)


def _describe_hindsight(comparison: pd.DataFrame) -> str:
    rows = comparison.query("set == 'all'").set_index(["reward", "metric"])["difference"]
    words = [
        f"{label}: AUROC {rows[reward, 'auroc']:+.3f}, AP@5 {rows[reward, 'ap5']:+.3f}"
        for reward, label in HINDSIGHT.items()
    ]
    return "Released TextNorm minus a choice in hindsight over all prompts; " + "; ".join(words) + "."


@figure(
    "fig25_hindsight",
    "Released TextNorm minus a choice between untouched rewards that peeks at the same labels (prompts in brackets); "
    "95% paired bootstrap interval over prompts.",
    alt=_describe_hindsight,
)
def against_hindsight(comparison: pd.DataFrame) -> Figure:
    """TextNorm minus the best of two and of four untouched rewards in hindsight, all prompts of each set."""
    figure, panels = new_panels(2.7, 1, 4, sharey=True, sharex=True)
    metrics = list(METRIC_NAMES)
    for axes, name in zip(panels, SET_ORDER, strict=True):
        for index, (reward, label) in enumerate(HINDSIGHT.items()):
            chosen = (comparison["set"] == name) & (comparison["reward"] == reward)
            rows = comparison[chosen].set_index("metric").loc[metrics]
            look = {"color": ("black", "#b2182b")[index], "marker": "os"[index], "label": label, "linestyle": "none"}
            places = np.arange(len(metrics)) + (index - 0.5) * 0.28
            style.errorbar(axes, places, rows, "difference", lying=True, markersize=2.5, capsize=1.5, **look)
        axes.axvline(0, **style.DOTTED)
        prompts = rows[["wins", "ties", "losses"]].sum(axis=1).max()
        axes.set(title=f"{name}\n({prompts} prompts)", xlabel="difference")
        axes.set_yticks(range(len(metrics)), METRIC_NAMES.values())
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    names = [f"TextNorm minus {label}" for label in labels]
    figure.legend(handles, names, ncols=2, **style.ABOVE)
    return figure
