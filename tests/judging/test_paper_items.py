"""Every figure and table of the paper has its row, with what stands for it here and numbers that are looked up."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from textnorm_lib.figures.report import ITEMS
from textnorm_lib.judging import paper_items as paper_verdicts
from textnorm_lib.judging.claims import FAILS, HOLDS, OPEN
from textnorm_lib.judging.paper_items import (
    ABSENT,
    COLUMNS,
    NONE,
    OTHER,
    PAPER_ITEMS,
    ROWS,
    SAME,
    PaperItem,
    judge_paper_items,
    tables_read,
)
from textnorm_lib.pipeline import start_run
from textnorm_lib.study.items import TABLES
from textnorm_lib.study.printed import MAIN_TABLE, Tables
from textnorm_lib.study.run import Run
from textnorm_lib.study.store import CHECKOUT

COMMITTED = CHECKOUT / "papers_figures"
INTERVALS = pd.DataFrame(
    {"row": ["up", "down", "open"], "low": [0.1, -0.2, -0.1], "high": [0.2, -0.1, 0.1], "value": [0.764, 1.0, 2.0]}
)


@pytest.mark.parametrize("number", [f"Figure {n}" for n in range(1, 10)] + [f"Table {n}" for n in range(1, 4)])
def test_each_figure_and_table_of_the_paper_has_a_row(number):
    kind, n = number.split()
    named = [item.name for item in PAPER_ITEMS if re.search(rf"{kind}s?\b.*\b{n}\b", item.name, re.IGNORECASE)]
    assert named, f"no row for {number}"


def test_rows_have_different_names_and_name_their_sections():
    assert len({item.name for item in PAPER_ITEMS}) == len(PAPER_ITEMS)
    assert [
        item.name for item in PAPER_ITEMS if not re.search(r"\((table )?\d+(\.\d)?(, \d\.\d)?\)$", item.paper)
    ] == []


@pytest.mark.parametrize("item", PAPER_ITEMS, ids=lambda item: item.name)
def test_what_stands_for_it_is_registered_for_the_notebooks_that_it_names(item):
    assert set(item.made_as) <= set(ITEMS)
    if item.made_as:
        assert {ITEMS[name].notebook for name in item.made_as} == set(item.notebooks)


@pytest.mark.parametrize("item", PAPER_ITEMS, ids=lambda item: item.name)
def test_no_number_of_the_release_or_ours_is_typed(item):
    for text in (item.released, item.ours, item.verdict):
        assert not re.search(r"\.\d|\d%", re.sub(r"\{[^}]+\}", "", text))


def test_only_registered_tables_are_read():
    assert set(tables_read()) <= set(TABLES) - {MAIN_TABLE}


def test_the_committed_tables_give_every_row():
    names = tuple(name for name in tables_read() if (COMMITTED / f"{name}.csv").exists())
    found = judge_paper_items(Tables(COMMITTED, names), profile="mini", rows=ROWS)
    assert list(found) == COLUMNS and len(found) == len(PAPER_ITEMS)
    assert not found.isin([ABSENT]).to_numpy().any()
    rows = found.set_index("item")
    for row, number in (("Table 1, row 1", ".764"), ("Table 1, row 4", ".822")):
        assert rows.loc[row, "released"].startswith(number) and f"release: {SAME}" in rows.loc[row, "verdict"]


@pytest.fixture
def rows(monkeypatch, tmp_path):
    """Judge other rows than the paper's, by a toy table."""
    INTERVALS.to_csv(tmp_path / "tab01_toy.csv", index=False)
    item = PaperItem("Figure 1", "A toy.", ("01_toy",), ("fig01_toy", "tab01_toy"), "a toy (1)")

    def judge(names=("tab01_toy",), **texts):
        monkeypatch.setattr(paper_verdicts, "PAPER_ITEMS", (replace(item, **texts),))
        return judge_paper_items(Tables(tmp_path, names), profile="smoke", rows="").iloc[0]

    return judge


@pytest.mark.parametrize(("name", "said"), [("up", HOLDS), ("down", FAILS), ("open", OPEN)])
def test_verdicts_follow_from_intervals(rows, name, said):
    assert rows(verdict=f"here: {{judge | tab01_toy; row={name}; value}}")["verdict"] == f"here: {said}"


def test_the_same_number_is_said_to_be_the_same_and_another_another(rows):
    assert rows(verdict="{same .764 | tab01_toy; row=up; value}")["verdict"] == SAME
    assert rows(verdict="{same .765 | tab01_toy; row=up; value}")["verdict"] == OTHER


def test_a_text_that_reads_a_table_that_was_not_made_says_so_and_the_others_are_told(rows):
    found = rows(released="{tab02_none; a=b; c}", ours="{tab01_toy; row=up; value} of it")
    assert (found["released"], found["ours"], found["profile"]) == (ABSENT, ".764 of it", "smoke")
    assert found["made_as"] == "fig01_toy, tab01_toy"
    assert rows(names=(), ours="nothing")["ours"] == "nothing"
    assert rows()["profile"] == NONE


def test_a_run_reads_what_it_made_itself_and_what_others_made_at_the_same_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTNORM_ARTIFACTS", str(tmp_path))
    monkeypatch.setattr(Run, "items", {})
    for notebook, seed in (("01_build_tia2", "same"), ("02_benchmark_rewards", "other")):
        earlier = start_run(notebook, profile="smoke")
        made = Run(notebook, earlier.profile if seed == "same" else replace(earlier.profile, seed=7), earlier.store)
        made.made = {f"tab_{seed}": {}}
        made.finish()
    run = start_run("08_paper_vs_ours", profile="smoke")
    run.made = {"tab_own": {}}
    assert run.tables(["tab_none", "tab_other", "tab_own", "tab_same"]).names == ("tab_own", "tab_same")
