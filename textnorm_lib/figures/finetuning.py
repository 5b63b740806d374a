"""Figures of fine-tuning over training: proxy, gold and quality of what is evaluated, and the training curves.

The same functions draw reward-weighted regression (notebook 05) and DDPO (06): a column a reward that was tuned on.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from textnorm_lib.errors import DataError
from textnorm_lib.figures.style import COLOURS, MARKERS, errorbar, new_figure, short
from textnorm_lib.items import Item
from textnorm_lib.metrics import ALL_SETS
from textnorm_lib.names import REWARD_NAMES, choosers_of

GAINS = {  # what -> its axis
    "proxy": "proxy\n(standard dev.)",
    "gold": "gold\n(rating)",
    "quality": "quality\n(standard dev.)",
    "kl": "KL\n(nats an image)",
}
CURVES = {"reward": "reward\n(standard dev.)", "gold": "gold\n(rating)", "kl": "KL\n(nats an image)"}
IN_VIEW = 0.5  # of the means' range: how far beyond it an axis follows an interval
_STEPS = [1, 2, 5, 10]  # between ticks


def draw_gains(gains: pd.DataFrame, runs: pd.DataFrame, *, unit: str) -> Figure:
    """``tuning_gains`` and ``run_gains`` of one beta a reward: proxy, gold and quality over training, all prompts."""
    gains, runs = all_sets(gains), all_sets(runs)
    figure, panels, rewards = grid(gains, list(GAINS)[:3], GAINS)
    for line, what in zip(panels, GAINS, strict=False):
        for axes, reward in zip(line, rewards, strict=True):
            start_line(axes)
            for _, own in of_reward(runs, reward, what).groupby("run"):
                thin_line(axes, [0, *own["checkpoint"]], [0, *own["mean"]], reward)
            own = of_reward(gains, reward, what)
            errorbar(axes, own["checkpoint"], own, "mean", **style_of(reward))
        keep_in_view(line[0], gains[gains["what"] == what], runs[runs["what"] == what])
    for axes in panels[-1]:
        axes.set_xlabel(unit)
    legend(figure, gains)
    return figure


def describe_gains(gains: pd.DataFrame, runs: pd.DataFrame) -> str:
    """Each reward's proxy, gold and quality at the last checkpoint."""
    gains = all_sets(gains)
    words = []
    for reward in choosers_of(gains["tuned_on"], REWARD_NAMES):
        told = [f"{what} {_told(of_reward(gains, reward, what).iloc[-1])}" for what in list(GAINS)[:3]]
        words.append(f"{REWARD_NAMES[reward]}: {', '.join(told)}")
    return f"Gains over the base at the last checkpoint ({numbers(gains)}). {'; '.join(words)}."


def draw_curves(curves: pd.DataFrame) -> Figure:
    """The curves of DDPO, of one beta a reward: tuned_on, beta, run, epoch, reward, reward_std, kl, perhaps gold."""
    curves, known = _in_units(curves), _measured(curves)
    figure, panels, rewards = grid(curves, known, CURVES)
    for line, what in zip(panels, known, strict=True):
        for axes, reward in zip(line, rewards, strict=True):
            own = curves[curves["tuned_on"] == reward].dropna(subset=what)
            for _, rows in own.groupby("run"):
                thin_line(axes, rows["epoch"], rows[what], reward)
            mean = own.groupby("epoch")[what].mean()
            start_line(axes, mean.iloc[0])
            axes.plot(mean.index, mean, color=COLOURS[reward])
    for axes in panels[-1]:
        axes.set_xlabel("epoch")
    thin, thick = Line2D([], [], color="0.4", linewidth=0.5), Line2D([], [], color="0.4")
    names = [f"mean of {_count(curves.groupby('tuned_on')['run'].nunique(), 'run')}", "one run"]
    figure.legend([thick, thin], names, ncols=2, frameon=False, loc="outside upper center")
    return figure


def describe_curves(curves: pd.DataFrame) -> str:
    """What is measured in the first epoch and in the last tenth."""
    curves, known, words = _in_units(curves), _measured(curves), []
    for reward in choosers_of(curves["tuned_on"], REWARD_NAMES):
        told = []
        for what in known:
            own = curves[curves["tuned_on"] == reward].dropna(subset=what)
            first, late = own["epoch"] == own["epoch"].min(), own["epoch"] >= 0.9 * own["epoch"].max()
            told.append(f"{what} {own.loc[first, what].mean():.2f} to {own.loc[late, what].mean():.2f}")
        words.append(f"{REWARD_NAMES[reward]} {', '.join(told)}")
    return f"Training curves, from the first epoch to the last tenth: {'; '.join(words)}."


def grid(frame: pd.DataFrame, rows: Sequence[str], labels: dict[str, str]) -> tuple[Figure, np.ndarray, list[str]]:
    """A line of panels each of ``rows``, a column a reward; ``DataError`` for a reward with several beta."""
    if (several := frame.groupby("tuned_on")["beta"].nunique() > 1).any():
        raise DataError(f"{several.idxmax()} was tuned with several beta; a panel shows one (with_beta)")
    rewards = choosers_of(frame["tuned_on"], REWARD_NAMES)
    figure = new_figure(0.75 + 1.15 * len(rows))
    panels = figure.subplots(len(rows), len(rewards), sharex=True, sharey="row", squeeze=False)
    for axes, reward in zip(panels[0], rewards, strict=True):
        axes.set_title(REWARD_NAMES[reward])
    for line, what in zip(panels, rows, strict=True):
        line[0].set_ylabel(labels[what])
        line[0].yaxis.set_major_locator(MaxNLocator(5, steps=_STEPS))
    panels[0, 0].xaxis.set_major_locator(MaxNLocator(4, steps=_STEPS))
    return figure, panels, rewards


