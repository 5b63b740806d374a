"""Both labelling interfaces in JupyterLab, in a real browser: by mouse, by keyboard, after a reload and a restart."""

import base64
import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from committed import committed_profile
from notebook_pages import CHECKOUT, choose, copy_notebook, open_and_run
from playwright.sync_api import expect

from textnorm_lib.judging.widgets import ALIGNMENT_WORDS, COMPARISON_WORDS
from textnorm_lib.study.store import RESULTS

RUNS_WITHIN_MS = 300_000  # of a notebook, beside other work
SHOWS_WITHIN_MS = 20_000
ANNOTATOR = "Zoë"
PROFILE = committed_profile(CHECKOUT / "notebooks" / "01_build_tia2.ipynb")


class Interface:
    """One interface on a page, as an annotator meets it, and what should be in the file after what was done."""

    def __init__(self, page, names, questions):
        self.page, self.root = page, page.locator(".textnorm-labels")
        self.names, self.questions = names, questions  # of an item by its images, of a question by how it is put
        self.history, self.events = [], []

    def find(self):
        """Wait until it is there and the cells below have run, during which no answer is heard; have it in sight."""
        self.wait_for()
        running = self.page.locator(".jp-InputPrompt").filter(has_text="[*]")
        expect(running).to_have_count(0, timeout=RUNS_WITHIN_MS)
        self.root.scroll_into_view_if_needed()
        expect(self.root).to_have_attribute("data-number", re.compile(r"\d"), timeout=SHOWS_WITHIN_MS)

    def wait_for(self):
        """Until it is drawn."""
        expect(self.root).to_be_visible(timeout=RUNS_WITHIN_MS)

    def cell(self):
        """The item and the question that are shown."""
        sources = self.root.locator("img").evaluate_all("images => images.map(image => image.src)")
        images = tuple(base64.b64decode(source.split(",")[1]) for source in sources)
        return self.names[images], self.questions[self.root.locator(".asks").inner_text()]

    def given(self):
        """The answer that is marked as the one given before."""
        marked = self.root.locator("button.answer[aria-pressed=true]")
        return marked.get_attribute("value") if marked.count() else None

    def answer(self, answer, act):
        """Have ``act`` give ``answer`` to what is shown."""
        cell = self.cell()
        before = next((one for key, one, _ in reversed(self.history) if key == cell), None)
        self._do(act)
        self.history.append((cell, answer, before))
        self.events.append((*cell, answer, False))

    def undo(self, act):
        self._do(act)
        cell, _, before = self.history.pop()
        self.events.append((*cell, before, True))
        assert (self.cell(), self.given()) == (cell, before)

    def look(self, act):
        """Have ``act`` show another cell."""
        self._do(act)

    def press(self, text):
        return lambda: self.root.get_by_role("button", name=text).click()

    def key(self, key):
        return lambda: self.page.keyboard.press(key)

    def hold(self, key):
        def act():
            for _ in range(5):  # every press after the first is one of the keyboard's repetitions
                self.page.keyboard.down(key)
            self.page.keyboard.up(key)

        return act

    def _do(self, act):
        shown = self.root.get_attribute("data-number")
        act()
        expect(self.root).not_to_have_attribute("data-number", shown, timeout=SHOWS_WITHIN_MS)

    def done(self):
        return int(re.search(r"(\d+) of \d+ answered", self.root.locator(".status").inner_text())[1])

    def take_picture(self, name):
        """For those who want to look: into the folder that TEXTNORM_PICTURES names."""
        if folder := os.environ.get("TEXTNORM_PICTURES"):
            self.page.screenshot(path=Path(folder, f"{name}.png"))


