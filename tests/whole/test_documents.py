"""README, docs/, the notebooks' words, CITATION.cff: links lead somewhere, code runs, numbers are looked up."""

import importlib.util
import json
import re
import subprocess
import textwrap
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pandas as pd
import pdoc
import pytest
import yaml
from bs4 import BeautifulSoup
from PIL import Image

import textnorm_lib.__main__
from textnorm_lib.figures.report import ITEMS
from textnorm_lib.judging.labelled import answer_all
from textnorm_lib.judging.labelling import ALIGNMENT, Session, alignment_items
from textnorm_lib.pipeline import Pipeline
from textnorm_lib.study.config import as_dict, load_profile, profile_names
from textnorm_lib.study.printed import CONDITION, MARKS, PAGES, QUOTED, table_of
from textnorm_lib.study.store import CHECKOUT

README, FINDINGS = ((CHECKOUT / page).read_text(encoding="utf-8") for page in PAGES)
GLOSSARY = (CHECKOUT / "docs" / "glossary.md").read_text(encoding="utf-8")
DOCUMENTS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
NAMING = [*DOCUMENTS, CHECKOUT / "benchmarks" / "environments" / "README.md", *NOTEBOOKS]
STATEMENTS = re.findall(r"^- \*\*.+$", FINDINGS, re.MULTILINE)
RESULT = re.compile(r"\d*\.\d+|\d+ ?%|\d{1,3}(?:,\d{3})+")
SECTIONS = ("What is reproduced", "Two commands", "Profiles", "Reading order", "Labelling images yourself")
SECTIONS += ("TextNorm in your own training run", "File tree", "Deviations from the paper", "Reliability")
SECTIONS += ("Cards, citation, licence",)


def section(text, heading):
    """What stands under a heading of the second level."""
    return re.split(r"^## ", text.split(f"## {heading}\n")[1], flags=re.MULTILINE)[0]


def markdown_cells(notebook):
    return [cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "markdown"]


def anchors(path):
    """The fragments that lead to headings: as GitHub writes them for pages, as Jupyter does for notebooks."""
    if path.suffix == ".ipynb":
        texts = re.findall(r"^#+ (.+)$", "\n".join(markdown_cells(path)), re.MULTILINE)
        return {text.strip().replace(" ", "-") for text in texts}
    texts = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


# ---- links


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(CHECKOUT).as_posix())
def test_every_link_to_a_file_or_a_heading_leads_somewhere(document):
    text = re.sub(r"```.*?```|`[^`\n]+`", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(<?([^()\s<>]+(?:\([^()]*\))?)>?\)", text):
        if re.match(r"https?:", target):
            continue
        file, _, fragment = unquote(target).partition("#")
        path = document.parent / file if file else document
        if not path.exists() or (fragment and fragment not in anchors(path)):
            broken.append(target)
    assert broken == []


# ---- code and names of code


LIBRARY = CHECKOUT / "textnorm_lib"
BLOCK = re.compile(r"(<!-- only compiled: .+? -->\n)?```python\n(.+?)```", re.DOTALL)
BLOCKS = [
    pytest.param(code, bool(only), id=f"{path.relative_to(CHECKOUT).as_posix()}-{number}")
    for path in DOCUMENTS
    for number, (only, code) in enumerate(BLOCK.findall(path.read_text(encoding="utf-8")), 1)
]
FACE = textwrap.dedent(textnorm_lib.__doc__.split("\n\n", 1)[1].split("The names below")[0])  # its example


@pytest.fixture
def somewhere(tmp_path, monkeypatch):
    """A folder as README's reader has it: six images, their table, and the answers of three people."""
    table = pd.DataFrame({"image": [f"{i}.png" for i in range(6)], "prompt": ["a red bird", "two cats"] * 3})
    table.to_csv(tmp_path / "my_images.csv", index=False)
    (tmp_path / "my_images").mkdir()
    for name in table["image"]:
        Image.new("RGB", (8, 8)).save(tmp_path / "my_images" / name)
    for person in ("ana", "ben", "eva"):
        items = alignment_items(table, tmp_path / "my_images")
        session = Session(tmp_path / f"{person}.jsonl", items, ALIGNMENT, annotator=person, seed=0)
        answer_all(session, lambda item, _: "good" if item.name < "3.png" else "bad")
        session.close()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("code", "only_compiled"), [*BLOCKS, pytest.param(FACE, False, id="the public face")])
def test_the_python_that_is_shown_runs(code, only_compiled, somewhere):
    compiled = compile(code, "block", "exec")
    if not only_compiled:
        exec(compiled, {})


