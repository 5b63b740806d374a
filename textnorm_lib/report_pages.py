"""The report's pages: ``papers_figures/README.md``, and what README and docs/findings.md take from the tables."""

import re
from pathlib import Path

from textnorm_lib.cited import Tables, fill
from textnorm_lib.errors import DataError, StudyError

PAGES = ("README.md", "docs/findings.md")  # with numbers that are looked up; the first has the main table
MAIN_TABLE = "tab43_paper_vs_ours"
_LINKED, _CELLS = ("notebook", "here"), re.compile(r"(?<!\\)\|")  # the main table's columns; what parts its cells
MARKS = ("<!-- report: start -->", "<!-- report: end -->")


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
    links = {entry["notebook"].split("_")[0]: f"notebooks/{entry['notebook']}.ipynb" for entry in entries.values()}
    for name, entry in entries.items():
        if file := _shown(entry):
            links[name.split("_")[0]] = f"papers_figures/{file}"

    reasons = sorted({status(entry) for entry in entries.values()} - {"made"})
    made = sum(status(entry) == "made" for entry in entries.values())
    lines = [f"{made} of {len(entries)} figures and tables made.", *(f"Some {reason}." for reason in reasons)]
    if MAIN_TABLE not in entries or not path.exists():
        return " ".join(lines)
    table, caption = path.read_text(encoding="utf-8").rstrip().split("\n\n")
    head, _, *body = ([cell.strip() for cell in _CELLS.split(row)[1:-1]] for row in table.splitlines())
    linked = [
        [_linked(cell, links) if of in _LINKED else cell for of, cell in zip(head, row, strict=True)] for row in body
    ]
    rows = [head, ["---"] * len(head), *linked]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), "", caption, "", *lines])


def _linked(text: str, links: dict[str, str]) -> str:
    """``text`` with a link at each word that is a key."""
    return re.sub(r"\w+", lambda found: f"[{found[0]}]({links[found[0]]})" if found[0] in links else found[0], text)
