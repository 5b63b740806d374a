"""From blind votes to wins, ties and losses (the paper's section 5.4 and appendix 9), with intervals and tests.

Three judges vote on each comparison. The majority decides: the model wins if at least two prefer its side, it loses if
at least two prefer the other, and everything else is a tie, a split of 1-1-1 too; a skip is a vote for neither.

A prompt has two comparisons or more, which share its difficulty: prompts are independent, comparisons are not. With p
the share of the n comparisons that have some outcome, y_j of the n_j of prompt j, and P prompts,

    v = P / (P - 1) * sum over j of (y_j - p n_j)^2 / n^2,          n* = p (1 - p) / v, at most n

so n* independent comparisons would tell p as well. The interval is Clopper and Pearson's exact one for n* p of n*
(Korn and Graubard 1998, without their factor for few prompts); where p is 0 or 1 and v tells nothing, n* = P. Drawing
prompts again, as the other modules do, will not do here: an outcome that never occurs gets the interval from 0 to 0.
"""

from collections.abc import Iterator
from numbers import Integral

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from textnorm_lib.judging.comparisons import ANSWERS
from textnorm_lib.stats.metrics import each_set_and_all, holm
from textnorm_lib.stats.names import PROMPT
from textnorm_lib.study.errors import DataError, is_number, shown
from textnorm_lib.study.store import step

JUDGES = 3
OUTCOMES = ("win", "tie", "loss")

_NEGLIGIBLE = 1e-13  # of a probability
_MOST = 100_000  # comparisons that a power is computed for; more would take minutes, and nobody makes so many
_ABOUT = ["comparison", *PROMPT, "model", "opponent"]
_GROUP = ["set", "model", "opponent", "question"]


@step(1)
def majority(votes: pd.DataFrame) -> pd.DataFrame:
    """The outcome of each comparison and question: comparison, set, prompt, model, opponent, question, outcome.

    ``votes`` as from ``comparisons.ask``, those of three judges together: comparison, set, prompt, model, opponent,
    left_model, judge, question, answer ("left", "tie", "right" or "skip"). ``outcome`` is "win", "tie" or "loss", of
    model against opponent. Raises ``DataError`` for a missing column, an unknown answer, a left_model that is neither,
    a vote given twice, and a comparison without exactly three votes on each question.
    """
    votes = _checked(votes)
    side = votes["answer"].map({"left": 1, "right": -1}).fillna(0)
    preferred = side.where(votes["left_model"] == votes["model"], -side)
    keys = [votes[key] for key in (*_ABOUT, "question")]
    won, lost = ((preferred == sign).groupby(keys, sort=False).sum() for sign in (1, -1))
    outcome = np.select([won > JUDGES / 2, lost > JUDGES / 2], ["win", "loss"], "tie")
    return won.index.to_frame(index=False).assign(outcome=outcome)


@step(1)
def win_tie_loss(votes: pd.DataFrame, *, confidence: float = 0.95) -> pd.DataFrame:
    """The shares of comparisons that each model wins, ties and loses by majority, with intervals (figures 6 and 9).

    ``votes`` as for ``majority``. Returns set (each and ``"all"``), model, opponent, question, outcome ("win", "tie",
    "loss"), count, share, low, high (the module's interval; nan with one prompt), n_comparisons, n_prompts. Raises
    ``DataError`` as ``majority``, and for a confidence that is not between 0 and 1.
    """
    if not 0 < confidence < 1:
        raise DataError(f"confidence is {confidence}: a number between 0 and 1 is needed")
    rows = []
    for key, group in _groups(majority(votes)):
        sizes = group.groupby(PROMPT).size().to_numpy()
        for outcome in OUTCOMES:
            hits = (group["outcome"] == outcome).groupby([group[name] for name in PROMPT]).sum().to_numpy()
            count, size = hits.sum(), sizes.sum()
            bounds = _interval(hits, sizes, confidence)
            rows.append((*key, outcome, count, count / size, *bounds, size, len(sizes)))
    numbers = ["count", "share", "low", "high", "n_comparisons", "n_prompts"]
    return pd.DataFrame(rows, columns=[*_GROUP, "outcome", *numbers])


