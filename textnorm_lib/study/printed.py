"""Numbers and tables in print: .764 [.750, .778]; a table as CSV, Markdown and TeX."""

import re
from collections.abc import Callable
from functools import partial

import pandas as pd

NO_BREAK = "\u00a0"
STAR, MINUS = f"{NO_BREAK}*", f"{NO_BREAK}-"


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
    cells = _without_markup(_one_line(table))
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
    return _of_text(table, lambda cell: re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", cell))


def _without_markup(table: pd.DataFrame) -> pd.DataFrame:
    """Text that begins no column, tag, picture or link of Markdown; "<.001" and "[.75, .78]" stay as they are."""
    replaced = ((r"<(?=[A-Za-z/!?])", "&lt;"), (r"\|", "&#124;"), (r"\]\(", r"]\\("))
    for pattern, harmless in replaced:
        table = _of_text(table, partial(re.sub, pattern, harmless))
    return table


def _of_text(table: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    return table.map(lambda cell: change(cell) if isinstance(cell, str) else cell)
