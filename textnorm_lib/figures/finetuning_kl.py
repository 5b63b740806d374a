"""Figures of fine-tuning and the divergence from the base: gold and proxy over it, and what the KL coefficient does."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.special import xlogy

from textnorm_lib.figures.finetuning import (
    GAINS,
    all_sets,
    grid,
    item,
    keep_in_view,
    legend,
    numbers,
    of_reward,
    start_line,
    style_of,
    thin_line,
)
from textnorm_lib.figures.style import errorbar, new_figure, short
from textnorm_lib.names import REWARD_NAMES, choosers_of


def draw_over_kl(gains: pd.DataFrame, runs: pd.DataFrame, fits: pd.DataFrame) -> Figure:
    """As ``draw_gains``, and ``fit_gold``: proxy and gold over the square root of the divergence, with gold's fit."""
    gains, runs, fits = _over_distance(all_sets(gains)), _over_distance(all_sets(runs)), all_sets(fits)
    figure, panels, rewards = grid(gains, ["proxy", "gold"], GAINS)
    last = runs["distance"].max()
    for line, what in zip(panels, ["proxy", "gold"], strict=True):
        for axes, reward in zip(line, rewards, strict=True):
            start_line(axes)
            for _, own in of_reward(runs, reward, what).groupby("run"):
                thin_line(axes, [0, *own["distance"]], [0, *own["mean"]], reward)
            own = of_reward(gains, reward, what)
            errorbar(axes, own["distance"], own, "mean", **style_of(reward) | {"linestyle": "none"})
        keep_in_view(line[0], gains[gains["what"] == what], runs[runs["what"] == what])
    for axes, reward in zip(panels[-1], rewards, strict=True):
        terms = fits[fits["reward"] == reward].set_index("term")
        d = np.linspace(0, last, 100)
        a, b = terms.loc[["a", "b"], "value"]
        axes.plot(d, a * d - b * xlogy(d, d), color="black", linestyle="--", linewidth=0.8)
        axes.set_title(_peak(terms.loc["peak"]), size=6)
        axes.set_xlabel("√KL")
    legend(figure, gains, Line2D([], [], color="black", linestyle="--", linewidth=0.8, label="fit"))
    return figure


def describe_over_kl(gains: pd.DataFrame, runs: pd.DataFrame, fits: pd.DataFrame) -> str:
    """Where each reward's training ends, and where its fit peaks."""
    gains, fits = _over_distance(all_sets(gains)), all_sets(fits)
    words = []
    for reward in choosers_of(gains["tuned_on"], REWARD_NAMES):
        proxy, gold = (of_reward(gains, reward, what).iloc[-1] for what in ("proxy", "gold"))
        peak = fits[(fits["reward"] == reward) & (fits["term"] == "peak")].iloc[0]
        words.append(
            f"{REWARD_NAMES[reward]} at √KL {proxy['distance']:.1f} proxy {proxy['mean']:+.2f} and gold "
            f"{gold['mean']:+.3f}, fit: {_peak(peak)}"
        )
    return f"Gains against the square root of the divergence, at the last checkpoint: {'; '.join(words)}."


def _over_distance(frame: pd.DataFrame) -> pd.DataFrame:
    """``tuning_gains`` or ``run_gains`` with distance, the square root of the mean divergence."""
    keys = [name for name in ("tuned_on", "beta", "run", "checkpoint") if name in frame]
    kl = frame.loc[frame["what"] == "kl", [*keys, "mean"]].rename(columns={"mean": "distance"})
    return frame.merge(kl.assign(distance=np.sqrt(kl["distance"])), on=keys)


def _peak(row: pd.Series) -> str:
    """Where a fit peaks, with its interval; ∞ where nothing turns it down."""
    middle, low, high = ("∞" if np.isinf(row[key]) else short(row[key], 1) for key in ("value", "low", "high"))
    return f"peak {middle} [{low}, {high}]"


def draw_beta(gains: pd.DataFrame) -> Figure:
    """``tuning_gains`` of several beta: at the last checkpoint, all prompts."""
    last = _by_beta(gains)
    rewards, known = choosers_of(last["tuned_on"], REWARD_NAMES), sorted(last["beta"].unique())
    figure = new_figure(3.6)
    panels = figure.subplots(2, 2, sharex=True).ravel()
    for axes, what in zip(panels, GAINS, strict=True):
        for index, reward in enumerate(rewards):
            own = last[(last["tuned_on"] == reward) & (last["what"] == what)].sort_values("beta")
            places = np.searchsorted(known, own["beta"]) + (index - (len(rewards) - 1) / 2) * 0.1
            errorbar(axes, places, own, "mean", label=REWARD_NAMES[reward], **style_of(reward))
        start_line(axes)
        axes.set_ylabel(GAINS[what])
        keep_in_view(axes, last[last["what"] == what])
    for axes in panels[2:]:
        axes.set_xticks(range(len(known)), [f"{beta:g}" for beta in known])
        axes.set_xlabel("KL coefficient")
    title = f"last checkpoint; {numbers(last)}"
    figure.legend(
        *panels[0].get_legend_handles_labels(), ncols=5, title=title, frameon=False, loc="outside upper center"
    )
    return figure


def describe_beta(gains: pd.DataFrame) -> str:
    """Proxy, gold and divergence of each model."""
    last = _by_beta(gains).set_index(["tuned_on", "beta", "what"])["mean"]
    words = [
        f"{REWARD_NAMES[reward]} with {beta:g}: proxy {last[reward, beta, 'proxy']:+.2f}, gold "
        f"{last[reward, beta, 'gold']:+.3f}, KL {last[reward, beta, 'kl']:.3g}"
        for reward in REWARD_NAMES
        for beta in sorted({beta for name, beta, _ in last.index if name == reward})
    ]
    return f"Gains of the last checkpoint by KL coefficient: {'; '.join(words)}."


def _by_beta(gains: pd.DataFrame) -> pd.DataFrame:
    """The last checkpoint of every model of a reward that was tuned with several beta; of all, if none was."""
    gains = all_sets(gains)
    several = gains.groupby("tuned_on")["beta"].transform("nunique") > 1
    gains = gains[several] if several.any() else gains
    return gains[gains["checkpoint"] == gains.groupby(["tuned_on", "beta"])["checkpoint"].transform("max")]


ITEMS = [
    *(
        item(
            name,
            f"{method}: gains in proxy and gold over the square root of the divergence from the base (nats an image), "
            "means over prompts and runs with 95% intervals (none with one run; cut where they leave the panel); thin: "
            "single runs. Dashed: d (a - b log d) with d = √KL (Gao et al. 2023), fitted to the gold of every prompt, "
            "run and checkpoint; above, the d at which it peaks (extrapolated beyond the last; ∞: never), with its "
            "95% bootstrap interval over prompts.",
            draw_over_kl,
            describe_over_kl,
        )
        for name, method in (("fig56_rwr_gold_over_kl", "RWR"), ("fig62_ddpo_gold_over_kl", "DDPO"))
    ),
    item(
        "fig57_rwr_beta",
        "RWR: what the KL coefficient does to proxy, gold, quality and the divergence from the base, at the last "
        "checkpoint. Means over prompts and runs with 95% intervals (none with one run; cut where they leave the "
        "panel).",
        draw_beta,
        describe_beta,
    ),
]
