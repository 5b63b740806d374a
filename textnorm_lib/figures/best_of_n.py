"""Figures of best-of-n in numbers: how the choices are judged, gold against proxy, the gain realised (notebook 04)."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from textnorm_lib.figures.style import COLOURS, MARKERS, SETS, errorbar, new_figure, percent, short
from textnorm_lib.items import Item
from textnorm_lib.metrics import ALL_SETS
from textnorm_lib.names import CHOOSER_NAMES, REWARD_NAMES, SET_ORDER, choosers_of
from textnorm_lib.rankings import RATING

CHOOSER_COLOURS = {**COLOURS, RATING: (0.0, 0.0, 0.0)}
CHOOSER_MARKERS = {**MARKERS, RATING: "*"}
TIE = "0.88"


def draw_judged(outcomes: pd.DataFrame) -> Figure:
    """``outcomes_by_size``, all sets together: by n and question, a bar an opponent."""
    rows = outcomes[outcomes["set"] == ALL_SETS]
    sizes, opponents = sorted(rows["n"].unique()), choosers_of(rows["opponent"], CHOOSER_NAMES)
    figure = new_figure(0.6 + (0.35 + 0.2 * len(opponents)) * len(sizes))
    panels = figure.subplots(len(sizes), 2, sharex=True, sharey=True, squeeze=False)
    for line, n in zip(panels, sizes, strict=True):
        for axes, question in zip(line, ("alignment", "quality"), strict=True):
            shown = rows[(rows["n"] == n) & (rows["question"] == question)]
            for place, opponent in enumerate(opponents):
                _draw_bar(axes, place, opponent, shown[shown["opponent"] == opponent].set_index("outcome"))
            axes.set_title(f"best of {n}: {question}")
            axes.set(xlim=(0, 1), ylim=(len(opponents) - 0.5, -0.5))
            axes.set_yticks(range(len(opponents)), [CHOOSER_NAMES[name] for name in opponents])
            axes.spines[:].set_visible(False)
            axes.tick_params(length=0)
    for axes in panels[-1]:
        axes.set_xlabel(f"share of {rows['n_comparisons'].max()} comparisons ({rows['n_prompts'].max()} prompts)")
    handles = [Patch(color=COLOURS["textnorm"]), Patch(color=TIE), Patch(color="0.5")]
    names = ["TextNorm wins", "tie", "it loses (the other's colour)"]
    figure.legend(handles, names, ncols=3, frameon=False, loc="outside upper center")
    return figure


def _draw_bar(axes: Axes, place: int, opponent: str, shares: pd.DataFrame) -> None:
    """Wins from the left, losses from the right, each with its interval; ties between."""
    win, loss = shares.loc["win"], shares.loc["loss"]
    axes.barh(place, 1, 0.75, color=TIE)
    axes.barh(place, win["share"], 0.75, color=COLOURS["textnorm"])
    axes.barh(place, -loss["share"], 0.75, 1, color=CHOOSER_COLOURS[opponent], alpha=0.75)
    from_right = (1 - loss["share"], 1 - loss["high"], 1 - loss["low"])
    for (middle, low, high), shift in (((win["share"], win["low"], win["high"]), -0.15), (from_right, 0.15)):
        if np.isfinite(low):
            reach = [[max(middle - low, 0)], [max(high - middle, 0)]]
            axes.errorbar(middle, place + shift, xerr=reach, color="black", elinewidth=0.8, capsize=1.5)


def describe_judged(outcomes: pd.DataFrame) -> str:
    """Wins and losses in alignment and quality at the largest n."""
    n = outcomes["n"].max()
    rows = outcomes[(outcomes["set"] == ALL_SETS) & (outcomes["n"] == n)]
    share = rows.set_index(["opponent", "question", "outcome"])["share"]
    words = [
        f"{CHOOSER_NAMES[one]} alignment {percent(share[one, 'alignment', 'win'])} and "
        f"{percent(share[one, 'alignment', 'loss'])}, quality {percent(share[one, 'quality', 'win'])} and "
        f"{percent(share[one, 'quality', 'loss'])}"
        for one in choosers_of(rows["opponent"], CHOOSER_NAMES)
    ]
    return f"TextNorm's wins and losses against each other way to choose, best of {n}: {'; '.join(words)}."


def draw_gold_and_proxy(means: pd.DataFrame, fits: pd.DataFrame) -> Figure:
    """``mean_curves`` and ``fit_gold``. Above: proxy and gold of all prompts; below: the gold of each set."""
    figure = new_figure(4.8)
    grid = figure.add_gridspec(2, 6)
    above = [figure.add_subplot(grid[0, :3]), figure.add_subplot(grid[0, 3:])]
    first = figure.add_subplot(grid[1, :2])
    below = [first, *(figure.add_subplot(grid[1, place : place + 2], sharey=first) for place in (2, 4))]
    _draw_curves(above[0], means[(means["what"] == "proxy") & (means["set"] == ALL_SETS)], None)
    above[0].set(title="proxy, all sets", ylabel="gain, standard deviations")
    for axes, name in zip([above[1], *below], [ALL_SETS, *SETS], strict=True):
        rows = means[(means["what"] == "gold") & (means["set"] == name)]
        _draw_curves(axes, rows, fits[fits["set"] == name])
        label = "gold, all sets" if name == ALL_SETS else name
        axes.set_title(f"{label} ({rows['n_prompts'].max()} prompts)")
        axes.axhline(0, color="0.6", linewidth=0.6, linestyle=":")
    above[1].set_ylabel("gain in rating")
    below[0].set_ylabel("gain in rating")
    for axes in (*above, *below):
        _label_distance(axes, means, every=1 if axes in above else 2)
    names = choosers_of(means["reward"], CHOOSER_NAMES)
    handles = [Line2D([], [], color=CHOOSER_COLOURS[name], marker=CHOOSER_MARKERS[name]) for name in names]
    handles.append(Line2D([], [], color="0.4", linestyle="--", linewidth=0.8))
    labels = [*(CHOOSER_NAMES[name] for name in names), "fit"]
    figure.legend(handles, labels, ncols=len(labels), frameon=False, loc="outside upper center", columnspacing=1.0)
    return figure


def _draw_curves(axes: Axes, rows: pd.DataFrame, fits: pd.DataFrame | None) -> None:
    """Each chooser's means with intervals over the distance; ``fits`` are dashed lines."""
    last = rows["distance"].max()
    for index, name in enumerate(choosers_of(rows["reward"], CHOOSER_NAMES)):
        own = rows[rows["reward"] == name].sort_values("distance")
        shift = (index - 2.5) * 0.008 * last
        style = {"color": CHOOSER_COLOURS[name], "marker": CHOOSER_MARKERS[name], "markersize": 3}
        style["linestyle"] = "-" if fits is None else "none"
        errorbar(axes, own["distance"] + shift, own, "mean", **style)
        if fits is not None:
            a, b = fits[fits["reward"] == name].set_index("term").loc[["a", "b"], "value"]
            d = np.linspace(0, last, 60)
            axes.plot(d, d * (a - b * d), color=CHOOSER_COLOURS[name], linestyle="--", linewidth=0.8)


