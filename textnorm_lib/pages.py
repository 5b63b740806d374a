"""The notebooks as pages: the study as it was run for a profile, for readers without Jupyter.

    python -m textnorm_lib.pages mini     artifacts/runs/mini/*.ipynb -> artifacts/html/mini/*.html

A page is one file that asks for nothing else: pictures and style are inside, formulas are drawn beforehand, there is no
script, and the page forbids its browser to run or to fetch anything.
"""

import argparse
import html
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import nbformat
from nbformat import NotebookNode

from textnorm_lib.config import DEFAULT_PROFILE, load_profile
from textnorm_lib.errors import DataError, StudyError
from textnorm_lib.page_content import as_html, cells_as_html, harmless
from textnorm_lib.progress import progress
from textnorm_lib.run import records_folder
from textnorm_lib.store import CHECKOUT, artifacts_folder, write_atomically

TITLE = "TextNorm, reproduced"
ABOUT = (
    "A reproducible study of <cite>Confidence-aware Reward Optimization for Fine-tuning Text-to-Image Models</cite> "
    "(Kim et al., ICLR 2024): its notebooks with their results, in the order in which to read them. They were run for "
    "the profile {profile}; the appendix is as it comes with the study."
)
FORBIDDEN = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Chapter:
    """A notebook that becomes a page, and how it came to its results."""

    name: str
    notebook: NotebookNode
    origin: str

    @property
    def file(self) -> str:
        """The page's own name."""
        return f"{self.name}.html"

    @property
    def title(self) -> str:
        """The first heading, or the notebook's name, as HTML."""
        found = re.search(r"^# (.+)$", self._text, re.MULTILINE)
        return html.escape(found[1] if found else self.name)

    @property
    def question(self) -> str:
        """The paragraph that begins with the word Question, without that word, as Markdown; empty if there is none."""
        found = re.search(r"^\*\*Question\.\*\* (.+?)(?:\n\n|\Z)", self._text, re.MULTILINE | re.DOTALL)
        return found[1] if found else ""

    @property
    def _text(self) -> str:
        return "\n\n".join(cell.source for cell in self.notebook.cells if cell.cell_type == "markdown")


def make_pages(profile: str) -> list[Path]:
    """Write a page for each notebook that was run for this profile and for the appendix, and last the index.

    Raises ``ConfigError`` for a profile that does not exist, ``StudyError`` for one that was not run and ``DataError``
    for a file that is no notebook.
    """
    load_profile(profile)
    chapters, left = _chapters(profile)
    folder = artifacts_folder() / "html" / profile
    lead = partial(_lead, folder=folder, pages={chapter.name for chapter in chapters})
    documents = {chapter.file: partial(_page, chapter, chapters, lead) for chapter in chapters}
    documents["index.html"] = partial(_index, chapters, left, profile, lead)
    for file, document in progress(documents.items(), "pages", unit="page"):
        write_atomically(folder / file, _without_machine(document()).encode())
    return [folder / file for file in documents]


def _chapters(profile: str) -> tuple[list[Chapter], list[str]]:
    """Those that there are, in order, and the names of the notebooks that were not run."""
    runs = records_folder(profile)
    numbered = sorted((CHECKOUT / "notebooks").glob("[0-9]*.ipynb"))
    made = [runs / path.name for path in numbered if (runs / path.name).exists()]
    if not made:
        raise StudyError(f"{runs}: no notebook was run for profile {profile}; run ./run_all.sh {profile} first")
    chapters = [Chapter(path.stem, _read(path), f"run for profile {profile}") for path in made]
    appendix = sorted((CHECKOUT / "notebooks").glob("A*.ipynb"))
    chapters += [Chapter(path.stem, _read(path), "as it comes with the study") for path in appendix]
    return chapters, [path.name for path in numbered if runs / path.name not in made]


def _read(path: Path) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, nbformat.ValidationError) as error:
        raise DataError(f"{path}: is no notebook ({type(error).__name__}); delete it and run the study again") from None