def test_the_example_for_ones_own_training_run_has_ten_lines_and_gives_rewards_of_four_images():
    (code,) = re.findall(r"```python\n(.+?)```", section(README, "TextNorm in your own training run"), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    exec(code, shown := {})
    values, spread = shown["values"], shown["info"]["spread"]
    assert len(values) == len(spread) == 4 and (values <= 1).all() and (spread >= 0).all()


def test_the_page_of_the_public_face_tells_of_every_name():
    page = BeautifulSoup(pdoc.pdoc("textnorm_lib"), "html.parser")
    told = {part["id"]: part.select_one(".docstring") for part in page.select("main > section[id]")}
    assert list(told) == textnorm_lib.__all__
    assert [name for name, words in told.items() if not words] == ["METRICS"]  # a dict


def prose(path):
    """What a reader sees of a document or a notebook's text."""
    return "\n".join(markdown_cells(path)) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")


def is_there(name):
    """Whether a dotted name is a module of the library or something in one."""
    whole = f"textnorm_lib.{name}"
    module, _, attribute = whole.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute) or importlib.util.find_spec(whole) is not None
    except ModuleNotFoundError:
        return False


def is_key(name):
    """Whether a dotted name is a key of the profiles."""
    found = as_dict(load_profile("mini"))
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found is not None


def is_handle(name):
    """Whether a dotted name is one of the pipeline's, which notebooks and pages call ``study``."""
    head, handle, *_ = name.split(".")
    return head == "study" and hasattr(Pipeline, handle)


@pytest.mark.parametrize("page", NAMING, ids=lambda path: path.relative_to(CHECKOUT).as_posix())
def test_what_a_page_names_of_the_code_is_there(page):
    text, roots = prose(page), (CHECKOUT, LIBRARY, page.parent)
    files = re.findall(r"`([\w./-]+\.py|(?:textnorm_lib|tests|benchmarks|docs|notebooks)/[\w./-]*)`", text)
    assert [name for name in files if not any((root / name).exists() for root in roots)] == []
    rooms = "|".join(path.parent.name for path in LIBRARY.glob("*/__init__.py"))
    dotted = re.findall(r"\btextnorm_lib\.((?!html)\w+(?:\.\w+)*)", text)
    dotted += re.findall(rf"`((?:{rooms})(?:\.\w+)+)`", text)
    assert [name for name in dotted if not (is_there(name) or is_key(name) or is_handle(name))] == []


@pytest.mark.parametrize("page", NAMING, ids=lambda path: path.relative_to(CHECKOUT).as_posix())
def test_the_commands_that_a_page_shows_are_there(page):
    commands = re.findall(r"^ {4}(\w+) ", textnorm_lib.__main__.__doc__, re.MULTILINE)
    for module, command in re.findall(r"-m ((?:textnorm_lib|benchmarks)[\w.]*) ?(\w*)", prose(page)):
        assert importlib.util.find_spec(module.rstrip(".")), module
        assert module != "textnorm_lib" or command in ("", *commands), command


# ---- README


def test_readme_has_its_sections_in_order():
    found = re.findall(r"^## (.+)$", README, re.MULTILINE)
    assert found == list(SECTIONS)


def test_the_file_tree_names_every_room_and_every_top_level_file_and_nothing_else():
    (block,) = re.findall(r"```\n(.+?)```", section(README, "File tree"), re.DOTALL)
    lines = [re.fullmatch(r"( *)(\S+) {2,}\S.*", line).groups() for line in block.splitlines()]  # each with a comment
    named = {f"textnorm_lib/{name}" if indent else name for indent, name in lines}
    tracked = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    files = [Path(line).parts for line in tracked.splitlines() if line != ".gitignore"]
    top = {parts[0] + "/" * (len(parts) > 1) for parts in files}
    rooms = {"/".join(parts[:2]) + "/" * (len(parts) > 2) for parts in files if parts[0] == "textnorm_lib"}
    assert named == top | rooms - {"textnorm_lib/__init__.py"}


def test_every_profile_says_how_long_it_takes_and_what_it_cannot_show():
    rows = re.findall(r"^\| `([\w-]+)` \|(.+)\|$", section(README, "Profiles"), re.MULTILINE)
    assert {name for name, _ in rows} == set(profile_names())
    assert [name for name, cells in rows if any(cell.strip() in ("", "–") for cell in cells.split("|"))] == []


def test_the_reading_order_names_every_notebook_once():
    named = re.findall(r"\]\(notebooks/(\S+?)\)", section(README, "Reading order"))
    assert named == [path.name for path in NOTEBOOKS]


# ---- numbers


