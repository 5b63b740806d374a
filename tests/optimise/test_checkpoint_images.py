"""Images of checkpoints and their distance from the base: the same noise for all, and no model leaves a trace."""

import copy
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from toys import toy_pipeline

from textnorm_lib.images.sampling import generate, image_seed, load_pipeline, plan_images
from textnorm_lib.mini.generator import LATENT_SHAPE, save_pipeline
from textnorm_lib.optimise import finetuning
from textnorm_lib.optimise.denoising import ddim_steps, draw_noise, sample
from textnorm_lib.optimise.finetuning import all_models, join_models, measure_divergences, sample_checkpoints
from textnorm_lib.optimise.training import ATTENTION, FEED_FORWARD, add_lora, save_lora
from textnorm_lib.study.errors import ConfigError, DataError
from textnorm_lib.study.weights import Weights

PROMPTS = pd.DataFrame({"set": ["comprehensive", "counting"], "prompt": ["a deer", "two frogs"]})
RUNS = ("clip_beta_0.25_run_0", "textnorm_beta_1_run_1")
CHECKPOINTS = {0: 0.0, 2: 0.1, 4: 0.3}  # how far B is from its start
SAMPLING = {"steps": 3, "guidance_scale": 2.0, "batch_size": 3, "dtype": "float32", "seed": 7}
IMAGES = {**SAMPLING, "checkpoints": [2, 4], "images_per_prompt": 2}
DIVERGENCES = {**SAMPLING, "checkpoints": list(CHECKPOINTS), "paths": 4, "left_out": 1}  # two paths per prompt


@pytest.fixture(scope="module")
def toy():
    return toy_pipeline()


@pytest.fixture(scope="module")
def model(toy, tmp_path_factory):
    """A small pipeline with random weights, by name."""
    folder = tmp_path_factory.mktemp("model") / "toy"
    save_pipeline(copy.deepcopy(toy), folder)
    return Weights(str(folder))


def _tune(toy, folder, run: str, seed: int, **lora) -> None:
    """Checkpoints of a run as training leaves them, further and further from the base in one direction."""
    pipeline, generator = copy.deepcopy(toy), torch.Generator().manual_seed(seed)
    trained = add_lora(pipeline, **{"rank": 2, "targets": ATTENTION, "generator": generator, **lora})
    last = [torch.randn(value.shape, generator=generator) for value in trained if not value.any()]
    for checkpoint, strength in CHECKPOINTS.items():
        for value, far in zip(trained[1::2], last, strict=True):  # A and B alternate
            value.data = strength * far
        save_lora(pipeline, folder / run / f"checkpoint_{checkpoint:05}")


@pytest.fixture(scope="module")
def trained(toy, tmp_path_factory):
    """Two runs, and what else lies in the folder of a step."""
    folder = tmp_path_factory.mktemp("trained")
    for seed, run in enumerate(RUNS):
        _tune(toy, folder, run, seed)
    (folder / "meta.json").touch()
    return folder


@pytest.fixture(scope="module")
def made(trained, model, tmp_path_factory):
    """The folder of all models' images, and what the step told."""
    folder = tmp_path_factory.mktemp("images")
    return folder, sample_checkpoints(PROMPTS, trained, model, **IMAGES, workers=1, folder=folder)


@pytest.fixture(scope="module")
def divergences(trained, model):
    return measure_divergences(PROMPTS, trained, model, **DIVERGENCES, workers=1)


def _files(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def test_the_models_are_the_base_and_every_checkpoint_of_every_run(trained):
    models = all_models(trained, [2, 4])
    told = [(one.tuned_on, one.beta, one.run, one.checkpoint) for one in models]
    each = [(name, beta, run, last) for name, beta, run in (("clip", 0.25, 0), ("textnorm", 1.0, 1)) for last in (2, 4)]
    assert told == [("base", 0.0, 0, 0), *each]
    assert [one.adapter for one in models[::4]] == [None, trained / RUNS[1] / "checkpoint_00004"]


def test_a_checkpoint_that_is_not_there_and_a_folder_that_is_no_run_are_one_line(trained, model, tmp_path):
    for checkpoints, step in (([2, 3], sample_checkpoints), ([4, 5], measure_divergences)):
        options = {**(IMAGES if step is sample_checkpoints else DIVERGENCES), "checkpoints": checkpoints}
        more = {"folder": tmp_path} if step is sample_checkpoints else {}
        said = rf"{RUNS[0]}/checkpoint_0000{checkpoints[1]} is not there: train longer, or name checkpoints"
        with pytest.raises(DataError, match=said) as caught:
            step(PROMPTS, trained, model, **options, **more, workers=1)
        assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())
    (tmp_path / "notes").mkdir()
    with pytest.raises(DataError, match="folder 'notes' is no run's"):
        all_models(tmp_path, [2])