def in_file(path):
    """What happened, line by line."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines[0]["annotator"] == ANNOTATOR
    return [(one["item"], one["question"], one["answer"], one.get("undo", False)) for one in lines[1:]]


def save(page, notebook):
    """By the menu, and wait until the interface is in the file."""
    before = notebook.stat().st_mtime_ns
    choose(page, "File", r"^Save Notebook\b")
    for _ in range(SHOWS_WITHIN_MS // 100):
        page.wait_for_timeout(100)
        if notebook.stat().st_mtime_ns > before and "widget-view" in notebook.read_text(encoding="utf-8"):
            return
    pytest.fail(f"{notebook.name} was not saved")


def work_through(interface, answers, path, saved, name):
    """By mouse and by keyboard, undone, answered anew, reloaded, restarted; the file is right all the while."""
    first, second, third = answers
    interface.find()
    interface.take_picture(f"{name}_first")
    interface.answer(first, interface.press(f"1 {first.capitalize()}"))
    interface.answer(second, interface.key("2"))
    interface.answer(third, interface.key("3"))
    interface.answer(first, interface.hold("1"))
    interface.answer(second, lambda: interface.root.get_by_role("button", name=f"2 {second.capitalize()}").dblclick())
    assert interface.done() == 5
    interface.look(interface.press("Back"))
    interface.look(interface.key("ArrowLeft"))
    assert interface.given() == first
    interface.take_picture(f"{name}_back")
    interface.answer(third, interface.key("3"))
    interface.undo(interface.key("u"))
    interface.look(interface.key("ArrowRight"))
    interface.look(interface.press("Forward"))
    assert interface.given() is None
    interface.undo(interface.press("Undo"))
    assert interface.done() == 4
    assert in_file(path) == interface.events

    save(interface.page, saved)
    interface.page.reload()
    interface.find()
    interface.take_picture(f"{name}_reloaded")
    assert interface.done() == 4
    interface.answer(first, interface.press(f"1 {first.capitalize()}"))
    choose(interface.page, "Kernel", r"^Restart Kernel and Run All Cells")
    interface.page.get_by_role("button", name="Confirm Kernel Restart").click()
    expect(interface.root).to_be_hidden(timeout=SHOWS_WITHIN_MS)  # what the cells showed is cleared
    interface.find()
    assert interface.done() == 5
    interface.root.locator(".prompt").click()
    interface.answer(third, interface.key("3"))
    while interface.root.locator("button.answer").count():
        interface.answer(second, interface.key("2"))
    expect(interface.root.locator(".asks")).to_contain_text(f"Thank you, {ANNOTATOR}!")
    interface.take_picture(f"{name}_done")
    assert in_file(path) == interface.events


def fits(interface, name):
    """Nothing is cut off in a narrow window, nor where everything is drawn at 125%."""
    for width, label in ((1024, "zoomed"), (700, "narrow")):
        interface.page.set_viewport_size({"width": width, "height": 800})
        interface.root.scroll_into_view_if_needed()
        interface.take_picture(f"{name}_{label}")
        assert interface.root.evaluate("root => root.scrollWidth <= root.clientWidth")
        edges = "[...root.querySelectorAll('img, button, p')].map(node => node.getBoundingClientRect().right)"
        right = interface.root.evaluate(f"root => Math.max(...{edges})")
        assert right <= interface.root.evaluate("root => root.getBoundingClientRect().right")
    interface.page.set_viewport_size({"width": 1280, "height": 1000})


def test_images_are_labelled_in_notebook_01(lab, page):
    copy_notebook(lab, "01_build_tia2.ipynb", annotator=ANNOTATOR)
    open_and_run(lab, page, "01_build_tia2.ipynb")
    Interface(page, {}, {}).wait_for()
    shown = lab.artifacts / "shown" / PROFILE / "01_build_tia2"
    images = {(file.read_bytes(),): file.name for file in shown.glob("*.png")}
    interface = Interface(page, images, questions(ALIGNMENT_WORDS))
    fits(interface, "alignment")
    path = lab.artifacts / "labels" / PROFILE / "01_build_tia2" / f"{ANNOTATOR}.jsonl"
    work_through(interface, ("good", "bad", "skip"), path, lab.folder / "01_build_tia2.ipynb", "alignment")
    alts = interface.root.locator("img").evaluate_all("images => images.map(image => image.alt)")
    assert all(alts)


def questions(words):
    """Which question it is, by how it is put."""
    return {text: name for name, text in words.questions.items()}


def test_sets_are_compared_in_notebook_07(lab, page):
    copy_notebook(lab, "07_human_evaluation.ipynb", annotator=ANNOTATOR)
    open_and_run(lab, page, "07_human_evaluation.ipynb")
    Interface(page, {}, {}).wait_for()
    stored = [file for root in (lab.artifacts / "steps", RESULTS) for file in root.glob("pair_sets/*/*.parquet")]
    tables = [pd.read_parquet(file) for file in stored]
    table = next(table for table in tables if set(table["opponent"]) == {"clip"})
    folder = lab.artifacts / "shown" / PROFILE / "07_human_evaluation"
    shown = {
        tuple((folder / image).read_bytes() for image in (*row.left, *row.right)): row.comparison
        for row in table.itertuples()
    }
    interface = Interface(page, shown, questions(COMPARISON_WORDS))
    fits(interface, "comparison")
    path = lab.artifacts / "labels" / PROFILE / "07_human_evaluation" / f"{ANNOTATOR}.jsonl"
    work_through(interface, ("left", "tie", "right"), path, lab.folder / "07_human_evaluation.ipynb", "comparison")
