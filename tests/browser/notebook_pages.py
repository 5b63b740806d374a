"""Notebooks in JupyterLab, opened and run as a person does it."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

CHECKOUT = Path(__file__).parents[2]


def copy_notebook(lab, name, **parameters):
    """A notebook of the study in JupyterLab's folder, with other parameters, as somebody would type them."""
    notebook = json.loads((CHECKOUT / "notebooks" / name).read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            text = "".join(cell["source"])
            for key, value in parameters.items():
                text, found = re.subn(rf"^{key} = [^#\n]*", f"{key} = {value!r}  ", text, flags=re.MULTILINE)
                assert found == 1, f"{name} has no parameter {key}"
            cell["source"] = text
        cell.update({"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {})
    (lab.folder / name).write_text(json.dumps(notebook), encoding="utf-8")


def choose(page, menu, entry):
    page.get_by_role("menubar").get_by_text(menu, exact=True).first.click()
    page.get_by_role("menuitem", name=re.compile(entry)).first.click()


def open_and_run(lab, page, notebook):
    page.goto(lab.page_of(notebook))
    expect(page.get_by_text(re.compile(r"ipykernel\) \| Idle"))).to_be_visible(timeout=60_000)
    begun = page.locator(".jp-InputPrompt").filter(has_text=re.compile(r"\[(\*|\d+)\]")).first
    for _ in range(5):  # JupyterLab drops what is asked of it while it connects to a kernel that is there already
        choose(page, "Run", r"^Run All Cells")
        try:
            expect(begun).to_be_visible(timeout=10_000)
            return
        except AssertionError:
            continue
    pytest.fail(f"{notebook} did not begin to run")
