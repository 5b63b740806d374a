"""The notebooks as pages: the study as a profile ran it, for readers without Jupyter.

    python -m textnorm_lib pages mini     artifacts/runs/mini/*.ipynb -> artifacts/html/mini/*.html

nbconvert writes them by the template in ``page_template/``. A page is one file that asks for nothing else: it holds its
pictures and its style, its formulas are MathML, which browsers set themselves, and no script runs in it.
"""

import html
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import bleach
import nbformat
from bleach.css_sanitizer import CSSSanitizer
from bs4 import BeautifulSoup, Tag
from math_core import LatexError, LatexToMathML
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from textnorm_lib.study.config import load_profile
from textnorm_lib.study.errors import DataError, StudyError
from textnorm_lib.study.progress import progress
from textnorm_lib.study.run import records_folder
from textnorm_lib.study.store import CHECKOUT, artifacts_folder, write_atomically

INDEX = """# TextNorm, reproduced

A reproducible study of <cite>Confidence-aware Reward Optimization for Fine-tuning Text-to-Image Models</cite> (Kim et
al., ICLR 2024): its notebooks with their results, in the order in which to read them. The numbered ones were run for
the profile {profile}; the appendix is as it comes with the study."""
LONGEST_FORMULA = 2_000  # characters; deeper nesting than these can hold would end the process that converts it
_DRAWN = """br caption cite dd del details div dl dt h1 h2 h3 h4 h5 h6 hr img kbd p pre s samp small span sub summary
    sup table tbody td tfoot th thead tr u"""
_CLEANER = bleach.Cleaner(
    tags=bleach.ALLOWED_TAGS | set(_DRAWN.split()),
    attributes={
        "*": ["class", "id", "style", "title"],
        "a": ["href"],
        "img": lambda _, name, value: name == "alt" or (name == "src" and value.startswith("data:image/")),
        "ol": ["start"],
        **dict.fromkeys(("td", "th"), ("colspan", "rowspan", "scope")),
    },
    protocols={"data", "http", "https", "mailto"},
    strip=True,
    css_sanitizer=CSSSanitizer(allowed_css_properties=["text-align", "vertical-align", "width"]),
)
_MATHML = LatexToMathML(annotation=True, fancy_error=False)


@dataclass(frozen=True)
class Page:
    """A notebook that becomes a page; ``origin``: how it came to its results, empty for the list of all pages."""

    name: str
    notebook: NotebookNode
    origin: str = ""

    @property
    def title(self) -> str:
        """The first heading, or the notebook's name."""
        return self._first(r"^# (.+)$") or self.name

    @property
    def question(self) -> str:
        """The paragraph that begins with the word Question, without that word, as Markdown; empty if there is none."""
        return self._first(r"^\*\*Question\.\*\* ((?:.+\n?)+)")

    def _first(self, pattern: str) -> str:
        text = "\n\n".join(cell.source for cell in self.notebook.cells if cell.cell_type == "markdown")
        found = re.search(pattern, text, re.MULTILINE)
        return found[1] if found else ""


def make_pages(profile: str) -> list[Path]:
    """Write a page for each notebook that was run for this profile and for the appendix, and last the index.

    Raises ``ConfigError`` for a profile that does not exist, ``StudyError`` for one that was not run and ``DataError``
    for a file that is no notebook.
    """
    load_profile(profile)
    runs, notebooks = records_folder(profile), CHECKOUT / "notebooks"
    numbered = sorted(path.name for path in notebooks.glob("[0-9]*.ipynb"))
    made = [name for name in numbered if (runs / name).exists()]
    if not made:
        raise StudyError(f"{runs}: no notebook was run for profile {profile}; run ./run_all.sh {profile} first")
    pages = [Page(Path(name).stem, _read(runs / name), f"run for profile {profile}") for name in made]
    for path in sorted(notebooks.glob("A*.ipynb")):
        pages.append(Page(path.stem, _read(path), "as it comes with the study"))
    index = _index(pages, [name for name in numbered if name not in made], profile)
    folder = artifacts_folder() / "html" / profile
    lead = partial(_lead, folder=folder, pages={page.name for page in pages})
    exporter = HTMLExporter(
        template_name="page_template",
        extra_template_basedirs=[str(Path(__file__).parent)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        filters={"as_html": as_html, "harmless": partial(harmless, lead=lead)},
    )
    around = [*zip([None, *pages], pages, [*pages[1:], None], strict=False), (None, index, None)]
    for before, page, after in progress(around, "pages", unit="page"):
        told = {"before": before, "page": page, "after": after}
        document, _ = exporter.from_notebook_node(page.notebook, told)
        write_atomically(folder / f"{page.name}.html", _without_machine(document).encode())
    return [folder / f"{page.name}.html" for _, page, _ in around]


def _read(path: Path) -> NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, nbformat.ValidationError) as error:
        raise DataError(f"{path}: is no notebook ({type(error).__name__}); delete it and run the study again") from None


