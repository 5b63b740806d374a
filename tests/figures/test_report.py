"""The report collects what runs made, says what was not attempted, and its check finds whatever is out of date.

A toy study stands in: one figure and one table, each from a step of its own, in modules that the tests may edit.
"""

import dataclasses
import importlib
import json
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from textnorm_lib.figures import report
from textnorm_lib.study import config, printed
from textnorm_lib.study import run as runs
from textnorm_lib.study.errors import StudyError
from textnorm_lib.study.items import Item
from textnorm_lib.study.store import STEPS as KNOWN_STEPS

STEPS = """
import pandas as pd
from textnorm_lib.study.store import step

@step(1)
def numbers(*, n):
    return pd.DataFrame({"x": range(n)})

@step(1)
def squares(frame):
    return frame**2
"""
BUILDERS = """
from textnorm_lib.study.drawing import new_figure

def draw(frame):
    figure = new_figure(1.0, 1.5)
    figure.subplots().plot(frame["x"])
    return figure

def describe(frame, *others):
    return f"{len(frame)} numbers."
"""
TABLES = "def rename(frame, *others):\n    return frame.rename(columns={'x': 'square'})\n"
README = "# Study\n\n<!-- report: start -->\nold\n<!-- report: end -->\n\nThe end.\n"
FINDINGS = (
    "The last is <!--= tab01_squares; x=4; x -->?<!--/-->, which is large.<!--? tab01_squares; x~4; x > 3 -->\n"
    "Of <!--= tab99_elsewhere; x=4; x -->7<!--/--> nothing is known here.\n"
)
FILES = ["fig01_line.pdf", "fig01_line.png", "tab01_squares.csv", "tab01_squares.md", "tab01_squares.tex"]


class Study:
    """A toy checkout: edit its modules, run its one notebook, build and check its report."""

    def __init__(self, folder, monkeypatch, capsys):
        self.folder, self.figures, self._monkeypatch, self._capsys = (
            folder,
            folder / "papers_figures",
            monkeypatch,
            capsys,
        )
        self.missing = ""
        (folder / "README.md").write_text(README)
        (folder / "docs").mkdir()
        (folder / "docs" / "findings.md").write_text(FINDINGS)
        shutil.copytree(config.PROFILES, folder / "profiles")
        monkeypatch.setattr(config, "PROFILES", folder / "profiles")

        monkeypatch.setattr(report, "CHECKOUT", folder)
        monkeypatch.setattr(runs, "CHECKOUT", folder)
        monkeypatch.setattr(printed, "MAIN_TABLE", "tab01_squares")
        monkeypatch.setenv("TEXTNORM_ARTIFACTS", str(folder / "artifacts"))
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        self.steps, self.drawing, self.tables = (
            self.edit(name, text)
            for name, text in (("toy_steps", STEPS), ("toy_figures", BUILDERS), ("toy_tables", TABLES))
        )
        common = {"notebook": "01_toy", "caption": "A toy.", "describe": self.drawing.describe, "needs": "toy"}
        self.figure = Item(name="fig01_line", build=self.drawing.draw, **common)
        self.table = Item(name="tab01_squares", build=self.tables.rename, paper_item="Table 1", **common)
        self.register(self.figure, self.table)

    def edit(self, module, text):
        """Write a module of the toy study and load it as a new process would."""
        (self.folder / f"{module}.py").write_text(text)
        self.forget(module)
        return importlib.import_module(module)

    def forget(self, module):
        """As a new process, which knows neither the module nor its steps."""
        sys.modules.pop(module, None)
        for name in [name for name, function in KNOWN_STEPS.items() if function.__module__ == module]:
            self._monkeypatch.delitem(KNOWN_STEPS, name)

    def register(self, *items):
        for module, name, prefix in ((runs, "FIGURES", "fig"), (runs, "TABLES", "tab"), (report, "ITEMS", "")):
            known = {item.name: item for item in items if item.name.startswith(prefix)}
            self._monkeypatch.setattr(module, name, known)

    def start(self, notebook="01_toy", *, profile="mini"):
        return runs.begin_run(notebook, profile, force=False, resources={"toy": lambda _: self.missing})

    def run(self, *, figure=True, table=True, profile="mini"):
        run = self.start(profile=profile)
        numbers = run.step(self.steps.numbers, n=3)
        squares = run.step(self.steps.squares, numbers)
        if figure:
            run.figure(SimpleNamespace(item=self.figure), numbers)
        if table:
            run.table(SimpleNamespace(item=self.table), squares)
        run.finish()

    def report(self, *options):
        """Exit status, lines on standard output and on standard error of the command."""
        self._capsys.readouterr()
        status = report.main(["mini", *options])
        printed = self._capsys.readouterr()
        return int(status), printed.out.splitlines(), printed.err.splitlines()

    def content(self):
        """Every byte that the report has written."""
        paths = [self.folder / "README.md", self.folder / "docs" / "findings.md", *self.figures.rglob("*")]
        return {str(path): path.read_bytes() for path in paths if path.is_file()}

    def readme(self):
        return (self.folder / "README.md").read_text()

    def findings(self):
        return (self.folder / "docs" / "findings.md").read_text()

    def manifest(self):
        return json.loads((self.figures / "manifest.json").read_text())