def all_sets(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of all sets together."""
    return frame[frame["set"] == ALL_SETS]


def of_reward(frame: pd.DataFrame, reward: str, what: str) -> pd.DataFrame:
    """What happened to one number of the models tuned on ``reward``, in the order of training."""
    return frame[(frame["tuned_on"] == reward) & (frame["what"] == what)].sort_values("checkpoint")


def _measured(curves: pd.DataFrame) -> list[str]:
    return [what for what in CURVES if what in curves and curves[what].notna().any()]


def _in_units(curves: pd.DataFrame) -> pd.DataFrame:
    """``curves`` with reward counted from its run's first epoch on, in that epoch's standard deviation."""
    runs = curves.sort_values("epoch").groupby(["tuned_on", "beta", "run"])
    first = runs[["reward", "reward_std"]].transform("first")
    return curves.assign(reward=(curves["reward"] - first["reward"]) / first["reward_std"])


def start_line(axes: Axes, height: float = 0.0) -> None:
    """Where training starts from."""
    axes.axhline(height, color="0.6", linewidth=0.6, linestyle=":")


def thin_line(axes: Axes, x: Sequence[float], y: Sequence[float], reward: str) -> None:
    """One run."""
    axes.plot(x, y, color=COLOURS[reward], linewidth=0.5, alpha=0.7)


def style_of(reward: str) -> dict[str, object]:
    """A reward's colour and marker."""
    return {"color": COLOURS[reward], "marker": MARKERS[reward], "markersize": 3}


def keep_in_view(axes: Axes, gains: pd.DataFrame, runs: pd.DataFrame | None = None) -> None:
    """Limit the height to that of the means and somewhat more: an interval of two runs may be many times as long."""
    means = np.concatenate([[0.0], gains["mean"], [] if runs is None else runs["mean"]])
    beyond = IN_VIEW * np.ptp(means)
    low, high = gains["low"].min(), gains["high"].max()
    bottom, top = np.nanmax([means.min() - beyond, low]), np.nanmin([means.max() + beyond, high])
    bottom, top = min(bottom, means.min()), max(top, means.max())
    margin = 0.05 * (top - bottom)
    axes.set_ylim(bottom - margin, top + margin)


def legend(figure: Figure, gains: pd.DataFrame, *others: Line2D) -> None:
    """What lines and intervals are, and what a point rests on."""
    mean = Line2D([], [], color="0.4", marker="|", label="mean with 95% interval")
    thin = Line2D([], [], color="0.4", linewidth=0.5, label="one run")
    handles = [mean, thin, *others]
    figure.legend(handles=handles, ncols=3, title=numbers(gains), frameon=False, loc="outside upper center")


def numbers(gains: pd.DataFrame) -> str:
    """How much a point rests on: 6 prompts, 2 runs, 192 images a checkpoint."""
    told = [_count(gains[f"n_{noun}s"], noun) for noun in ("prompt", "run", "image")]
    return f"{', '.join(told)} a checkpoint"


def _count(numbers: pd.Series, noun: str) -> str:
    """2 runs, 1 to 2 runs, 1 run."""
    fewest, most = numbers.min(), numbers.max()
    return f"{fewest if fewest == most else f'{fewest} to {most}'} {noun}{'s' if most > 1 else ''}"


def _told(row: pd.Series) -> str:
    return f"{row['mean']:+.2f} [{short(row['low'], 2)}, {short(row['high'], 2)}]"


def item(
    name: str,
    caption: str,
    build: Callable,
    describe: Callable,
    paper_item: str | None = None,
    needs: str = "annotators",
    **options: str,
) -> Item:
    """A figure of one of the two methods: the number of its name says which, ``options`` are ``build``'s."""
    return Item(
        name=name,
        notebook="05_rwr_finetuning" if name < "fig60" else "06_ddpo_finetuning",
        caption=caption,
        build=partial(build, **options),
        describe=describe,
        needs=needs,
        paper_item=paper_item,
    )


def _gains_item(method: str, unit: str, name: str) -> Item:
    caption = (
        f"{method}: what training on each reward does to the reward itself (proxy, in standard deviations of the "
        "base's images of a prompt), to the annotators' rating (gold) and to the quality judges' number, as gains over "
        "the base's images of the same prompts and seeds. Means over prompts and runs, both drawn from many, with 95% "
        "intervals (none with one run; cut where they leave the panel); thin: single runs."
    )
    return item(name, caption, draw_gains, describe_gains, unit=unit)


ITEMS = [
    _gains_item("RWR", "step", "fig55_rwr_gains"),
    item(
        "fig60_ddpo_curves",
        "DDPO in training: reward (from the first epoch's mean on, in that epoch's standard deviation) and rating of "
        "the images that it samples to train on, and their divergence from the base. Dotted: where training starts.",
        draw_curves,
        describe_curves,
        needs="prompts",
    ),
    _gains_item("DDPO", "epoch", "fig61_ddpo_gains"),
]
