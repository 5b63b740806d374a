"""Paper against ours, item by item: numbers and verdicts from the tables that the notebooks made."""

import re
from dataclasses import asdict

import pandas as pd

from textnorm_lib.claims import verdict
from textnorm_lib.paper_items import NONE, PAPER_ITEMS
from textnorm_lib.report_pages import Tables, quote, row_of, table_of
from textnorm_lib.store import digest, step

COLUMNS = ["item", "shows", "notebooks", "made_as", "paper", "released", "ours", "verdict", "profile"]
ABSENT, SAME, OTHER = "not made here", "the same number", "another number"
ROWS = digest([asdict(item) for item in PAPER_ITEMS])  # other rows are another question
_REFERENCE = re.compile(r"\{(?:(same \S+|judge) \| )?([^}]+)\}")


@step(1)
def judge_paper_items(tables: Tables, *, profile: str, rows: str) -> pd.DataFrame:
    """A row an item of the paper, as texts: ``COLUMNS``, with the numbers as the tables have them.

    ``rows``: ``ROWS``, with which the result's key changes. A text that refers to a table that was not made says so.
    Raises ``DataError`` for a reference that fits no cell.
    """
    judged = []
    for item in PAPER_ITEMS:
        told = [_told(text, tables) for text in (item.released, item.ours, item.verdict)]
        lists = [", ".join(names) or NONE for names in (item.notebooks, item.made_as)]
        judged.append((item.name, item.shows, *lists, item.paper, *told, profile if item.ours != NONE else NONE))
    return pd.DataFrame(judged, columns=COLUMNS)


def tables_read() -> list[str]:
    """The names of all tables that the rows refer to."""
    texts = [text for item in PAPER_ITEMS for text in (item.released, item.ours, item.verdict)]
    return sorted({table_of(reference) for text in texts for _, reference in _REFERENCE.findall(text)})


def _told(text: str, tables: Tables) -> str:
    """The text with what its references give."""
    if any(table_of(reference) not in tables.names for _, reference in _REFERENCE.findall(text)):
        return ABSENT
    return _REFERENCE.sub(lambda found: _given(*found.groups(), tables), text)


def _given(asked: str, reference: str, tables: Tables) -> str:
    if asked == "judge":
        row, _ = row_of(tables, reference)
        return verdict([row["low"]], [row["high"]])
    found = quote(tables, reference)
    if asked:
        return SAME if found == asked.removeprefix("same ") else OTHER
    return found
