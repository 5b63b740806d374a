"""What the report writes into Markdown pages: numbers quoted from tables, README's main table, the list of all items.

A number in README or docs/findings.md is not typed. Unseen before it stands where it comes from, and after words that
depend on a number stands what has to hold:

    PickScore reaches <!--= tab01_ablation; set=all, reward=pickscore, metric=auroc; mean -->.764<!--/-->,
    less than TextNorm.<!--? tab13_paired_differences; set=all, metric=auroc, reward=pickscore; low > 0 -->

Such a reference names a table, the columns that single out its row (``column=value``, or ``column~part`` of a text) and
what is read there: ``mean`` (a number or a word), ``share %`` or ``mean [low, high]``.
"""

import operator
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from textnorm_lib.study.errors import DataError, StudyError
from textnorm_lib.study.printed import interval, percent, short
from textnorm_lib.study.store import digest

PAGES = ("README.md", "docs/findings.md")  # the pages with quoted numbers; the first has the main table
MAIN_TABLE = "tab43_paper_vs_ours"
MARKS = ("<!-- report: start -->", "<!-- report: end -->")
QUOTED = re.compile(r"(<!--= ((?:(?!-->).)+?) -->)(.*?)(<!--/-->)", re.DOTALL)
CONDITION = re.compile(r"<!--\? ((?:(?!-->).)+?) ([<>=]) (\S(?:(?!-->).)*?) -->", re.DOTALL)
_HOLDS = {">": operator.gt, "<": operator.lt}
_LARGE = 10  # from here on one decimal is enough


# ---- numbers quoted from tables


@dataclass(frozen=True)
class Tables:
    """The named tables' CSV files, in one folder or else in the one behind it; ``key`` changes whenever a file does."""

    folder: Path
    names: tuple[str, ...]
    behind: Path | None = None

    def path(self, name: str) -> Path:
        """The file of a table."""
        first = self.folder / f"{name}.csv"
        return first if first.exists() or self.behind is None else self.behind / f"{name}.csv"

    @cached_property
    def key(self) -> str:
        """The digest of all the files."""
        return digest({name: digest(self.path(name).read_bytes()) for name in sorted(self.names)})

    @cached_property
    def frames(self) -> dict[str, pd.DataFrame]:
        """Each table as it stands in its file."""
        return {name: pd.read_csv(self.path(name)) for name in self.names}


def made_tables(folder: Path, manifest: dict) -> Tables:
    """The tables that the last runs made: not what was left from earlier ones."""
    items = manifest["items"].items()
    made = [name for name, entry in items if f"{name}.csv" in entry.get("files", {}) and "not_attempted" not in entry]
    return Tables(folder, tuple(name for name in made if (folder / f"{name}.csv").exists()))


def table_of(reference: str) -> str:
    """The name of the table that a reference or a condition reads."""
    return reference.split(";")[0].strip()


def row_of(tables: Tables, reference: str) -> tuple[pd.Series, str]:
    """The one row that a reference means, and what it wants of it. Raises ``DataError`` if it fits none or several."""
    name, *rest = (part.strip() for part in reference.split(";"))
    if len(rest) != 2 or name not in tables.names:
        raise DataError(f"{reference!r}: write 'table; column=value, ...; column', with a table of {tables.folder}")
    frame = tables.frames[name]
    for condition in rest[0].split(", "):
        column, sign, value = re.match(r"([^=~]*)([=~]?)(.*)", condition, re.DOTALL).groups()
        texts = _column(reference, frame, column).astype(str)
        frame = frame[texts == value if sign == "=" else texts.str.contains(value, regex=False)]
    if len(frame) != 1:
        raise DataError(f"{reference!r}: {len(frame)} rows of {name} fit; name the columns that single out one")
    return frame.astype(object).iloc[0], rest[1]  # as objects, or counts among numbers would become floats


def quote(tables: Tables, reference: str) -> str:
    """What the reference gives, as it is printed: words as they are, 27,500, .764, 12.3, 41.6%, .764 [.750, .779].

    Raises ``DataError`` where it does not single out one cell.
    """
    row, wanted = row_of(tables, reference)
    middle, bracket, ends = wanted.partition(" [")
    column = middle.removesuffix(" %")
    value = _column(reference, row, column)
    if bracket:
        low, high = (_column(reference, row, end) for end in ends.rstrip("]").split(", "))
        return interval(pd.Series({"middle": value, "low": low, "high": high}), "middle")
    if middle.endswith(" %"):
        return percent(value)
    if isinstance(value, str | bool | np.bool_):
        return str(value)
    return f"{value:,}" if isinstance(value, int | np.integer) else short(value, 1 if abs(value) >= _LARGE else 3)


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
    value = _column(reference, row, column)
    try:
        return str(value) == bound if sign == "=" else bool(_HOLDS[sign](value, float(bound)))
    except (TypeError, ValueError):
        raise DataError(f"{reference!r}: {value!r} and {bound!r} are not two numbers; use =") from None


