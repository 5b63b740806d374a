"""What people's answers to comparisons are worth: how alike they are, and how many are needed (section 5.4).

Where nobody sat down, sittings are *simulated*: person i answers as the mini world's judge i would, but with
probability ``slip`` picks one of the three answers at random, whatever is shown. Every simulated answer goes through a
``labelling.Session`` and its file, as a person's does. What slips do to a result is what these steps measure.

    compared = run.step(pair_sets, chosen, model="textnorm", opponents=["clip"], n=64, seed=0)
    votes = run.step(simulate_sittings, compared, judged, images, n=64, slips=[0.0, 0.1], seed=0)
    run.step(outcomes_by_slip, votes, confidence=0.95)
    run.step(agreement_by_slip, votes)
"""

import tempfile
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from textnorm_lib.judging.comparisons import make_comparisons
from textnorm_lib.judging.labelled import answer_all, comparison_votes, people_agree
from textnorm_lib.judging.labelling import COMPARISON, LabelItem, Session, comparison_items
from textnorm_lib.judging.verdicts import (
    comparisons_needed,
    majority,
    rates,
    sign_test_power,
    sign_tests,
    win_tie_loss,
)
from textnorm_lib.stats.agreement import cohen_kappa
from textnorm_lib.stats.metrics import ALL_SETS
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import step

_KEYS = ["comparison", "question"]


@step(1)
def pair_sets(chosen: pd.DataFrame, *, model: str, opponents: Sequence[str], n: int, seed: int) -> pd.DataFrame:
    """Comparisons (``make_comparisons``) of the sets that ``model`` chose of n with those of each opponent.

    ``chosen`` as ``selection.choose_sets`` gives it. Raises ``DataError`` for a model or an n that is not in it.
    """
    sets = dict(list(chosen[chosen["n"] == n].groupby("model")))
    if missing := [name for name in (model, *opponents) if name not in sets]:
        raise DataError(f"no sets of {missing[0]!r} for n = {n}; choose them first")
    return pd.concat([make_comparisons(sets[model], sets[one], seed=seed) for one in opponents], ignore_index=True)


@step(1)
def pick_compared(made: Path, comparisons: pd.DataFrame) -> pd.DataFrame:
    """The pictures that ``comparisons`` show, from the folder ``made``: image, png."""
    names = sorted({name for side in ("left", "right") for shown in comparisons[side] for name in shown})
    return pd.DataFrame({"image": names, "png": [(made / name).read_bytes() for name in names]})


@step(1)
def simulate_sittings(
    comparisons: pd.DataFrame, judged: pd.DataFrame, images: Path, *, n: int, slips: Sequence[float], seed: int
) -> pd.DataFrame:
    """Votes of simulated people on ``comparisons``, three for each slip: as ``comparisons.ask``, and slip.

    ``judged`` (``selection.judge_sets``) has the judges' votes on them, those for ``n``; ``images`` is the folder of
    what is shown.
    """
    answers = judged[(judged["n"] == n) & judged["comparison"].isin(comparisons["comparison"])]
    answers = answers.set_index(["judge", *_KEYS])["answer"].to_dict()
    judges = sorted({judge for judge, *_ in answers})
    items = comparison_items(comparisons, lambda image: images / image)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, slip in enumerate(progress(slips, "simulated sittings", unit="slips")):
            files = []
            for judge in judges:
                rng = np.random.default_rng([seed, number, *judge.encode()])
                person = judge.replace("judge", "person")
                session = Session(
                    Path(folder, f"{person}_{number}.jsonl"), items, COMPARISON, annotator=person, seed=seed
                )

                def answer(item: LabelItem, question: str, *, rng=rng, judge=judge, slip=slip) -> str:
                    own = answers[judge, item.name, question]
                    return str(rng.choice(COMPARISON[question])) if rng.random() < slip else own

                answer_all(session, answer)
                session.close()
                files.append(session.path)
            found.append(comparison_votes(files, comparisons).assign(slip=slip))
    return pd.concat(found, ignore_index=True)


@step(1)
def outcomes_by_slip(votes: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """``win_tie_loss`` and ``sign_tests`` for each slip, all sets together: their columns, and slip."""
    rows = []
    for slip, of_slip in votes.groupby("slip"):
        won, tests = win_tie_loss(of_slip, confidence=confidence), sign_tests(of_slip)
        told = won.merge(tests, on=["set", "model", "opponent", "question"])
        rows.append(told[told["set"] == ALL_SETS].assign(slip=slip))
    return pd.concat(rows, ignore_index=True)


@step(1)
def agreement_by_slip(votes: pd.DataFrame) -> pd.DataFrame:
    """How alike people are, and how like the judges: slip, question, n, same, alpha, kappa_of_majorities.

    ``same`` and ``alpha`` as ``people_agree`` has them for all. The kappa compares majorities with those without slips,
    the judges' own; nan where only one outcome occurs.
    """
    without = majority(votes[votes["slip"] == 0]).set_index(_KEYS)["outcome"]
    rows = []
    for slip, of_slip in votes.groupby("slip"):
        among, outcomes = people_agree(of_slip), majority(of_slip).set_index(_KEYS)["outcome"]
        for row in among[among["pair"] == "all"].itertuples():
            pair = [side.xs(row.question, level="question").sort_index() for side in (without, outcomes)]
            rows.append((slip, row.question, row.n, row.same, row.coefficient, cohen_kappa(*pair)))
    return pd.DataFrame(rows, columns=["slip", "question", "n", "same", "alpha", "kappa_of_majorities"])


@step(1)
def power_curves(*, ratio: float, ties: Sequence[float], prompts: Sequence[int]) -> pd.DataFrame:
    """The sign test's power by the number of prompts, if ``ratio`` times as many are won as lost: ties, prompts, power.

    ``ties`` are shares of prompts that are tied.
    """
    grid = product(ties, prompts)
    rows = [(tied, n, sign_test_power(n, **rates(ratio, decided=1 - tied))) for tied, n in grid]
    return pd.DataFrame(rows, columns=["ties", "prompts", "power"])


@step(1)
def prompts_needed(*, ratios: Sequence[float], ties: Sequence[float], power: float) -> pd.DataFrame:
    """How many prompts the sign test needs to find each ratio of wins to losses: ratio, ties, prompts."""
    grid = product(ratios, ties)
    rows = [(ratio, tied, comparisons_needed(**rates(ratio, decided=1 - tied), power=power)) for ratio, tied in grid]
    return pd.DataFrame(rows, columns=["ratio", "ties", "prompts"])
