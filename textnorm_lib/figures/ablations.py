"""Figures of notebook 03: TextNorm under other temperatures, penalties, contrastive prompts and ensembles."""

from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.figure import Figure

from textnorm_lib.figures.ensembles import (
    FULL,
    HALF,
    HOLLOW,
    METRICS,
    PALE,
    broken,
    draw_dots,
    explain_fills,
    prompts_of,
    rows_of,
)
from textnorm_lib.figures.style import new_figure
from textnorm_lib.items import Item
from textnorm_lib.names import ALL_FOUR, ENSEMBLES, PAIR, REWARD_NAMES, ensemble_name
from textnorm_lib.tuning import BY_PROMPT, CLASSES_HELD_OUT, HINDSIGHT

SOURCES = {"none": HOLLOW, "random": HALF, "rules": FULL}
WITH_RELEASED = {**SOURCES, "released": PALE}
USE_NAMES = {"only": "only this kind", "without": "all kinds but this"}
USES = dict(zip(USE_NAMES.values(), (PALE, FULL), strict=True))
FORM_NAMES = {"raw": "raw", "mean": "TextNorm, mean", "uncertainty": "TextNorm, penalty"}
FORMS = dict(zip(FORM_NAMES.values(), (HOLLOW, PALE, FULL), strict=True))
LEAKS = {CLASSES_HELD_OUT: HALF, HINDSIGHT: PALE, BY_PROMPT: FULL}


def draw_sources(every: pd.DataFrame, shared: pd.DataFrame) -> Figure:
    """AUROC by source of the contrastive prompts: of all prompts, and of those that have released sets."""
    figure = new_figure(3.7)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, frame, fills, whose in (
        (panels[0], every[every["source"].isin(SOURCES)], SOURCES, "all"),
        (panels[1], shared, WITH_RELEASED, "with released sets"),
    ):
        rows = frame[frame["metric"] == "auroc"].assign(form=frame["source"])
        draw_dots(axes, rows, by="rewards", groups=ENSEMBLES, fills=fills)
        axes.set(title=f"prompts: {whose} (n = {prompts_of(rows)})", xlabel="AUROC")
    panels[0].set_yticks(range(len(ENSEMBLES)), [broken(name) for name in ENSEMBLES])
    explain_fills(figure, WITH_RELEASED)
    return figure


def describe_sources(every: pd.DataFrame, shared: pd.DataFrame) -> str:
    """All means of the left panel, the pair's of the right one."""
    left = _by_form(every[every["source"].isin(SOURCES)], "source")
    right = _by_form(shared, "source", ensembles=[PAIR])
    return f"AUROC by source of the contrastive prompts. All prompts: {left}. Prompts with released sets: {right}."


def _by_form(
    frame: pd.DataFrame, form: str, *, metric: str = "auroc", sign: str = "", ensembles: Sequence[str] = ENSEMBLES
) -> str:
    """The ensembles' means in words, in the order of ``frame``'s forms."""
    words = []
    for rewards in ensembles:
        rows = rows_of(frame, metric, rewards)
        means = ", ".join(f"{name} {mean:{sign}.3f}" for name, mean in zip(rows[form], rows["mean"], strict=True))
        words.append(f"{ensemble_name(rewards)} {means}")
    return "; ".join(words)


def draw_kinds(frame: pd.DataFrame) -> Figure:
    """Gain in AUROC by kind of contrast, a panel an ensemble."""
    rows = frame[frame["metric"] == "auroc"].assign(form=frame["use"].map(USE_NAMES))
    prompts = rows.groupby("kind")["n_prompts"].max().sort_values(ascending=False, kind="stable")
    figure = new_figure(4.4)
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    for axes, rewards in zip(panels.flat, ENSEMBLES, strict=True):
        axes.axvline(0, color="0.6", linewidth=0.6, linestyle=":")
        mine = rows[rows["rewards"] == rewards]
        draw_dots(axes, mine, by="kind", groups=list(prompts.index), fills=USES)
        axes.set_yticks(range(len(prompts)), [f"{kind} ({n})" for kind, n in prompts.items()])
        axes.set_title(ensemble_name(rewards))
    for axes in panels[1]:
        axes.set_xlabel("gain in AUROC over raw")
        axes.locator_params(axis="x", nbins=5)
    explain_fills(figure, USES)
    return figure


def describe_kinds(frame: pd.DataFrame) -> str:
    """The pair's gains, kind by kind."""
    words = []
    for kind, rows in rows_of(frame, "auroc", PAIR).groupby("kind", sort=False):
        gains = (f"{mean:+.3f} {USE_NAMES[use]}" for mean, use in zip(rows["mean"], rows["use"], strict=True))
        words.append(f"{kind} ({rows['n_prompts'].max()} prompts) {' and '.join(gains)}")
    return f"Gain in AUROC over the raw reward by kind of contrast; {ensemble_name(PAIR)}: {'; '.join(words)}."


