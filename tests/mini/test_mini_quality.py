"""Quality judges: versions of a scene in a known order, a training that goes on where it stopped, judges in order."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from textnorm_lib.images.sampling import load_pipeline
from textnorm_lib.judging.comparisons import ask, gold_judge, make_comparisons
from textnorm_lib.mini import annotators
from textnorm_lib.mini.annotators import load_quality_judge
from textnorm_lib.mini.training import judges, spoil
from textnorm_lib.mini.training import scenes as train
from textnorm_lib.mini.training.fit import curves
from textnorm_lib.mini.training.plan import HELD_OUT_SEED, QUALITY_JUDGES, Recipe
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.weights import Weights, bundled
from textnorm_lib.tia2.labels import INDEX

COUNT = 32
KINDS = (*spoil.LATENT_KINDS, *spoil.PIXEL_KINDS)


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline("bundled:generator")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> train.Scenes:
    """The first of those that the judges are measured on."""
    return train.training_scenes(tmp_path_factory.mktemp("scenes"), count=COUNT, seed=HELD_OUT_SEED, workers=1)


@pytest.fixture(scope="module")
def spoilt(scenes, pipeline, tmp_path_factory):
    """(kind, severity) -> uint8 (n, 64, 64, 3)."""
    folder, made = tmp_path_factory.mktemp("spoilt"), {}

    def versions(kind: str, value: float) -> np.ndarray:
        if (kind, value) not in made:
            severities = np.full(COUNT, value)
            if kind in spoil.LATENT_KINDS:
                path = folder / f"{kind}_{value}.npy"
                made[kind, value] = spoil.spoilt(kind, scenes, severities, pipeline, path, seed=0)
            else:
                clean = train.as_tensor(versions("noise", 0.0))
                images = spoil.spoil_pixels(kind, clean, torch.from_numpy(severities).float(), seed=0)
                made[kind, value] = spoil.as_pixels(images)
        return made[kind, value]

    return versions


@pytest.mark.parametrize("kind", KINDS)
def test_a_severer_version_is_further_from_the_clean_scene(kind, spoilt):
    clean = spoilt("noise", 0.0).astype(float)
    changed = [np.abs(spoilt(kind, value) - clean).mean(axis=(1, 2, 3)) for value in (0.3, 1.0)]
    assert (changed[0] > 0).all() and (changed[1] > changed[0]).mean() > 0.9


@pytest.mark.parametrize("kind", ["noise", *spoil.PIXEL_KINDS])
def test_severity_zero_of_what_the_generator_does_not_mend_is_the_clean_scene(kind, spoilt):
    assert np.abs(spoilt(kind, 0.0).astype(float) - spoilt("noise", 0.0)).max() <= 1  # the last bits of a batch


def test_severities_lie_apart_and_reach_from_mild_to_severe():
    mild, severe = judges.draw_severities(10_000, np.random.default_rng(0))
    assert mild.min() >= judges.LEAST_SEVERITY and severe.max() <= 1
    assert (severe - mild).min() >= judges.LEAST_GAP - 1e-12
    assert mild.min() < 0.06 and severe.max() > 0.99


@pytest.fixture(scope="module")
def versions(pipeline, tmp_path_factory) -> judges.Versions:
    folder = tmp_path_factory.mktemp("versions")
    scenes = train.training_scenes(folder, count=4, seed=1, workers=1)
    return judges.make_versions(scenes, pipeline, folder, generated=2, seed=1)


def test_versions_are_made_once_and_fit_together(versions, pipeline, tmp_path):
    assert set(versions.spoilt) == set(spoil.LATENT_KINDS) and len(versions.generated) == len(spoil.STEPS)
    assert all(len(one) == 4 for pair in versions.spoilt.values() for one in (versions.clean, *pair))
    assert [len(one) for one in versions.generated] == [2] * len(spoil.STEPS)
    scenes = train.training_scenes(tmp_path, count=4, seed=1, workers=1)
    again = judges.make_versions(scenes, pipeline, tmp_path, generated=2, seed=1)
    assert np.array_equal(again.clean, versions.clean)
    assert all(np.array_equal(*pair) for pair in zip(again.generated, versions.generated, strict=True))


def test_an_interrupted_training_goes_on_to_the_same_weights(versions, tmp_path, monkeypatch):
    recipe = Recipe(steps=6, learning_rate=1e-3, batch_size=12, warmup=1, save_every_s=0.0)
    whole = judges.train_quality(versions, recipe, folder=tmp_path / "whole")
    loss, calls = judges.quality_loss, []

    def interrupted(*given):
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*given)

    monkeypatch.setattr(judges, "quality_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        judges.train_quality(versions, recipe, folder=tmp_path / "halves")
    monkeypatch.undo()
    assert (curves(tmp_path)["stage"] == "halves").sum() == 3
    again = judges.train_quality(versions, recipe, folder=tmp_path / "halves")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    other = judges.train_quality(versions, replace(recipe, seed=2), folder=tmp_path / "other")
    assert not all(torch.equal(a, b) for a, b in zip(whole.parameters(), other.parameters(), strict=True))


def test_the_loss_by_hand():
    logits, nan = torch.tensor([[2.0, 1.0, -1.0], [0.0, 0.0, 3.0]]), torch.nan
    qualities = torch.tensor([[1.0, 0.5, 0.0], [1.0, nan, nan]])
    p = torch.sigmoid(torch.tensor([2.0, 1.0, -1.0, 0.0]))
    target = torch.tensor([1.0, 0.5, 0.0, 1.0])
    known = -(target * p.log() + (1 - target) * (1 - p).log()).mean()
    pairs = -torch.sigmoid(torch.tensor([1.0, 2.0, 3.0, 0.0, -3.0, -3.0])).log().mean()
    assert judges.quality_loss(logits, qualities).item() == pytest.approx((known + pairs).item(), rel=1e-5)


@pytest.fixture(scope="module", params=QUALITY_JUDGES)
def judge(request):
    return load_quality_judge(bundled(f"annotators/{request.param}.safetensors"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_bundled_judges_put_spoilt_scenes_in_order(judge, kind, spoilt):
    mean = [judge.quality(spoilt(kind, value)).mean() for value in (0.0, 0.3, 0.6, 1.0)]
    assert (np.diff(mean) < -0.02).all(), mean
    assert (judge.quality(spoilt(kind, 0.3)) > judge.quality(spoilt(kind, 1.0))).mean() >= 0.9


def test_the_bundled_judges_differ_and_do_not_mind_colours(judge, spoilt):
    clean = spoilt("noise", 0.0)
    tinted = (clean * np.array([0.9, 1.0, 0.85])).astype(np.uint8)
    assert np.abs(judge.quality(tinted) - judge.quality(clean)).mean() < 0.05
    files = {bundled(f"annotators/{name}.safetensors").read_bytes() for name in QUALITY_JUDGES}
    assert len(files) == len(QUALITY_JUDGES)


def test_arrays_pictures_and_paths_get_the_same_quality(judge, spoilt, tmp_path):
    images = spoilt("noise", 0.0)[:3]
    pictures = [Image.fromarray(image) for image in images]
    for number, picture in enumerate(pictures):
        picture.save(tmp_path / f"{number}.png")
    qualities = judge.quality(images)
    assert qualities.shape == (3,) and qualities.dtype == np.float32 and ((qualities >= 0) & (qualities <= 1)).all()
    assert np.array_equal(judge.quality(pictures), qualities)
    assert np.array_equal(judge.quality([tmp_path / f"{number}.png" for number in range(3)]), qualities)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "the list of images is empty"),
        (np.zeros((2, 64, 64, 3)), "images are float64"),
        (Image.new("RGB", (64, 64)), "a single Image"),
        (["missing.png"], r"image 0 \(missing.png\) cannot be read"),
    ],
)
def test_what_is_no_list_of_images_is_refused(judge, images, message):
    with pytest.raises(DataError, match=message):
        judge.quality(images)


def _not_finite(weights):
    weights["quality.weight"][0, 0] = torch.nan
    return weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_not_finite, "the weight quality.weight is not finite"),
        (lambda weights: load_file(bundled("annotators/judge_1.safetensors")), "not the weights of a quality judge"),
        (lambda weights: {}, "not the weights of a quality judge"),
        (None, "cannot be read"),
    ],
)
def test_weights_that_are_no_judges_are_refused_in_one_line(change, message, tmp_path):
    path = tmp_path / "quality_9.safetensors"
    if change is None:
        path.write_bytes(b"no weights")
    else:
        save_file(change(load_file(bundled("annotators/quality_1.safetensors"))), path)
    with pytest.raises(DataError, match=message) as caught:
        load_quality_judge(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    with pytest.raises(DataError, match="cannot be read"):
        load_quality_judge(tmp_path / "missing.safetensors")


def test_qualities_are_what_a_judge_of_comparisons_sees(judge, spoilt):
    """A model whose images are clean wins all comparisons with one whose images are spoilt."""
    sides = {}
    for model, value in (("clean", 0.0), ("spoilt", 0.7)):
        names = [f"{model}_{number}" for number in range(8)]
        sides[model] = pd.DataFrame({"model": model, "set": "counting", "prompt": "two deer", "image": names})
        sides[model]["quality"] = judge.quality(spoilt("unfinished", value)[:8])
    compared = make_comparisons(sides["clean"], sides["spoilt"], seed=0)
    see = dict(pd.concat(sides.values())[["image", "quality"]].itertuples(index=False))
    votes = ask(gold_judge(tie_within=0.02), compared, name=judge.name, question="quality", see=see)
    wanted = np.where(votes["left_model"] == "clean", "left", "right")
    assert (votes["answer"] == wanted).all()


def test_every_image_is_rated_by_three_judges_in_its_own_row(tmp_path, monkeypatch):
    names = [f"{index}.png" for index in range(5)]
    pd.DataFrame({"image": names}).to_parquet(tmp_path / INDEX)
    for number in (1, 2, 3):
        (tmp_path / f"quality_{number}.safetensors").touch()

    class Judge:
        def __init__(self, file):
            self.number = int(file.stem[-1])

        def quality(self, paths):
            return np.array([int(path.stem) + self.number / 10 for path in paths], np.float32)

    monkeypatch.setattr(annotators, "_SEEN_AT_ONCE", 2)
    monkeypatch.setattr(annotators, "load_quality_judge", Judge)
    judges = [Weights(str(tmp_path / f"quality_{number}.safetensors")) for number in (1, 2, 3)]
    rated = annotators.rate_quality(tmp_path, *judges, workers=1)
    assert rated["image"].tolist() == names
    np.testing.assert_allclose(rated[list(QUALITY_JUDGES)], np.add.outer(np.arange(5), [0.1, 0.2, 0.3]), rtol=1e-6)
    with pytest.raises(DataError, match="2 quality judges; give three"):
        annotators.rate_quality(tmp_path, *judges[:2], workers=1)
