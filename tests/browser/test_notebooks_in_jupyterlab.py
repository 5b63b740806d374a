"""A new user's first minutes: a notebook in JupyterLab, Run All Cells, at the profile it is committed with.

nbval runs all notebooks; here it is the first, with pictures of its own, and the one with the most to draw. Where
TEXTNORM_PICTURES names a folder, each notebook is opened and photographed there.
"""

import os
import time
from pathlib import Path

import pytest
from notebook_pages import CHECKOUT, copy_notebook, open_and_run

RUNS_WITHIN_S = 900  # of a notebook, cold, beside other work
PICTURES = os.environ.get("TEXTNORM_PICTURES")
NOTEBOOKS = sorted(path.name for path in (CHECKOUT / "notebooks").glob("[0-9]*.ipynb" if PICTURES else "0[02]_*.ipynb"))

STATE = """() => {
  const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(prompt => prompt.innerText);
  const errors = document.querySelectorAll('[data-mime-type="application/vnd.jupyter.error"]');
  const figures = [...document.querySelectorAll('.jp-OutputArea-output img')];
  return {
    left: prompts.filter(prompt => !/\\[\\d+\\]/.test(prompt)).length,
    cells: prompts.length,
    errors: [...errors].map(error => error.innerText),
    figures: figures.length,
    broken: figures.filter(figure => figure.complete && figure.naturalWidth === 0).length,
  };
}"""


@pytest.fixture(scope="module")
def seconds():
    """How long each notebook took, printed when all have run."""
    taken = {}
    yield taken
    for name, second in taken.items():
        print(f"{name}: {second:.0f} s in JupyterLab")
    print(f"all {len(taken)} notebooks: {sum(taken.values()):.0f} s")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_runs(lab, page, name, seconds):
    copy_notebook(lab, name)
    began = time.monotonic()
    open_and_run(lab, page, name)
    while (state := page.evaluate(STATE))["left"] and not state["errors"]:
        assert time.monotonic() - began < RUNS_WITHIN_S, f"{name} still has {state['left']} cells to run"
        page.wait_for_timeout(500)
    seconds[name] = time.monotonic() - began
    if PICTURES:
        page.screenshot(path=Path(PICTURES, f"{Path(name).stem}.png"))
    assert state["errors"] == []
    assert state["cells"] > 5 and state["broken"] == 0