def draw_ensembles(frame: pd.DataFrame) -> Figure:
    """All subsets of the rewards, small ones first: raw, mean and penalised, AUROC and AP."""
    order = list(REWARD_NAMES)
    groups = sorted(frame["rewards"].unique(), key=lambda some: [some.count("+"), *map(order.index, some.split("+"))])
    figure = new_figure(4.9)
    panels = figure.subplots(1, 2, sharey=True)
    rows = frame[(frame["form"] != "uncertainty") | frame["rewards"].str.contains("+", regex=False)]
    rows = rows.assign(form=rows["form"].map(FORM_NAMES))
    for axes, (metric, printed) in zip(panels, METRICS.items(), strict=True):
        draw_dots(axes, rows[rows["metric"] == metric], by="rewards", groups=groups, fills=FORMS)
        axes.set_xlabel(f"{printed} (n = {prompts_of(rows)})")
        sizes = pd.Series([name.count("+") for name in groups])
        for place in sizes.index[sizes.diff() > 0]:
            axes.axhline(place - 0.5, color="0.85", linewidth=0.6)
    panels[0].set_yticks(range(len(groups)), [ensemble_name(name) for name in groups], size=6.5)
    explain_fills(figure, FORMS)
    return figure


def describe_ensembles(frame: pd.DataFrame) -> str:
    """The best ensemble of each form, and that of all four."""
    words = []
    for form, name in FORM_NAMES.items():
        rows = frame[(frame["form"] == form) & (frame["metric"] == "auroc")].set_index("rewards")["mean"]
        best = rows.idxmax()
        words.append(f"{name}: best {ensemble_name(best)} {rows[best]:.3f}, all four {rows[ALL_FOUR]:.3f}")
    return f"AUROC and AP of every subset of the four rewards. AUROC, {'; '.join(words)}."


def draw_leaks(frame: pd.DataFrame) -> Figure:
    """What each choice of a setting gains over one that is held out."""
    figure = new_figure(3.3)
    panels = figure.subplots(1, 2, sharey=True, sharex=True)
    for axes, (metric, printed) in zip(panels, METRICS.items(), strict=True):
        axes.axvline(0, color="0.6", linewidth=0.6, linestyle=":")
        rows = frame[frame["metric"] == metric].assign(form=frame["choice"])
        draw_dots(axes, rows, by="rewards", groups=ENSEMBLES, fills=LEAKS)
        axes.set_xlabel(f"gain in {printed} over held out (n = {prompts_of(rows)})")
    panels[0].set_yticks(range(len(ENSEMBLES)), [broken(name) for name in ENSEMBLES])
    explain_fills(figure, LEAKS)
    return figure


def describe_leaks(frame: pd.DataFrame) -> str:
    """All gains in AP."""
    return (
        f"Gain over a setting that is held out, AUROC and AP. AP: {_by_form(frame, 'choice', metric='ap', sign='+')}."
    )


def _item(name: str, caption: str, build: Callable, describe: Callable, **more: str) -> Item:
    return Item(name, "03_textnorm_ablations", caption, build, describe, **{"needs": "labels", **more})


_MEAN = "mean and 95% bootstrap interval over prompts"
ITEMS = [
    _item(
        "fig39_contrastive_sources",
        "AUROC by where the contrastive prompts come from: none (the raw reward), random prompts, rules, and on the "
        f"right the released sets; {_MEAN}, settings held out. In each group from the top in the legend's order.",
        draw_sources,
        describe_sources,
        needs="tia2 labels",
        paper_item="Table 1, rows by contrastive prompts",
        paper_value="AUROC .764 none (PickScore), .641 random, .780 by a language model",
    ),
    _item(
        "fig41_kinds",
        "What each kind of contrast is worth: gain in AUROC over the raw reward with contrasts of that kind only, and "
        "with all others, on the prompts that have the kind (in brackets), under the setting that is best with all "
        "contrasts; mean and 95% paired bootstrap interval over prompts.",
        draw_kinds,
        describe_kinds,
    ),
    _item(
        "fig42_ensembles",
        "Every subset of the four rewards: the mean of the raw rewards, the mean of their TextNorms (equation 2), and "
        f"with a penalty on their disagreement (equation 3). AUROC and AP (mean of AP@5, 10 and 25), {_MEAN}, settings "
        "held out. A reward alone has no penalty.",
        draw_ensembles,
        describe_ensembles,
        paper_item="Table 1, last row (ensemble)",
        paper_value="AUROC .822 with the ensemble, .780 without",
    ),
    _item(
        "fig43_leaks",
        "What it is worth to choose temperature and penalty on the labels that they are judged on: gain over a choice "
        "that is held out. The released TextNorm scores have a setting a prompt. AUROC and AP (mean of AP@5, 10 and "
        "25), mean and 95% paired bootstrap interval over prompts.",
        draw_leaks,
        describe_leaks,
    ),
]
