"""Verdicts follow from intervals; claims of agreement are judged in the release and in ours, of best-of-n in ours."""

import itertools
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from textnorm_lib.confidence.ablations import stack
from textnorm_lib.figures.claims import claims_table as printed
from textnorm_lib.judging.claims import (
    CHOICE_CLAIMS,
    CLAIMS,
    FAILS,
    HOLDS,
    OPEN,
    judge_choice_claims,
    judge_claims,
    verdict,
)
from textnorm_lib.judging.selection import compare_gold, late_gains, sign_tests_by_size
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.stats.metrics import METRICS
from textnorm_lib.tia2.official import SETS

BOOTSTRAP = {"resamples": 300, "confidence": 0.95, "seed": 0}
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ENSEMBLE = "imagereward+pickscore"
OURS = [*REWARDS, "textnorm:pickscore", "random:pickscore", f"textnorm:{ENSEMBLE}"]


def _metrics(levels: dict[str, float], prompts: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (name, f"{name} {prompt}", reward, metric, level + rng.normal(0, 0.01))
        for name in SETS
        for prompt in range(prompts)
        for reward, level in levels.items()
        for metric in METRICS
    ]
    return pd.DataFrame(rows, columns=["set", "prompt", "reward", "metric", "value"])


def _shares(level: float) -> pd.DataFrame:
    rows = [(reward, "random", "counting", str(p), level) for reward in REWARDS for p in range(20)]
    return pd.DataFrame(rows, columns=["reward", "kind", "set", "prompt", "share"])


@pytest.fixture(scope="module")
def judged():
    released = _metrics(dict.fromkeys(REWARDS, 0.6) | {"pickscore": 0.7, "textnorm": 0.8})
    levels = dict.fromkeys(OURS, 0.6) | {"textnorm:pickscore": 0.7, "random:pickscore": 0.65, "imagereward": 0.7}
    return judge_claims(released, _metrics(levels), _shares(0.2), **BOOTSTRAP)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        ([0.1], [0.2], HOLDS),
        ([-0.1], [0.2], OPEN),
        ([-0.2], [-0.1], FAILS),
        ([0.1, -0.1], [0.2, 0.1], OPEN),
        ([0.1, -0.2], [0.2, -0.1], FAILS),
        ([0.0], [0.1], OPEN),
        ([np.nan], [np.nan], OPEN),
        ([], [], OPEN),
    ],
)
def test_a_verdict_is_a_rule_on_intervals(low, high, expected):
    assert verdict(low, high) == expected


def test_every_claim_has_its_row_in_both_sources(judged):
    counts = judged.groupby("claim")["source"].agg(list)
    assert all(counts[claim.text] == ["released", "ours"] for claim in CLAIMS)
    assert len(judged) == 2 * (len(CLAIMS) + 2) + 2


def test_verdicts_follow_the_metrics(judged):
    said = judged.set_index(["source", "claim"])["verdict"]
    best, suitable, better, worse, ensemble, whole = (claim.text for claim in CLAIMS)
    assert said["released", best] == HOLDS and said["ours", best] == FAILS
    assert said["released", suitable] == "not in the release" and said["ours", suitable] == HOLDS
    assert said["ours", better] == HOLDS and said["ours", worse] == FAILS and said["ours", ensemble] == FAILS
    assert said["released", whole] == HOLDS
    everywhere = next(text for text in judged["claim"] if "84 differences" in text)
    assert said["released", everywhere] == HOLDS and said["ours", everywhere] == FAILS


def test_a_share_far_above_the_bound_is_not_negligible(judged):
    rows = judged[judged["claim"].str.contains("next to nothing")]
    assert rows["verdict"].tolist() == [FAILS, FAILS] and np.allclose(rows["difference"], -0.15)


@pytest.mark.parametrize(("left", "given"), [(1, True), (0, False)])
def test_one_prompt_of_a_set_has_a_difference_and_no_interval(left, given):
    metrics = _metrics(dict.fromkeys(OURS, 0.6) | {"pickscore": 0.7})
    kept = [f"counting {prompt}" for prompt in range(left)]
    metrics = metrics[(metrics["set"] != "counting") | metrics["prompt"].isin(kept)]
    released = _metrics(dict.fromkeys(REWARDS, 0.6) | {"textnorm": 0.8})
    found = judge_claims(released, metrics, _shares(0.2), **BOOTSTRAP)
    (row,) = found[found["claim"].str.startswith("Rewards are weaker") & (found["source"] == "ours")].to_dict("records")
    assert np.isfinite(row["difference"]) == given and np.isnan([row["low"], row["high"]]).all()
    assert row["verdict"] == OPEN and row["n_prompts"] == 12 + left


def test_the_table_has_a_row_a_claim(judged):
    table = printed(judged)
    assert len(table) == judged["claim"].nunique() and table["claim"].is_unique
    row = table[table["claim"] == CLAIMS[1].text].iloc[0]
    assert (
        row["released data"] == "–"
        and row["mini world"].startswith((".09", ".10"))
        and row["mini world"].endswith("(36)")
    )


def _tests(won: dict[tuple[str, str], tuple[int, int]]) -> pd.DataFrame:
    """Sign tests at n = 16 and 64 of votes by which TextNorm wins and loses so many of 24 prompts; the rest tie.

    ``won`` is by opponent and question, nothing by default. The annotators win everything.
    """
    rows = []
    for opponent, question in itertools.product((*REWARDS, "rating"), ("alignment", "quality")):
        wins, losses = (0, 24) if opponent == "rating" else won.get((opponent, question), (0, 0))
        for number, answer in enumerate(["left"] * wins + ["right"] * losses + ["tie"] * (24 - wins - losses)):
            about = (f"{opponent} {number}", SETS[number % 3], f"prompt {number}", "textnorm", opponent, "textnorm")
            rows += [(*about, judge, question, answer, n) for judge in "abc" for n in (16, 64)]
    columns = ["comparison", "set", "prompt", "model", "opponent", "left_model", "judge", "question", "answer", "n"]
    return sign_tests_by_size(pd.DataFrame(rows, columns=columns))


