"""How judges' verdicts are drawn and printed: bars of wins, ties and losses, rows of a table (notebooks 04 to 06)."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from textnorm_lib.judging.verdicts import OUTCOMES
from textnorm_lib.stats.metrics import ALL_SETS
from textnorm_lib.study.printed import STAR, interval, percent, short

QUESTIONS = ("alignment", "quality")
TIE = "0.88"


def draw_bar(axes: Axes, place: float, shares: pd.DataFrame, winner: Sequence, loser: Sequence) -> None:
    """Wins from the left, losses from the right, each with its colour and interval; ties between.

    ``shares``: share, low and high of the outcomes win and loss.
    """
    win, loss = shares.loc["win"], shares.loc["loss"]
    axes.barh(place, 1, 0.75, color=TIE)
    axes.barh(place, win["share"], 0.75, color=winner)
    axes.barh(place, -loss["share"], 0.75, 1, color=loser, alpha=0.75)
    from_right = (1 - loss["share"], 1 - loss["high"], 1 - loss["low"])
    for (middle, low, high), shift in (((win["share"], win["low"], win["high"]), -0.15), (from_right, 0.15)):
        if np.isfinite(low):
            reach = [[max(middle - low, 0)], [max(high - middle, 0)]]
            axes.errorbar(middle, place + shift, xerr=reach, color="black", elinewidth=0.8, capsize=1.5)


def frame_bars(axes: Axes, places: Sequence[float], labels: Sequence[str]) -> None:
    """Shares from 0 to 1, a bar at each of ``places`` with its label at the left, the first at the top; no frame."""
    axes.set(xlim=(0, 1), ylim=(places[-1] + 0.5, -0.5))
    axes.set_yticks(places, labels)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def compared(rows: pd.DataFrame) -> str:
    """What the bars are shares of: share of 12 comparisons (6 prompts)."""
    return f"share of {rows['n_comparisons'].max()} comparisons ({rows['n_prompts'].max()} prompts)"


def wins_and_losses(share: pd.Series) -> str:
    """``share`` by question and outcome, in words: alignment 45.0% and 30.0%, quality 20.0% and 40.0%."""
    told = [f"{one} {percent(share[one, 'win'])} and {percent(share[one, 'loss'])}" for one in QUESTIONS]
    return ", ".join(told)


def as_printed(outcomes: pd.DataFrame, tests: pd.DataFrame, keys: list[tuple], by: list[str]) -> pd.DataFrame:
    """A row for each of ``keys``, which are values of ``by``, from the rows of all sets together.

    ``outcomes`` and ``tests`` as from ``outcomes_by_size`` and ``sign_tests_by_size``. Columns: ``by``, each outcome's
    share, the prompts won, tied and lost, p_sign, p_holm (a star: below .05), power.
    """
    shares = outcomes[outcomes["set"] == ALL_SETS]
    shares = shares.assign(cell=shares.apply(interval, axis=1, middle="share", digits=2))
    printed = shares.pivot(index=by, columns="outcome", values="cell")[list(OUTCOMES)]
    tests = tests[tests["set"] == ALL_SETS].set_index(by)
    printed["won"] = tests[["prompts_won", "prompts_tied", "prompts_lost"]].astype(str).agg(" / ".join, axis=1)
    printed["p_sign"], p_holm = tests["p_sign"].map(short), tests["p_holm"].map(short)
    printed["p_holm"] = p_holm.mask(tests["p_holm"] < 0.05, p_holm + STAR)
    printed["power"] = tests["power"].map(partial(short, digits=2))
    return printed.loc[keys].reset_index()
