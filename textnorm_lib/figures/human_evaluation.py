"""Notebook 07 in print: what slips cost in an evaluation by people, and how many prompts a result needs."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from textnorm_lib.figures import style
from textnorm_lib.judging.verdicts import OUTCOMES
from textnorm_lib.stats.names import CHOOSER_NAMES, choosers_of
from textnorm_lib.study.drawing import new_panels
from textnorm_lib.study.items import of_notebook
from textnorm_lib.study.printed import percent, short

figure, table = of_notebook("07_human_evaluation")

PAPER_PROMPTS = 30  # section 5.4: 60 sets, two of each prompt

_OUTCOMES = {
    "win": {"color": style.COLOURS["textnorm"], "marker": "o", "linestyle": "-", "elinewidth": 1},
    "tie": {"color": "0.6", "marker": "s", "linestyle": ":", "elinewidth": 1},
    "loss": {"color": "0.15", "marker": "D", "linestyle": "--", "elinewidth": 1},
}
_SHIFT = 0.006  # between the outcomes' markers, so that intervals do not cover each other


def _describe_slips(outcomes: pd.DataFrame, agreement: pd.DataFrame) -> str:
    rows = outcomes[outcomes["question"] == "alignment"].set_index(["opponent", "slip", "outcome"])["share"]
    ends = sorted(agreement["slip"].unique())[:: len(agreement["slip"].unique()) - 1]
    words = [
        f"against {CHOOSER_NAMES[name]} {percent(rows[name, slip, 'win'])} won and {percent(rows[name, slip, 'loss'])} "
        f"lost with {slip:.0%} slips"
        for name in choosers_of(rows.index.get_level_values("opponent"), CHOOSER_NAMES)
        for slip in ends
    ]
    alpha = agreement[agreement["question"] == "alignment"].set_index("slip")["alpha"]
    return (
        f"Simulated people judge TextNorm's choices in alignment: {'; '.join(words)}. Their alpha falls from "
        f"{short(alpha[ends[0]], 2)} to {short(alpha[ends[1]], 2)}."
    )


@figure(
    "fig70_slips",
    "What careless answers cost. Simulated people answer as the mini world's judges, but slip (pick one of three "
    "answers at random) in a share of cases. Left: TextNorm's wins, ties and losses in alignment by their majority, "
    "against another reward and against the annotators' own choice, with 95% intervals. Right: Krippendorff's alpha "
    "among three people, and Cohen's kappa of their majorities with the judges'.",
    alt=_describe_slips,
    needs="annotators",
    paper_item="Figure 6",
)
def cost_of_slips(outcomes: pd.DataFrame, agreement: pd.DataFrame) -> Figure:
    """``outcomes_by_slip`` of alignment, a panel for each opponent; and ``agreement_by_slip``."""
    rows = outcomes[outcomes["question"] == "alignment"]
    opponents = choosers_of(rows["opponent"], CHOOSER_NAMES)
    figure, (*panels, last) = new_panels(2.6, 1, len(opponents) + 1)
    size = f"({rows['n_prompts'].max()} prompts, {rows['n_comparisons'].max()} sets)"
    for axes, opponent in zip(panels, opponents, strict=True):
        for place, outcome in enumerate(OUTCOMES):
            own = rows[(rows["opponent"] == opponent) & (rows["outcome"] == outcome)].sort_values("slip")
            places = own["slip"] + (place - 1) * _SHIFT
            style.errorbar(axes, places, own, "share", capsize=0, markersize=3, label=outcome, **_OUTCOMES[outcome])
        axes.set(title=f"against {CHOOSER_NAMES[opponent]}\n{size}", ylim=(0, 1), xlabel="slips")
    panels[0].set_ylabel("share, alignment")
    for question, colour in zip(("alignment", "quality"), sns.color_palette("colorblind")[3:5], strict=True):
        own = agreement[agreement["question"] == question]
        last.plot(own["slip"], own["alpha"], color=colour, marker="o", markersize=3, label=f"{question}: people")
        last.plot(own["slip"], own["kappa_of_majorities"], color=colour, ls="--", label=f"{question}: majorities")
    last.axhline(0, **style.DOTTED)
    last.set(title="agreement\n", xlabel="slips", ylim=(-0.1, 1.05))
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=3, frameon=False, loc="outside upper left")
    figure.legend(*last.get_legend_handles_labels(), ncols=2, frameon=False, loc="outside upper right", fontsize=6)
    return figure


@table(
    "tab41_human_evaluation",
    "Simulated people who slip in a share of their answers: TextNorm's wins, ties and losses by the majority of three, "
    "with 95% intervals; prompts won, tied and lost with the two-sided sign test; Krippendorff's alpha among the three "
    "over both opponents' comparisons, and Cohen's kappa of their majorities with the judges'.",
    needs="annotators",
    paper_item="Figure 6",
)
def slip_table(outcomes: pd.DataFrame, agreement: pd.DataFrame) -> pd.DataFrame:
    """A row for each opponent, question and share of slips."""
    told = style.with_cells(outcomes, "share", digits=2)
    keys = ["opponent", "question", "slip"]
    cells, tests = told.pivot(index=keys, columns="outcome", values="cell"), told.drop_duplicates(keys).set_index(keys)
    alike = agreement.set_index(["slip", "question"])
    rows = []
    for opponent, question, slip in sorted(cells.index, key=lambda key: ([*CHOOSER_NAMES].index(key[0]), *key[1:])):
        test, about = tests.loc[(opponent, question, slip)], alike.loc[(slip, question)]
        decided = f"{test['prompts_won']} / {test['prompts_tied']} / {test['prompts_lost']}"
        shares = [cells.loc[(opponent, question, slip), outcome] for outcome in OUTCOMES]
        coefficients = [short(about[name], 2) for name in ("alpha", "kappa_of_majorities")]
        asked = (CHOOSER_NAMES[opponent], question, f"{slip:.0%}")
        rows.append((*asked, *shares, decided, short(test["p_sign"]), *coefficients))
    columns = ["TextNorm against", "question", "slips", *OUTCOMES, style.COUNTED, "p (sign test)"]
    return pd.DataFrame(rows, columns=[*columns, "alpha", "kappa with the judges"])


def _describe_power(curves: pd.DataFrame, needed: pd.DataFrame) -> str:
    at = curves[curves["prompts"] == PAPER_PROMPTS].set_index("ties")["power"]
    twice = needed[needed["ratio"] == 2].set_index("ties")["prompts"]
    words = [f"{short(at[tied], 2)} with {tied:.0%} tied (80% power needs {twice[tied]})" for tied in at.index]
    return f"Power of the sign test for twice as many wins as losses with {PAPER_PROMPTS} prompts: {', '.join(words)}."


@figure(
    "fig71_power",
    "How many prompts an evaluation by people needs. Left: power of the two-sided sign test over prompts at .05 if "
    "twice as many are won as lost, by the share of ties; dashed: the paper's 30 prompts. Right: prompts needed for a "
    "power of .8.",
    alt=_describe_power,
    paper_item="Figure 6",
)
def power_by_prompts(curves: pd.DataFrame, needed: pd.DataFrame) -> Figure:
    """``power_curves``, a line for each share of ties; ``prompts_needed`` by ratio."""
    figure, (left, right) = new_panels(2.6, 1, 2)
    colours = sns.color_palette("viridis", curves["ties"].nunique())
    for (tied, own), colour in zip(curves.groupby("ties"), colours, strict=True):
        left.plot(own["prompts"], own["power"], color=colour, label=f"{tied:.0%}")
    left.axvline(PAPER_PROMPTS, color="0.5", linewidth=0.8, linestyle="--")
    left.text(PAPER_PROMPTS * 1.05, 0.02, "the paper's 30", color="0.3", size=6)
    left.axhline(0.8, **style.DOTTED)
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


@table(
    "tab42_prompts_needed",
    "Prompts that the two-sided sign test at .05 needs for a power of .8, by the ratio of prompts won to prompts lost "
    "and the share of ties.",
)
def needed_table(prompts: pd.DataFrame) -> pd.DataFrame:
    """A row for each ratio of wins to losses, a column for each share of ties."""
    wide = prompts.pivot(index="ratio", columns="ties", values="prompts")
    wide.columns = [f"{tied:.0%} tied" for tied in wide]
    ratios = pd.Series([f"{ratio:g}" for ratio in wide.index], name="wins for each loss")
    return pd.concat([ratios, wide.reset_index(drop=True)], axis=1)