def test_all_models_make_the_same_prompts_from_the_same_seeds(made):
    folder, told = made
    assert told == {"models": 5, "images": 20}
    index = pd.read_parquet(folder / "index.parquet")
    assert set(index) == {"tuned_on", "beta", "run", "checkpoint", "set", "image", "prompt", "seed"}
    expected = plan_images(PROMPTS["prompt"].tolist(), 2, seed=7)
    models = index.groupby(["tuned_on", "beta", "run", "checkpoint"], sort=False)
    assert [key for key, _ in models][:2] == [("base", 0, 0, 0), ("clip", 0.25, 0, 2)] and models.ngroups == 5
    for _, rows in models:
        assert rows["seed"].tolist() == expected["seed"].tolist()
        assert rows["prompt"].tolist() == expected["prompt"].tolist()
        assert rows["set"].tolist() == ["comprehensive"] * 2 + ["counting"] * 2
    assert sorted(index["image"]) == list(_files(folder)) and len(index) == 20
    assert index["image"].str.startswith("base/").tolist() == (index["tuned_on"] == "base").tolist()
    assert len(set(_files(folder).values())) == 20


@pytest.mark.parametrize("run", RUNS)
def test_images_are_those_that_diffusers_makes_with_the_adapter(trained, model, made, tmp_path, run):
    pipeline = load_pipeline(model.name)
    pipeline.load_lora_weights(trained / run / "checkpoint_00004")
    options = {name: value for name, value in SAMPLING.items() if name != "seed"}
    expected = generate(pipeline, plan_images(PROMPTS["prompt"].tolist(), 2, seed=7), folder=tmp_path, **options)
    for path in expected:
        ours, base = (made[0] / place / path.name for place in (f"{run}/checkpoint_00004", "base"))
        ours, theirs, base = (np.asarray(Image.open(file)).astype(int) for file in (ours, path, base))
        assert abs(ours - theirs).max() <= 1 and abs(ours - base).max() > 20


def test_an_adapter_leaves_no_trace_in_the_models_after_it(trained, model, made, divergences, tmp_path):
    shutil.copytree(trained / RUNS[1], tmp_path / "trained" / RUNS[1])
    finetuning._pipeline.cache_clear()
    options = IMAGES | {"checkpoints": [4, 2]}  # the other way about, and without the other run
    sample_checkpoints(PROMPTS, tmp_path / "trained", model, **options, workers=1, folder=tmp_path / "images")
    found, files = _files(tmp_path / "images"), _files(made[0])
    assert len(found) == 12 and found == {name: files[name] for name in found}
    options = DIVERGENCES | {"checkpoints": [4, 0, 2]}
    alone = measure_divergences(PROMPTS, tmp_path / "trained", model, **options, workers=1)
    keys = ["checkpoint", "prompt"]
    expected = divergences.query("tuned_on == 'textnorm'").set_index(keys)["kl"]
    assert alone.set_index(keys)["kl"].to_dict() == expected.to_dict()


def test_runs_with_another_adapter_can_follow_in_the_same_process(toy, model, made, tmp_path):
    for rank, targets in ((3, ATTENTION), (2, ATTENTION + FEED_FORWARD)):
        folder = tmp_path / f"{rank}"
        _tune(toy, folder, RUNS[0], 0, rank=rank, targets=targets)
        found = measure_divergences(PROMPTS, folder, model, **DIVERGENCES, workers=1)
        assert (found["kl"] > 0).tolist() == [False] * 2 + [True] * 4


