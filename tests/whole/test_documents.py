"""README, the findings, the glossary and CITATION.cff: links lead somewhere, numbers are looked up, examples run."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import yaml

import textnorm_lib
from textnorm_lib.figures.report import ITEMS
from textnorm_lib.study.report_pages import CONDITION, MARKS, PAGES, QUOTED, table_of
from textnorm_lib.study.store import CHECKOUT

README, FINDINGS = ((CHECKOUT / page).read_text(encoding="utf-8") for page in PAGES)
GLOSSARY = (CHECKOUT / "docs" / "glossary.md").read_text(encoding="utf-8")
DOCUMENTS = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
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


# ---- README


def test_readme_has_its_sections_in_order():
    found = re.findall(r"^## (.+)$", README, re.MULTILINE)
    assert found == list(SECTIONS)


def test_the_example_for_ones_own_training_run_has_ten_lines_and_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.+?)```", section(README, "TextNorm in your own training run"), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert run.returncode == 0, run.stderr
    values, spread = map(ast.literal_eval, re.findall(r"tensor\((\[.+?\])\)", run.stdout, re.DOTALL))
    assert len(values) == len(spread) == 4
    assert all(value <= 1 for value in values) and all(value >= 0 for value in spread)


def tree_paths():
    """The paths in README's file tree: a name stands two blanks deeper than its folder."""
    (block,) = re.findall(r"```\n(.+?)```", section(README, "File tree"), re.DOTALL)
    folders, paths, uncommented = [], set(), []
    for line in block.splitlines():
        indent, name, comment = re.fullmatch(r"( *)(\S+) *(.*)", line).groups()
        depth = len(indent) // 2
        folders = [*folders[:depth], name]
        paths.add("".join(folders[:-1]) + name)
        uncommented += [] if comment else [name]
    return paths, uncommented


def test_the_file_tree_names_every_module_and_every_top_level_file_and_nothing_else():
    paths, uncommented = tree_paths()
    assert uncommented == []
    assert sorted(path for path in paths if not (CHECKOUT / path).exists()) == [], "in the tree and not there"
    tracked = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    files = [Path(line) for line in tracked.splitlines()]
    library = [path for path in files if path.parts[0] == "textnorm_lib" and path.name != "__init__.py"]
    modules = {path.as_posix() for path in library if "weights" not in path.parts}
    top = {path.parts[0] + ("/" if len(path.parts) > 1 else "") for path in files} - {".gitignore"}
    notebooks = {path.as_posix() for path in files if path.suffix == ".ipynb"}
    assert sorted((modules | top | notebooks) - paths) == [], "not in README's file tree"


def test_every_profile_says_how_long_it_takes_and_what_it_cannot_show():
    rows = re.findall(r"^\| `([\w-]+)` \|(.+)\|$", section(README, "Profiles"), re.MULTILINE)
    known = {path.stem for path in (CHECKOUT / "textnorm_lib" / "profiles").glob("*.yaml")}
    assert {name for name, _ in rows} == known
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
    made_here = [item for item in ITEMS.values() if f"{item.notebook}.ipynb" == notebook]
    named = {getattr(item.build, "__name__", item.name): item.name for item in made_here}  # by their functions
    title, shown = "", set()
    for cell in nbformat.read(CHECKOUT / "notebooks" / notebook, 4).cells:
        if cell.cell_type == "markdown":
            title = [title, *re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)][-1]
        elif title.replace(" ", "-") == heading:
            shown |= {named.get(one, one) for one in re.findall(r"run\.table\(\"?(\w+)", cell.source)}
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
