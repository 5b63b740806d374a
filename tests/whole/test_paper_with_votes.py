"""Once three people have voted, the paper's scale has a benchmark of its own: notebooks 01 to 03 at toy size."""

import numpy as np
import pandas as pd
import pytest
from toys import draw, study_of

import textnorm_lib.figures  # noqa: F401 (enters them)
from benchmarks.stand_ins import write_stand_ins
from textnorm_lib.judging.labelled import answer_all
from textnorm_lib.judging.labelling import ALIGNMENT, Session, alignment_items
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.stats import calibration, rankings
from textnorm_lib.stats.metrics import prompt_metrics, summarise
from textnorm_lib.study.items import FIGURES, TABLES
from textnorm_lib.tia2 import describe, released
from textnorm_lib.tia2.build import list_images
from textnorm_lib.tia2.official import release_available

pytestmark = pytest.mark.skipif(not release_available()[0], reason="the profile's prompts are the release's")

SIZES = {"tia2.images_per_prompt": 6, "tia2.prompts_per_set": {"comprehensive": 4, "counting": 4, "composition": 4}}
INTERVALS = {"resamples": 100, "confidence": 0.95, "seed": 0}


@pytest.fixture(scope="module")
def voted(tmp_path_factory):
    """The study of a profile that names three people's files; they disagree on every sixth image."""
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        write_stand_ins(root / "weights", toy=True)
        patch.setenv("TEXTNORM_WEIGHTS", str(root / "weights"))
        patch.setenv("TEXTNORM_ARTIFACTS", str(root / "artifacts"))
        before = study_of(root / "artifacts" / "steps", "paper-toy", SIZES)
        made, images = before.images, before.step(list_images, before.images).value
        place = pd.Series(np.arange(len(images)), index=images["image"])
        names = []
        for number, name in enumerate(("ana", "ben", "eva")):
            path = root / "artifacts" / "labels" / f"{name}.jsonl"
            path.parent.mkdir(exist_ok=True)
            session = Session(path, alignment_items(images, made.value), ALIGNMENT, annotator=name, seed=0)
            answer_all(session, lambda item, _, n=number: "good" if (place[item.name] + (n == 2)) % 6 < 3 else "bad")
            session.close()
            names.append(path.name)
        yield study_of(root / "artifacts" / "steps", "paper-toy", {**SIZES, "tia2.votes": names, "textnorm": None})


def test_their_votes_make_the_benchmarks_tables(voted):
    statistics = voted.step(describe.set_statistics, voted.labels)
    agreement = voted.step(describe.agreement, voted.labels, **INTERVALS)
    assert statistics.value["prompts"].tolist() == [4, 4, 4, 12]
    assert 0 < voted.labels.value["label"].mean() < 1
    for name, data in (("tab15_mini_statistics", statistics), ("tab16_mini_agreement", agreement)):
        assert len(TABLES[name].build(data.value)) > 0 and TABLES[name].describe(data.value)


def test_rewards_are_measured_against_them(voted):
    metrics = voted.step(prompt_metrics, voted.labelled, rewards=list(REWARDS))
    summary = voted.step(summarise, metrics, **INTERVALS)
    assert set(summary.value["reward"]) == set(REWARDS) and summary.value["mean"].notna().any()
    pairs = voted.step(released.auroc_by_pair, metrics)
    probabilities = voted.step(calibration.out_of_fold_probabilities, voted.labelled, rewards=list(REWARDS), seed=0)
    errors = voted.step(calibration.calibration_errors, probabilities, **INTERVALS)
    assert len(pairs.value) and len(errors.value)
    ratings = voted.step(rankings.scores_by_rating, voted.labelled, rewards=list(REWARDS), **INTERVALS)
    draw("fig30_mini_scatter", ratings.value)
    assert FIGURES["fig30_mini_scatter"].describe(ratings.value)


def test_textnorm_is_tuned_on_them_and_judged_on_sealed_prompts(voted):
    assert voted.recipe.value["rewards"].tolist() == ["imagereward+pickscore"] and voted.profile.textnorm is None
    judged, metrics = voted.sealed_values.value, voted.sealed_metrics.value
    assert set(judged["prompt"]) == set(voted.sealed.value["prompt"])
    name = "textnorm:imagereward+pickscore"
    assert name in judged and name in set(metrics["reward"])
