"""Figures of evaluation by people: what slips cost, and how many prompts a result needs (notebook 07)."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from textnorm_lib.figures.style import COLOURS, new_figure
from textnorm_lib.items import Item
from textnorm_lib.judging import OUTCOMES
from textnorm_lib.names import CHOOSER_NAMES
from textnorm_lib.tables.style import percent, short

_NOTEBOOK = "07_human_evaluation"
_OUTCOME_STYLE = {"win": (COLOURS["textnorm"], "o", "-"), "tie": ("0.6", "s", ":"), "loss": ("0.15", "D", "--")}
_SHIFT = 0.006  # between the outcomes' markers, so that intervals do not cover each other
PAPER_PROMPTS = 30  # section 5.4: 60 sets, two of each prompt


def draw_slips(outcomes: pd.DataFrame, agreement: pd.DataFrame) -> Figure:
    """``outcomes_by_slip`` of alignment, an opponent a panel; and ``agreement_by_slip``."""
    rows = outcomes[outcomes["question"] == "alignment"]
    opponents = [name for name in CHOOSER_NAMES if name in set(rows["opponent"])]
    figure = new_figure(2.6)
    panels = figure.subplots(1, len(opponents) + 1)
    for axes, opponent in zip(panels, opponents, strict=False):
        for place, outcome in enumerate(OUTCOMES):
            own = rows[(rows["opponent"] == opponent) & (rows["outcome"] == outcome)].sort_values("slip")
            colour, marker, line = _OUTCOME_STYLE[outcome]
            reach = (own[["share", "high"]].to_numpy().T - own[["low", "share"]].to_numpy().T).clip(0)
            at = own["slip"] + (place - 1) * _SHIFT
            axes.errorbar(
                at, own["share"], reach, color=colour, marker=marker, linestyle=line, markersize=3, label=outcome
            )
        prompts, sets = rows["n_prompts"].max(), rows["n_comparisons"].max()
        axes.set(
            title=f"against {CHOOSER_NAMES[opponent]}\n({prompts} prompts, {sets} sets)", ylim=(0, 1), xlabel="slips"
        )
    panels[0].set_ylabel("share, alignment")
    last = panels[-1]
    for question, colour in zip(("alignment", "quality"), sns.color_palette("colorblind")[3:5], strict=True):
        own = agreement[agreement["question"] == question]
        last.plot(own["slip"], own["alpha"], color=colour, marker="o", markersize=3, label=f"{question}: people")
        last.plot(own["slip"], own["kappa_of_majorities"], color=colour, ls="--", label=f"{question}: majorities")
    last.axhline(0, color="0.6", linewidth=0.6, linestyle=":")
    last.set(title="agreement\n", xlabel="slips", ylim=(-0.1, 1.05))
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=3, frameon=False, loc="outside upper left")
    figure.legend(*last.get_legend_handles_labels(), ncols=2, frameon=False, loc="outside upper right", fontsize=6)
    return figure


def describe_slips(outcomes: pd.DataFrame, agreement: pd.DataFrame) -> str:
    """Wins, losses and agreement without and with the most slips."""
    rows = outcomes[outcomes["question"] == "alignment"].set_index(["opponent", "slip", "outcome"])["share"]
    ends = sorted(agreement["slip"].unique())[:: len(agreement["slip"].unique()) - 1]
    words = [
        f"against {CHOOSER_NAMES[name]} {percent(rows[name, slip, 'win'])} won and "
        f"{percent(rows[name, slip, 'loss'])} lost with {slip:.0%} slips"
        for name in CHOOSER_NAMES
        if name in rows.index.get_level_values("opponent")
        for slip in ends
    ]
    alpha = agreement[agreement["question"] == "alignment"].set_index("slip")["alpha"]
    return (
        f"Simulated people judge TextNorm's choices in alignment: {'; '.join(words)}. Their alpha falls from "
        f"{short(alpha[ends[0]], 2)} to {short(alpha[ends[1]], 2)}."
    )


def draw_power(curves: pd.DataFrame, needed: pd.DataFrame) -> Figure:
    """``power_curves``, a line for each share of ties; ``prompts_needed`` by ratio."""
    figure = new_figure(2.6)
    left, right = figure.subplots(1, 2)
    colours = sns.color_palette("viridis", curves["ties"].nunique())
    for (tied, own), colour in zip(curves.groupby("ties"), colours, strict=True):
        left.plot(own["prompts"], own["power"], color=colour, label=f"{tied:.0%}")
    left.axvline(PAPER_PROMPTS, color="0.5", linewidth=0.8, linestyle="--")
    left.text(PAPER_PROMPTS * 1.05, 0.02, "the paper's 30", color="0.3", size=6)
    left.axhline(0.8, color="0.6", linewidth=0.6, linestyle=":")
    left.set(xscale="log", xlabel="prompts", ylabel="power of the sign test", ylim=(0, 1.02))
    left.set_title("twice as many wins as losses")
    for (_, own), colour in zip(needed.groupby("ties"), colours, strict=True):
        right.plot(own["ratio"], own["prompts"], color=colour, marker="o", markersize=3)
    right.axhline(PAPER_PROMPTS, color="0.5", linewidth=0.8, linestyle="--")
    right.set(yscale="log", xlabel="wins for each loss", ylabel="prompts needed (power .8)")
    right.set_xticks(sorted(needed["ratio"].unique()))
    right.set_title("how many prompts it takes")
    handles, shares = left.get_legend_handles_labels()
    right.legend(handles, shares, title="tied", frameon=False, loc="upper right", fontsize=6, title_fontsize=6)
    for axis, ticks in ((left.xaxis, (10, 30, 100, 300)), (right.yaxis, (10, 30, 100, 300, 1000, 3000))):
        axis.set_ticks(ticks, [str(tick) for tick in ticks])
        axis.set_ticks([], minor=True)
    return figure


def describe_power(curves: pd.DataFrame, needed: pd.DataFrame) -> str:
    """The power with the paper's number of prompts, and what a ratio of two needs."""
    at = curves[curves["prompts"] == PAPER_PROMPTS].set_index("ties")["power"]
    twice = needed[needed["ratio"] == 2].set_index("ties")["prompts"]
    words = [f"{short(at[tied], 2)} with {tied:.0%} tied (80% power needs {twice[tied]})" for tied in at.index]
    return f"Power of the sign test for twice as many wins as losses with {PAPER_PROMPTS} prompts: {', '.join(words)}."


ITEMS = [
    Item(
        name="fig70_slips",
        notebook=_NOTEBOOK,
        caption="What careless answers cost. Simulated people answer as the mini world's judges, but slip (pick one of "
        "three answers at random) in a share of cases. Left: TextNorm's wins, ties and losses in alignment by their "
        "majority, against another reward and against the annotators' own choice, with 95% intervals. Right: "
        "Krippendorff's alpha among three people, and Cohen's kappa of their majorities with the judges'.",
        build=draw_slips,
        describe=describe_slips,
        needs="annotators",
        paper_item="Figure 6",
    ),
    Item(
        name="fig71_power",
        notebook=_NOTEBOOK,
        caption="How many prompts an evaluation by people needs. Left: power of the two-sided sign test over prompts "
        "at .05 if twice as many are won as lost, by the share of ties; dashed: the paper's 30 prompts. Right: prompts "
        "needed for a power of .8.",
        build=draw_power,
        describe=describe_power,
        paper_item="Figure 6",
    ),
]