def test_two_processes_make_the_same_images_and_divergences_bit_for_bit_as_one(
    trained, model, made, divergences, tmp_path
):
    assert sample_checkpoints(PROMPTS, trained, model, **IMAGES, workers=2, folder=tmp_path) == made[1]
    assert _files(tmp_path) == _files(made[0])
    indices = [pd.read_parquet(folder / "index.parquet") for folder in (tmp_path, made[0])]
    pd.testing.assert_frame_equal(*indices)
    found = measure_divergences(PROMPTS, trained, model, **DIVERGENCES, workers=2)
    pd.testing.assert_frame_equal(found, divergences, check_exact=True)


def test_a_stopped_step_makes_the_images_that_are_missing(trained, model, made, tmp_path):
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "index.parquet").unlink()
    gone = [f"{RUNS[0]}/checkpoint_00004/image_1_1.png", "base/image_0_0.png"]  # in batches of one and of three
    for name in gone:
        (tmp_path / name).unlink()
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in _files(tmp_path)}
    sample_checkpoints(PROMPTS, trained, model, **IMAGES, workers=1, folder=tmp_path)
    assert _files(tmp_path) == _files(made[0]) and (tmp_path / "index.parquet").exists()
    again = {name for name, time in before.items() if (tmp_path / name).stat().st_mtime_ns != time}
    assert again == {"base/image_0_1.png", "base/image_1_0.png"}


def test_an_untrained_adapter_is_the_base_and_divergence_grows_with_training(divergences):
    assert list(divergences) == ["tuned_on", "beta", "run", "checkpoint", "set", "prompt", "kl"]
    models = divergences.groupby(["tuned_on", "beta", "run", "prompt"])
    assert models.ngroups == 4 and len(divergences) == 12
    for _, rows in models:
        assert rows["checkpoint"].tolist() == [0, 2, 4]
        assert rows["kl"].iloc[0] == 0 and 0 < rows["kl"].iloc[1] < rows["kl"].iloc[2] < np.inf


def test_divergence_is_the_mean_of_a_prompts_own_ways_in_nats_an_image(trained, model, divergences):
    pipeline = load_pipeline(model.name)
    pipeline.load_lora_weights(trained / RUNS[0] / "checkpoint_00004")
    path = ddim_steps(pipeline.scheduler, 3)
    found = divergences.query("tuned_on == 'clip' and checkpoint == 4")["kl"]
    for prompt, kl in zip(PROMPTS["prompt"], found, strict=True):
        seeds = [image_seed(prompt, way, seed=7) for way in range(2)]
        with torch.no_grad():
            text, empty = pipeline.encode_prompt(prompt, "cpu", 1, True)
        noise = draw_noise(seeds, 3, LATENT_SHAPE)
        way = sample(pipeline.unet, path, text.expand(2, -1, -1), empty, noise, scale=2.0, with_base=True)
        assert kl == pytest.approx(way.kl[:, :2].sum(dim=1).mean().item() * np.prod(LATENT_SHAPE), rel=1e-5)


def test_more_steps_that_count_make_a_divergence_larger(trained, model, divergences):
    one = divergences.query("checkpoint == 4")["kl"].to_numpy()
    sizes = []
    for left_out in (0, 2):
        options = DIVERGENCES | {"checkpoints": [4], "left_out": left_out}
        sizes.append(measure_divergences(PROMPTS, trained, model, **options, workers=1)["kl"].to_numpy())
    assert (sizes[1] < one).all() and (one < sizes[0]).all()


@pytest.mark.parametrize("left_out", [3, 4, -1])
def test_some_steps_have_to_count(trained, model, left_out):
    with pytest.raises(ConfigError, match=f"left_out is {left_out} of 3 steps: some have to count"):
        measure_divergences(PROMPTS, trained, model, **(DIVERGENCES | {"left_out": left_out}), workers=1)


def test_judged_images_get_the_model_that_made_them(made):
    index = pd.read_parquet(made[0] / "index.parquet")
    judged = index[["set", "prompt", "image"]].sample(frac=1, random_state=0).assign(rating=np.arange(20.0))
    joined = join_models(judged, made[0])
    assert joined["rating"].tolist() == list(range(20))
    columns = ["image", "tuned_on", "beta", "run", "checkpoint", "seed"]
    expected = index.set_index("image").loc[joined["image"]].reset_index()[columns]
    pd.testing.assert_frame_equal(joined[columns], expected)
