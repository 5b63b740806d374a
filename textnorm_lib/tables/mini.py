"""Tables of notebook 02 about the mini world: its rewards against its annotators, as probabilities, and each other."""

import pandas as pd

from textnorm_lib.items import Item
from textnorm_lib.names import REWARD_NAMES, SET_ORDER
from textnorm_lib.tables.rewards import metric_comparison
from textnorm_lib.tables.style import describe, interval, short


def calibration(frame: pd.DataFrame) -> pd.DataFrame:
    """``calibration_errors`` as printed: a row a set and reward, ECE and Brier score each with its reference."""
    cells = frame.assign(
        cell=frame.apply(interval, axis=1, middle="value"), beside=frame["reference"].map(short)
    ).set_index(["set", "reward", "metric"])
    rows = []
    for name in SET_ORDER:
        for reward in [reward for reward in REWARD_NAMES if (name, reward, "ece") in cells.index]:
            ece, brier = (cells.loc[(name, reward, metric)] for metric in ("ece", "brier"))
            who = (f"{name} ({ece['n_prompts']})", f"{ece['n_images']:,}", REWARD_NAMES[reward])
            rows.append((*who, ece["cell"], ece["beside"], brier["cell"], brier["beside"]))
    columns = ["set", "images", "reward", "ECE", "by chance up to", "Brier score", "one probability for all"]
    return pd.DataFrame(rows, columns=columns)


def reward_agreement(summary: pd.DataFrame) -> pd.DataFrame:
    """``rank_correlations``, summarised, as printed: a row a pair, a column a set with its prompts."""
    names = {**REWARD_NAMES, "rating": "rating"}
    pairs = summary["reward"].map(names) + " and " + summary["metric"].map(names)
    wide = summary.assign(pair=pairs, cell=summary.apply(interval, axis=1, digits=2))
    prompts = summary.groupby("set")["n_prompts"].max()
    wide = wide.pivot(index="pair", columns="set", values="cell").reindex(index=pairs.unique())
    sets = {name: f"{name} ({prompts[name]})" for name in SET_ORDER if name in wide}
    return wide[list(sets)].rename(columns=sets).reset_index().rename_axis(columns=None)


ITEMS = (
    Item(
        name="tab17_mini_metric_comparison",
        notebook="02b_benchmark_mini_rewards",
        caption="The mini world's rewards against its annotators: mean over the prompts with both labels (their number "
        "in brackets) and 95% bootstrap interval over prompts. To be read beside the table of the released scores.",
        build=metric_comparison,
        describe=describe("Four rewards on three sets and all prompts by seven metrics, each with its interval."),
        needs="labels",
    ),
    Item(
        name="tab18_mini_calibration",
        notebook="02b_benchmark_mini_rewards",
        caption="The mini world's rewards as probabilities of a good image, by one logistic map a reward fitted to "
        "other prompts: expected calibration error (ten bins of equally many images) and Brier score, with 95% "
        "bootstrap intervals over prompts (their number in brackets). Beside them: up to where chance takes the ECE of "
        "a calibrated reward, and the Brier score of the share of good images as everybody's probability.",
        build=calibration,
        describe=describe("ECE and Brier score of four rewards on three sets and all prompts, with their references."),
        needs="labels",
    ),
    Item(
        name="tab19_mini_reward_agreement",
        notebook="02b_benchmark_mini_rewards",
        caption="Agreement within a prompt of the mini world's rewards with each other and with the rating: Spearman's "
        "rho, mean over the prompts with both labels (their number in brackets) and 95% bootstrap interval.",
        build=reward_agreement,
        describe=describe("A row for each two of the four rewards and the rating, a column for each set."),
        needs="labels",
    ),
)
