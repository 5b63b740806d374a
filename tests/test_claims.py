"""Verdicts follow from intervals; each claim is judged in the release and in ours."""

import numpy as np
import pandas as pd
import pytest

from textnorm_lib.claims import CLAIMS, FAILS, HOLDS, OPEN, judge_claims, verdict
from textnorm_lib.metrics import METRICS
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.tables.claims import claims as printed
from textnorm_lib.tia2.official import SETS

BOOTSTRAP = {"resamples": 300, "confidence": 0.95, "seed": 0}
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


def test_the_table_has_a_row_a_claim(judged):
    table = printed(judged)
    assert len(table) == judged["claim"].nunique() and table["claim"].is_unique
    row = table[table["claim"] == CLAIMS[1].text].iloc[0]
    assert (
        row["released data"] == "–"
        and row["mini world"].startswith((".09", ".10"))
        and row["mini world"].endswith("(36)")
    )
