"""Figures of notebook 03: where TextNorm's gain comes from, and what its confidence is worth."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from textnorm_lib.figures.ensembles import (
    FULL,
    HOLLOW,
    PALE,
    RAW_LINE,
    draw_dot,
    label_lines,
    marker_style,
    prompts_of,
)
from textnorm_lib.figures.style import COLOURS, errorbar, new_figure
from textnorm_lib.items import Item
from textnorm_lib.names import FOUR, REWARD_NAMES, UNDER_TEXTNORM, judged_name

RANDOM = "random"
OWN, TEXTNORM = "own score", "TextNorm, held out"
_EXPECTED = {"color": "black", "marker": "|", "markersize": 8, "linestyle": "none"}
CONFIDENT = ("pickscore", f"{UNDER_TEXTNORM}pickscore", f"{UNDER_TEXTNORM}imagereward+pickscore")


def draw_shares(frame: pd.DataFrame) -> Figure:
    """A panel a reward: each kind's share of the softmax over contrasts, and the share that its number alone gives."""
    prompts = frame.groupby("kind")["n_prompts"].max().sort_values(ascending=False, kind="stable")
    kinds = [*prompts.index.drop(RANDOM), RANDOM]
    figure = new_figure(2.8)
    panels = figure.subplots(1, len(FOUR), sharex=True, sharey=True)
    for axes, reward in zip(panels, FOUR, strict=True):
        rows = frame[frame["reward"] == reward].set_index(["kind", "metric"])
        axes.axhspan(len(kinds) - 1.5, len(kinds) - 0.5, color="0.92", linewidth=0)
        for place, kind in enumerate(kinds):
            draw_dot(axes, rows.loc[(kind, "share")], place, style={**marker_style(reward), "markersize": 3.5})
        expected = rows.loc[[(kind, "expected") for kind in kinds], "mean"]
        axes.plot(expected, range(len(kinds)), **_EXPECTED)
        label_lines(axes, [f"{kind} ({prompts[kind]})" for kind in kinds])
        axes.set(title=REWARD_NAMES[reward], xlabel="share", xlim=(0, None))
    words = "share of the softmax over contrasts", "share of the number of contrasts"
    dot = Line2D([], [], color="0.3", marker="o", linestyle="none")
    figure.legend([dot, Line2D([], [], **_EXPECTED)], words, ncols=2, frameon=False, loc="outside upper center")
    return figure


def describe_shares(frame: pd.DataFrame) -> str:
    """The random contrasts' share beside the expected one, and the kind with the largest share."""
    words = []
    for reward in FOUR:
        rows = frame[frame["reward"] == reward].pivot(index="kind", columns="metric", values="mean")
        top = rows["share"].idxmax()
        words.append(
            f"{REWARD_NAMES[reward]} random {rows.loc[RANDOM, 'share']:.2f} where its number gives "
            f"{rows.loc[RANDOM, 'expected']:.2f}, largest {top} {rows.loc[top, 'share']:.2f}"
        )
    return f"Share of the softmax over contrasts by kind of contrast: {'; '.join(words)}."


def draw_alternatives(frame: pd.DataFrame) -> Figure:
    """A panel a reward: AUROC of its own score, of three simpler comparisons with the contrasts, and of TextNorm."""
    rows = frame[frame["metric"] == "auroc"]
    forms = list(rows["form"].unique())
    fills = {form: {OWN: HOLLOW, TEXTNORM: FULL}.get(form, PALE) for form in forms}
    figure = new_figure(2.1)
    panels = figure.subplots(1, len(FOUR), sharex=True, sharey=True)
    for axes, reward in zip(panels, FOUR, strict=True):
        mine = rows[rows["rewards"] == reward].set_index("form")
        axes.axvline(mine.loc[OWN, "mean"], color=COLOURS[reward], **RAW_LINE)
        for place, form in enumerate(forms):
            draw_dot(axes, mine.loc[form], place, style=marker_style(reward, fills[form]))
        label_lines(axes, forms)
        axes.set(title=REWARD_NAMES[reward], xlabel=f"AUROC (n = {prompts_of(mine)})")
    return figure


