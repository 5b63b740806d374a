"""Figures of fine-tuning over training: proxy, gold and quality, divergence from the base, training curves.

The same functions draw reward-weighted regression (notebook 05) and DDPO (06), a column for each reward that a model
was tuned on; ``tuned_models`` has the models themselves, in images, judged and in tables.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.artist import setp
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.special import xlogy

from textnorm_lib.figures import style
from textnorm_lib.figures.best_of_n import peak_as_printed
from textnorm_lib.stats.metrics import ALL_SETS
from textnorm_lib.stats.names import REWARD_NAMES
from textnorm_lib.study.drawing import new_panels
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.items import of_notebook
from textnorm_lib.study.printed import short

GAINS = {  # what -> its axis
    "proxy": "proxy\n(standard dev.)",
    "gold": "gold\n(rating)",
    "quality": "quality\n(standard dev.)",
    "kl": "KL\n(nats an image)",
}
CURVES = {"reward": "reward\n(standard dev.)", "gold": GAINS["gold"], "kl": GAINS["kl"]}
IN_VIEW = 0.5  # of the means' range: how far beyond it an axis follows an interval
_STEPS = [1, 2, 5, 10]  # between ticks
_THIN = {"linewidth": 0.5, "alpha": 0.7}  # the line of one run


class Method(NamedTuple):
    """A way to tune models: its name, the decorators of its notebook, the unit in which its training is counted."""

    name: str
    figure: Callable
    table: Callable
    unit: str


RWR = Method("RWR", *of_notebook("05_rwr_finetuning", needs="annotators"), "step")
DDPO = Method("DDPO", *of_notebook("06_ddpo_finetuning", needs="annotators"), "epoch")


# ---- gains over training


def _describe_gains(gains: pd.DataFrame, runs: pd.DataFrame) -> str:
    gains = _all_sets(gains)
    words = []
    for reward in style.rewards_of(gains, "tuned_on"):
        told = []
        for what in ("proxy", "gold", "quality"):
            row = _of_reward(gains, reward, what).iloc[-1]
            told.append(f"{what} {row['mean']:+.2f} [{short(row['low'], 2)}, {short(row['high'], 2)}]")
        words.append(f"{REWARD_NAMES[reward]}: {', '.join(told)}")
    return f"Gains over the base at the last checkpoint ({_numbers(gains)}). {'; '.join(words)}."


def _draw_gains(gains: pd.DataFrame, runs: pd.DataFrame, *, unit: str) -> Figure:
    """``tuning_gains`` and ``run_gains`` of one beta for each reward: proxy, gold and quality over training."""
    gains, runs = _all_sets(gains), _all_sets(runs)
    figure, *_ = _draw_training(gains, runs, ["proxy", "gold", "quality"], "checkpoint", unit)
    _explain(figure, gains)
    return figure


rwr_gains, ddpo_gains = (
    method.figure(
        name,
        f"{method.name}: what training on each reward does to the reward itself (proxy, in standard deviations of the "
        "base's images of a prompt), to the annotators' rating (gold) and to the quality judges' number, as gains over "
        "the base's images of the same prompts and seeds. Means over prompts and runs, both drawn from many, with 95% "
        "intervals (none with one run; cut where they leave the panel); thin: single runs.",
        alt=_describe_gains,
    )(partial(_draw_gains, unit=method.unit))
    for method, name in ((RWR, "fig55_rwr_gains"), (DDPO, "fig61_ddpo_gains"))
)


def _draw_training(
    gains: pd.DataFrame, runs: pd.DataFrame, rows: Sequence[str], by: str, label: str, **look: str
) -> tuple[Figure, np.ndarray, list[str]]:
    """A line of panels for each of ``rows``: single runs, thin, and means with intervals, over the column ``by``."""
    figure, panels, rewards = _grid(gains, rows, GAINS, label)
    for line, what in zip(panels, rows, strict=True):
        for axes, reward in zip(line, rewards, strict=True):
            axes.axhline(0.0, **style.DOTTED)
            for _, own in _of_reward(runs, reward, what).groupby("run"):
                axes.plot([0, *own[by]], [0, *own["mean"]], color=style.COLOURS[reward], **_THIN)
            own = _of_reward(gains, reward, what)
            style.errorbar(axes, own[by], own, **style.look_of(reward, markersize=3, **look))
        _keep_in_view(line[0], gains[gains["what"] == what], runs[runs["what"] == what])
    return figure, panels, rewards


def _grid(
    frame: pd.DataFrame, rows: Sequence[str], labels: dict[str, str], label: str
) -> tuple[Figure, np.ndarray, list[str]]:
    """A line of panels for each of ``rows``, a column for each reward; ``DataError`` for one with several beta."""
    if (several := frame.groupby("tuned_on")["beta"].nunique() > 1).any():
        raise DataError(f"{several.idxmax()} was tuned with several beta; a panel shows one (with_beta)")
    rewards = style.rewards_of(frame, "tuned_on")
    figure, panels = new_panels(
        0.75 + 1.15 * len(rows), len(rows), len(rewards), sharex=True, sharey="row", squeeze=False
    )
    for axes, reward in zip(panels[0], rewards, strict=True):
        axes.set_title(REWARD_NAMES[reward])
    for line, what in zip(panels, rows, strict=True):
        line[0].set_ylabel(labels[what])
        line[0].yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    setp(panels[-1], xlabel=label)
    panels[0, 0].xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
    return figure, panels, rewards


def _all_sets(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["set"] == ALL_SETS]


def _of_reward(frame: pd.DataFrame, reward: str, what: str) -> pd.DataFrame:
    """What happened to one number of the models tuned on ``reward``, in the order of training."""
    return frame[(frame["tuned_on"] == reward) & (frame["what"] == what)].sort_values("checkpoint")


def _keep_in_view(axes: Axes, gains: pd.DataFrame, runs: pd.DataFrame | None = None) -> None:
    """Limit the height to that of the means and somewhat more: an interval of two runs may be many times as long."""
    means = np.concatenate([[0.0], gains["mean"], [] if runs is None else runs["mean"]])
    beyond = IN_VIEW * np.ptp(means)
    low, high = gains["low"].min(), gains["high"].max()
    bottom, top = np.nanmax([means.min() - beyond, low]), np.nanmin([means.max() + beyond, high])
    bottom, top = min(bottom, means.min()), max(top, means.max())
    margin = 0.05 * (top - bottom)
    axes.set_ylim(bottom - margin, top + margin)


def _explain(figure: Figure, gains: pd.DataFrame, *others: Line2D) -> None:
    """What lines and intervals are, and what a point rests on."""
    mean = Line2D([], [], color="0.4", marker="|", label="mean with 95% interval")
    thin = Line2D([], [], color="0.4", linewidth=0.5, label="one run")
    figure.legend(handles=[mean, thin, *others], ncols=3, title=_numbers(gains), **style.ABOVE)


def _numbers(gains: pd.DataFrame) -> str:
    """How much a point rests on: 6 prompts, 2 runs, 192 images a checkpoint."""
    told = [_count(gains[f"n_{noun}s"], noun) for noun in ("prompt", "run", "image")]
    return f"{', '.join(told)} a checkpoint"


def _count(numbers: pd.Series, noun: str) -> str:
    """2 runs, 1 to 2 runs, 1 run."""
    fewest, most = numbers.min(), numbers.max()
    return f"{fewest if fewest == most else f'{fewest} to {most}'} {noun}{'s' if most > 1 else ''}"


# ---- training curves of DDPO


@style.sentence("Training curves, from the first epoch to the last tenth: {}.")
def _describe_curves(curves: pd.DataFrame) -> Iterator[str]:
    curves, known = _in_units(curves)
    for reward in style.rewards_of(curves, "tuned_on"):
        told = []
        for what in known:
            own = curves[curves["tuned_on"] == reward].dropna(subset=what)
            first, late = own["epoch"] == own["epoch"].min(), own["epoch"] >= 0.9 * own["epoch"].max()
            told.append(f"{what} {own.loc[first, what].mean():.2f} to {own.loc[late, what].mean():.2f}")
        yield f"{REWARD_NAMES[reward]} {', '.join(told)}"


@DDPO.figure(
    "fig60_ddpo_curves",
    "DDPO in training: reward (from the first epoch's mean on, in that epoch's standard deviation) and rating of the "
    "images that it samples to train on, and their divergence from the base. Dotted: where training starts.",
    alt=_describe_curves,
    needs="prompts",
)
def ddpo_curves(curves: pd.DataFrame) -> Figure:
    """DDPO's curves, of one beta for each reward: tuned_on, beta, run, epoch, reward, reward_std, kl, perhaps gold."""
    curves, known = _in_units(curves)
    figure, panels, rewards = _grid(curves, known, CURVES, "epoch")
    for line, what in zip(panels, known, strict=True):
        for axes, reward in zip(line, rewards, strict=True):
            own = curves[curves["tuned_on"] == reward].dropna(subset=what)
            for _, rows in own.groupby("run"):
                axes.plot(rows["epoch"], rows[what], color=style.COLOURS[reward], **_THIN)
            mean = own.groupby("epoch")[what].mean()
            axes.axhline(mean.iloc[0], **style.DOTTED)
            axes.plot(mean.index, mean, color=style.COLOURS[reward])
    thin, thick = Line2D([], [], color="0.4", linewidth=0.5), Line2D([], [], color="0.4")
    names = [f"mean of {_count(curves.groupby('tuned_on')['run'].nunique(), 'run')}", "one run"]
    figure.legend([thick, thin], names, ncols=2, **style.ABOVE)
    return figure


