"""Tables of best-of-n: verdicts with tests and power, fits of gold against distance, gains."""

import numpy as np
import pandas as pd

from textnorm_lib.figures.style import STAR, describe, interval, short
from textnorm_lib.items import Item
from textnorm_lib.judging import OUTCOMES
from textnorm_lib.metrics import ALL_SETS
from textnorm_lib.names import CHOOSER_NAMES, SET_ORDER

QUESTIONS = ("alignment", "quality")


def judged(outcomes: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """``outcomes_by_size`` and ``sign_tests_by_size``, all sets together: a row an n, opponent and question."""
    shares = outcomes[outcomes["set"] == ALL_SETS].copy()
    shares["cell"] = shares.apply(interval, axis=1, middle="share", digits=2)
    keys = ["n", "opponent", "question"]
    cells = shares.pivot(index=keys, columns="outcome", values="cell")
    tested = tests[tests["set"] == ALL_SETS].set_index(keys)
    rows = []
    for n in sorted(shares["n"].unique()):
        for opponent in [name for name in CHOOSER_NAMES if name in set(shares["opponent"])]:
            for question in QUESTIONS:
                test = tested.loc[n, opponent, question]
                won = f"{test['prompts_won']} / {test['prompts_tied']} / {test['prompts_lost']}"
                p_value = f"{short(test['p_holm'])}{STAR if test['p_holm'] < 0.05 else ''}"
                told = [cells.loc[(n, opponent, question), outcome] for outcome in OUTCOMES]
                rows.append((n, CHOOSER_NAMES[opponent], question, *told, won, p_value, short(test["power"], 2)))
    columns = ["n", "TextNorm against", "question", *OUTCOMES, "prompts won / tied / lost", "p (Holm)", "power"]
    return pd.DataFrame(rows, columns=columns)


def fits(frame: pd.DataFrame, late: pd.DataFrame) -> pd.DataFrame:
    """``fit_gold`` and ``late_gains`` as printed: a row a set and chooser."""
    cells = frame.assign(cell=frame.apply(_fitted, axis=1)).pivot(
        index=["set", "reward"], columns="term", values="cell"
    )
    prompts, last = frame.groupby("set")["n_prompts"].max(), late.set_index(["set", "reward"])
    rows = []
    for key in [(name, reward) for name in SET_ORDER for reward in CHOOSER_NAMES if (name, reward) in cells.index]:
        about = f"{key[0]} ({prompts[key[0]]})", CHOOSER_NAMES[key[1]]
        rows.append((*about, *cells.loc[key, ["a", "b", "peak"]], interval(last.loc[key])))
    gained = f"gold from n = {late['before'].iloc[0]} to {late['after'].iloc[0]}"
    return pd.DataFrame(rows, columns=["set", "chosen by", "a", "b", "gold peaks at √KL", gained])


def _fitted(row: pd.Series) -> str:
    """A coefficient, or where gold peaks: "never" where nothing turns it down."""
    if row["term"] != "peak":
        return interval(row, middle="value")
    middle, low, high = ("never" if np.isinf(row[key]) else short(row[key], 1) for key in ("value", "low", "high"))
    return f"{middle} [{low}, {high}]"


def gains(means: pd.DataFrame, realised: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """At the largest n: gain in gold, share of the possible gain, TextNorm minus each other reward."""
    n = means["n"].max()
    keys = ["set", "reward"]
    last = means[(means["n"] == n) & (means["what"] == "gold")].set_index(keys)
    shares = realised[realised["n"] == n].set_index(keys)
    others = comparison.set_index(keys)
    rows = []
    for name in SET_ORDER:
        for reward in [one for one in CHOOSER_NAMES if (name, one) in last.index]:
            own = last.loc[(name, reward)]
            share = interval(shares.loc[(name, reward)], middle="share", digits=2)
            minus = "–"
            if (name, reward) in others.index:
                other = others.loc[(name, reward)]
                minus = interval(other, middle="difference") + (STAR if other["p_holm"] < 0.05 else "")
            rows.append((f"{name} ({own['n_prompts']})", CHOOSER_NAMES[reward], interval(own), share, minus))
    columns = ["set", "chosen by", f"gain in rating, best of {n}", "share of the possible", "TextNorm minus it"]
    return pd.DataFrame(rows, columns=columns)


ITEMS = (
    Item(
        name="tab30_best_of_n_judged",
        notebook="04_best_of_n",
        caption="TextNorm's best four of n against those of others: shares of comparisons by the majority of three "
        "blind judges, with 95% intervals; prompts won, tied and lost; the sign test over prompts (two-sided, Holm "
        "within n; a star: below .05); its power if TextNorm won twice as many prompts as it lost.",
        build=judged,
        describe=describe("A row for each n, opponent and question: wins, ties, losses, prompts, p-value, power."),
        needs="annotators",
        paper_item="Figure 9",
        paper_value="two to three times as many wins as losses in alignment against ImageReward and PickScore",
    ),
    Item(
        name="tab31_gold_fits",
        notebook="04_best_of_n",
        caption="The gain in gold over one image fitted by d (a - b d), d being the square root of the KL divergence "
        "(Gao et al. 2023), and the d at which it peaks (beyond the largest d that was tried it is extrapolated); and, "
        "without a fit, what the last quadrupling of n did to gold. 95% bootstrap intervals over prompts (their number "
        "in brackets).",
        build=fits,
        describe=describe("Coefficients, peak and the gain by the last quadrupling for each set and way to choose."),
        needs="annotators",
    ),
    Item(
        name="tab32_gain_realised",
        notebook="04_best_of_n",
        caption="The best of the largest n: gain in rating over one image, share of the gain that choosing by the "
        "rating itself brings, and TextNorm's gain minus each other's (a star: p < .05, Wilcoxon, Holm within the "
        "set). Means over prompts (their number in brackets) with 95% bootstrap intervals.",
        build=gains,
        describe=describe("Gain, share and difference to TextNorm for each set and each way to choose."),
        needs="annotators",
    ),
)
