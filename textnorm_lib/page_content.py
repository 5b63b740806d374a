"""What stands on a page (``pages.py``): a notebook's cells as HTML that shows everything and does nothing.

Prompts and outputs are data. Whatever HTML they hold is reduced to elements and attributes that a browser only draws:
nothing runs, nothing is fetched, pictures are within the page and described.
"""

import copy
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import bleach
from bleach.css_sanitizer import CSSSanitizer
from bleach.html5lib_shim import Filter
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from textnorm_lib.formulas import formula

WIDGET = "application/vnd.jupyter.widget-view+json"
WIDGET_NOTE = (
    "<p><em>Here the notebook shows an interactive element, which needs a running kernel: "
    "<code>./run_all.sh lab</code> opens the notebooks.</em></p>"
)
KINDS = ("text/html", "image/svg+xml", "image/png", "image/jpeg", "text/plain")  # of an output, that a page can show
HREF, SRC, ALT = ((None, name) for name in ("href", "src", "alt"))  # as bleach writes them: no namespace
UNDESCRIBED = "a picture without a description"

_TAGS = {
    *("a", "abbr", "b", "blockquote", "br", "caption", "cite", "code", "dd", "del", "details", "div", "dl", "dt", "em"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "kbd", "li", "ol", "p", "pre", "s", "samp", "small"),
    *("span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul"),
}
_ANYWHERE = ("class", "id", "style", "title")
_ATTRIBUTES = {
    "*": _ANYWHERE,
    "a": ("href",),
    "img": lambda _, name, value: name in (*_ANYWHERE, "alt") or (name == "src" and value.startswith("data:image/")),
    "ol": ("start",),
    **dict.fromkeys(("td", "th"), ("colspan", "rowspan", "scope")),
}
_STYLES = ("text-align", "vertical-align", "width")
_PROTOCOLS = ("data", "http", "https", "mailto")


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown, with formulas drawn and tables that scroll within themselves."""

    def inline_math(self, body: str) -> str:
        return formula(body, display=False)

    def block_math(self, body: str) -> str:
        return formula(body, display=True)

    def latex_environment(self, name: str, body: str) -> str:
        return formula(f"\\begin{{{name}}}{body}\\end{{{name}}}", display=True)

    def table(self, text: str) -> str:
        return f'<div class="wide"><table>{text}</table></div>'


def as_html(markdown: str, attachments: dict | None = None) -> str:
    """Markdown as HTML, which is not ``harmless`` yet."""
    rendered = MarkdownWithMath(renderer=_Renderer(escape=False, attachments=attachments)).render(markdown)
    # A line may break after a picture, and a comma would begin the next.
    return re.sub(r'(<img class="formula"[^>]*>)([.,;:!?)]+)', r'<span class="together">\1\2</span>', rendered)


def cells_as_html(notebook: NotebookNode) -> tuple[str, str]:
    """The cells as HTML, which is not ``harmless`` yet, and the style sheet of their code."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = as_html(cell.source, cell.get("attachments"))
        elif cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if _settle(output)]
    notebook.metadata.pop("widgets", None)
    # The template "basic" keeps the alt text of pictures, as "classic" does, and puts no page around the cells.
    exporter = HTMLExporter(template_name="basic", filters={"markdown2html": lambda rendered: rendered})
    cells, resources = exporter.from_notebook_node(notebook)
    return cells, "\n".join(resources["inlining"]["css"])


def _settle(output: NotebookNode) -> bool:
    """Make of an output what a page can show; False if that is nothing."""
    if output.output_type == "stream":
        output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)  # of a progress bar, its last state
    elif "data" in output:
        shown = {kind: output.data[kind] for kind in KINDS if kind in output.data}
        if WIDGET in output.data:
            shown = {"text/html": WIDGET_NOTE}
        elif "application/javascript" in output.data:
            shown = {}
        elif 'class="dataframe"' in shown.get("text/html", ""):
            shown["text/html"] = _with_words_marked(shown["text/html"])
        elif "text/markdown" in output.data:
            shown = {"text/html": as_html(output.data["text/markdown"])}
        output.data = NotebookNode(shown)
        return bool(shown)
    return True


def _with_words_marked(html: str) -> str:
    """pandas' tables; columns of words have the class "words": they begin at the left."""
    page = BeautifulSoup(html, "html.parser")
    for table in page("table"):
        rows = [row(["td", "th"]) for row in table("tr")]
        for column in zip(*rows, strict=False):
            words = sum(re.search("[a-z]{3}", cell.text) is not None for cell in column if cell.name == "td")
            if 2 * words > len(rows) - 1:
                for cell in column:
                    cell["class"] = "words"
    return str(page)


class _Within(Filter):
    """Links lead where they can from the page, pictures are in the page and described; the rest becomes text."""

    def __init__(self, source: Iterable[dict], lead: Callable[[str], str | None]) -> None:
        super().__init__(source)
        self.lead = lead

    def __iter__(self) -> Iterator[dict]:
        for token in super().__iter__():
            if token["type"] not in ("StartTag", "EmptyTag"):
                yield token
                continue
            # bleach escapes a value twice that has quotation marks in it.
            attributes = {key: value.replace('"', "&quot;") for key, value in token["data"].items()}
            if token["name"] == "a" and (href := attributes.pop(HREF, None)) and (leads_to := self.lead(href)):
                attributes[HREF] = leads_to
            if token["name"] == "img":
                attributes[ALT] = attributes.get(ALT) or UNDESCRIBED
            if token["name"] == "img" and SRC not in attributes:
                yield {"type": "Characters", "data": f"[{attributes[ALT]}]"}
            else:
                yield {**token, "data": attributes}


def harmless(page: str, lead: Callable[[str], str | None]) -> str:
    """HTML reduced to elements that do nothing; ``lead`` says where a link leads from the page, or None for nowhere."""
    # What stands between these tags is no text to read; the tags themselves would go in any case.
    page = re.sub(r"<(script|style)\b.*?</\1\s*>", "", page, flags=re.DOTALL | re.IGNORECASE)
    cleaner = bleach.Cleaner(
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        protocols=_PROTOCOLS,
        strip=True,
        filters=[partial(_Within, lead=lead)],
        css_sanitizer=CSSSanitizer(allowed_css_properties=_STYLES),
    )
    return cleaner.clean(page)
