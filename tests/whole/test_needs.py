"""What a cell needs decides, at each profile, whether it runs or says why it does not."""

import pytest
from IPython.core.interactiveshell import InteractiveShell

from textnorm_lib.pipeline import RESOURCES
from textnorm_lib.study import run
from textnorm_lib.study.config import load_profile


def run_of(profile, **others):
    """A run at a profile, with other ways to have single resources."""
    return run.Run("00_toy", load_profile(profile), None, {**RESOURCES, **others})


def test_the_paper_profile_lacks_annotators_because_people_vote():
    mini, paper = run_of("mini"), run_of("paper")
    assert mini.lacking("annotators") == ""
    assert paper.lacking("annotators").startswith("profile paper names no annotators: people compare sets")
    assert paper.lacking("labels").startswith("profile paper names no votes: three people label the images")
    assert mini.lacking("labels prompts") == ""
    assert paper.lacking(None) == ""


def test_all_that_is_lacking_is_named():
    assert run_of("mini", tia2=lambda _: "no network").lacking("tia2 annotators") == "no network"
    assert run_of("paper", tia2=lambda _: "no network").lacking("tia2 annotators").startswith("no network; profile pap")


@pytest.mark.parametrize(("profile", "runs"), [("mini", True), ("paper", False)])
def test_a_cell_runs_only_with_all_that_it_needs(monkeypatch, profile, runs):
    shell = InteractiveShell()
    monkeypatch.setattr(run, "get_ipython", lambda: shell)
    cell = "# needs: tia2 annotators\nprint(1)\n"
    run._watch_needs(run_of(profile, tia2=lambda _: ""))
    seen = shell.transform_cell(cell)
    assert seen == cell if runs else "not attempted: no annotators here" in seen
