"""The figure of tuned models side by side: who wins (the paper's figure 6; notebooks 05 and 06)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from textnorm_lib.figures.best_of_n import TIE
from textnorm_lib.figures.finetuning import item
from textnorm_lib.figures.style import COLOURS, new_figure, percent
from textnorm_lib.metrics import ALL_SETS
from textnorm_lib.names import BASE, MODEL_NAMES, pairs_in_order

MODEL_COLOURS = {**COLOURS, BASE: (0.25, 0.25, 0.25)}
QUESTIONS = ("alignment", "quality")
APART = 0.6  # bars' heights between the first model's comparisons and the others'


def draw_judged(outcomes: pd.DataFrame) -> Figure:
    """``outcomes_by_size`` of ``judge_tuned``'s votes, all sets together: by question, a bar a pair of models."""
    rows = outcomes[outcomes["set"] == ALL_SETS]
    pairs = pairs_in_order(rows)
    places = [place + APART * (model != pairs[0][0]) for place, (model, _) in enumerate(pairs)]
    figure = new_figure(0.8 + 0.24 * len(pairs))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, question in zip(panels, QUESTIONS, strict=True):
        shown = rows[rows["question"] == question].set_index(["model", "opponent", "outcome"]).sort_index()
        for place, pair in zip(places, pairs, strict=True):
            _draw_bar(axes, place, pair, shown.loc[pair])
        axes.set(title=question, xlim=(0, 1), ylim=(places[-1] + 0.5, -0.5))
        axes.set_xlabel(
            f"share of {rows['n_comparisons'].max()} comparisons ({rows['n_prompts'].max()} prompts)", size=7
        )
        axes.set_yticks(places, [f"{MODEL_NAMES[one]} : {MODEL_NAMES[other]}" for one, other in pairs])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    handles = [Patch(color="0.5"), Patch(color=TIE), Patch(color="0.5", alpha=0.75)]
    names = ["from the left: the first wins", "tie", "from the right: the second wins"]
    figure.legend(handles, names, ncols=3, frameon=False, loc="outside upper center")
    return figure


def _draw_bar(axes: Axes, place: float, pair: Sequence[str], shares: pd.DataFrame) -> None:
    """Wins from the left, losses from the right, each with its interval; ties between."""
    win, loss = shares.loc["win"], shares.loc["loss"]
    axes.barh(place, 1, 0.75, color=TIE)
    axes.barh(place, win["share"], 0.75, color=MODEL_COLOURS[pair[0]])
    axes.barh(place, -loss["share"], 0.75, 1, color=MODEL_COLOURS[pair[1]], alpha=0.75)
    from_right = 1 - loss[["share", "high", "low"]].to_numpy(float)
    for (middle, low, high), shift in ((win[["share", "low", "high"]], -0.15), (from_right, 0.15)):
        if np.isfinite(low):
            reach = [[max(middle - low, 0)], [max(high - middle, 0)]]
            axes.errorbar(middle, place + shift, xerr=reach, color="black", elinewidth=0.8, capsize=1.5)


def describe_judged(outcomes: pd.DataFrame) -> str:
    """Wins and losses of every pair."""
    rows = outcomes[outcomes["set"] == ALL_SETS]
    share = rows.set_index(["model", "opponent", "question", "outcome"])["share"]
    words = []
    for pair in pairs_in_order(rows):
        told = [
            f"{question} {percent(share[(*pair, question, 'win')])} and {percent(share[(*pair, question, 'loss')])}"
            for question in QUESTIONS
        ]
        words.append(f"{MODEL_NAMES[pair[0]]} against {MODEL_NAMES[pair[1]]}: {', '.join(told)}")
    return f"Wins and losses of the models of the chosen checkpoints. {'; '.join(words)}."


ITEMS = [
    item(
        name,
        f"Models tuned by {method}, at the checkpoints that the paper's rule chooses: four images against four of the "
        "same seeds, two such sets a prompt, from two runs where there are two. TextNorm's against each other and the "
        "base, and the others against the base: wins, ties and losses by the majority of three blind judges, with 95% "
        "intervals in which prompts are the unit.",
        draw_judged,
        describe_judged,
        paper_item="Figure 6",
    )
    for name, method in (("fig59_rwr_judged", "RWR"), ("fig64_ddpo_judged", "DDPO"))
]
