"""What sections 5.3 and 5.4 claim of fine-tuning, judged by the rule of ``claims.py``, once for RWR and once for DDPO.

The paper shows overoptimisation in pictures and counts what three people prefer. Here the mini world's judges vote, and
gold is the annotators' rating: of a model's last checkpoint for what training does in the end, and of its chosen one
where models are laid side by side, as in the paper.
"""

from fractions import Fraction

import pandas as pd

from textnorm_lib.claims import COLUMNS, EVEN, MINOR, ChoiceClaim, judge_choice, smallest
from textnorm_lib.metrics import ALL_SETS
from textnorm_lib.names import BASE
from textnorm_lib.selection import TWICE
from textnorm_lib.store import step
from textnorm_lib.two_way import two_way_interval

RIVALS = (BASE, "imagereward", "pickscore")  # of figure 6
POOR = ("clip", "blip2")  # the rewards that agree with people least in section 4
TUNED_CLAIMS = {
    "RWR": (
        ChoiceClaim(
            "RWR: in alignment TextNorm's model wins twice as often as it loses",
            "approximately twice as many wins",
            "alignment",
            RIVALS,
            Fraction(TWICE, TWICE + 1),
            "5.4",
        ),
        ChoiceClaim(
            "RWR: TextNorm's model looks hardly worse", "comparable, or better", "quality", RIVALS, EVEN - MINOR, "5.4"
        ),
    ),
    "DDPO": (
        ChoiceClaim(
            "DDPO: in alignment TextNorm's model wins twice as often as it loses",
            "more dramatic than for RWR",
            "alignment",
            RIVALS,
            Fraction(TWICE, TWICE + 1),
            "5.4",
        ),
        ChoiceClaim(
            "DDPO: TextNorm's model looks worse, it loses",
            "at the expense of quality",
            "quality",
            RIVALS,
            EVEN,
            "5.4",
            True,
        ),
    ),
}


@step(1)
def judge_tuned_claims(
    tests: pd.DataFrame, gains: pd.DataFrame, cells: pd.DataFrame, *, way: str, confidence: float
) -> pd.DataFrame:
    """A row a claim about models tuned in one ``way`` ("RWR" or "DDPO"): as ``claims.judge_claims``, all "ours".

    ``tests``: as from ``sign_tests_by_size``, on the votes of ``judge_tuned``; ``gains`` and ``cells`` as from
    ``tuning_gains`` and ``prompt_gains``, of one KL coefficient. Where a rival was not tuned, the others are judged.
    """
    tests = tests[tests["model"] == "textnorm"]
    rows = [judge_choice(claim, tests, confidence) for claim in TUNED_CLAIMS[way]]
    last = gains[(gains["set"] == ALL_SETS) & (gains["what"] == "gold") & gains["tuned_on"].isin(POOR)]
    last = last[last["checkpoint"] == last["checkpoint"].max()]
    worse = last.assign(difference=-last["mean"], low=-last["high"], high=-last["low"])
    text = (
        f"{way}: a model tuned on a poorly aligned reward ends below the base (rating, the smallest of {len(worse)})."
    )
    rows.append((text, "5.3", "figures 1 and 5, by eye", "ours", *smallest(worse)))
    beside = _gold_beside(cells, confidence)
    text = f"{way}: TextNorm's model ends with a higher rating than each other's (the smallest of {len(beside)})."
    rows.append((text, "5.3", "figure 5, by eye", "ours", *smallest(beside)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _gold_beside(cells: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """TextNorm's gold at the last checkpoint minus each other model's, with intervals over prompts and runs."""
    last = cells[cells["checkpoint"] == cells["checkpoint"].max()]
    gold = last.pivot(index=["set", "prompt"], columns=["tuned_on", "run"], values="gold")
    rows = []
    for other in gold.columns.unique("tuned_on").drop("textnorm"):
        found = two_way_interval((gold["textnorm"] - gold[other]).to_numpy(), confidence=confidence)
        rows.append((found["mean"], found["low"], found["high"], len(gold)))
    return pd.DataFrame(rows, columns=["difference", "low", "high", "n_prompts"]).astype(float)
