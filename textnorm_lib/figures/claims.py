"""The table of the paper's claims, notebook 08."""

import pandas as pd

from textnorm_lib.items import Item
from textnorm_lib.tables.style import describe, interval


def claims(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a claim: the paper's numbers, the release's and our difference with interval, and both verdicts."""
    rows = []
    for (text, where, paper), group in frame.groupby(["claim", "where", "paper"], sort=False):
        cells = []
        for source in ("released", "ours"):
            found = group[group["source"] == source]
            cells += [_difference(found.iloc[0]), found["verdict"].iloc[0]] if len(found) else ["–", "–"]
        rows.append((text, where, paper, *cells))
    columns = ["claim", "section", "paper", "released data", "verdict there", "mini world", "verdict here"]
    return pd.DataFrame(rows, columns=columns)


def _difference(row: pd.Series) -> str:
    return "–" if pd.isna(row["difference"]) else f"{interval(row, 'difference')} ({row['n_prompts']})"


ITEMS = [
    Item(
        name="tab40_claims",
        notebook="08_paper_vs_ours",
        caption=(
            "What the paper claims, as differences of AUROC over all prompts where nothing else is said, with 95% "
            "intervals over prompts (number of prompts in brackets). A claim about several differences shows the "
            "smallest. It holds where all intervals are above zero and does not where one is below. Decided prompts "
            "are those that TextNorm's best four of n, or its tuned model's images, win or lose: the difference is "
            "the share that they win minus the share claimed, with exact intervals (number of decided prompts in "
            "brackets). "
            "Ratings of tuned models have intervals over prompts and runs."
        ),
        build=claims,
        describe=describe("A table with one row for each claim of the paper and what the data say of it."),
        needs="tia2 annotators",
    )
]