@step(1)
def sign_tests(votes: pd.DataFrame) -> pd.DataFrame:
    """Whether each model wins more often than it loses: exact two-sided sign tests over prompts.

    ``votes`` as for ``majority``. A prompt is won if more of its comparisons are won than lost, lost in the opposite
    case, and otherwise tied and dropped. Returns set (each and ``"all"``), model, opponent, question, prompts_won,
    prompts_tied, prompts_lost, p_sign (1 where no prompt is decided), p_holm (Holm's family is all tests of one set).
    Raises ``DataError`` as ``majority``.
    """
    rows = []
    for key, group in _groups(majority(votes)):
        balance = group["outcome"].map({"win": 1, "tie": 0, "loss": -1}).groupby([group[name] for name in PROMPT]).sum()
        won, lost = int((balance > 0).sum()), int((balance < 0).sum())
        p_value = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
        rows.append((*key, won, len(balance) - won - lost, lost, p_value))
    table = pd.DataFrame(rows, columns=[*_GROUP, "prompts_won", "prompts_tied", "prompts_lost", "p_sign"])
    table["p_holm"] = table.groupby("set")["p_sign"].transform(lambda p_values: holm(p_values.to_numpy()))
    return table


def sign_test_power(n: int, *, win: float, loss: float, alpha: float = 0.05) -> float:
    """The probability that the two-sided sign test at ``alpha`` finds a difference in n independent comparisons.

    ``win`` and ``loss`` are their probabilities, the rest ties, which the test drops: how many are left is binomial,
    and the sum over it is exact to 1e-13. Only comparisons of different prompts are independent; two of one prompt
    count for one to two. Raises ``DataError`` unless n is a whole number from 1 to 100,000, 0 < alpha < 1, win, loss
    >= 0 and 0 < win + loss <= 1.
    """
    _check_rates(n, win, loss, alpha)
    fewest, most = stats.binom.interval(1 - _NEGLIGIBLE, n, win + loss)
    decided = np.arange(fewest, most + 1)
    rare = stats.binom.ppf(alpha / 2, decided, 0.5)
    rare -= stats.binom.cdf(rare, decided, 0.5) > alpha / 2  # so many of one kind, or fewer, are significant
    few_wins, few_losses = (stats.binom.cdf(rare, decided, rate / (win + loss)) for rate in (win, loss))
    return float(stats.binom.pmf(decided, n, win + loss) @ (few_wins + few_losses))


def rates(ratio: float, *, decided: float) -> dict[str, float]:
    """The win and loss rates where a share ``decided`` is won or lost, and ``ratio`` times as many won as lost."""
    return {"win": decided * ratio / (ratio + 1), "loss": decided / (ratio + 1)}