@pytest.fixture
def study(tmp_path, monkeypatch, capsys):
    return Study(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return tmp_path_factory.mktemp("first") / "built"


@pytest.fixture
def built(study, first):
    """The study after a run and its report: those of the first test that asks for it, copied."""
    if not first.exists():
        study.run()
        study.report()
        shutil.copytree(study.folder, first)
    shutil.copytree(first, study.folder, dirs_exist_ok=True)
    return study


# ---- build


def test_a_table_made_of_several_results_keeps_the_numbers_of_each(study):
    run = study.start()
    numbers = run.step(study.steps.numbers, n=3)
    run.table(SimpleNamespace(item=study.table), run.step(study.steps.squares, numbers), numbers)
    assert list(run.made["tab01_squares"]["files"]) == [
        *("tab01_squares.csv", "tab01_squares_2.csv", "tab01_squares.md", "tab01_squares.tex"),
    ]
    kept = runs.records_folder("mini") / "files"
    assert (kept / "tab01_squares.csv").read_text() == "x\n0\n1\n4\n"
    assert (kept / "tab01_squares_2.csv").read_text() == "x\n0\n1\n2\n"


def test_build_collects_files_manifest_and_both_readmes(study):
    study.run()
    status, out, err = study.report()
    assert (status, err) == (0, [])
    assert out == [f"report: 2 figures and tables in {study.figures}"]
    assert sorted(path.name for path in study.figures.iterdir()) == sorted([*FILES, "README.md", "manifest.json"])
    page = (study.figures / "README.md").read_text()
    assert "![3 numbers.](fig01_line.png)" in page and "| square" in page
    readme = study.readme()
    assert readme.startswith("# Study\n") and readme.endswith("\nThe end.\n") and "old" not in readme
    assert "| [fig01_line](fig01_line.png) | 01_toy | ours | made |" in page
    assert "| [tab01_squares](tab01_squares.md) | 01_toy | Table 1 | made |" in page
    assert "| square |\n| --- |\n| 0 |\n| 1 |\n| 4 |\n\nA toy." in readme
    assert "2 of 2 figures and tables made." in readme


def test_numbers_in_the_findings_are_looked_up_and_those_of_other_tables_stay(built):
    assert "; x -->4<!--/-->, which is large" in built.findings()
    assert "; x -->7<!--/--> nothing" in built.findings()


def test_the_main_table_links_to_the_notebooks_and_to_what_they_made(built):
    manifest, path = built.manifest(), built.figures / "tab01_squares.md"
    head = "| item | shows | notebook | here | paper |\n|:--|:--|:--|:--|:--|\n"
    path.write_text(head + "| Figure 01 | a \\| b, fig01 | 01, 99 | fig01, fig99 | 01 of fig01 |\n\nA caption.\n")
    text = printed.updated(built.folder / "README.md", manifest, built.figures)
    linked = "[01](notebooks/01_toy.ipynb), 99 | [fig01](papers_figures/fig01_line.png), fig99"
    assert f"| Figure 01 | a \\| b, fig01 | {linked} | 01 of fig01 |" in text


def test_the_manifest_says_what_each_item_was_made_from(built):
    item = built.manifest()["items"]["tab01_squares"]
    assert sorted(item["files"]) == FILES[2:]
    assert [(step["step"], step["version"], step["config"]) for step in item["steps"]] == [
        ("squares", 1, {}),
        ("numbers", 1, {"n": 3}),
    ]
    assert built.manifest()["profile"]["bootstrap"]["resamples"] == 10000


def test_building_and_running_again_change_no_byte(built, monkeypatch):
    before = built.content()
    built.report()
    assert built.content() == before
    built.run()
    built.report()
    assert built.content() == before
    monkeypatch.setenv("TEXTNORM_ARTIFACTS", str(built.folder / "elsewhere"))  # from nothing
    built.run()
    built.report()
    assert built.content() == before


def test_another_profile_has_a_folder_of_its_own_and_leaves_the_readme(built, capsys):
    before = built.content()
    built.run(profile="smoke")
    assert report.main(["smoke"]) == 0
    assert report.main(["smoke", "--check"]) == report.main(["mini", "--check"]) == 0
    after = built.content()
    assert {path: after[path] for path in before} == before
    assert (built.figures / "smoke" / "fig01_line.png").exists()


def test_an_item_that_is_no_longer_registered_goes_at_the_next_build(built):
    built.register(built.figure)
    status, _, err = built.report()
    assert (status, err) == (0, [])
    assert list(built.manifest()["items"]) == ["fig01_line"]
    assert not list(built.figures.glob("tab*"))
    assert built.report("--check")[0] == 0


def test_what_a_killed_report_left_does_not_stand_in_the_way(built):
    (built.figures / ".manifest.json.999999999.partial").write_text("half of")  # no process has this number
    built.report()
    assert built.report("--check")[0] == 0
    assert not list(built.figures.glob(".*"))


# ---- not attempted


REASON = "the toy is not on this machine"


def test_what_cannot_be_had_is_said_everywhere_and_is_no_failure(study, capsys):
    study.missing = REASON
    study.run(figure=False, table=False)
    assert f"2 not attempted, because {REASON}" in capsys.readouterr().out
    status, out, err = study.report()
    assert (status, err) == (0, [])
    assert out[0].startswith("report: 0 figures and tables")
    assert out[1] == f"report: 2 not attempted, because {REASON}: fig01_line to tab01_squares"
    assert study.manifest()["items"]["fig01_line"]["not_attempted"] == REASON
    assert (
        f"| fig01_line | 01_toy | ours | not attempted, because {REASON} |" in (study.figures / "README.md").read_text()
    )
    assert f"0 of 2 figures and tables made. Some not attempted, because {REASON}." in study.readme()
    status, out, _ = study.report("--check")
    assert status == 0
    assert out[-1] == f"report: 2 not attempted, because {REASON}: fig01_line to tab01_squares"


def test_files_of_an_earlier_run_stay_when_it_cannot_be_attempted_again(built):
    built.missing = REASON
    built.run(figure=False, table=False)
    status, _, _ = built.report()
    assert status == 0
    assert sorted(path.name for path in built.figures.glob("[ft]*_*")) == FILES
    assert f"not attempted, because {REASON}; the files are from an earlier run" in built.readme()
    assert built.report("--check")[0] == 0
    built.missing = ""
    built.run()
    built.report()
    assert "not attempted" not in built.readme()


def test_a_kept_file_that_was_deleted_since_does_not_break_the_report(built):
    built.missing = REASON
    built.run(figure=False, table=False)
    (built.figures / "tab01_squares.md").unlink()
    assert built.report()[0] == 0
    assert built.report("--check")[0] == 0
    assert "| square |" not in built.readme()


# ---- check


def delete(study):
    (study.figures / "fig01_line.pdf").unlink()


def edit_by_hand(study):
    path = study.figures / "tab01_squares.md"
    path.write_text(path.read_text().replace("4", "5"))


def change_profile(study):
    path = study.folder / "profiles" / "mini.yaml"
    path.write_text(path.read_text().replace("10000", "9999"))


def change_builder(study):
    study.edit("toy_figures", BUILDERS + "# another line\n")


def raise_version(study):
    study.edit("toy_steps", STEPS.replace("@step(1)\ndef squares", "@step(2)\ndef squares"))


def remove_step(study):
    study.edit("toy_steps", STEPS.replace("def squares", "def cubes"))


def remove_module_of_step(study):
    (study.folder / "toy_steps.py").unlink()
    study.forget("toy_steps")


def register_another(study):
    study.register(study.figure, study.table, dataclasses.replace(study.figure, name="fig02_new"))


def unregister(study):
    study.register(study.figure)


def add_file(study):
    (study.figures / "fig03_by_hand.png").write_bytes(b"")


def add_file_without_suffix(study):
    (study.figures / "notes").write_text("")


def edit_page(study):
    path = study.figures / "README.md"
    path.write_text(path.read_text().replace("A toy.", "A triumph."))


def edit_table_in_readme(study):
    path = study.folder / "README.md"
    path.write_text(path.read_text().replace("| 4 |", "| 5 |"))


def edit_number_in_findings(study):
    path = study.folder / "docs" / "findings.md"
    path.write_text(path.read_text().replace("-->4<", "-->5<"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (delete, ["fig01_line: fig01_line.pdf is missing"]),
        (edit_by_hand, ["tab01_squares: tab01_squares.md was changed"]),
        (change_profile, ["fig01_line: is older than the profile", "tab01_squares: is older than the profile"]),
        (change_builder, ["fig01_line: is older than the code"]),
        (raise_version, ["tab01_squares: is older than the step squares"]),
        (remove_step, ["tab01_squares: is older than the step squares"]),
        (
            remove_module_of_step,
            ["fig01_line: is older than the step numbers", "tab01_squares: is older than the step squares"],
        ),
        (register_another, ["fig02_new: is missing"]),
        (unregister, ["tab01_squares: is no longer registered"]),
        (add_file, ["fig03_by_hand.png: was not made by a run"]),
        (add_file_without_suffix, ["notes: was not made by a run"]),
        (edit_page, ["README.md: was changed"]),
        (edit_table_in_readme, ["README.md: was changed"]),
        (edit_number_in_findings, ["findings.md: was changed"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_check_passes_then_finds_what_is_out_of_date_and_writes_nothing(built, change, said):
    assert built.report("--check") == (0, ["report: 2 of 2 figures and tables are there and up to date"], [])
    change(built)
    before = built.content()
    status, out, _ = built.report("--check")
    assert status == 1
    assert len(out) >= len(said)
    for expected in said:
        (line,) = [line for line in out if expected in line]
        assert "run ./run_all.sh mini again" in line or "delete it" in line
    assert built.content() == before


def test_words_that_the_tables_do_not_bear_out_are_found(built):
    path = built.folder / "docs" / "findings.md"
    path.write_text(path.read_text().replace("x > 3", "x > 4"))
    status, (line,), _ = built.report("--check")
    assert status == 1
    assert line == "docs/findings.md: tab01_squares; x~4; x > 4 is not so; say what is"


def test_a_number_that_is_looked_up_in_vain_is_one_line(built):
    path = built.folder / "docs" / "findings.md"
    path.write_text(path.read_text().replace("x=4", "x=5"))
    status, _, (line,) = built.report()
    assert status == 2
    assert "findings.md: 'tab01_squares; x=5; x': 0 rows of tab01_squares fit" in line


def test_a_check_before_the_first_run_says_what_to_run(study):
    status, out, _ = study.report("--check")
    assert status == 1
    assert len(out) == 2 and all("is missing" in line and "./run_all.sh mini" in line for line in out)
    status, _, (line,) = study.report()
    assert status == 2 and "no run has been recorded" in line and "./run_all.sh mini" in line


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("papers_figures/manifest.json", "{half", "manifest.json: is not valid JSON"),
        ("README.md", "# Study\n", "README.md: the marks"),
        ("README.md", None, "README.md"),
    ],
)
def test_what_the_report_cannot_read_is_one_line(built, file, content, said):
    path = built.folder / file
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    status, _, (line,) = built.report()
    assert status == 2
    assert said in line


def test_an_unknown_profile_is_refused_by_name(study, capsys):
    for options in (["smok"], ["smok", "--check"]):
        assert report.main(options) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "did you mean 'smoke'?" in line


# ---- the run that the report rests on


def test_a_run_that_leaves_out_a_registered_item_does_not_finish(study):
    with pytest.raises(StudyError, match="tab01_squares is registered but was not made"):
        study.run(table=False)
    assert study.report()[0] == 2  # there is no record of it


def test_a_run_cannot_make_what_is_not_registered_for_its_notebook(study):
    elsewhere = SimpleNamespace(item=replace(study.figure, name="fig09"))
    with pytest.raises(StudyError, match=r"'fig09' is not entered for 01_toy; entered are fig01_line"):
        study.start().figure(elsewhere)
    with pytest.raises(StudyError, match="not entered for 02_other"):
        study.start("02_other").table(SimpleNamespace(item=study.table))
