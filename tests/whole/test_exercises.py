"""The answers to the exercises run: each notebook's code cells and, after them, the code of its folded answers.

A notebook runs at the profile smoke, in a kernel of its own, and reads back what a smoke run has stored; without one it
computes that first, which takes minutes. So run_all.sh runs this file by itself, after that run.
"""

import os
import re
import textwrap
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FENCED = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)

# Drawing would take most of the time, and no answer rests on it; the records of the smoke run stay as they are.
NO_REPORT = "run.figure = run.table = run.finish = lambda *data: None"


def answers(notebook):
    """The code of the folded answers, in order."""
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    folded = [part for text in texts for part in re.findall(r"<details>.*?</details>", text, re.DOTALL)]
    return [textwrap.dedent(code) for part in folded for _, code in FENCED.findall(part)]


def solved(notebook, name=""):
    """The notebook as it is run: its code and the answers'. The appendix trains for minutes, and lends its imports."""
    cells = notebook.cells
    if name.startswith("A"):
        cells = cells[: next(place for place, cell in enumerate(cells) if "\n## " in f"\n{cell.source}")]
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    sources = []
    for source in [*code, *answers(notebook)]:
        source = source.replace('profile = "mini"', 'profile = "smoke"')
        sources += [source, NO_REPORT] if "start_run(" in source else [source]
    return new_notebook(cells=[new_code_cell(source) for source in sources], metadata=notebook.metadata)


def run(notebook):
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}).execute()


@pytest.fixture(autouse=True)
def kernel(monkeypatch):
    """A kernel of this environment that imports this library."""
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(NOTEBOOKS.parent), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture(params=sorted(NOTEBOOKS.glob("[0-9A]*.ipynb")), ids=lambda path: path.stem)
def path(request):
    return request.param


def test_the_answers_of_each_notebook_run(path):
    run(solved(nbformat.read(path, as_version=4), path.stem))


def test_each_notebook_has_an_answer_with_code_and_each_code_checks_what_it_says(path):
    found = answers(nbformat.read(path, as_version=4))
    assert found, "no ```python block within <details>"
    assert [code for code in found if not re.search(r"^ *assert ", code, re.MULTILINE)] == []
    assert [code for code in found if len(code.splitlines()) > 15] == []


@pytest.mark.parametrize(("said", "right"), [("42", True), ("41", False)])
def test_a_wrong_answer_fails(said, right):
    """An answer in a list is indented, and rests on the notebook's own cells."""
    code = f"   ```python\n   assert number == {said}\n   ```\n"
    text = f"<details><summary>Answers</summary>\n\n1. {said}:\n\n{code}\n</details>"
    notebook = new_notebook(cells=[new_code_cell("number = 6 * 7"), new_markdown_cell(text)])
    if right:
        run(solved(notebook))
    else:
        with pytest.raises(CellExecutionError, match=f"number == {said}"):
            run(solved(notebook))
