"""What the paper claims, in numbers: the paper's, the release's, ours, and a verdict by rule.

A claim here is that a difference is above zero (or a share below a bound). It *holds* where the whole interval is on
the claimed side, it *does not hold* where all of it is on the other, and else it *cannot be told at this scale*.
A claim about several differences holds if all do, and does not if one does not. Where the paper counts wins and losses,
the difference is that between the share of wins among the prompts that are not tied and the share that is claimed.

What sections 5.3 and 5.4 claim of fine-tuning is judged once for RWR and once for DDPO. The paper shows
overoptimisation in pictures and counts what three people prefer; here the mini world's judges vote, and gold is the
annotators' rating: of a model's last checkpoint for what training does in the end, and of its chosen one where models
are laid side by side, as in the paper.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pandas as pd
from scipy import stats

from textnorm_lib.confidence.ablations import compare_pairs
from textnorm_lib.confidence.tuning import PAPERS_ENSEMBLE
from textnorm_lib.judging.selection import TWICE
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.stats.intervals import two_way_interval
from textnorm_lib.stats.metrics import ALL_SETS, METRICS
from textnorm_lib.stats.names import BASE, PAIR, PROMPT
from textnorm_lib.study.store import step

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot be told at this scale"
NEGLIGIBLE = 0.05  # the paper says "negligible" without a number
# Shares of decided prompts; the paper says "minor" without a number.
EVEN, MOSTLY, MINOR = Fraction(1, 2), Fraction(TWICE, TWICE + 1), Fraction(1, 10)
COLUMNS = ["claim", "where", "paper", "source", "difference", "low", "high", "n_prompts", "verdict"]
RIVALS = (BASE, "imagereward", "pickscore")  # of figure 6
POOR = ("clip", "blip2")  # the rewards that agree with people least in section 4
_BASELINES = tuple(REWARDS)


@dataclass(frozen=True)
class Claim:
    """Pairs of (a reward, the one that is claimed to be better) by AUROC over all sets, in the release and in ours.

    No pairs: the release says nothing of it.
    """

    text: str
    where: str
    paper: str
    ours: tuple[tuple[str, str], ...]
    released: tuple[tuple[str, str], ...] = ()


_OTHERS = tuple((name, "pickscore") for name in _BASELINES if name != "pickscore")
CLAIMS = (
    Claim("PickScore agrees with people better than the other three rewards.", "4.2", "no number", _OTHERS, _OTHERS),
    Claim(
        "TextNorm with suitable prompts improves a reward (PickScore).",
        "table 1",
        ".764 to .780",
        (("pickscore", "textnorm:pickscore"),),
    ),
    Claim(
        "Suitable prompts are better than random ones (PickScore).",
        "table 1",
        ".641 to .780",
        (("random:pickscore", "textnorm:pickscore"),),
    ),
    Claim(
        "Random prompts make a reward worse (PickScore).",
        "table 1",
        ".764 to .641",
        (("random:pickscore", "pickscore"),),
    ),
    Claim(
        "An ensemble under TextNorm is better than PickScore under TextNorm.",
        "table 1",
        ".780 to .822",
        (("textnorm:pickscore", f"textnorm:{PAIR}"),),
    ),
    Claim(
        "TextNorm's ensemble is better than PickScore.",
        "table 1",
        ".764 to .822",
        (("pickscore", f"textnorm:{PAIR}"),),
        (("pickscore", "textnorm"),),
    ),
)


@dataclass(frozen=True)
class ChoiceClaim:
    """Of the decided prompts, those won or lost, TextNorm wins over ``share``: against each opponent, at every n.

    ``loses``: it loses over ``share`` of them.
    """

    text: str
    paper: str
    question: str
    opponents: tuple[str, ...]
    share: Fraction
    loses: bool = False


CHOICE_CLAIMS = (
    ChoiceClaim(
        "TextNorm's choice is better aligned than each reward's", "consistently", "alignment", _BASELINES, EVEN
    ),
    ChoiceClaim(
        "TextNorm's choice looks better than CLIP's and BLIP-2's", "notably", "quality", ("clip", "blip2"), EVEN
    ),
    ChoiceClaim(
        "In alignment TextNorm wins twice as often as it loses against ImageReward and PickScore",
        "two to three times",
        "alignment",
        PAPERS_ENSEMBLE,
        MOSTLY,
    ),
    ChoiceClaim(
        "TextNorm's choice looks hardly worse than ImageReward's and PickScore's",
        "comparable, or minor compromises",
        "quality",
        PAPERS_ENSEMBLE,
        EVEN - MINOR,
    ),
)
_WINS_TWICE = "in alignment TextNorm's model wins twice as often as it loses"
_LOOKS = "TextNorm's model looks"
TUNED_CLAIMS = {
    "RWR": (
        ChoiceClaim(f"RWR: {_WINS_TWICE}", "approximately twice as many wins", "alignment", RIVALS, MOSTLY),
        ChoiceClaim(f"RWR: {_LOOKS} hardly worse", "comparable, or better", "quality", RIVALS, EVEN - MINOR),
    ),
    "DDPO": (
        ChoiceClaim(f"DDPO: {_WINS_TWICE}", "more dramatic than for RWR", "alignment", RIVALS, MOSTLY),
        ChoiceClaim(
            f"DDPO: {_LOOKS} worse, it loses", "at the expense of quality", "quality", RIVALS, EVEN, loses=True
        ),
    ),
}


def verdict(low: Sequence[float], high: Sequence[float]) -> str:
    """Of claims that differences are above zero, by their intervals; nothing to judge by is ``OPEN``."""
    low, high = np.asarray(low, float), np.asarray(high, float)
    if (high < 0).any():
        return FAILS
    return HOLDS if low.size and (low > 0).all() else OPEN


@step(3)
def judge_claims(
    released: pd.DataFrame, ours: pd.DataFrame, shares: pd.DataFrame, *, resamples: int, confidence: float, seed: int
) -> pd.DataFrame:
    """A row per claim: claim, where, paper, source ("released" or "ours"), difference, low, high, n_prompts, verdict.

    ``released`` and ``ours``: metrics of prompts, tidy; ours as ``Pipeline.sealed_metrics``. ``shares``: as
    ``ablations.softmax_shares`` gives them, with random prompts among the contrasts. Of a claim about several pairs the
    one with the smallest difference is given.
    """
    options = {"resamples": resamples, "confidence": confidence, "seed": seed}
    rows = []
    for source, metrics in (("released", released), ("ours", ours)):
        rows += [_judge_pairs(claim, source, metrics, options) for claim in CLAIMS]
        rows.append(_judge_everywhere(source, metrics, options))
        rows.append(_judge_counting(source, metrics, options))
    rows += [_judge_share(reward, shares, options) for reward in PAPERS_ENSEMBLE]
    return pd.DataFrame(rows, columns=COLUMNS)


def _judge_pairs(claim: Claim, source: str, metrics: pd.DataFrame, options: dict) -> tuple:
    about = (claim.text, claim.where, claim.paper, source)
    pairs = claim.released if source == "released" else claim.ours
    if not pairs:
        return (*about, np.nan, np.nan, np.nan, 0, "not in the release")
    auroc = metrics[metrics["metric"] == "auroc"]
    together = auroc.assign(prompt=auroc["set"] + ": " + auroc["prompt"], set="together")
    found = compare_pairs(together, pairs=pairs, metrics=["auroc"], **options)
    return (*about, *_smallest(found[found["set"] == ALL_SETS]))


def _judge_everywhere(source: str, metrics: pd.DataFrame, options: dict) -> tuple:
    """TextNorm against each reward on each set by each metric: 84 differences."""
    best = "textnorm" if source == "released" else f"textnorm:{PAIR}"
    found = compare_pairs(metrics, pairs=[(name, best) for name in _BASELINES], metrics=list(METRICS), **options)
    text = "TextNorm improves all measured metrics on all three sets (the smallest of 84 differences)."
    return (text, "4.3", "in bold throughout", source, *_smallest(found[found["set"] != ALL_SETS]))


def _judge_counting(source: str, metrics: pd.DataFrame, options: dict) -> tuple:
    """PickScore's AUROC on the composition set minus that on the counting set: other prompts, so drawn apart."""
    of = metrics[(metrics["reward"] == "pickscore") & (metrics["metric"] == "auroc")].dropna(subset="value")
    samples = [of.loc[of["set"] == name, "value"].to_numpy() for name in ("composition", "counting")]

    def difference(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        return one.mean(axis=axis) - other.mean(axis=axis)

    text = "Rewards are weaker at counting than at composition (PickScore)."
    return (text, "4.3", "no number", source, *_drawn(samples, difference, **options))


def _judge_share(reward: str, shares: pd.DataFrame, options: dict) -> tuple:
    """Half of the contrasts are random prompts; the difference is what is left of the bound."""
    own = shares[(shares["reward"] == reward) & (shares["kind"] == "random")]["share"].to_numpy()
    text = f"Prompts unlike in syntax and meaning add next to nothing to the softmax ({reward}: .05 minus their share)."
    return (text, "4.1", "confirmed, no number", "ours", *_drawn([NEGLIGIBLE - own], np.mean, **options))


def _drawn(
    samples: Sequence[np.ndarray], statistic: Callable, *, resamples: int, confidence: float, seed: int
) -> tuple:
    """A statistic of samples, its percentile interval (each sample is drawn again for itself), n, and the verdict.

    No interval where a sample has one prompt, no statistic either where it has none.
    """
    n = sum(map(len, samples))
    if (fewest := min(map(len, samples))) < 2:
        return (statistic(*samples, axis=0) if fewest else np.nan, np.nan, np.nan, n, OPEN)
    options = {"n_resamples": resamples, "confidence_level": confidence, "rng": np.random.default_rng(seed)}
    drawn = stats.bootstrap(samples, statistic, method="percentile", **options).confidence_interval
    return (statistic(*samples, axis=0), drawn.low, drawn.high, n, verdict([drawn.low], [drawn.high]))


@step(2)
def judge_choice_claims(
    tests: pd.DataFrame, compared: pd.DataFrame, late: pd.DataFrame, *, confidence: float
) -> pd.DataFrame:
    """What section 5.2 and appendix 9 claim of best-of-n: rows as ``judge_claims``, all "ours".

    ``tests``: as from ``sign_tests_by_size``, with TextNorm as the model; ``compared``: as from ``compare_gold``, with
    TextNorm as the reference; ``late``: as from ``late_gains``. Where wins are claimed, n_prompts counts decided ones.
    """
    rows = [_judge_choice(claim, "appendix 9", tests, confidence) for claim in CHOICE_CLAIMS]
    found = compared[(compared["set"] == ALL_SETS) & compared["reward"].isin(_BASELINES)]
    text = "TextNorm's best of the largest n has a higher rating than each reward's (the smallest of 4 differences)."
    rows.append((text, "appendix 9", "by wins only", "ours", *_smallest(found)))
    blip2 = late[(late["set"] == ALL_SETS) & (late["reward"] == "blip2")]
    before, after = blip2[["before", "after"]].iloc[0]
    text = f"BLIP-2's choice gets worse as n grows (rating at n = {before} minus that at {after})."
    rows.append((text, "5.2", "figure 4, by eye", "ours", *_smallest(_losses(blip2))))
    return pd.DataFrame(rows, columns=COLUMNS)


def _judge_choice(claim: ChoiceClaim, where: str, tests: pd.DataFrame, confidence: float) -> tuple:
    """A row, with exact intervals, which lie above 1/2 just where more are won by the two-sided sign test.

    Prompts are counted, as in that test, and not their two comparisons as in the paper: those share a prompt.
    """
    asked = (tests["set"] == ALL_SETS) & (tests["question"] == claim.question) & tests["opponent"].isin(claim.opponents)
    rows = []
    counted = ["prompts_lost", "prompts_won"] if claim.loses else ["prompts_won", "prompts_lost"]
    for won, lost in tests.loc[asked, counted].itertuples(index=False):
        decided, share = won + lost, [np.nan] * 3
        if decided:
            share = [won / decided, *stats.binomtest(won, decided).proportion_ci(confidence)]
        rows.append((*np.subtract(share, float(claim.share)), decided))
    found = pd.DataFrame(rows, columns=["difference", "low", "high", "n_prompts"])
    text = f"{claim.text}: over {claim.share} of the decided prompts (the smallest of {len(found)})."
    return (text, where, claim.paper, "ours", *_smallest(found))


@step(1)
def judge_tuned_claims(
    tests: pd.DataFrame, gains: pd.DataFrame, cells: pd.DataFrame, *, way: str, confidence: float
) -> pd.DataFrame:
    """A row per claim about models tuned in one ``way`` ("RWR" or "DDPO"): as ``judge_claims``, all "ours".

    ``tests``: as from ``sign_tests_by_size``, on the votes of ``judge_tuned``; ``gains`` and ``cells`` as from
    ``tuning_gains`` and ``prompt_gains``, of one KL coefficient. Where a rival was not tuned, the others are judged.
    """
    tests = tests[tests["model"] == "textnorm"]
    rows = [_judge_choice(claim, "5.4", tests, confidence) for claim in TUNED_CLAIMS[way]]
    last = gains[(gains["set"] == ALL_SETS) & (gains["what"] == "gold") & gains["tuned_on"].isin(POOR)]
    last = last[last["checkpoint"] == last["checkpoint"].max()]
    text = f"{way}: a model tuned on a poorly aligned reward ends below the base (rating, the smallest of {len(last)})."
    rows.append((text, "5.3", "figures 1 and 5, by eye", "ours", *_smallest(_losses(last))))
    beside = _gold_beside(cells, confidence)
    text = f"{way}: TextNorm's model ends with a higher rating than each other's (the smallest of {len(beside)})."
    rows.append((text, "5.3", "figure 5, by eye", "ours", *_smallest(beside)))
    return pd.DataFrame(rows, columns=COLUMNS)


def _gold_beside(cells: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """TextNorm's gold at the last checkpoint minus each other model's, with intervals over prompts and runs."""
    last = cells[cells["checkpoint"] == cells["checkpoint"].max()]
    gold = last.pivot(index=PROMPT, columns=["tuned_on", "run"], values="gold")
    rows = []
    for other in gold.columns.unique("tuned_on").drop("textnorm"):
        found = two_way_interval((gold["textnorm"] - gold[other]).to_numpy(), confidence=confidence)
        rows.append((found["mean"], found["low"], found["high"], len(gold)))
    return pd.DataFrame(rows, columns=["difference", "low", "high", "n_prompts"]).astype(float)


def _losses(gains: pd.DataFrame) -> pd.DataFrame:
    return gains.assign(difference=-gains["mean"], low=-gains["high"], high=-gains["low"])


def _smallest(found: pd.DataFrame) -> tuple:
    """Of several differences (difference, low, high; n_prompts, or wins, ties and losses) the smallest: its numbers,
    and the verdict on all of them.
    """
    least = found.sort_values("difference", kind="stable").iloc[0]
    n = least["n_prompts"] if "n_prompts" in found else least[["wins", "ties", "losses"]].sum()
    return (least["difference"], least["low"], least["high"], int(n), verdict(found["low"], found["high"]))
