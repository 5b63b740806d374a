"""What rewards choose from the pool, and how it is judged (section 5.2, appendix 9; the pool: ``pool.py``).

*Choosers* are columns of the pool: the rewards, and ``rating``, by which the annotators themselves choose: nobody can
do better in the annotators' eyes. A chooser's *sets* are the best four of n, twice: once from the first n images of the
first half of a prompt's pool, once from the first n of the second, so that no image is in both.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from textnorm_lib.best_of_n import choose_best, expected_gold, kl_best_of_n
from textnorm_lib.comparisons import ask, gold_judge, make_comparisons
from textnorm_lib.errors import DataError
from textnorm_lib.judging import sign_test_power, sign_tests, win_tie_loss
from textnorm_lib.metrics import compare, summarise
from textnorm_lib.pool import QUALITY, check_choosers
from textnorm_lib.progress import progress
from textnorm_lib.rankings import RATING
from textnorm_lib.store import step
from textnorm_lib.tia2.labels import SKIP, VOTES

SETS_PER_PROMPT, IMAGES_PER_SET = 2, 4
QUALITY_TIE = 0.25  # in a judge's unit: of sets of four drawn at random somewhat over a quarter tie then
TWICE = 2  # the paper: TextNorm has two to three times as many wins as losses

_PROMPT = ["set", "prompt"]


@step(1)
def choose_sets(images: pd.DataFrame, *, choosers: Sequence[str], sizes: Sequence[int]) -> pd.DataFrame:
    """The sets of each chooser for each n of ``sizes``: set, prompt, model (the chooser), n, number, place, image.

    ``images`` as ``pool.join_judges`` gives them. Raises ``DataError`` for an n of which the pool does not hold two
    disjoint batches, and as ``check_choosers``.
    """
    images = check_choosers(images, [name for name in choosers if name != RATING])  # who may well find all images good
    rows = []
    prompts = images.groupby(_PROMPT, sort=False)
    for (name, prompt), pool in progress(prompts, "choosing", total=prompts.ngroups, unit="prompts"):
        half = len(pool) // SETS_PER_PROMPT
        if max(sizes) > half:
            raise DataError(
                f"n is {max(sizes)}, and {prompt!r} has a pool of {len(pool)}: two disjoint batches need "
                f"{SETS_PER_PROMPT * max(sizes)} images; make more, or take a smaller n"
            )
        for number in range(SETS_PER_PROMPT):
            batch = pool.iloc[number * half : (number + 1) * half]
            for chooser in choosers:
                for n in sizes:
                    best = batch["image"].iloc[choose_best(batch[chooser], n, IMAGES_PER_SET)]
                    rows += [(name, prompt, chooser, n, number + 1, place, one) for place, one in enumerate(best, 1)]
    return pd.DataFrame(rows, columns=[*_PROMPT, "model", "n", "number", "place", "image"])


@step(1)
def judge_sets(
    chosen: pd.DataFrame, images: pd.DataFrame, *, model: str, opponents: Sequence[str], quality_tie: float, seed: int
) -> pd.DataFrame:
    """The votes of three judges on the sets of ``model`` against those of each opponent, n by n: as ``ask``, and n.

    ``chosen`` as ``choose_sets`` gives it. Judge i asks for alignment what annotator i voted on each image (a skip as
    one half) and for quality what quality judge i says; it prefers the higher mean. Equal means tie, of quality those
    at most ``quality_tie`` apart, in the judge's unit: the pooled standard deviation of its numbers for a prompt's
    images. Raises ``DataError`` for a quality judge without one.
    """
    votes = images.set_index("image")[VOTES].replace(SKIP, 0.5)
    quality = images.set_index("image")[list(QUALITY)] / _units(images)
    questions = (("alignment", votes, 0.0), ("quality", quality, quality_tie))
    found = []
    for n, of_size in chosen.groupby("n"):
        sets = dict(list(of_size.groupby("model")))
        for opponent in opponents:
            comparisons = make_comparisons(sets[model], sets[opponent], seed=seed)
            for question, values, tie in questions:
                for number, column in enumerate(values, 1):
                    judge, see = gold_judge(tie_within=tie), values[column].to_dict()
                    answers = ask(judge, comparisons, name=f"judge_{number}", question=question, see=see)
                    found.append(answers.assign(n=n))
    return pd.concat(found, ignore_index=True)


def _units(images: pd.DataFrame) -> pd.Series:
    """Of each quality judge, the pooled standard deviation of its numbers for a prompt's images."""
    units = np.sqrt(images.groupby(_PROMPT)[list(QUALITY)].var(ddof=0).mean())
    if (lacking := ~(units > 0)).any():
        raise DataError(f"{units.index[lacking][0]} tells no images of a prompt apart; check that judge's weights")
    return units


