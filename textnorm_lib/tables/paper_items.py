"""The table of the paper's figures and tables, notebook 08 and README."""

import pandas as pd

from textnorm_lib.items import Item
from textnorm_lib.tables.style import describe

_NAME = r"\b((?:fig|tab)?\w\d[a-z]?)_\w+"  # of a notebook, a figure or a table: its number, then words


def paper_items(frame: pd.DataFrame) -> pd.DataFrame:
    """``judge_paper_items`` as printed: notebooks, figures and tables by their numbers."""
    names = {"shows": "what it shows", "notebooks": "notebook", "made_as": "here", "paper": "the paper (section)"}
    numbered = {column: frame[column].str.replace(_NAME, r"\1", regex=True) for column in ("notebooks", "made_as")}
    return frame.assign(**numbered).rename(columns=names | {"released": "released data", "ours": "ours [95% interval]"})


ITEMS = (
    Item(
        name="tab43_paper_vs_ours",
        notebook="08_paper_vs_ours",
        caption="Every figure and table of the paper and what stands for it here. Numbers are read from the tables of "
        "the notebooks, in brackets the number of prompts (of decided ones where shares of wins are meant). A verdict "
        "is about the claim that the number is above zero, or that a reward is better, as in the table of claims.",
        build=paper_items,
        describe=describe("The paper's figures and tables with the paper's, the release's and our numbers."),
    ),
)
