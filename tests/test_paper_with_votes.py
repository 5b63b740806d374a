"""Once three people have voted, the paper's scale has a benchmark of its own: notebooks 01 to 03 at toy size."""

import numpy as np
import pandas as pd
import pytest
from toys import draw

from benchmarks.stand_ins import write_stand_ins
from textnorm_lib import calibration, rankings, released
from textnorm_lib.config import load_profile
from textnorm_lib.contrastive.sets import random_sets
from textnorm_lib.figures import FIGURES
from textnorm_lib.labelled import answer_all
from textnorm_lib.labelling import ALIGNMENT, Session, alignment_items
from textnorm_lib.metrics import prompt_metrics, summarise
from textnorm_lib.recipes import evaluate_sealed, scored_benchmark, tuned_textnorm
from textnorm_lib.rewards.scoring import REWARDS, own_scores, score_rewards
from textnorm_lib.store import Store
from textnorm_lib.tables import TABLES
from textnorm_lib.tia2 import describe
from textnorm_lib.tia2.build import build_tia2, list_images
from textnorm_lib.tia2.official import release_available

pytestmark = pytest.mark.skipif(not release_available()[0], reason="the profile's prompts are the release's")

SIZES = {"tia2.images_per_prompt": 6, "tia2.prompts_per_set": {"comprehensive": 4, "counting": 4, "composition": 4}}
INTERVALS = {"resamples": 100, "confidence": 0.95, "seed": 0}


@pytest.fixture(scope="module")
def voted(tmp_path_factory):
    """``compute`` and the profile that names three people's files; they disagree on every sixth image."""
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        write_stand_ins(root / "weights", toy=True)
        patch.setenv("TEXTNORM_WEIGHTS", str(root / "weights"))
        patch.setenv("TEXTNORM_ARTIFACTS", str(root / "artifacts"))
        compute = Store(root / "artifacts" / "steps").compute
        made = build_tia2(compute, load_profile("paper-toy", SIZES)).images
        images = compute(list_images, made).value
        place = pd.Series(np.arange(len(images)), index=images["image"])
        names = []
        for number, name in enumerate(("ana", "ben", "eva")):
            path = root / "artifacts" / "labels" / f"{name}.jsonl"
            path.parent.mkdir(exist_ok=True)
            session = Session(path, alignment_items(images, made.value), ALIGNMENT, annotator=name, seed=0)
            answer_all(session, lambda item, _, n=number: "good" if (place[item.name] + (n == 2)) % 6 < 3 else "bad")
            session.close()
            names.append(path.name)
        yield compute, load_profile("paper-toy", {**SIZES, "tia2.votes": names, "textnorm": None})


def test_their_votes_make_the_benchmarks_tables(voted):
    compute, profile = voted
    built = build_tia2(compute, profile)
    statistics = compute(describe.set_statistics, built.labels)
    agreement = compute(describe.agreement, built.labels, **INTERVALS)
    assert statistics.value["prompts"].tolist() == [4, 4, 4, 12]
    assert 0 < built.labels.value["label"].mean() < 1
    for name, data in (("tab15_mini_statistics", statistics), ("tab16_mini_agreement", agreement)):
        assert len(TABLES[name].build(data.value)) > 0 and TABLES[name].describe(data.value)


def test_rewards_are_measured_against_them(voted):
    compute, profile = voted
    built, bench = build_tia2(compute, profile), scored_benchmark(compute, profile)
    labelled = compute(own_scores, built.labels, *bench.scored.values(), names=list(REWARDS))
    metrics = compute(prompt_metrics, labelled, rewards=list(REWARDS))
    summary = compute(summarise, metrics, **INTERVALS)
    assert set(summary.value["reward"]) == set(REWARDS) and summary.value["mean"].notna().any()
    pairs = compute(released.auroc_by_pair, metrics)
    errors = compute(
        calibration.calibration_errors,
        compute(calibration.out_of_fold_probabilities, labelled, rewards=list(REWARDS), seed=0),
        **INTERVALS,
    )
    assert len(pairs.value) and len(errors.value)
    ratings = compute(rankings.scores_by_rating, labelled, rewards=list(REWARDS), **INTERVALS)
    draw("fig30_mini_scatter", ratings.value)
    assert FIGURES["fig30_mini_scatter"].describe(ratings.value)


def test_textnorm_is_tuned_on_them_and_judged_on_sealed_prompts(voted):
    compute, profile = voted
    recipe = tuned_textnorm(compute, profile)
    assert recipe.rewards == ("imagereward", "pickscore") and profile.textnorm is None
    bench = scored_benchmark(compute, profile)
    controls = compute(random_sets, bench.rules, seed=0)
    judged, metrics = evaluate_sealed(
        compute, bench, controls, score_rewards(compute, profile, bench.built.images, controls)
    )
    assert recipe.name in judged.value and recipe.name in set(metrics.value["reward"])