@step(1)
def outcomes_by_size(votes: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """``win_tie_loss`` of the votes on each n (figure 9): its columns, and n."""
    return pd.concat([win_tie_loss(rows, confidence=confidence).assign(n=n) for n, rows in votes.groupby("n")])


@step(1)
def sign_tests_by_size(votes: pd.DataFrame) -> pd.DataFrame:
    """``sign_tests`` of the votes on each n: its columns, n, and the test's power.

    ``power``: how likely the test was to find that a model wins twice as many prompts as it loses, with as many prompts
    as there are and as many tied as were; nan where all are tied. Holm's family is all tests of one n and set.
    """
    tests = pd.concat([sign_tests(rows).assign(n=n) for n, rows in votes.groupby("n")], ignore_index=True)
    prompts = tests[["prompts_won", "prompts_tied", "prompts_lost"]].sum(axis=1)
    decided = 1 - tests["prompts_tied"] / prompts
    return tests.assign(power=[_power(*pair) for pair in zip(prompts, decided, strict=True)], n_prompts=prompts)


def _power(prompts: int, decided: float) -> float:
    if decided == 0:
        return np.nan
    return sign_test_power(prompts, win=decided * TWICE / (TWICE + 1), loss=decided / (TWICE + 1))


@step(1)
def proxy_curves(images: pd.DataFrame, *, rewards: Sequence[str], sizes: Sequence[int]) -> pd.DataFrame:
    """What each reward itself thinks of its best of n: set, prompt, reward, n, proxy (0 at n = 1).

    In standard deviations of the reward over the prompt's pool, the only unit that rewards share.
    """
    rows = []
    for (name, prompt), pool in check_choosers(images, rewards).groupby(_PROMPT, sort=False):
        for reward in rewards:
            own = pool[reward].to_numpy(float)
            own = (own - own.mean()) / own.std()
            rows += [(name, prompt, reward, n, expected_gold(own, own, n)) for n in sizes]
    return pd.DataFrame(rows, columns=[*_PROMPT, "reward", "n", "proxy"])


@step(1)
def mean_curves(gold: pd.DataFrame, proxy: pd.DataFrame, **settings: float) -> pd.DataFrame:
    """Mean gain in gold and in proxy over n = 1, with intervals: set, reward, what, n, distance, mean, low, high, ...

    ``gold`` as from ``gold_curves``, ``proxy`` as from ``proxy_curves``; ``distance`` is the square root of the KL
    divergence, ``settings`` are those of ``metrics.summarise``, which also gives n_prompts.
    """
    gains = {"gold": gold.assign(value=gold["gold"] - gold["base"]), "proxy": proxy.rename(columns={"proxy": "value"})}
    tables = [
        summarise(frame.rename(columns={"n": "metric"}), **settings).assign(what=what) for what, frame in gains.items()
    ]
    means = pd.concat(tables, ignore_index=True).rename(columns={"metric": "n"})
    return means.assign(distance=[np.sqrt(kl_best_of_n(n)) for n in means["n"]])


@step(1)
def late_gains(gold: pd.DataFrame, **settings: float) -> pd.DataFrame:
    """What the last quadrupling of n does to gold: below 0, choosing among more images makes the choice worse.

    ``gold`` as from ``gold_curves`` with sizes that double. Returns as ``metrics.summarise``, and before and after, the
    two n. No form of curve is assumed, which the peak of a fit depends on.
    """
    sizes = sorted(gold["n"].unique())
    before, after = sizes[-3], sizes[-1]
    wide = gold.pivot(index=[*_PROMPT, "reward"], columns="n", values="gold")
    tidy = (wide[after] - wide[before]).rename("value").reset_index().assign(metric="late gain")
    return summarise(tidy, **settings).assign(before=before, after=after)


@step(1)
def compare_gold(gold: pd.DataFrame, *, reference: str, **settings: float) -> pd.DataFrame:
    """At the largest n, the gold of what ``reference`` chooses minus that of each other reward: as ``compare``."""
    last = gold[gold["n"] == gold["n"].max()]
    tidy = last.rename(columns={"gold": "value"}).assign(metric="gold")
    return compare(tidy, reference=reference, metrics=["gold"], **settings)
