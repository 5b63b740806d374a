"""Claims about tuned models: wins over prompts, ratings over prompts and runs."""

import numpy as np
import pandas as pd
import pytest

from textnorm_lib.figures.claims import claims_table as printed
from textnorm_lib.judging.claims import FAILS, HOLDS, OPEN, TUNED_CLAIMS, judge_tuned_claims
from textnorm_lib.optimise.outcomes import WHAT, tuning_gains

GOLD = {"textnorm": 0.2, "clip": -0.3, "blip2": -0.2, "imagereward": 0.0}


def cells_of(gold, runs=2, prompts=6):
    """Gains of models at two checkpoints: nothing at the first, so much rating at the last, and a little noise."""
    rng = np.random.default_rng(0)
    rows = [
        (
            name,
            0.5,
            run,
            checkpoint,
            "counting",
            f"prompt {prompt}",
            8,
            0.1,
            level * late + rng.normal(0, 0.01),
            0.0,
            1.0,
        )
        for name, level in gold.items()
        for run in range(runs)
        for checkpoint, late in ((10, 0), (20, 1))
        for prompt in range(prompts)
    ]
    return pd.DataFrame(rows, columns=["tuned_on", "beta", "run", "checkpoint", "set", "prompt", "n_images", *WHAT])


def sign_tests(won, opponents=("base", "imagereward", "pickscore")):
    """Sign tests of TextNorm's model: won and lost prompts by question, the same against all."""
    rows = [
        ("all", model, opponent, question, *won[question])
        for opponent in opponents
        for question in ("alignment", "quality")
        for model in ("textnorm", "clip")
    ]
    tests = pd.DataFrame(rows, columns=["set", "model", "opponent", "question", "prompts_won", "prompts_lost"])
    tests.loc[tests["model"] == "clip", ["prompts_won", "prompts_lost"]] = (0, 30)  # another's, and not asked for
    return tests


def judged(won, *, way="RWR", gold=GOLD, **more):
    cells = cells_of(gold, **more)
    gains = tuning_gains(cells, confidence=0.95)
    return judge_tuned_claims(sign_tests(won), gains, cells, way=way, confidence=0.95)


def test_what_the_paper_found_would_hold():
    found = judged({"alignment": (29, 1), "quality": (20, 10)})
    assert found["verdict"].tolist() == [HOLDS] * 4
    assert found["difference"].iloc[0] == pytest.approx(29 / 30 - 2 / 3)
    assert found["difference"].iloc[2] == pytest.approx(0.2, abs=0.02)  # the least of .3 and .2 below the base
    assert found["difference"].iloc[3] == pytest.approx(0.2, abs=0.02)  # above imagereward's, the nearest
    assert set(found["where"]) == {"5.3", "5.4"} and (found["source"] == "ours").all()


def test_the_opposite_does_not_hold():
    worse = {name: -value for name, value in GOLD.items()}
    found = judged({"alignment": (1, 29), "quality": (1, 29)}, gold=worse)
    assert found["verdict"].tolist() == [FAILS] * 4


def test_losing_in_quality_is_the_claim_for_ddpo():
    found = judged({"alignment": (15, 15), "quality": (2, 28)}, way="DDPO")
    alignment, quality = found.head(2).to_dict("records")
    assert alignment["verdict"] == OPEN
    assert quality["verdict"] == HOLDS and quality["difference"] == pytest.approx(28 / 30 - 1 / 2)


def test_one_run_tells_nothing_of_others():
    found = judged({"alignment": (29, 1), "quality": (20, 10)}, runs=1)
    assert found["verdict"].tolist() == [HOLDS, HOLDS, OPEN, OPEN]
    assert found["low"].iloc[2:].isna().all() and found["difference"].iloc[2:].notna().all()


def test_three_prompts_cannot_hold_a_claim_of_wins():
    found = judged({"alignment": (3, 0), "quality": (3, 0)}, prompts=3)
    assert found["verdict"].head(2).tolist() == [OPEN, OPEN]


def test_the_rows_are_printed_with_the_others():
    both = [judged({"alignment": (29, 1), "quality": (20, 10)}, way=way) for way in TUNED_CLAIMS]
    table = printed(pd.concat(both, ignore_index=True))
    assert len(table) == 8 and table["claim"].is_unique
    assert table["claim"].str.startswith(("RWR: ", "DDPO: ")).all()