def comparisons_needed(win: float, loss: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """How many independent comparisons tell these win and loss rates apart with probability ``power``.

    The smallest n for which ``sign_test_power`` reaches ``power``; a few numbers above it may fall a little short
    again, because an exact test's level comes in steps. Raises ``DataError`` as it does, for rates that are equal or so
    alike that it takes more than 100,000, and for a ``power`` that is not between ``alpha`` and 1.
    """
    _check_rates(1, win, loss, alpha)
    if win == loss or not is_number(power, alpha, 1) or power in (alpha, 1):
        told = f"win is {win}, loss {loss}, power {shown(power)}"
        raise DataError(f"{told}: two rates and a power from {alpha} to 1 are needed")
    in_deviations = stats.norm.isf(alpha / 2) + stats.norm.ppf(power)
    about = in_deviations**2 * ((win + loss) / (win - loss) / (win - loss) - 1)  # by the normal distribution
    n = max(1, int(min(about, _MOST) / 2))
    while n <= _MOST and about <= _MOST:
        if sign_test_power(n, win=win, loss=loss, alpha=alpha) >= power:
            return n
        n += 1
    raise DataError(f"win is {win}, loss {loss}: so alike that it takes more than {_MOST:,} comparisons to tell")


def _check_rates(n: int, win: float, loss: float, alpha: float) -> None:
    """Raise ``DataError`` unless these can be a number of comparisons and the probabilities of their outcomes."""
    possible = all(is_number(rate, 0, 1) for rate in (win, loss, alpha)) and 0 < win + loss <= 1 and 0 < alpha < 1
    if not (possible and isinstance(n, Integral) and is_number(n, 1, _MOST)):
        told = f"n is {shown(n)}, win {shown(win)}, loss {shown(loss)}, alpha {shown(alpha)}"
        raise DataError(f"{told}: a whole n from 1 to {_MOST:,} and probabilities are needed")


def _interval(hits: np.ndarray, sizes: np.ndarray, confidence: float) -> tuple[float, float]:
    """The module's interval, from the comparisons of each prompt (P,) and those among them with the outcome (P,)."""
    prompts, size = len(sizes), sizes.sum()
    if prompts < 2:
        return np.nan, np.nan
    share = hits.sum() / size
    variance = prompts / (prompts - 1) * ((hits - share * sizes) ** 2).sum() / size**2
    spread = share * (1 - share)
    effective = spread / max(variance, spread / size) if spread > 0 else prompts
    return proportion_confint(share * effective, effective, alpha=1 - confidence, method="beta")


def _groups(outcomes: pd.DataFrame) -> Iterator[tuple[tuple[str, str, str, str], pd.DataFrame]]:
    """(set, model, opponent, question) and its rows, for each set and all together."""
    for name, rows in each_set_and_all(outcomes):
        for key, group in rows.groupby(_GROUP[1:], sort=False):
            yield (name, *key), group


def _checked(votes: pd.DataFrame) -> pd.DataFrame:
    """``votes`` with rows numbered from 0, if they are sound; otherwise ``DataError``."""
    columns = [*_ABOUT, "left_model", "judge", "question", "answer"]
    if not isinstance(votes, pd.DataFrame):
        raise DataError(f"votes is a {type(votes).__name__}: a table with {', '.join(columns)} is needed")
    if missing := [column for column in columns if column not in votes or votes[column].isna().any()]:
        raise DataError(f"votes: every vote needs {', '.join(columns)}; {missing[0]!r} is missing")
    if votes.empty:
        raise DataError("votes has no rows")
    for column in ("model", "opponent", "left_model"):
        if (wrong := ~votes[column].map(lambda name: isinstance(name, str))).any():
            raise DataError(f"votes: {column} of row {wrong.argmax()} is no text; give each model its name")
    if (wrong := ~votes["answer"].isin(ANSWERS)).any():
        raise DataError(
            f"votes: row {wrong.argmax()} has the answer {votes['answer'][wrong].iloc[0]!r:.80}; "
            f"known are {', '.join(ANSWERS)}"
        )
    if (wrong := (votes["left_model"] != votes["model"]) & (votes["left_model"] != votes["opponent"])).any():
        raise DataError(f"votes: row {wrong.argmax()} has a left_model that is neither its model nor its opponent")
    if (twice := votes.duplicated(["comparison", "judge", "question"])).any():
        raise DataError(f"votes: row {twice.argmax()} repeats a judge's answer; one to each question is needed")
    counts = pd.crosstab(votes["comparison"], votes["question"]).stack()
    for (comparison, question), count in counts[counts != JUDGES].items():
        raise DataError(f"votes: comparison {comparison} has {count} votes on {question}; {JUDGES} judges are needed")
    return votes.reset_index(drop=True)
