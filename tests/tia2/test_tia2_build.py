"""TIA2 in miniature, with a toy generator and toy annotators: prompts -> images -> votes -> labels."""

import io
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from toys import study_of

from textnorm_lib.figures.tia2 import pick_failures, pick_samples
from textnorm_lib.mini import annotators
from textnorm_lib.mini import generator as model
from textnorm_lib.mini.scenes import sample_scenes
from textnorm_lib.prompts.grammar import parse
from textnorm_lib.prompts.sets import CATEGORIES, prompts_of_sets
from textnorm_lib.stats.agreement import krippendorff_alpha
from textnorm_lib.stats.metrics import summarise
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.store import Store
from textnorm_lib.study.weights import Weights
from textnorm_lib.tia2 import build, describe
from textnorm_lib.tia2.labels import image_table

PER_SET = {"comprehensive": 6, "counting": 6, "composition": 4}
SETTINGS = {"images_per_prompt": 2, "steps": 1, "guidance_scale": 2.0, "batch_size": 5, "dtype": "float32", "seed": 0}


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """A generator and three annotators with random weights; the detectors see objects everywhere."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    tokenizer = model.build_tokenizer(prompts_of_sets(only=None, **PER_SET)["prompt"])
    text_encoder = model.build_text_encoder(len(tokenizer))
    parts = model.build_autoencoder((8, 8, 8)), text_encoder, tokenizer, model.build_unet((32, 32))
    model.save_pipeline(model.build_pipeline(*parts), folder / "generator")
    for name in "abc":
        detector = annotators.Detector()
        torch.nn.init.constant_(detector.classes.bias, 0.0)
        save_file({key: value.half() for key, value in detector.state_dict().items()}, folder / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def built(toys, tmp_path_factory):
    """The steps of a benchmark, from toy weights."""
    compute = Store(tmp_path_factory.mktemp("steps")).compute
    prompts = compute(prompts_of_sets, only=None, **PER_SET)
    images = compute(build.make_images, prompts, Weights(str(toys / "generator")), **SETTINGS, workers=1)
    votes = compute(annotators.collect_votes, images, *_annotators(toys), workers=1)
    labels = compute(build.label_images, votes)
    return SimpleNamespace(prompts=prompts, images=images, votes=votes, labels=labels)


def _annotators(folder):
    return [Weights(str(folder / f"{name}.safetensors")) for name in "abc"]


def _prompts(*prompts):
    return pd.DataFrame({"set": "counting", "prompt": prompts})


def test_images_lie_beside_an_index_with_a_seed_of_its_own_for_each(built):
    index = pd.read_parquet(built.images.value / build.INDEX)
    assert list(index.columns) == ["set", "image", "prompt", "seed"]
    assert len(index) == 32 and index["seed"].is_unique and index["image"].is_unique
    assert index.groupby("set", sort=False).size().to_dict() == {name: 2 * n for name, n in PER_SET.items()}
    assert index["prompt"].tolist() == built.prompts.value["prompt"].repeat(2).tolist()
    for name in index["image"]:
        assert Image.open(built.images.value / name).size == (64, 64)
    assert built.images.meta["measured"]["images"] == 32


def test_votes_are_tidy_and_are_those_of_the_rule(built, toys):
    votes = built.votes.value
    assert list(votes.columns) == ["set", "image", "prompt", "annotator", "vote"]
    assert len(votes) == 3 * 32 and set(votes["vote"]) <= {1, 0, -1}
    detector = annotators.load_annotator(toys / "b.safetensors")
    row = votes[votes["annotator"] == 2].iloc[7]
    pixels = torch.from_numpy(np.asarray(Image.open(built.images.value / row["image"])).copy()).permute(2, 0, 1)
    seen = annotators.detect(detector, pixels[None] / 127.5 - 1)[0]
    assert row["vote"] == annotators.vote(seen, parse(row["prompt"]))


def test_two_processes_vote_as_one(built, toys, monkeypatch):
    monkeypatch.setattr(annotators, "VOTED_AT_ONCE", 10)
    alone, together = (annotators.collect_votes(built.images.value, *_annotators(toys), workers=n) for n in (1, 2))
    pd.testing.assert_frame_equal(alone, together)


def test_labels_are_the_released_frames_and_everything_that_describes_those_describes_them(built):
    images = built.labels.value
    pd.testing.assert_frame_equal(
        images.drop(columns="set"), image_table(built.votes.value.drop(columns="set")), check_like=True
    )
    statistics = describe.set_statistics(images)
    assert statistics["prompts"].tolist() == [6, 6, 4, 16] and not any("contrastive" in name for name in statistics)
    assert set(describe.categories(images)["category"]) == set(CATEGORIES)
    share = describe.share_good(images)
    assert describe.share_good_by_count(share)["set"].tolist() == list("123456")
    options = {"resamples": 100, "confidence": 0.95, "seed": 0}
    groups = summarise(describe.share_good_by_group(share), **options).set_index("set")
    assert groups.loc["set: counting", "n_prompts"] == 6 and groups.loc["category: style", "n_prompts"] == 1
    alpha = describe.agreement(images, **options).set_index("set")["alpha"]
    for name, group in images.groupby("set"):
        np.testing.assert_equal(alpha[name], krippendorff_alpha(group[describe.VOTES].to_numpy()))
    assert len(describe.slot_influence(images)) == 9


def test_samples_are_the_first_images_of_prompts_at_even_distances(built):
    samples = pick_samples(built.images.value, built.labels.value, prompts_per_set=3, images_per_prompt=1)
    prompts = built.prompts.value.query("set == 'counting'")["prompt"].tolist()
    assert samples.query("set == 'counting'")["prompt"].tolist() == [prompts[0], prompts[2], prompts[5]]
    first = built.labels.value.query("prompt == @prompts[2]").iloc[0]
    assert samples.query("prompt == @prompts[2]")["png"].item() == (built.images.value / first["image"]).read_bytes()


def test_failures_are_bad_images_of_different_prompts(built):
    labels = built.labels.value.assign(label=0)
    failures = pick_failures(built.images.value, labels, number=4)
    assert len(failures) == 4 == failures["prompt"].nunique() and failures["label"].eq(0).all()
    everything = pick_failures(built.images.value, labels, number=1000)
    assert len(everything) == len(built.prompts.value)
    assert pick_failures(built.images.value, labels.assign(label=1), number=4).empty


def test_scenes_follow_from_their_seed():
    scenes, again, others = (sample_scenes(number=3, seed=seed) for seed in (0, 0, 1))
    assert scenes.equals(again) and not scenes.equals(others)
    assert Image.open(io.BytesIO(scenes["png"][0])).size == (64, 64)


def test_a_stopped_build_goes_on_with_what_it_has(toys, tmp_path):
    prompts = _prompts("a realistic photo of a deer", "a realistic photo of two frogs")
    weights = Weights(str(toys / "generator"))
    build.make_images(prompts, weights, **{**SETTINGS, "images_per_prompt": 5}, workers=1, folder=tmp_path)
    (tmp_path / "image_1_4.png").unlink()
    (tmp_path / build.INDEX).unlink()
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("image_0_*")}
    measured = build.make_images(prompts, weights, **{**SETTINGS, "images_per_prompt": 5}, workers=1, folder=tmp_path)
    assert measured["images"] == 1 and (tmp_path / "image_1_4.png").exists() and (tmp_path / build.INDEX).exists()
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in times} == times


def test_keys_change_with_the_weights_and_not_with_the_number_of_processes(built, toys, tmp_path):
    folder = tmp_path / "generator"
    folder.mkdir()
    (folder / "unet.safetensors").write_bytes(b"one")
    key = Weights(str(folder)).key
    (folder / "unet.safetensors").write_bytes(b"two, trained again")
    assert Weights(str(folder)).key != key
    assert Weights("some/model", "0" * 40).key == f"some/model@{'0' * 40}"
    votes = Store(built.votes.folder.parents[1]).compute(
        annotators.collect_votes, built.images, *_annotators(toys), workers=2
    )
    assert votes.key == built.votes.key
    assert built.votes.meta["inputs"] == [built.images.key, *(annotator.key for annotator in _annotators(toys))]
    assert "workers" not in built.images.meta["config"]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a realistic photo of a unicorn", "'a realistic photo of a unicorn': unknown class 'unicorn'"),
        ("a realistic photo of nine dogs", "'a realistic photo of nine dogs': the count 'nine'"),
        (" ", "the prompt is empty"),
    ],
)
def test_a_prompt_that_annotators_do_not_understand_is_named_in_one_line(built, toys, tmp_path, prompt, said):
    index = pd.read_parquet(built.images.value / build.INDEX).head(2)
    for name in index["image"]:
        shutil.copy(built.images.value / name, tmp_path)
    index.assign(prompt=["a realistic photo of a deer", prompt]).to_parquet(tmp_path / build.INDEX)
    with pytest.raises(DataError, match=said) as caught:
        annotators.collect_votes(tmp_path, *_annotators(toys), workers=1)
    assert "\n" not in str(caught.value)


def test_a_damaged_image_and_a_missing_annotator_are_one_line_each(built, toys, tmp_path):
    pd.read_parquet(built.images.value / build.INDEX).head(1).to_parquet(tmp_path / build.INDEX)
    (tmp_path / "image_0_0.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(DataError, match=r"image_0_0.png: cannot be read .*; delete its folder and run again") as caught:
        annotators.collect_votes(tmp_path, *_annotators(toys), workers=1)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="2 annotators; give three"):
        annotators.collect_votes(tmp_path, *_annotators(toys)[:2], workers=1)


def test_a_profile_is_built_from_its_own_numbers(tmp_path):
    study = study_of(tmp_path, "mini")
    assert study.prompts.function is prompts_of_sets
    assert study.prompts.config == {"only": None, "comprehensive": 72, "counting": 42, "composition": 42}
    assert study.images.function is build.make_images
    assert study.images.inputs == (study.prompts, Weights("bundled:generator"))
    assert set(study.images.config) == {*SETTINGS, "workers"} and study.images.config["images_per_prompt"] == 30
    images, *judges = study.votes.inputs
    assert study.votes.function is annotators.collect_votes and images == study.images
    assert [one.name for one in judges] == [f"bundled:annotators/judge_{n}.safetensors" for n in (1, 2, 3)]
    assert study.labels.function is build.label_images and study.labels.inputs == (study.votes,)