def _lead(href: str, *, folder: Path, pages: set[str]) -> str | None:
    """Where a notebook's link leads from a page in ``folder``: another page, a file of the checkout or the web."""
    parts = urlsplit(href)
    if parts.scheme or parts.netloc:
        return href if parts.scheme in ("http", "https", "mailto") else None
    if not parts.path:
        return href
    notebooks = (CHECKOUT / "notebooks").resolve()
    path = (notebooks / unquote(parts.path)).resolve()
    if path.suffix == ".ipynb" and path.stem in pages and path.parent == notebooks:
        place = f"{path.stem}.html"
    elif path.exists() and path.is_relative_to(notebooks.parent) and folder.resolve().is_relative_to(notebooks.parent):
        place = quote(os.path.relpath(path, folder.resolve()))
    else:
        return None
    return f"{place}#{parts.fragment}" if parts.fragment else place


# ---- the documents


def _index(chapters: list[Chapter], left: list[str], profile: str, lead: Callable[[str], str | None]) -> str:
    """The reading order, each page with its question, and what was not run."""
    entries = [
        f'<li><a href="{chapter.file}">{chapter.title}</a>{harmless(as_html(chapter.question), lead)}</li>\n'
        for chapter in chapters
    ]
    missing = f"<p>Not run for this profile: {', '.join(left)}.</p>" if left else ""
    about = ABOUT.format(profile=profile)
    return _document(TITLE, f"<h1>{TITLE}</h1>\n<p>{about}</p>\n<ul>\n{''.join(entries)}</ul>\n{missing}")


def _page(chapter: Chapter, chapters: list[Chapter], lead: Callable[[str], str | None]) -> str:
    """A notebook's cells, with the way to the page before, the index and the page after."""
    here = chapters.index(chapter)
    links = [f'<a rel="prev" href="{one.file}">← {one.title}</a>' for one in chapters[:here][-1:]]
    links += ['<a href="index.html">All notebooks</a>']
    links += [f'<a rel="next" href="{one.file}">{one.title} →</a>' for one in chapters[here + 1 :][:1]]
    cells, style = cells_as_html(chapter.notebook)
    origin = f"<code>notebooks/{chapter.name}.ipynb</code>, {chapter.origin}; <code>./run_all.sh lab</code> opens it."
    body = f'<p class="origin">{origin}</p>\n{harmless(cells, lead)}'
    return _document(chapter.title, body, navigation=f"<nav>{''.join(links)}</nav>", style=style)


def _document(title: str, body: str, *, navigation: str = "", style: str = "") -> str:
    sheet = Path(__file__).with_suffix(".css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{FORBIDDEN}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
{sheet}</style>
</head>
<body>
{navigation}
<main>
{body}
</main>
{navigation}
</body>
</html>
"""


def _without_machine(page: str) -> str:
    """A page that names no folder of the machine that made it: the checkout is ``.``, the home folder ``~``."""
    places = {CHECKOUT: ".", artifacts_folder().absolute(): "artifacts", Path.home(): "~"}
    short = {str(path): name for path, name in places.items() if path.name}
    longest_first = "|".join(re.escape(path) for path in sorted(short, key=len, reverse=True))
    # A path begins where no word and no other path goes on: letters of a picture may spell one, and are left alone.
    pattern = rf"(?:file://|(?<![\w+/]))({longest_first})(?![\w.-])"
    return re.sub(pattern, lambda found: short[found[1]], page)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m textnorm_lib.pages", description="Write the notebooks as pages.")
    parser.add_argument("profile", nargs="?", default=DEFAULT_PROFILE)
    try:
        *pages, index = make_pages(parser.parse_args(arguments).profile)
    except StudyError as error:
        print(f"pages: {error}", file=sys.stderr)
        return 2
    print(f"pages: {len(pages)} notebooks in {index.parent}; open {index.name} in a browser")
    return 0


if __name__ == "__main__":
    sys.exit(main())
