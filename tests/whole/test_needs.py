"""What a cell needs decides, at each profile, whether it runs or says why it does not."""

from IPython.core.interactiveshell import InteractiveShell

from textnorm_lib.study import run
from textnorm_lib.study.config import load_profile

MINI, PAPER = load_profile("mini"), load_profile("paper")


def test_the_paper_profile_lacks_annotators_because_people_vote():
    assert run.lacking("annotators", MINI) == ""
    assert run.lacking("annotators", PAPER).startswith("profile paper names no annotators: people compare sets")
    assert run.lacking("labels", PAPER).startswith("profile paper names no votes: three people label the images")
    assert run.lacking("labels prompts", MINI) == ""
    assert run.lacking(None, PAPER) == ""


def test_all_that_is_lacking_is_named(monkeypatch):
    monkeypatch.setitem(run.RESOURCES, "tia2", lambda profile: (False, "no network"))
    assert run.lacking("tia2 annotators", MINI) == "no network"
    assert run.lacking("tia2 annotators", PAPER).startswith("no network; profile paper")


def test_a_cell_runs_only_with_all_that_it_needs(monkeypatch):
    shell = InteractiveShell()
    monkeypatch.setattr(run, "get_ipython", lambda: shell)
    monkeypatch.setitem(run.RESOURCES, "tia2", lambda profile: (True, ""))
    cell = "# needs: tia2 annotators\nprint(1)\n"
    for profile, runs in ((MINI, True), (PAPER, False)):
        run._watch_needs(profile)
        seen = shell.transform_cell(cell)
        assert seen == cell if runs else "not attempted: no annotators here" in seen
