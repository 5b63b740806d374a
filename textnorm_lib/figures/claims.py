"""Notebook 08 in print: the paper's claims, and what stands here for each of its figures and tables."""

import pandas as pd

from textnorm_lib.study.items import of_notebook
from textnorm_lib.study.printed import interval

figure, table = of_notebook("08_paper_vs_ours")


_NUMBER = r"\b((?:fig|tab)?\w\d[a-z]?)_\w+"  # begins the name of a notebook, a figure or a table; then words


@table(
    "tab40_claims",
    "What the paper claims, as differences of AUROC over all prompts where nothing else is said, with 95% intervals "
    "over prompts (number of prompts in brackets). A claim about several differences shows the smallest. It holds "
    "where all intervals are above zero and does not where one is below. Decided prompts are those that TextNorm's "
    "best four of n, or its tuned model's images, win or lose: the difference is the share that they win minus the "
    "share claimed, with exact intervals (number of decided prompts in brackets). Ratings of tuned models have "
    "intervals over prompts and runs.",
    needs="tia2 annotators",
)
def claims_table(claims: pd.DataFrame) -> pd.DataFrame:
    """A table with one row for each claim of the paper and what the data say of it."""
    rows = []
    for (text, where, paper), group in claims.groupby(["claim", "where", "paper"], sort=False):
        cells = []
        for source in ("released", "ours"):
            found = group[group["source"] == source]
            cells += [_difference(found.iloc[0]), found["verdict"].iloc[0]] if len(found) else ["–", "–"]
        rows.append((text, where, paper, *cells))
    columns = ["claim", "section", "paper", "released data", "verdict there", "mini world", "verdict here"]
    return pd.DataFrame(rows, columns=columns)


def _difference(row: pd.Series) -> str:
    return "–" if pd.isna(row["difference"]) else f"{interval(row, 'difference')} ({row['n_prompts']})"


@table(
    "tab43_paper_vs_ours",
    "Every figure and table of the paper and what stands for it here. Numbers are read from the tables of the "
    "notebooks, in brackets the number of prompts (of decided ones where shares of wins are meant). A verdict is about "
    "the claim that the number is above zero, or that a reward is better, as in the table of claims.",
)
def paper_items_table(items: pd.DataFrame) -> pd.DataFrame:
    """The paper's figures and tables with the paper's, the release's and our numbers."""
    names = {"shows": "what it shows", "notebooks": "notebook", "made_as": "here", "paper": "the paper (section)"}
    numbered = {column: items[column].str.replace(_NUMBER, r"\1", regex=True) for column in ("notebooks", "made_as")}
    return items.assign(**numbered).rename(columns=names | {"released": "released data", "ours": "ours [95% interval]"})