def _in_units(curves: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """``curves`` with reward counted from its run's first epoch on, in that epoch's standard deviation; what it has."""
    runs = curves.sort_values("epoch").groupby(["tuned_on", "beta", "run"])
    first = runs[["reward", "reward_std"]].transform("first")
    known = [what for what in CURVES if what in curves and curves[what].notna().any()]
    return curves.assign(reward=(curves["reward"] - first["reward"]) / first["reward_std"]), known


# ---- gains over the divergence from the base


@style.sentence("Gains against the square root of the divergence, at the last checkpoint: {}.")
def _describe_over_kl(gains: pd.DataFrame, runs: pd.DataFrame, fits: pd.DataFrame) -> Iterator[str]:
    gains, fits = _over_distance(gains), _all_sets(fits)
    for reward in style.rewards_of(gains, "tuned_on"):
        proxy, gold = (_of_reward(gains, reward, what).iloc[-1] for what in ("proxy", "gold"))
        peak = fits[(fits["reward"] == reward) & (fits["term"] == "peak")].iloc[0]
        yield (
            f"{REWARD_NAMES[reward]} at √KL {proxy['distance']:.1f} proxy {proxy['mean']:+.2f} and gold "
            f"{gold['mean']:+.3f}, fit: peak {peak_as_printed(peak, '∞')}"
        )


def _draw_over_kl(gains: pd.DataFrame, runs: pd.DataFrame, fits: pd.DataFrame) -> Figure:
    """As ``_draw_gains``, and ``fit_gold``: proxy and gold over the square root of the divergence, with gold's fit."""
    gains, runs, fits = _over_distance(gains), _over_distance(runs), _all_sets(fits)
    figure, panels, rewards = _draw_training(gains, runs, ["proxy", "gold"], "distance", "√KL", linestyle="none")
    for axes, reward in zip(panels[-1], rewards, strict=True):
        terms = fits[fits["reward"] == reward].set_index("term")
        d = np.linspace(0, runs["distance"].max(), 100)
        a, b = terms.loc[["a", "b"], "value"]
        axes.plot(d, a * d - b * xlogy(d, d), color="black", linestyle="--", linewidth=0.8)
        axes.set_title(f"peak {peak_as_printed(terms.loc['peak'], '∞')}", size=6)
    _explain(figure, gains, Line2D([], [], color="black", linestyle="--", linewidth=0.8, label="fit"))
    return figure


def _over_distance(frame: pd.DataFrame) -> pd.DataFrame:
    """``tuning_gains`` or ``run_gains``, all sets together, with distance, the square root of the mean divergence."""
    frame = _all_sets(frame)
    keys = [name for name in ("tuned_on", "beta", "run", "checkpoint") if name in frame]
    kl = frame.loc[frame["what"] == "kl", [*keys, "mean"]].rename(columns={"mean": "distance"})
    return frame.merge(kl.assign(distance=np.sqrt(kl["distance"])), on=keys)


rwr_gold_over_kl, ddpo_gold_over_kl = (
    method.figure(
        name,
        f"{method.name}: gains in proxy and gold over the square root of the divergence from the base (nats an image), "
        "means over prompts and runs with 95% intervals (none with one run; cut where they leave the panel); thin: "
        "single runs. Dashed: d (a - b log d) with d = √KL (Gao et al. 2023), fitted to the gold of every prompt, run "
        "and checkpoint; above, the d at which it peaks (extrapolated beyond the last; ∞: never), with its 95% "
        "bootstrap interval over prompts.",
        alt=_describe_over_kl,
    )(partial(_draw_over_kl))
    for method, name in ((RWR, "fig56_rwr_gold_over_kl"), (DDPO, "fig62_ddpo_gold_over_kl"))
)


# ---- what the KL coefficient does


def _describe_beta(gains: pd.DataFrame) -> str:
    last = _by_beta(gains).set_index(["tuned_on", "beta", "what"])["mean"]
    words = [
        f"{REWARD_NAMES[reward]} with {beta:g}: proxy {last[reward, beta, 'proxy']:+.2f}, gold "
        f"{last[reward, beta, 'gold']:+.3f}, KL {last[reward, beta, 'kl']:.3g}"
        for reward in REWARD_NAMES
        for beta in sorted({beta for name, beta, _ in last.index if name == reward})
    ]
    return f"Gains of the last checkpoint by KL coefficient: {'; '.join(words)}."


@RWR.figure(
    "fig57_rwr_beta",
    "RWR: what the KL coefficient does to proxy, gold, quality and the divergence from the base, at the last "
    "checkpoint. Means over prompts and runs with 95% intervals (none with one run; cut where they leave the panel).",
    alt=_describe_beta,
)
def rwr_beta(gains: pd.DataFrame) -> Figure:
    """``tuning_gains`` of several beta: at the last checkpoint, all prompts."""
    last = _by_beta(gains)
    rewards, known = style.rewards_of(last, "tuned_on"), sorted(last["beta"].unique())
    figure, panels = new_panels(3.6, 2, 2, sharex=True)
    for axes, what in zip(panels.flat, GAINS, strict=True):
        for index, reward in enumerate(rewards):
            own = last[(last["tuned_on"] == reward) & (last["what"] == what)].sort_values("beta")
            places = np.searchsorted(known, own["beta"]) + (index - (len(rewards) - 1) / 2) * 0.1
            style.errorbar(axes, places, own, label=REWARD_NAMES[reward], **style.look_of(reward, markersize=3))
        axes.axhline(0.0, **style.DOTTED)
        axes.set_ylabel(GAINS[what])
        _keep_in_view(axes, last[last["what"] == what])
    for axes in panels[-1]:
        axes.set_xticks(range(len(known)), [f"{beta:g}" for beta in known])
        axes.set_xlabel("KL coefficient")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=5, title=f"last checkpoint; {_numbers(last)}", **style.ABOVE)
    return figure


def _by_beta(gains: pd.DataFrame) -> pd.DataFrame:
    """The last checkpoint of every model of a reward that was tuned with several beta; of all, if none was."""
    gains = _all_sets(gains)
    several = gains.groupby("tuned_on")["beta"].transform("nunique") > 1
    gains = gains[several] if several.any() else gains
    return gains[gains["checkpoint"] == gains.groupby(["tuned_on", "beta"])["checkpoint"].transform("max")]
