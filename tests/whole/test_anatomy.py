"""Every notebook teaches in the same order, and leads to the one before and the one after.

The order is that of PARTS. A part has to come somewhere after the one before it: a notebook may ask for several
predictions and show several figures, and one such round has to be whole.
"""

import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from textnorm_lib.study import pages
from textnorm_lib.study.items import FIGURES

CHECKOUT = Path(__file__).parents[2]
NOTEBOOKS = sorted(CHECKOUT.glob("notebooks/[0-9A]*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]

# What a part is, the kind of its cell, and how it begins. A cell may hold several parts.
PARTS = (
    ("a title with the notebook's number", "markdown", r"\A# \w+ · "),
    ("the question, and the paper's sections", "markdown", r"^\*\*Question\.\*\* .*\b[Pp]aper\b"),
    ("what you will do, in three points", "markdown", r"^You will\n\n1\. .+\n2\. .+\n3\. .+\n\n(?!4)"),
    ("minutes of reading", "markdown", r"^Reading takes about \d+ minutes"),
    ("minutes of running, by profile", "markdown", r"^\| profile \|.* minutes \|"),
    ("the parameters", "code", r"^profile = "),
    ("the start of the run", "code", r"^run = start_run\("),
    ("the idea in symbols", "markdown", r"^\$\$"),
    ("a toy that is checked", "code", r"^ *assert "),
    ("a prediction", "markdown", r"\*\*Predict"),
    ("a step", "code", r"\brun\.step\b|\bstudy\.\w|^do\("),
    ("a checked result", "code", r"^ *assert "),
    ("what you should see", "markdown", r"^\*\*What you should see"),
    ("a figure or a table", "code", r"\brun\.(figure|table)\(|\b(show|new_figure)\("),
    ("how to read it", "markdown", r"^\*\*How to read it"),
    ("what cannot be shown", "markdown", r"^\*\*What (this|it).*cannot show\.\*\*"),
    ("takeaways", "markdown", r"^## Takeaways\n\n- "),
    ("exercises", "markdown", r"^## Exercises\n\n1\. "),
    ("folded answers", "markdown", r"^<details><summary>Answers</summary>\n\n1\. "),
    ("a glossary", "markdown", r"^## Glossary\n\n\*"),
    ("the way to all terms", "markdown", r"\(\.\./docs/glossary\.md\)"),
    ("the way to other notebooks", "markdown", r"^(Previous|Next): \["),
)


def text_of(cells):
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def missing(cells):
    """The first part that does not come after the one before it; empty if there is none."""
    place, offset = 0, 0
    for part, kind, begins in PARTS:
        while place < len(cells):
            found = re.compile(begins, re.MULTILINE).search(cells[place].source, offset)
            if found and cells[place].cell_type == kind:
                offset = found.end()
                break
            place, offset = place + 1, 0
        else:
            return part
    return ""


def test_every_part_is_there_in_the_order_of_teaching(cells):
    assert missing(cells) == "", "this part is missing, or comes before the part that it ought to follow"


def test_the_title_has_the_number_of_the_file(notebook, cells):
    assert re.match(r"# (\w+) · ", cells[0].source)[1] == notebook.stem.split("_")[0]


def test_the_minutes_of_reading_are_those_of_its_words_and_its_code(cells):
    """200 words a minute, 20 seconds for a cell of code."""
    text = text_of(cells)
    minutes = len(text.split()) / 200 + sum(cell.cell_type == "code" for cell in cells) / 3
    assert abs(int(re.search(r"^Reading takes about (\d+) minutes", text, re.MULTILINE)[1]) - minutes) <= 2


def test_the_minutes_of_running_are_told_for_every_profile(cells):
    table = re.search(r"(?:^\|.*\n)+", text_of(cells[:1]), re.MULTILINE)[0]
    assert [name for name in ("smoke", "mini", "full", "paper") if f"`{name}`" not in table] == []


def test_it_says_what_it_means_if_you_do_not_see_it(cells):
    seen = re.findall(r"^\*\*What you should see.*$", text_of(cells), re.MULTILINE)
    assert [paragraph for paragraph in seen if re.search(r"\b[Ii]f\b", paragraph)]


def test_a_prediction_is_asked_for_before_its_result_is_shown(cells):
    """Between the question and the text that talks of the result there is a cell that shows one."""
    for place, cell in enumerate(cells):
        for found in re.finditer(r"\*\*Predict", cell.source):
            assert "**What you should see" not in cell.source[found.end() :]
            rest = cells[place + 1 :]
            tells = [bool(re.search(r"^\*\*(What|How) ", one.source, re.MULTILINE)) for one in rest]
            assert [one for one in rest[: tells.index(True)] if one.get("outputs")], cell.source[found.start() :][:80]


def test_the_glossary_gives_the_terms_that_it_introduces(cells):
    glossary = text_of(cells).split("## Glossary")[1]
    assert len(re.findall(r"(?:\A|[.\]] |\n)\*[^*]+\*(?:, \*[^*]+\*)*: ", glossary)) >= 3


def test_every_registered_figure_stands_there_with_words_of_its_own(notebook, cells):
    """That each picture has words at all is held elsewhere (test_run_all.py)."""
    outputs = [output for cell in cells for output in cell.get("outputs", []) if "data" in output]
    words = {output.metadata["image/png"]["alt"] for output in outputs if "image/png" in output.data}
    assert len(words) >= sum(item.notebook == notebook.stem for item in FIGURES.values())


# ---- the way from one to the next


def ways(cells):
    """Where ``Previous`` and ``Next`` lead, in the last text of a notebook."""
    (line,) = re.findall(r"^(?:Previous|Next): \[.*$", text_of(cells), re.MULTILINE)
    return dict(re.findall(r"(Previous|Next): \[[^\]]+\]\(([^)]+)\)", line))


def test_previous_and_next_are_the_notebooks_before_and_after(notebook, cells):
    here, expected = NAMES.index(notebook.stem), {}
    if here:
        expected["Previous"] = f"{NAMES[here - 1]}.ipynb"
    if here + 1 < len(NAMES) and NAMES[here + 1][0].isdigit():  # the appendix may be left out
        expected["Next"] = f"{NAMES[here + 1]}.ipynb"
    found = ways(cells)
    assert {name: found.get(name) for name in expected} == expected
    assert [target for target in found.values() if not (notebook.parent / target).is_file()] == []


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The committed notebooks as ``run_all.sh html`` writes them: file name -> page."""
    with pytest.MonkeyPatch.context() as patch:
        artifacts = tmp_path_factory.mktemp("artifacts")
        patch.setenv("TEXTNORM_ARTIFACTS", str(artifacts))
        (artifacts / "runs" / "smoke").mkdir(parents=True)
        for path in NOTEBOOKS:
            (artifacts / "runs" / "smoke" / path.name).write_bytes(path.read_bytes())
        return {path.name: BeautifulSoup(path.read_bytes(), "html.parser") for path in pages.make_pages("smoke")}


def test_previous_and_next_lead_to_the_same_places_on_the_pages(notebook, cells, written):
    expected = [target.replace(".ipynb", ".html") for target in ways(cells).values()]
    (line,) = [p for p in written[f"{notebook.stem}.html"].main("p") if re.match("(Previous|Next): ", p.text)]
    links = [link.get("href") for link in line("a", href=True)]
    assert links[: len(expected)] == expected and set(links) <= written.keys()


def test_the_answers_are_folded_on_the_pages_with_their_code(notebook, written):
    answers = written[f"{notebook.stem}.html"].main("details")
    assert answers and all(found.summary.text == "Answers" for found in answers)
    assert [code for found in answers for code in found("pre") if "assert" in code.text]


def test_the_index_gives_each_notebook_a_number_of_its_own(written):
    numbers = [entry.a.text.split(" · ")[0] for entry in written["index.html"].main("li")]
    assert numbers == [name.split("_")[0] for name in NAMES]