def typed_results(text):
    """Numbers that look like results and are not looked up; settings stand in code spans."""
    text = QUOTED.sub("", text)
    for ignored in (r"<!--.*?-->", r"```.*?```", r"`[^`]+`", r"\]\([^)]*\)", r"95% (?=intervals)"):
        text = re.sub(ignored, "", text, flags=re.DOTALL)
    return RESULT.findall(text)


def test_no_result_is_typed_into_readme_or_the_findings():
    start, end = (section(README, SECTIONS[0]).partition(mark) for mark in MARKS)
    assert typed_results(start[0]) == typed_results(end[2]) == typed_results(FINDINGS) == []


def test_a_typed_result_would_be_found():
    assert typed_results("It is .76, 12% and 1,234 of `5.5` <!--= tab01; a=b; c -->.9<!--/-->") == [
        ".76",
        "12%",
        "1,234",
    ]


@pytest.mark.parametrize("page", PAGES)
def test_no_quoted_number_is_empty_and_each_is_of_a_registered_table(page):
    text = (CHECKOUT / page).read_text(encoding="utf-8")
    quoted, conditions = QUOTED.findall(text), CONDITION.findall(text)
    assert (len(quoted), len(conditions)) == (text.count("<!--="), text.count("<!--?")) and quoted
    assert [reference for reference, *_ in conditions if table_of(reference) not in ITEMS] == []
    assert [reference for _, reference, value, _ in quoted if not value or table_of(reference) not in ITEMS] == []


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda text: text.split("**")[1])
def test_each_finding_has_numbers_and_leads_to_the_cell_that_shows_one_of_its_tables(statement):
    tables = {table_of(reference) for _, reference, _, _ in QUOTED.findall(statement)}
    ((notebook, heading),) = re.findall(r"notebooks/(\S+?\.ipynb)#(.+)\)\)$", statement)
    modules = {item.module for item in ITEMS.values() if f"{item.notebook}.ipynb" == notebook}
    functions = {name: one for module in modules for name, one in vars(module).items() if hasattr(one, "item")}
    named = {name: one.item.name for name, one in functions.items()}
    title, shown = "", set()
    for cell in nbformat.read(CHECKOUT / "notebooks" / notebook, 4).cells:
        if cell.cell_type == "markdown":
            title = [title, *re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)][-1]
        elif title.replace(" ", "-") == heading:
            shown |= {named.get(one, one) for one in re.findall(r"run\.table\(\s*\"?(?:\w+\.)*(\w+)", cell.source)}
    assert tables & shown, f"{tables} are not shown under {heading} in {notebook}, which shows {shown}"


# ---- glossary


def terms():
    return re.findall(r"^- \*\*(.+?)\.\*\* ", GLOSSARY, re.MULTILINE)


def test_the_glossary_is_alphabetical_and_each_term_is_defined_once_with_its_notebook():
    firsts = [term.split(" / ")[0].casefold() for term in terms()]
    assert firsts == sorted(firsts)
    names = [name.casefold() for term in terms() for name in term.split(" / ")]
    assert len(names) == len(set(names)) > 60
    entries = GLOSSARY.split("\n- ")[1:]
    assert [entry for entry in entries if entry.count("\n") > 2 or "(../notebooks/" not in entry] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_term_of_a_notebooks_glossary_is_in_the_glossary(notebook):
    known = {name.casefold() for term in terms() for name in term.split(" / ")}
    for source in markdown_cells(notebook):
        _, found, text = source.partition("## Glossary\n")
        used = re.findall(r"\*([^*]+)\*(?=:|, \*)", text.strip().split("\n\n")[0])
        assert not found or used
        missing = {name for names in used for name in names.casefold().split(", ")} - known
        assert missing == set()


# ---- citation


def test_the_citation_file_has_what_the_format_requires_and_names_the_paper():
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["license"] == "Apache-2.0" and citation["version"] == textnorm_lib.__version__
    assert citation["authors"] == [{"name": "Authors of the reproduction study 'TextNorm, reproduced'"}]
    (paper,) = citation["references"]
    assert {"type", "title", "authors", "year"} <= set(paper)
    names = [f"{author['given-names']} {author['family-names']}" for author in paper["authors"]]
    assert f"The paper: {', '.join(names)}. *{paper['title']}.* ICLR {paper['year']}" in README


def test_the_manifest_counts_what_readme_says_was_made():
    items = json.loads((CHECKOUT / "papers_figures" / "manifest.json").read_text(encoding="utf-8"))["items"]
    made = sum("not_attempted" not in entry for entry in items.values())
    assert f"{made} of {len(items)} figures and tables made." in README
