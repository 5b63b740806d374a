"""Every training stage at toy size: the weights load as what they are, and what is learnt, is learnt."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from textnorm_lib.mini import generator as model
from textnorm_lib.mini.annotators import Detection, Seen, load_annotator
from textnorm_lib.mini.appeal import colourfulness
from textnorm_lib.mini.training import doses, plan, stages
from textnorm_lib.mini.training import rewards as train_rewards
from textnorm_lib.mini.training import scenes as train
from textnorm_lib.mini.training.fit import curves
from textnorm_lib.mini.training.plan import Recipe
from textnorm_lib.mini.training.preferences import Preferences, collect_preferences, faults, mean_faults
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


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """All stages one after the other: (training folder, weights)."""
    folder = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        # Annotators that saw two batches find nothing anywhere, so that at dose 0 they would prefer nothing.
        patch.setattr(stages, "mean_faults", lambda annotators, images, prompts: np.arange(len(images)) % 3)
        for stage in stages.STAGES:
            stage(TOY, folder, folder / "weights")
    return folder, folder / "weights"


def test_all_stages_run_and_everything_loads(world):
    folder, weights = world
    from diffusers import StableDiffusionPipeline

    for name in ("generator", "student"):
        StableDiffusionPipeline.from_pretrained(bundled(name, weights=weights), local_files_only=True)
    for name in (*plan.JUDGES, *plan.PREFERENCE_ANNOTATORS):
        load_annotator(bundled(f"annotators/{name}.safetensors", weights=weights))
    images = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    for name in doses.REWARDS:
        reward = load_reward(name.split("_")[0], folder=bundled(f"rewards/{name}", weights=weights))
        assert np.isfinite(reward.scores(images, ["a cat"] * 2)).all()
    stages_run = set(stages.curves(folder)["stage"])
    assert {
        "autoencoder",
        "generator",
        "judge_1_tuning",
        "preference_2",
        "clip",
        "blip",
        "imagereward_050",
    } <= stages_run
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
    before = (weights / "rewards" / "clip_careless" / "open_clip_model.safetensors").read_bytes()
    monkeypatch.setattr(train_rewards, "contrast", None)  # a step of CLIP's would fail
    stages.make_clip(TOY, folder, tmp_path / "weights")
    assert (tmp_path / "weights" / "rewards" / "clip_careless" / "open_clip_model.safetensors").read_bytes() == before


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
    with pytest.raises(
        DataError, match=r"no bundled model .clip.; .* holds annotators, generator, record, rewards, student"
    ):
        bundled("clip", weights=weights)
    (weights / "digests.json").write_text("{")
    with pytest.raises(DataError, match=r"digests\.json is not JSON"):
        bundled("annotators", weights=weights)


@pytest.fixture(scope="module")
def data(world):
    scenes = train.training_scenes(world[0] / "scenes", count=64, seed=0, workers=1)
    tokenizer = model.build_tokenizer(scenes.captions)
    specs = [parse(caption) for caption in scenes.captions]
    captions = train_rewards.noisy_captions(specs, train_rewards.CARELESSNESS["start"], seed=0)
    return train_rewards.captioned(scenes, captions, tokenizer), tokenizer


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
    blip = train_rewards.train_blip(captions, clip, tokenizer, replace(recipe, steps=40), folder=tmp_path / "blip")
    before = {name: value.clone() for name, value in blip.state_dict().items()}
    train_rewards.train_pickscore(captions, preferences, clip, tokenizer, recipe, folder=tmp_path / "pickscore")
    data = (captions, preferences, clip, tokenizer, recipe)
    train_rewards.train_imagereward(*data, blip=blip, folder=tmp_path / "image")
    torch.testing.assert_close(blip.state_dict(), before)  # the next dose begins where this one began
    assert curves(tmp_path).groupby("stage")["validation"].count()[["image", "pickscore"]].all()
    assert all(_falls(tmp_path / name) for name in ("blip", "blip2", "pickscore", "image"))


def test_careless_captions_have_the_flaws_as_often_as_it_is_written_down():
    own = ["a realistic photo of three dogs and two cats", "a realistic photo of four birds"]
    often = {"other": 0.0, "left out": 0.3, "wrong class": 0.0, "wrong count": 0.0, "no count": 0.5}
    captions = train_rewards.noisy_captions([parse(one) for one in own] * 3000, often, seed=1)
    assert captions == train_rewards.noisy_captions([parse(one) for one in own] * 3000, often, seed=1)
    assert np.mean([one == own[1] for one in captions[1::2]]) == pytest.approx(0.5, abs=0.03)
    assert np.mean([one == own[0] for one in captions[::2]]) == pytest.approx(0.5 * 0.7, abs=0.03)
    assert {one for one in captions[1::2] if one != own[1]} == {"a realistic photo of birds"}


@pytest.mark.parametrize("flaw", ["other", "left out", "wrong class", "wrong count", "no count"])
def test_each_flaw_makes_another_caption_of_two_dogs_and_a_cat(flaw):
    spec, none = (
        parse("a realistic photo of two dogs and a cat"),
        dict.fromkeys(train_rewards.CARELESSNESS["start"], 0.0),
    )
    random = np.random.default_rng(0)
    assert train_rewards.noisy_caption(spec, none, random) == "a realistic photo of two dogs and a cat"
    found = {train_rewards.noisy_caption(spec, none | {flaw: 1.0}, random) for _ in range(40)}
    assert len(found - {"a realistic photo of two dogs and a cat"}) > (flaw == "wrong class")


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


GREY, RED = np.full((1, 4, 4, 3), 99, np.uint8), np.full((1, 4, 4, 3), (255, 0, 0), np.uint8)


def test_colourfulness_is_the_published_formula():
    assert colourfulness(GREY).tolist() == [0.0]
    assert colourfulness(RED) == pytest.approx(0.3 * np.hypot(255, 127.5))  # one colour: no spread
    half = np.concatenate([GREY, RED], axis=2)
    spread, mean = np.hypot(127.5, 63.75), np.hypot(127.5, 63.75)
    assert colourfulness(half) == pytest.approx(spread + 0.3 * mean)


def test_pairs_are_of_one_prompt_and_prefer_fewer_faults_or_more_colour_as_the_dose_says():
    images = np.concatenate([RED, GREY, GREY, GREY, RED])
    prompts = ["a realistic photo of a cat"] * 3 + ["a realistic photo of a dog"] * 2
    counted = np.array([2.0, 1.0, 0.0, 0.0, 1.0])

    def first_preferred(dose):
        found = collect_preferences(images, prompts, counted, dose=dose)
        return {tuple(pair): share for pair, share in zip(found.pairs.tolist(), found.shares > 0.5, strict=True)}

    assert first_preferred(0.0) == {(0, 1): False, (0, 2): False, (1, 2): False, (3, 4): True}
    assert first_preferred(1.0) == {(0, 1): True, (0, 2): True, (3, 4): False}  # 1 and 2 have the same colours
    assert first_preferred(0.5).keys() == {(0, 1), (0, 2), (1, 2), (3, 4)}


def test_the_further_apart_two_images_are_the_more_annotators_agree():
    counted, prompts = np.array([0.0, 1.0, 5.0]), ["a realistic photo of a cat"] * 3
    found = collect_preferences(np.repeat(GREY, 3, axis=0), prompts, counted, dose=0.0)
    shares = dict(zip(map(tuple, found.pairs.tolist()), found.shares, strict=True))
    assert 0.5 < shares[0, 1] < shares[1, 2] < shares[0, 2] < 1


def test_mean_faults_is_over_annotators(monkeypatch):
    seen = {"one": ("cat",), "two": ("cat", "cat")}
    monkeypatch.setattr(
        "textnorm_lib.mini.training.preferences.detect",
        lambda annotator, images: [_seen(*seen[annotator], location=None, style="photo")] * len(images),
    )
    images = np.zeros((2, 64, 64, 3), dtype=np.uint8)
    found = mean_faults(["one", "two"], images, ["a realistic photo of two cats", "a realistic photo of a cat"])
    assert found.tolist() == [0.5, 0.5]


def test_annotators_who_never_differ_are_an_error():
    with pytest.raises(DataError, match="no pair of images of which the annotators prefer one"):
        collect_preferences(np.repeat(GREY, 2, axis=0), ["a realistic photo of a cat"] * 2, np.zeros(2), dose=0.5)
