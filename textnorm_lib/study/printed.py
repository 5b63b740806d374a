"""Numbers and tables in print: in cells, as CSV, Markdown and TeX, and on the Markdown pages that quote them.

A number in README or docs/findings.md is not typed. Unseen before it stands where it comes from, and after words that
depend on a number stands what has to hold:

    PickScore reaches <!--= tab01_ablation; set=all, reward=pickscore, metric=auroc; mean -->.764<!--/-->,
    less than TextNorm.<!--? tab13_paired_differences; set=all, metric=auroc, reward=pickscore; low > 0 -->

Such a reference names a table, the columns that single out its row (``column=value``, or ``column~part`` of a text) and
what is read there: ``mean`` (a number or a word), ``share %`` or ``mean [low, high]``.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd

from textnorm_lib.study.errors import DataError, StudyError
from textnorm_lib.study.store import digest

NO_BREAK = "\u00a0"
STAR, MINUS = f"{NO_BREAK}*", f"{NO_BREAK}-"
PAGES = ("README.md", "docs/findings.md")  # the pages with quoted numbers; the first has the main table
MAIN_TABLE = "tab43_paper_vs_ours"
MARKS = ("<!-- report: start -->", "<!-- report: end -->")
QUOTED = re.compile(r"(<!--= ((?:(?!-->).)+?) -->)(.*?)(<!--/-->)", re.DOTALL)
CONDITION = re.compile(r"<!--\? ((?:(?!-->).)+?) ([<>=]) (\S(?:(?!-->).)*?) -->", re.DOTALL)
_LARGE = 10  # a quoted number from here on has one decimal


# ---- a number


def short(value: float, digits: int = 3) -> str:
    """.764 for 0.7641, -.02 for -0.0200: the habit of the field for numbers between -1 and 1."""
    if pd.isna(value):
        return "–"
    text = f"{round(value, digits) + 0.0:.{digits}f}"  # adding 0.0 turns -0.0 into 0.0
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def percent(value: float) -> str:
    """45.6% for 0.456."""
    return "–" if pd.isna(value) else f"{value:.1%}"


def interval(row: pd.Series, middle: str = "mean", digits: int = 3) -> str:
    """.764 [.750, .778], which a narrow column breaks before the bracket only."""
    return f"{short(row[middle], digits)} [{short(row['low'], digits)},{NO_BREAK}{short(row['high'], digits)}]"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


# ---- a table as a file


def as_csv(frame: pd.DataFrame) -> bytes:
    """The tidy numbers behind a table, every digit."""
    return frame.to_csv(index=False, lineterminator="\n").encode()


def as_markdown(table: pd.DataFrame, caption: str, profile: str) -> bytes:
    """The printed table with its caption and profile."""
    cells = _one_line(table)
    # No cell begins a tag, a column or a link; "<.001" and "[.75, .78]" stay as they are.
    for markup, harmless in ((r"<(?=[A-Za-z/!?])", "&lt;"), (r"\|", "&#124;"), (r"\]\(", r"]\\(")):
        cells = _of_text(cells, partial(re.sub, markup, harmless))
    return f"{cells.to_markdown(index=False, disable_numparse=True)}\n\n{caption} (Profile: {profile}.)\n".encode()


def as_tex(table: pd.DataFrame, caption: str, profile: str) -> bytes:
    """A booktabs table at footnote size, shrunk to the text's width where it is wider; needs booktabs and graphicx."""
    body = _one_line(table).to_latex(index=False, escape=True).rstrip()
    text = f"{caption} (Profile: {profile}.)".replace("%", r"\%").replace("_", r"\_").replace("&", r"\&")
    text = text.replace("<", r"$<$")
    fitted = f"\\resizebox{{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}}{{!}}{{%\n{body}}}"
    return f"\\begin{{table}}\n\\footnotesize\n\\caption{{{text}}}\n{fitted}\n\\end{{table}}\n".encode()


def _one_line(table: pd.DataFrame) -> pd.DataFrame:
    """Text without line breaks and control characters, which would end a row or steer a terminal."""
    return _of_text(table, partial(re.sub, r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " "))


def _of_text(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    return table.map(lambda cell: change(cell) if isinstance(cell, str) else cell)


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
        return interval(pd.Series({"mean": value, "low": low, "high": high}))
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
    if sign == "=":
        return str(value) == bound
    try:
        return bool((operator.gt if sign == ">" else operator.lt)(value, float(bound)))
    except (TypeError, ValueError):
        raise DataError(f"{reference!r}: {value!r} and {bound!r} are not two numbers; use =") from None


def _column(reference: str, table: pd.DataFrame | pd.Series, column: str) -> object:
    """A column of a table, or that cell of a row."""
    if column not in (known := table.columns if isinstance(table, pd.DataFrame) else table.index):
        known = ", ".join(known)
        raise DataError(f"{reference!r}: {table_of(reference)} has no column {column!r}; use one of {known}")
    return table[column]


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
    title = f"# Figures and tables, profile `{profile}`"
    made_by = "Made by `textnorm_lib/figures/report.py`; not edited by hand."
    return "\n\n".join([title, made_by, "\n".join(rows), *items]) + "\n"


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
    files = {name.split("_")[0]: _shown(entry) for name, entry in entries.items()}
    links |= {number: f"papers_figures/{file}" for number, file in files.items() if file}

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
