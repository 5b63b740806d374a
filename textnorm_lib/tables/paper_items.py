"""The table of the paper's figures and tables, notebook 08 and README."""

import pandas as pd

from textnorm_lib.items import Item
from textnorm_lib.tables.style import describe


def paper_items(frame: pd.DataFrame) -> pd.DataFrame:
    """``judge_paper_items`` as printed."""
    names = {"shows": "what it shows", "notebooks": "notebook", "made_as": "here", "paper": "the paper (section)"}
    return frame.rename(columns=names | {"released": "released data", "ours": "ours [95% interval]"})


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