def _label_distance(axes: Axes, means: pd.DataFrame, *, every: int) -> None:
    """The square root of the divergence below, n above it in the same tick."""
    ticks = means[["n", "distance"]].drop_duplicates().sort_values("n")
    ticks = ticks[::-1][::every][::-1]
    axes.set_xticks(ticks["distance"], [f"{row.distance:.1f}\n{row.n:.0f}" for row in ticks.itertuples()], size=6)
    axes.set_xlabel("√KL, and n below", size=7)


def describe_gold_and_proxy(means: pd.DataFrame, fits: pd.DataFrame) -> str:
    """Each reward's gain in proxy and gold at the largest n, and where its fit peaks."""
    n = means["n"].max()
    last = means[(means["n"] == n) & (means["set"] == ALL_SETS)].set_index(["reward", "what"])["mean"]
    peaks = fits[(fits["set"] == ALL_SETS) & (fits["term"] == "peak")].set_index("reward")["value"]
    words = []
    for name in choosers_of(means["reward"], CHOOSER_NAMES):
        proxy = f"proxy {last[name, 'proxy']:+.2f}, " if (name, "proxy") in last else ""
        words.append(f"{CHOOSER_NAMES[name]} {proxy}gold {last[name, 'gold']:+.3f}, peak at {peaks[name]:.2f}")
    return (
        f"Gain of the best of n over one image, against the square root of the divergence; at n = {n}, with the fit's "
        f"peak: {'; '.join(words)}."
    )


