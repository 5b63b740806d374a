"""Every training stage at toy size: the weights load as what they are, and what is learnt, is learnt."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from textnorm_lib.mini import generator as model
from textnorm_lib.mini.annotators import Detection, Seen, load_annotator
from textnorm_lib.mini.training import plan, stages
from textnorm_lib.mini.training import rewards as train_rewards
from textnorm_lib.mini.training import scenes as train
from textnorm_lib.mini.training.fit import curves
from textnorm_lib.mini.training.plan import Recipe
from textnorm_lib.mini.training.preferences import Preferences, collect_preferences, faults
from textnorm_lib.prompts.grammar import parse
from textnorm_lib.rewards import load_reward
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.weights import bundle_digest, bundled, write_digests

FEW = Recipe(steps=2, learning_rate=1e-3, batch_size=3, warmup=1)
TOY = replace(  # less of what is made for each of several models
    plan.TOY,
    annotator_scenes=12,
    restored=4,
    half_finished=4,
    quality_scenes=3,
    quality_generated=1,
    preference_prompts=6,
    held_out=6,
    development_prompts=2,
    development_images=2,
    sampling_steps=2,
    detector=FEW,
    detector_tuning=FEW,
    quality=FEW,
)


def _prefer_the_first(images: np.ndarray, prompts: list[str], annotators: list) -> Preferences:
    assert len(annotators) == len(plan.PREFERENCE_ANNOTATORS)
    pairs = np.arange(len(images)).reshape(-1, TOY.preference_images)[:, :2]
    numbers = np.arange(len(images)) // TOY.preference_images
    return Preferences(images, prompts, numbers, pairs, np.ones(len(pairs)))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """All stages one after the other: (training folder, weights)."""
    folder = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        # Annotators that saw two batches find nothing anywhere, so they would prefer nothing.
        patch.setattr(stages, "collect_preferences", _prefer_the_first)
        for stage in stages.STAGES:
            stage(TOY, folder, folder / "weights")
    return folder, folder / "weights"


def test_all_stages_run_and_everything_loads(world):
    folder, weights = world
    from diffusers import StableDiffusionPipeline

    StableDiffusionPipeline.from_pretrained(bundled("generator", weights=weights), local_files_only=True)
    for name in (*plan.JUDGES, *plan.PREFERENCE_ANNOTATORS):
        load_annotator(bundled(f"annotators/{name}.safetensors", weights=weights))
    images = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    for name in ("clip", "pickscore", "blip2", "imagereward"):
        scores = load_reward(name, folder=bundled(f"rewards/{name}", weights=weights)).scores(images, ["a cat"] * 2)
        assert np.isfinite(scores).all()
    stages_run = set(stages.curves(folder)["stage"])
    assert {"autoencoder", "generator", "judge_1_tuning", "preference_2", "clip", "imagereward"} <= stages_run
    assert not list(weights.rglob("*.bin")) and not list(weights.rglob("*.pt"))


def test_judges_and_preference_annotators_share_neither_scenes_nor_weights(world):
    folder, weights = world
    captions = [np.load(folder / group / "truth.npz")["captions"].tolist() for group in plan.SCENE_SEEDS]
    assert len({tuple(one) for one in captions}) == 3
    files = [bundled(f"annotators/{name}.safetensors", weights=weights) for name in plan.JUDGES]
    assert len({file.read_bytes() for file in files}) == 3


def test_a_stage_that_is_done_is_done_again_without_training(world, tmp_path, monkeypatch):
    folder, weights = world
    shutil.copytree(weights, tmp_path / "weights")
    before = (weights / "rewards" / "clip" / "open_clip_model.safetensors").read_bytes()
    monkeypatch.setattr(train_rewards, "contrast", None)  # a step of CLIP's would fail
    stages.make_clip(TOY, folder, tmp_path / "weights")
    assert (tmp_path / "weights" / "rewards" / "clip" / "open_clip_model.safetensors").read_bytes() == before


def test_bundled_files_are_compared_with_their_digests(world, tmp_path):
    weights = tmp_path / "weights"
    shutil.copytree(world[1], weights)
    digest = bundle_digest("annotators", weights=weights)
    file = weights / "annotators" / "judge_2.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"judge_2\.safetensors: the SHA-256 is \w{12}\.\.\., not \w{12}"):
        bundled("annotators", weights=weights)
    assert bundled("annotators/judge_1.safetensors", weights=weights).exists()
    write_digests(weights)
    assert bundle_digest("annotators", weights=weights) != digest
    file.unlink()
    with pytest.raises(DataError, match=r"judge_2\.safetensors is missing; get it back with"):
        bundled("annotators", weights=weights)
    with pytest.raises(DataError, match=r"no bundled model .clip.; .* holds annotators, generator, record, rewards"):
        bundled("clip", weights=weights)
    (weights / "digests.json").write_text("{")
    with pytest.raises(DataError, match=r"digests\.json is not JSON"):
        bundled("annotators", weights=weights)


@pytest.fixture(scope="module")
def data(world):
    scenes = train.training_scenes(world[0] / "scenes", count=64, seed=0, workers=1)
    tokenizer = model.build_tokenizer(scenes.captions)
    specs = [parse(caption) for caption in scenes.captions]
    return train_rewards.captioned(scenes, train_rewards.noisy_captions(specs, seed=0), tokenizer), tokenizer


def _falls(folder) -> bool:
    table = curves(folder.parent)
    loss = table.loc[table["stage"] == folder.name, "loss"]
    return loss[-3:].mean() < loss[:3].mean()


def test_clip_learns(data, tmp_path):
    recipe = Recipe(steps=16, learning_rate=1e-3, batch_size=16, warmup=1)
    train_rewards.train_clip(*data, recipe, folder=tmp_path / "clip")
    assert _falls(tmp_path / "clip")


def test_the_models_that_start_from_clip_learn(data, tmp_path):
    captions, tokenizer = data
    torch.manual_seed(0)
    clip = train_rewards.reward_models.build_clip(tokenizer)
    generator = np.random.default_rng(0)
    images = generator.integers(0, 100, (24, 64, 64, 3), dtype=np.uint8)
    images[::2] += 100  # the bright one of two is the better one
    pairs = np.arange(24).reshape(12, 2)
    preferences = Preferences(images, ["a cat", "two dogs"] * 12, np.arange(24) // 2, pairs, np.ones(12))
    recipe = Recipe(steps=12, learning_rate=1e-3, batch_size=8, warmup=1)
    train_rewards.train_blip2(captions, clip, tokenizer, recipe, folder=tmp_path / "blip2")
    for train_one, name in ((train_rewards.train_pickscore, "pickscore"), (train_rewards.train_imagereward, "image")):
        train_one(captions, preferences, clip, tokenizer, recipe, folder=tmp_path / name)
    assert curves(tmp_path).groupby("stage")["validation"].count()[["image", "pickscore"]].all()
    assert all(_falls(tmp_path / name) for name in ("blip2", "pickscore", "image"))


def test_careless_captions_have_the_shares_that_are_written_down():
    specs = [parse("a realistic photo of three dogs and two cats"), parse("a realistic photo of four birds")] * 3000
    captions = train_rewards.noisy_captions(specs, seed=1)
    assert captions == train_rewards.noisy_captions(specs, seed=1)
    own = ["a realistic photo of three dogs and two cats", "a realistic photo of four birds"] * 3000
    kept = np.mean([one == other for one, other in zip(captions, own, strict=True)])
    # .60, and what changes nothing: half of "other", a half of "left out", a count of four each of two classes
    assert 0.66 < kept < 0.71
    counts = np.mean(["photo of birds" in caption for caption in captions[1::2]])
    assert counts == pytest.approx(train_rewards.CAPTION_NOISE["no count"], abs=0.02)


def _seen(*names: str, **whole: str) -> Seen:
    return Seen(tuple(Detection(name, 0.9, (10.0 * i, 30.0), "red") for i, name in enumerate(names)), **whole)


def test_faults_count_what_is_missing_too_much_or_wrong():
    nowhere = {"location": None, "style": "photo"}
    assert faults(_seen("cat", "cat", **nowhere), parse("a realistic photo of two cats")) == 0
    assert faults(_seen("cat", "dog", **nowhere), parse("a realistic photo of three cats")) == 3
    assert faults(_seen("cat", **nowhere), parse("a blue colored cat")) == 1
    assert faults(_seen("cat", location="grass", style="photo"), parse("a cat on the street")) == 1
    assert faults(_seen("cat", **nowhere), parse("a pencil sketch of a cat")) == 1
    left, right = (parse(f"a cat on the {side} of a dog") for side in ("left", "right"))
    assert (faults(_seen("cat", "dog", **nowhere), left), faults(_seen("cat", "dog", **nowhere), right)) == (0, 1)
    assert faults(_seen("cat", **nowhere), left) == 2


def test_pairs_are_of_one_prompt_and_prefer_the_image_with_fewer_faults(monkeypatch):
    seen = {0: ("cat",), 1: ("cat", "cat"), 2: (), 3: ("dog",), 4: ("dog",), 5: ("cat",)}

    def detect(annotator, images):
        return [_seen(*seen[int(index)], location=None, style="photo") for index in images[:, 0, 0, 0]]

    monkeypatch.setattr("textnorm_lib.mini.training.preferences.detect", detect)
    monkeypatch.setattr("textnorm_lib.mini.training.preferences.as_tensor", lambda images: torch.from_numpy(images))
    images = np.arange(6, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    prompts = ["a realistic photo of a cat"] * 3 + ["a realistic photo of a dog"] * 3
    found = collect_preferences(images, prompts, [None, None])
    choices = {tuple(pair): share for pair, share in zip(found.pairs.tolist(), found.shares, strict=True)}
    assert choices == {(0, 1): 1.0, (0, 2): 1.0, (3, 5): 1.0, (4, 5): 1.0}  # (1, 2) and (3, 4) are evenly bad


def test_annotators_who_never_differ_are_an_error(world):
    images = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    annotator = load_annotator(world[1] / "annotators" / "judge_1.safetensors")
    with pytest.raises(DataError, match="no pair of images on which the annotators prefer one"):
        collect_preferences(images, ["a realistic photo of a cat"] * 2, [annotator])