def _index(pages: list[Page], left: list[str], profile: str) -> Page:
    """The reading order, each page with its question, and what was not run."""
    parts = [INDEX.format(profile=profile)]
    parts += [f"- [{page.title}]({page.name}.ipynb)\n\n  {' '.join(page.question.split())}" for page in pages]
    parts += [f"Not run for this profile: {', '.join(left)}."] if left else []
    return Page("index", new_notebook(cells=[new_markdown_cell("\n\n".join(parts))]))


def _lead(href: str, *, folder: Path, pages: set[str]) -> str | None:
    """Where a notebook's link leads from a page in ``folder``: another page, a file of the checkout or the web."""
    checkout, folder = CHECKOUT.resolve(), folder.resolve()
    try:
        parts = urlsplit(href)
        if parts.scheme in ("http", "https", "mailto") or href.startswith("#"):
            return href
        path = (checkout / "notebooks" / unquote(parts.path)).resolve()
        found = bool(parts.path) and path.exists()
    except (OSError, ValueError):  # too long for a file's name, no address
        return None
    if path.suffix == ".ipynb" and path.stem in pages and path.parent == checkout / "notebooks":
        place = f"{path.stem}.html"
    elif found and path.is_relative_to(checkout) and folder.is_relative_to(checkout):
        place = quote(os.path.relpath(path, folder))
    else:
        return None
    return f"{place}#{parts.fragment}" if parts.fragment else place


# ---- what the template asks for


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown, with each formula's LaTeX marked; ``harmless`` sets it."""

    def inline_math(self, body: str) -> str:
        return f'<code class="formula">{html.escape(body.strip())}</code>'

    def block_math(self, body: str) -> str:
        return f'<span class="display">{self.inline_math(body)}</span>'

    def latex_environment(self, name: str, body: str) -> str:
        return self.block_math(f"\\begin{{{name}}}{body}\\end{{{name}}}")


def as_html(markdown: str, attachments: dict | None = None) -> str:
    """Markdown as HTML, which is not ``harmless`` yet."""
    return MarkdownWithMath(renderer=_Renderer(escape=False, attachments=attachments)).render(markdown)


def harmless(page: str, lead: Callable[[str], str | None]) -> str:
    """HTML reduced to what a browser only draws: nothing runs, nothing is fetched, pictures are inside and described.

    Prompts and outputs are data, whatever HTML they hold. ``lead`` says where a link leads from the page, or None for
    nowhere: then its text stays.
    """
    # What stands between these tags is no text to read; the tags themselves would go in any case.
    page = re.sub(r"<(script|style)\b.*?</\1\s*>", "", page, flags=re.DOTALL | re.IGNORECASE)
    soup = BeautifulSoup(_CLEANER.clean(page), "html.parser")
    for link in soup("a", href=True):
        if leads_to := lead(link["href"]):
            link["href"] = leads_to
        else:
            del link["href"]
    for image in soup("img"):
        image["alt"] = image.get("alt") or "a picture without a description"
        if "src" not in image.attrs:
            image.replace_with(f"[{image['alt']}]")
    for table in soup("table"):
        table.wrap(soup.new_tag("div", attrs={"class": "wide"}))
        if "dataframe" in table.get("class", []):
            _mark_words(table)
    for code in soup("code", class_="formula"):
        _set(code)
    return str(soup)


def _mark_words(table: Tag) -> None:
    """Give the columns of words in one of pandas' tables the class "words": they begin at the left."""
    rows = [row(["td", "th"]) for row in table("tr")]
    for column in zip(*rows, strict=False):
        below = [cell for cell in column if cell.find_parent("tbody")]
        if 2 * sum(bool(re.search("[A-Za-z]{3}", cell.text)) for cell in below) > len(below):
            for cell in column:
                cell["class"] = "words"


def _set(code: Tag) -> None:
    """Put MathML in the place of a formula's LaTeX; what cannot be set stays as it is written, and is said so."""
    tex, displayed = code.text, "display" in code.parent.get("class", [])
    try:
        if len(tex) > LONGEST_FORMULA:
            raise ValueError
        mathml = _MATHML.convert_with_local_state(tex, displaystyle=displayed)
    except (LatexError, ValueError):
        print(f"pages: this formula cannot be set and is shown as it is written: {tex}", file=sys.stderr)
        return
    after = code.next_sibling
    code.replace_with(formula := BeautifulSoup(mathml, "html.parser").math)
    # A line may break after a formula, and a comma would begin the next.
    mark = re.match(r"[.,;:!?)]+", after) if isinstance(after, str) else None
    if mark:
        formula.wrap(Tag(name="span", attrs={"class": "together"})).append(mark[0])
        after.replace_with(after[mark.end() :])


def _without_machine(page: str) -> str:
    """A page that names no folder of the machine that made it: the checkout is ``.``, the home folder ``~``."""
    places = {CHECKOUT: ".", artifacts_folder().absolute(): "artifacts", Path.home(): "~"}
    short = {str(path): name for path, name in places.items() if path.name}
    longest_first = "|".join(re.escape(path) for path in sorted(short, key=len, reverse=True))
    # A path begins where no word and no other path goes on: letters of a picture may spell one, and are left alone.
    pattern = rf"(?:file://|(?<![\w+/]))({longest_first})(?![\w.-])"
    return re.sub(pattern, lambda found: short[found[1]], page)