def _column(reference: str, table: pd.DataFrame | pd.Series, column: str) -> object:
    """A column of a table, or that cell of a row."""
    try:
        return table[column]
    except KeyError:
        known = ", ".join(table.columns if isinstance(table, pd.DataFrame) else table.index)
        raise DataError(f"{reference!r}: {table_of(reference)} has no column {column!r}; use one of {known}") from None


# ---- the pages


def status(entry: dict) -> str:
    """Made, or why not."""
    if "not_attempted" not in entry:
        return "made"
    kept = "; the files are from an earlier run" if "files" in entry else ""
    return f"not attempted, because {entry['not_attempted']}{kept}"


def list_page(profile: str, manifest: dict, folder: Path) -> str:
    """``papers_figures/README.md``: the list of all items, then every figure with its caption and every table."""
    rows = ["| item | notebook | in the paper | status |", "| --- | --- | --- | --- |"]
    items = []
    for name, entry in manifest["items"].items():
        shown, files = _shown(entry), entry.get("files", {})
        linked = f"[{name}]({shown})" if shown else name
        rows.append(f"| {linked} | {entry['notebook']} | {entry['paper_item'] or 'ours'} | {status(entry)} |")
        items.append(f"## {name}")
        if f"{name}.png" in files:
            items.append(f"![{entry['alt']}]({name}.png)")
        table = folder / f"{name}.md"
        items.append(table.read_text(encoding="utf-8").rstrip() if table.name in files else entry["caption"])
        if entry["paper_value"]:
            items.append(f"The paper: {entry['paper_value']}.")
    head = [
        f"# Figures and tables, profile `{profile}`",
        "Made by `textnorm_lib/figures/report.py`; not edited by hand.",
    ]
    return "\n\n".join([*head, "\n".join(rows), *items]) + "\n"


def _shown(entry: dict) -> str:
    """The file of an item that a browser shows; empty if it has none."""
    return next((file for file in entry.get("files", {}) if file.endswith((".png", ".md"))), "")


def updated(path: Path, manifest: dict, folder: Path) -> str:
    """A page of ``PAGES`` with its numbers, and README with its table, as the tables have them now.

    Raises ``StudyError`` where README's marks are gone, ``DataError`` for a number that is looked up in vain.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    try:
        text = fill(text, made_tables(folder, manifest))
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if path.name != PAGES[0]:
        return text
    before, found, rest = text.partition(MARKS[0])
    _, closed, after = rest.partition(MARKS[1])
    if not found or not closed:
        raise StudyError(f"{path}: the marks {MARKS[0]} and {MARKS[1]} are gone; put them back around its table")
    return f"{before}{MARKS[0]}\n{_main_table(manifest, folder)}\n{MARKS[1]}{after}"


def _main_table(manifest: dict, folder: Path) -> str:
    """The paper's items against ours, with links, and how many figures and tables there are."""
    entries, path = manifest["items"], folder / f"{MAIN_TABLE}.md"
    links = {entry["notebook"].split("_")[0]: f"notebooks/{entry['notebook']}.ipynb" for entry in entries.values()}
    links |= {
        name.split("_")[0]: f"papers_figures/{file}" for name, entry in entries.items() if (file := _shown(entry))
    }

    def linked(text: str) -> str:
        return re.sub(r"\w+", lambda word: f"[{word[0]}]({links[word[0]]})" if word[0] in links else word[0], text)

    reasons = sorted({status(entry) for entry in entries.values()} - {"made"})
    made = sum(status(entry) == "made" for entry in entries.values())
    lines = [f"{made} of {len(entries)} figures and tables made.", *(f"Some {reason}." for reason in reasons)]
    if MAIN_TABLE not in entries or not path.exists():
        return " ".join(lines)
    table, caption = path.read_text(encoding="utf-8").rstrip().split("\n\n")
    head, _, *rows = ([cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table.splitlines())
    for row in rows:
        row[:] = [linked(cell) if of in ("notebook", "here") else cell for of, cell in zip(head, row, strict=True)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))
    return "\n".join([table, "", caption, "", *lines])