def describe_alternatives(frame: pd.DataFrame) -> str:
    """Every mean."""
    rows = frame[frame["metric"] == "auroc"]
    words = []
    for reward in FOUR:
        mine = rows[rows["rewards"] == reward]
        means = ", ".join(f"{form} {mean:.3f}" for form, mean in zip(mine["form"], mine["mean"], strict=True))
        words.append(f"{REWARD_NAMES[reward]} {means}")
    return f"AUROC of simpler ways to compare a prompt with its contrasts: {'; '.join(words)}."


def draw_confidence(curves: pd.DataFrame, risks: pd.DataFrame) -> Figure:
    """Left: reliability after the logistic map, all sets; right: share of bad images among the surest."""
    figure = new_figure(3.0)
    left, right = figure.subplots(1, 2)
    left.axline((0, 0), slope=1, color="0.6", linewidth=0.6, linestyle=":")
    for reward in CONFIDENT:
        rewards, raw = reward.removeprefix(UNDER_TEXTNORM), judged_name(reward)[1] == "raw"
        style = {**marker_style(rewards, HOLLOW if raw else FULL), "markersize": 3.5}
        style |= RAW_LINE if raw else {"linestyle": "-"}
        rows = curves[(curves["reward"] == reward) & (curves["set"] == "all")]
        errorbar(left, rows["probability"], rows, "share_good", label=", ".join(judged_name(reward)), **style)
        rows = risks[risks["reward"] == reward]
        right.fill_between(rows["coverage"], rows["low"], rows["high"], color=style["color"], alpha=0.15, linewidth=0)
        right.plot(rows["coverage"], rows["risk"], markevery=2, **style)
    right.axhline(rows["risk"].iloc[-1], color="0.6", linewidth=0.6, linestyle=":")
    left.set(xlabel="probability of a good image", ylabel="share of good images", xlim=(0, 1), ylim=(0, 1))
    images = f"{curves.loc[curves['set'] == 'all'].groupby('reward')['n_images'].sum().max():,}"
    right.set(
        xlabel=f"coverage: share of {images} images",
        ylabel="risk: share of bad ones among them",
        xlim=(0, 1.02),
        ylim=(0, None),
    )
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), frameon=False, loc="outside upper center", columnspacing=1.2)
    return figure


def describe_confidence(curves: pd.DataFrame, risks: pd.DataFrame) -> str:
    """The range of probabilities, and the risk at the least, at half and at full coverage."""
    words = []
    for reward in CONFIDENT:
        rows = curves[(curves["reward"] == reward) & (curves["set"] == "all")]["probability"]
        risk = risks[risks["reward"] == reward].set_index("coverage")["risk"]
        half = risk.iloc[np.abs(risk.index - 0.5).argmin()]
        words.append(
            f"{', '.join(judged_name(reward))}: bins from {rows.min():.2f} to {rows.max():.2f}, risk "
            f"{risk.iloc[0]:.2f} among the surest {risk.index[0]:.0%}, {half:.2f} among the surer half, "
            f"{risk.iloc[-1]:.2f} among all"
        )
    return f"Reliability, and risk against coverage. {'; '.join(words)}."


def _item(name: str, caption: str, build: Callable, describe: Callable, **more: str) -> Item:
    return Item(name, "03_textnorm_ablations", caption, build, describe, needs="labels", **more)


ITEMS = [
    _item(
        "fig44_softmax_shares",
        "How much of the softmax over a prompt's contrasts each kind makes up, beside its share of their number "
        "(prompts with such contrasts in brackets); mean and 95% bootstrap interval over prompts. Shaded: random "
        "contrasts, other prompts that differ in both syntax and meaning, about as many as all others together.",
        draw_shares,
        describe_shares,
        paper_item="Section 4.1",
        paper_value="prompts that differ in both syntax and meaning add next to nothing to the denominator",
    ),
    _item(
        "fig45_alternatives",
        "Simpler ways to compare a prompt's score with those of its contrasts, none of which has a temperature; mean "
        "AUROC and 95% bootstrap interval over prompts. Dashed: the raw reward.",
        draw_alternatives,
        describe_alternatives,
    ),
    _item(
        "fig46_confidence",
        "Left: reliability of raw rewards and of TextNorm as probabilities of a good image, by one logistic map each, "
        "fitted to other prompts; ten bins of equally many images, all sets together. Right: share of bad images among "
        "those that each ranks highest over all prompts; dotted: among all. 95% bootstrap intervals over prompts.",
        draw_confidence,
        describe_confidence,
    ),
]