def _by_gold(levels: dict[str, tuple[float, float]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is compared at n = 64, and the late gains, where rewards reach such gold at n = 16 and 64 on 24 prompts."""
    rng = np.random.default_rng(0)
    rows = [
        (SETS[number % 3], f"prompt {number}", reward, n, level + rng.normal(0, 0.01))
        for reward, (at_16, at_64) in levels.items()
        for n, level in ((16, at_16), (32, at_16), (64, at_64))
        for number in range(24)
    ]
    gold = pd.DataFrame(rows, columns=["set", "prompt", "reward", "n", "gold"])
    return compare_gold(gold, reference="textnorm", **BOOTSTRAP), late_gains(gold, **BOOTSTRAP)


@pytest.fixture(scope="module")
def by_gold():
    levels = dict.fromkeys(REWARDS, (0.7, 0.8))
    return _by_gold({**levels, "textnorm": (0.8, 0.9), "blip2": (0.7, 0.6), "rating": (1, 1)})


@pytest.fixture(scope="module")
def of_choices(by_gold):
    won = {(name, "alignment"): (20, 2) for name in REWARDS} | {("pickscore", "alignment"): (16, 2)}
    won |= {("clip", "quality"): (2, 20), ("blip2", "quality"): (20, 2), ("imagereward", "quality"): (12, 10)}
    return judge_choice_claims(_tests(won), *by_gold, confidence=0.95)


def test_claims_of_best_of_n_are_judged_by_prompts_won_against_rewards(of_choices):
    aligned, looks, twice, hardly, rated, worse = of_choices.to_dict("records")
    assert aligned["verdict"] == HOLDS and aligned["claim"].endswith("of the decided prompts (the smallest of 8).")
    assert aligned["difference"] == pytest.approx(16 / 18 - 1 / 2) and aligned["n_prompts"] == 18
    assert looks["verdict"] == FAILS and looks["difference"] == pytest.approx(2 / 22 - 1 / 2)
    assert twice["verdict"] == OPEN and twice["difference"] == pytest.approx(16 / 18 - 2 / 3)
    assert hardly["verdict"] == OPEN and hardly["difference"] == pytest.approx(12 / 22 - 2 / 5)  # pickscore: all tied
    assert "over 2/3" in twice["claim"] and "over 2/5" in hardly["claim"]
    assert rated["verdict"] == HOLDS and rated["difference"] == pytest.approx(0.1, abs=0.02)
    assert worse["verdict"] == HOLDS and worse["difference"] == pytest.approx(0.1, abs=0.02)
    assert worse["low"] < worse["difference"] < worse["high"] and "n = 16 minus that at 64" in worse["claim"]


def test_where_every_comparison_ties_no_claim_of_wins_can_be_told(by_gold):
    found = judge_choice_claims(_tests({}), *by_gold, confidence=0.95).iloc[: len(CHOICE_CLAIMS)]
    assert (found["verdict"] == OPEN).all() and found["difference"].isna().all() and (found["n_prompts"] == 0).all()


def test_a_reward_that_gains_to_the_end_is_not_called_worse():
    by_gold = _by_gold({"textnorm": (0.6, 0.6), **dict.fromkeys(REWARDS, (0.7, 0.8))})
    *_, rated, worse = judge_choice_claims(_tests({}), *by_gold, confidence=0.95)["verdict"]
    assert rated == FAILS and worse == FAILS


@pytest.mark.parametrize("decided", [1, 5, 6, 11])
def test_better_than_even_is_what_the_sign_test_says(by_gold, decided):
    for won in range(decided + 1):
        counts = {"prompts_won": won, "prompts_lost": decided - won}
        tests = pd.DataFrame([{"set": "all", "question": "alignment", "opponent": name, **counts} for name in REWARDS])
        tests = pd.concat([tests, tests.assign(question="quality")])
        found = judge_choice_claims(tests, *by_gold, confidence=0.95).iloc[0]
        significant = stats.binomtest(won, decided).pvalue <= 0.05
        assert found["verdict"] == ((HOLDS if won > decided / 2 else FAILS) if significant else OPEN)


def test_claims_of_agreement_and_of_best_of_n_stand_in_one_table(judged, of_choices):
    table = printed(stack(judged, of_choices, labels=["agreement", "best of n"], column="part"))
    assert len(table) == judged["claim"].nunique() + len(of_choices)
    added = table.iloc[-len(of_choices) :]
    assert (added["released data"] == "–").all() and (added["verdict here"] == of_choices["verdict"].array).all()
    assert added["mini world"].iloc[0] == ".389 [.153,\u00a0.486] (18)"


def test_notebook_08_asks_the_store_for_what_notebook_04_has_computed():
    lines = {}
    for name in ("04_best_of_n", "08_paper_vs_ours"):
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
        for short, handle in re.findall(r"^(\w+) = (study\.\w+)$", code, re.MULTILINE):
            code = re.sub(rf"\b{short},|\b{short}\)", lambda found, handle=handle: handle + found[0][-1], code)
        lines[name] = set(re.findall(r"^\S.*selection\..*$", code, re.MULTILINE))
    assert len(lines["08_paper_vs_ours"]) == 3 and lines["08_paper_vs_ours"] <= lines["04_best_of_n"]
