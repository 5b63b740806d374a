"""What rewards choose from the pool, and how it is judged (section 5.2, appendix 9; the pool: ``optimise/pool.py``).

*Choosers* are columns of the pool: the rewards, and ``rating``, by which the annotators themselves choose: nobody can
do better in the annotators' eyes. A chooser's *sets* are the best four of n, twice: once from the first n images of the
first half of a prompt's pool, once from the first n of the second, so that no image is in both.

Tuned models are laid side by side in the same way (sections 5.1 and 5.4), each at its chosen checkpoint:

    choices = run.step(choose_checkpoints, judged, **settings)
    sets = run.step(tuned_sets, judged, choices)
    votes = run.step(judge_tuned, sets, judged, reference="textnorm", quality_tie=QUALITY_TIE, seed=seed)

``judged`` as ``outcomes.prompt_gains`` takes it, of one beta a reward. Their sets have n = 1, because nothing is chosen
among a checkpoint's images. Holm's family is all comparisons of a set.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from textnorm_lib.judging.comparisons import IMAGES_PER_SET, SETS_PER_PROMPT, ask, gold_judge, make_comparisons
from textnorm_lib.judging.verdicts import rates, sign_test_power, sign_tests, win_tie_loss
from textnorm_lib.optimise.best_of_n import choose_best, expected_gold, kl_best_of_n
from textnorm_lib.optimise.outcomes import selection_costs
from textnorm_lib.optimise.pool import QUALITY, check_choosers, pooled_deviations
from textnorm_lib.stats.metrics import compare, summarise
from textnorm_lib.stats.names import BASE, PROMPT
from textnorm_lib.stats.rankings import RATING
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import step
from textnorm_lib.tia2.labels import SKIP, VOTES

QUALITY_TIE = 0.25  # in a judge's unit: of sets of four drawn at random somewhat over a quarter tie then
TWICE = 2  # the paper: TextNorm has two to three times as many wins as losses

_RUN = ["tuned_on", "beta", "run"]


@step(1)
def choose_sets(images: pd.DataFrame, *, choosers: Sequence[str], sizes: Sequence[int]) -> pd.DataFrame:
    """The sets of each chooser for each n of ``sizes``: set, prompt, model (the chooser), n, number, place, image.

    ``images`` as from ``pool.join_judges``. Raises ``DataError`` where the pool does not hold two disjoint batches of
    n, and as ``check_choosers``.
    """
    images = check_choosers(images, [name for name in choosers if name != RATING])  # who may well find all images good
    rows = []
    prompts = images.groupby(PROMPT, sort=False)
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
    return pd.DataFrame(rows, columns=[*PROMPT, "model", "n", "number", "place", "image"])


@step(1)
def judge_sets(
    chosen: pd.DataFrame, images: pd.DataFrame, *, model: str, opponents: Sequence[str], quality_tie: float, seed: int
) -> pd.DataFrame:
    """The votes of three judges on the sets of ``model`` against those of each opponent, n by n: as ``ask``, and n.

    ``chosen`` as from ``choose_sets``. For alignment judge i asks what annotator i voted on each image (a skip is one
    half), for quality what quality judge i says, and prefers the higher mean. Equal means tie, of quality also those at
    most ``quality_tie`` of the judge's units apart (``pool.pooled_deviations``, which may raise ``DataError``).
    """
    votes = images.set_index("image")[VOTES].replace(SKIP, 0.5)
    quality = images.set_index("image")[list(QUALITY)] / pooled_deviations(images, QUALITY)
    questions = (
        ("alignment", votes, gold_judge(tie_within=0)),
        ("quality", quality, gold_judge(tie_within=quality_tie)),
    )
    found = []
    for n, of_size in chosen.groupby("n"):
        sets = dict(list(of_size.groupby("model")))
        for opponent in opponents:
            comparisons = make_comparisons(sets[model], sets[opponent], seed=seed)
            for question, values, judge in questions:
                for number, column in enumerate(values, 1):
                    see = values[column].to_dict()
                    answers = ask(judge, comparisons, name=f"judge_{number}", question=question, see=see)
                    found.append(answers.assign(n=n))
    return pd.concat(found, ignore_index=True)


@step(1)
def outcomes_by_size(votes: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """``win_tie_loss`` of the votes on each n (figure 9): its columns, and n."""
    return pd.concat([win_tie_loss(rows, confidence=confidence).assign(n=n) for n, rows in votes.groupby("n")])


@step(1)
def sign_tests_by_size(votes: pd.DataFrame) -> pd.DataFrame:
    """``sign_tests`` of the votes on each n: its columns, n, n_prompts and the test's power.

    The power is the probability of finding that a model wins twice as many prompts as it loses, among as many prompts
    and with as many ties as there are; nan where all are tied. Holm's family is all tests of one n and set.
    """
    tests = pd.concat([sign_tests(rows).assign(n=n) for n, rows in votes.groupby("n")], ignore_index=True)
    prompts = tests[["prompts_won", "prompts_tied", "prompts_lost"]].sum(axis=1)
    decided = 1 - tests["prompts_tied"] / prompts
    power = [
        sign_test_power(n, **rates(TWICE, decided=share)) if share else np.nan
        for n, share in zip(prompts, decided, strict=True)
    ]
    return tests.assign(power=power, n_prompts=prompts)


@step(1)
def proxy_curves(images: pd.DataFrame, *, rewards: Sequence[str], sizes: Sequence[int]) -> pd.DataFrame:
    """What each reward itself thinks of its best of n: set, prompt, reward, n, proxy (0 at n = 1).

    The unit is the reward's standard deviation over the prompt's pool, the only one that rewards share.
    """
    rows = []
    for (name, prompt), pool in check_choosers(images, rewards).groupby(PROMPT, sort=False):
        for reward in rewards:
            own = pool[reward].to_numpy(float)
            own = (own - own.mean()) / own.std()
            rows += [(name, prompt, reward, n, expected_gold(own, own, n)) for n in sizes]
    return pd.DataFrame(rows, columns=[*PROMPT, "reward", "n", "proxy"])


@step(1)
def mean_curves(gold: pd.DataFrame, proxy: pd.DataFrame, **settings: float) -> pd.DataFrame:
    """Mean gain in ``gold`` (``gold_curves``) and ``proxy`` (``proxy_curves``) over n = 1.

    Returns as ``metrics.summarise``, whose ``settings`` are given, with n for the metric, what ("gold" or "proxy"), and
    distance, the square root of the KL divergence.
    """
    gains = {"gold": gold.assign(value=gold["gold"] - gold["base"]), "proxy": proxy.rename(columns={"proxy": "value"})}
    tables = [
        summarise(frame.rename(columns={"n": "metric"}), **settings).assign(what=what) for what, frame in gains.items()
    ]
    means = pd.concat(tables, ignore_index=True).rename(columns={"metric": "n"})
    return means.assign(distance=[np.sqrt(kl_best_of_n(n)) for n in means["n"]])


@step(1)
def late_gains(gold: pd.DataFrame, **settings: float) -> pd.DataFrame:
    """What the last quadrupling of n does to ``gold``: below 0, choosing among more images makes the choice worse.

    ``gold`` as from ``gold_curves`` with sizes that double. Returns as ``metrics.summarise``, and the two n, before and
    after. The peak of a fitted curve would depend on the form that is assumed; this does not.
    """
    sizes = sorted(gold["n"].unique())
    before, after = sizes[-3], sizes[-1]
    wide = gold.pivot(index=[*PROMPT, "reward"], columns="n", values="gold")
    tidy = (wide[after] - wide[before]).rename("value").reset_index().assign(metric="late gain")
    return summarise(tidy, **settings).assign(before=before, after=after)


@step(1)
def compare_gold(gold: pd.DataFrame, *, reference: str, **settings: float) -> pd.DataFrame:
    """At the largest n, the gold of what ``reference`` chooses minus that of each other reward: as ``compare``."""
    last = gold[gold["n"] == gold["n"].max()]
    tidy = last.rename(columns={"gold": "value"}).assign(metric="gold")
    return compare(tidy, reference=reference, metrics=["gold"], **settings)


@step(1)
def choose_checkpoints(judged: pd.DataFrame, *, resamples: int, confidence: float, seed: int) -> pd.DataFrame:
    """The checkpoint of each run by the paper's rule with its own reward, the oracle's, and what they leave.

    Returns tuned_on, beta, run, chosen, oracle, last (checkpoints), gold_base, gold_chosen, gold_oracle, gold_last
    (mean ratings), cost, low, high (``outcomes.selection_costs``), n_prompts, n_images (of a checkpoint).
    """
    base = judged[judged["tuned_on"] == BASE]
    found = []
    for (tuned_on, beta, run), rows in judged[judged["tuned_on"] != BASE].groupby(_RUN, sort=False):
        settings = {"resamples": resamples, "confidence": confidence, "seed": seed}
        cost = selection_costs(pd.concat([base, rows]), scores=[tuned_on], gold=RATING, **settings).iloc[0]
        last = rows["checkpoint"].max()
        gold = rows.loc[rows["checkpoint"] == last, RATING].mean()
        numbers = {"last": last, "gold_last": gold, "n_images": len(base)}
        found.append({"tuned_on": tuned_on, "beta": beta, "run": run, **cost.drop("reward"), **numbers})
    checkpoints, gold = ["chosen", "oracle", "last"], [f"gold_{of}" for of in ("base", "chosen", "oracle", "last")]
    return pd.DataFrame(found)[[*_RUN, *checkpoints, *gold, "cost", "low", "high", "n_prompts", "n_images"]]


@step(1)
def tuned_sets(judged: pd.DataFrame, choices: pd.DataFrame) -> pd.DataFrame:
    """Two sets of four images a prompt of the base and of each model: set, prompt, model, n, number, place, image.

    Set k holds the k-th four seeds, of a model in its k-th run at the ``choices``' chosen checkpoint; both are of the
    one run where there is one only. So all models' sets k have the same seeds. Raises ``DataError`` for a reward with
    several beta, and for prompts with fewer than eight images.
    """
    if (several := choices.groupby("tuned_on")["beta"].nunique() > 1).any():
        raise DataError(f"choices: {several.idxmax()} was tuned with several beta; take one (with_beta)")
    fewest = judged[judged["tuned_on"] == BASE].groupby(PROMPT).size().min()
    if fewest < SETS_PER_PROMPT * IMAGES_PER_SET:
        raise DataError(
            f"a prompt has {fewest} images of a checkpoint; {SETS_PER_PROMPT} sets of {IMAGES_PER_SET} are judged: "
            "evaluate on more seeds"
        )
    sets = []
    for model in [BASE, *choices["tuned_on"].unique()]:
        own = choices[choices["tuned_on"] == model].sort_values("run")
        for number in range(SETS_PER_PROMPT):
            choice = None if model == BASE else own.iloc[number % len(own)]
            images = _images_of(judged, choice).sort_values("seed").assign(model=model, n=1, number=number + 1)
            images["place"] = images.groupby(PROMPT).cumcount() - number * IMAGES_PER_SET + 1
            sets.append(images[images["place"].between(1, IMAGES_PER_SET)])
    columns = [*PROMPT, "model", "n", "number", "place", "image"]
    return pd.concat(sets).sort_values([*PROMPT, "model", "number", "place"], ignore_index=True)[columns]


def _images_of(judged: pd.DataFrame, choice: pd.Series | None) -> pd.DataFrame:
    """The images of a run's chosen checkpoint; those of the base where there is none, or the base was chosen."""
    if choice is None or choice["chosen"] == 0:
        return judged[judged["tuned_on"] == BASE]
    return judged[(judged[_RUN] == choice[_RUN]).all(axis=1) & (judged["checkpoint"] == choice["chosen"])]


@step(1)
def judge_tuned(
    sets: pd.DataFrame, judged: pd.DataFrame, *, reference: str, quality_tie: float, seed: int
) -> pd.DataFrame:
    """Three judges' votes on ``reference`` against every other model and the base, and on every other against the base.

    ``sets`` as ``tuned_sets`` gives them; all else as ``judge_sets``, a judge's unit being that of all images
    in the sets. Raises ``DataError`` where ``reference`` is no model of ``sets``, and as ``judge_sets``.
    """
    models = list(sets["model"].unique())
    if reference not in models or reference == BASE:
        raise DataError(f"reference is {reference!r}; one of the tuned models is needed, {', '.join(models)}")
    images = judged[judged["image"].isin(sets["image"])]
    others = [model for model in models if model not in (reference, BASE)]
    pairs = {reference: [*others, BASE], **{model: [BASE] for model in others}}
    options = {"quality_tie": quality_tie, "seed": seed}
    votes = [judge_sets(sets, images, model=one, opponents=against, **options) for one, against in pairs.items()]
    return pd.concat(votes, ignore_index=True)
