"""The report's pages: ``papers_figures/README.md``, and what README and docs/findings.md take from the tables."""

import re
from pathlib import Path

from textnorm_lib.cited import Tables, fill
from textnorm_lib.errors import DataError, StudyError

PAGES = ("README.md", "docs/findings.md")  # with numbers that are looked up; the first has the main table
MAIN_TABLE = "tab43_paper_vs_ours"
MARKS = ("<!-- report: start -->", "<!-- report: end -->")
_ITEM, _NOTEBOOK = re.compile(r"\b(?:fig|tab)\d\d_\w+"), re.compile(r"\b([A\d]\d[a-z]?)_\w+")


def made_tables(folder: Path, manifest: dict) -> Tables:
    """The tables that the last runs made: not what was left from earlier ones."""
    items = manifest["items"].items()
    made = [name for name, entry in items if f"{name}.csv" in entry.get("files", {}) and "not_attempted" not in entry]
    return Tables(folder, tuple(name for name in made if (folder / f"{name}.csv").exists()))


def status(entry: dict) -> str:
    """Made, or why not."""
    if "not_attempted" not in entry:
        return "made"
    kept = "; the files are from an earlier run" if "files" in entry else ""
    return f"not attempted, because {entry['not_attempted']}{kept}"


def list_page(profile: str, manifest: dict, folder: Path) -> str:
    """``papers_figures/README.md``: every figure with its caption, every table, and the list of all."""
    parts = [f"# Figures and tables, profile `{profile}`", "Made by `textnorm_lib/report.py`; not edited by hand."]
    parts.append(_rows(manifest))
    for name, entry in manifest["items"].items():
        parts.append(f"## {name}")
        files = entry.get("files", {})
        if f"{name}.png" in files:
            parts.append(f"![{entry['alt']}]({name}.png)")
        if f"{name}.md" in files:
            parts.append((folder / f"{name}.md").read_text(encoding="utf-8").rstrip())
        else:
            parts.append(entry["caption"])
        if entry["paper_value"]:
            parts.append(f"The paper: {entry['paper_value']}.")
    return "\n\n".join(parts) + "\n"


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


def _rows(manifest: dict) -> str:
    """A Markdown table of all items: what, where it is made, what it stands for in the paper, status."""
    lines = ["| item | notebook | in the paper | status |", "| --- | --- | --- | --- |"]
    for name, entry in manifest["items"].items():
        shown = _shown(entry)
        item = f"[{name}]({shown})" if shown else name
        lines.append(f"| {item} | {entry['notebook']} | {entry['paper_item'] or 'ours'} | {status(entry)} |")
    return "\n".join(lines)


def _shown(entry: dict) -> str:
    """The file of an item that a browser shows; empty if it has none."""
    return next((file for file in entry.get("files", {}) if file.endswith((".png", ".md"))), "")


def _main_table(manifest: dict, folder: Path) -> str:
    """The paper's items against ours, with links, and how many figures and tables there are."""
    entries, path = manifest["items"], folder / f"{MAIN_TABLE}.md"

    def link(found: re.Match) -> str:
        file = _shown(entries.get(found[0], {}))
        return f"[{found[0].split('_')[0]}](papers_figures/{file})" if file else found[0]

    reasons = sorted({status(entry) for entry in entries.values()} - {"made"})
    made = sum(status(entry) == "made" for entry in entries.values())
    lines = [f"{made} of {len(entries)} figures and tables made.", *(f"Some {reason}." for reason in reasons)]
    if MAIN_TABLE not in entries or not path.exists():
        return " ".join(lines)
    table, caption = path.read_text(encoding="utf-8").rstrip().split("\n\n")
    head, rule, *body = re.sub(r"(?<=\|) +| +(?=\|)", " ", table).splitlines()
    body = [_NOTEBOOK.sub(r"[\1](notebooks/\g<0>.ipynb)", row) for row in body]
    body = [_ITEM.sub(link, row) for row in body]
    return "\n".join([head, "| --- " * rule.strip("|").count("|") + "| --- |", *body, "", caption, "", *lines])
