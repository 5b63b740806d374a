"""Numbers that are not typed: what a text states of a table is looked up in the table's CSV file.

    quote(tables, "tab01_ablation; set=all, reward=pickscore, metric=auroc; mean [low, high]")  # .764 [.752, .775]

A reference names a table, its row by the columns that single it out (``column=value``, or ``column~part`` of a text)
and what is read there: ``mean`` (a number or a word), ``share %`` or ``mean [low, high]``. In a Markdown page a
reference stands unseen before what it gives, and a condition wherever words depend on it:

    PickScore reaches <!--= tab01_ablation; set=all, reward=pickscore, metric=auroc; mean -->.764<!--/-->,
    less than TextNorm.<!--? tab13_paired_differences; set=all, metric=auroc, reward=pickscore; low > 0 -->
"""

import operator
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from textnorm_lib.errors import DataError
from textnorm_lib.figures.style import interval, percent, short
from textnorm_lib.store import digest

QUOTED = re.compile(r"(<!--= ((?:(?!-->).)+?) -->)(.*?)(<!--/-->)", re.DOTALL)
CONDITION = re.compile(r"<!--\? ((?:(?!-->).)+?) ([<>=]) (\S(?:(?!-->).)*?) -->", re.DOTALL)
_HOLDS = {">": operator.gt, "<": operator.lt}
_LARGE = 10  # from here on a decimal says enough


@dataclass(frozen=True)
class Tables:
    """The named tables' CSV files in one folder; ``key`` changes whenever one of them does, as a step's input needs."""

    folder: Path
    names: tuple[str, ...]

    @cached_property
    def key(self) -> str:
        """The digest of all the files."""
        return digest({name: digest((self.folder / f"{name}.csv").read_bytes()) for name in sorted(self.names)})

    @cached_property
    def frames(self) -> dict[str, pd.DataFrame]:
        """Each table as it stands in its file."""
        return {name: pd.read_csv(self.folder / f"{name}.csv") for name in self.names}


def table_of(reference: str) -> str:
    """The name of the table that a reference or a condition reads."""
    return reference.split(";")[0].strip()


def quote(tables: Tables, reference: str) -> str:
    """What the reference gives, as it is printed. Raises ``DataError`` where it does not single out one cell."""
    row, wanted = row_of(tables, reference)
    middle, bracket, ends = wanted.partition(" [")
    column = middle.removesuffix(" %")
    columns = [column, *ends.rstrip("]").split(", ")] if bracket else [column]
    if unknown := [name for name in columns if name not in row.index]:
        raise DataError(
            f"{reference!r}: {table_of(reference)} has no column {unknown[0]!r}; use {', '.join(row.index)}"
        )
    if bracket:
        low, high = columns[1:]
        return interval(pd.Series({"middle": row[column], "low": row[low], "high": row[high]}), "middle")
    return percent(row[column]) if middle.endswith(" %") else printed(row[column])


def printed(value: object) -> str:
    """A cell as it is printed: words as they are, 27,500, .764, 12.3."""
    if isinstance(value, str | bool | np.bool_):
        return str(value)
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    return short(value, 1 if abs(value) >= _LARGE else 3)


def fill(page: str, tables: Tables) -> str:
    """The page with every quoted number as the tables have it; those of tables that are not there stay."""

    def now(found: re.Match) -> str:
        begin, reference, old, end = found.groups()
        return begin + (quote(tables, reference) if table_of(reference) in tables.names else old) + end

    return QUOTED.sub(now, page)


def untrue(page: str, tables: Tables) -> list[str]:
    """The page's conditions that the tables do not meet."""
    found = [match.groups() for match in CONDITION.finditer(page)]
    return [" ".join(one) for one in found if table_of(one[0]) in tables.names and not _meets(tables, *one)]


def _meets(tables: Tables, reference: str, sign: str, bound: str) -> bool:
    row, column = row_of(tables, reference)
    _check_column(reference, column, row.index)
    try:
        return str(row[column]) == bound if sign == "=" else bool(_HOLDS[sign](row[column], float(bound)))
    except (TypeError, ValueError):
        raise DataError(f"{reference!r}: {row[column]!r} and {bound!r} are not two numbers; use =") from None


def row_of(tables: Tables, reference: str) -> tuple[pd.Series, str]:
    """The one row that a reference means, and what it wants of it."""
    name, *rest = (part.strip() for part in reference.split(";"))
    if len(rest) != 2 or name not in tables.names:
        raise DataError(f"{reference!r}: write 'table; column=value, ...; column', with a table of {tables.folder}")
    frame = tables.frames[name]
    for condition in rest[0].split(", "):
        column, sign, value = re.match(r"([^=~]*)([=~]?)(.*)", condition, re.DOTALL).groups()
        _check_column(reference, column, frame.columns)
        texts = frame[column].astype(str)
        frame = frame[texts == value if sign == "=" else texts.str.contains(value, regex=False)]
    if len(frame) != 1:
        raise DataError(f"{reference!r}: {len(frame)} rows of {name} fit; name the columns that single out one")
    return frame.astype(object).iloc[0], rest[1]  # as objects, or counts among numbers would become floats


def _check_column(reference: str, column: str, known: pd.Index) -> None:
    if column not in known:
        raise DataError(f"{reference!r}: {table_of(reference)} has no column {column!r}; use one of {', '.join(known)}")