def draw_gain_realised(gains: pd.DataFrame) -> Figure:
    """``gain_realised``: left over n for all sets, right by set at the largest n."""
    figure = new_figure(2.5)
    left, right = figure.subplots(1, 2, sharey=True)
    rewards, last = choosers_of(gains["reward"], REWARD_NAMES), gains["n"].max()
    sets = [name for name in SET_ORDER if name in set(gains["set"])]
    for index, reward in enumerate(rewards):
        style = {"color": COLOURS[reward], "marker": MARKERS[reward]}
        own = gains[(gains["reward"] == reward) & (gains["n"] > 1)]
        all_sets = own[own["set"] == ALL_SETS]
        places = np.log2(all_sets["n"]) + (index - 2) * 0.08
        errorbar(left, places, all_sets, "share", label=REWARD_NAMES[reward], **style)
        at_last = own[own["n"] == last].set_index("set").loc[sets]
        errorbar(right, np.arange(len(sets)) + (index - 2) * 0.13, at_last, "share", linestyle="none", **style)
    sizes = sorted(gains.loc[gains["n"] > 1, "n"].unique())
    left.set_xticks(np.log2(sizes), [str(n) for n in sizes])
    prompts = gains.groupby("set")["n_prompts"].max()
    left.set(xlabel="n", ylabel="share of the possible gain", title=f"all sets ({prompts[ALL_SETS]} prompts)")
    right.set_xticks(range(len(sets)), [f"{name}\n({prompts[name]})" for name in sets], size=6.5)
    right.set_title(f"best of {last}")
    for axes in (left, right):
        for height in (0, 1):
            axes.axhline(height, color="0.6", linewidth=0.6, linestyle=":")
    figure.legend(*left.get_legend_handles_labels(), ncols=5, frameon=False, loc="outside upper center")
    return figure


def describe_gain_realised(gains: pd.DataFrame) -> str:
    """Each reward's share at the largest n, all sets together."""
    n = gains["n"].max()
    rows = gains[(gains["set"] == ALL_SETS) & (gains["n"] == n)].set_index("reward")
    words = [
        f"{REWARD_NAMES[name]} {short(rows.loc[name, 'share'], 2)} "
        f"[{short(rows.loc[name, 'low'], 2)}, {short(rows.loc[name, 'high'], 2)}]"
        for name in choosers_of(gains["reward"], REWARD_NAMES)
    ]
    return f"Share of the gain that choosing by the annotators would bring, best of {n}: {', '.join(words)}."


ITEMS = [
    Item(
        name="fig51_best_of_n_judged",
        notebook="04_best_of_n",
        caption="TextNorm's best four of n against those of each other reward, and against those that the annotators "
        "themselves would choose: wins, ties and losses by the majority of three blind judges, with 95% intervals in "
        "which prompts are the unit.",
        build=draw_judged,
        describe=describe_judged,
        needs="annotators",
        paper_item="Figure 9",
    ),
    Item(
        name="fig52_gold_and_proxy",
        notebook="04_best_of_n",
        caption="Gold against proxy as n grows. Proxy: what the reward that chooses thinks of its choice, in its "
        "pool's standard deviations; gold: the annotators' rating. Means over prompts of the gain over one image, "
        "with 95% bootstrap intervals; dashed: d (a - b d) with d = √KL, fitted. Annotators: chosen by the rating "
        "itself, the most that can be had.",
        build=draw_gold_and_proxy,
        describe=describe_gold_and_proxy,
        needs="annotators",
    ),
    Item(
        name="fig53_gain_realised",
        notebook="04_best_of_n",
        caption="How much of the possible gain in rating each reward realises: 1 chooses as the annotators would, 0 is "
        "no better than chance. Means over prompts (their number in brackets) with 95% bootstrap intervals.",
        build=draw_gain_realised,
        describe=describe_gain_realised,
        needs="annotators",
    ),
]
