"""Sampling: seeds belong to images, runs resume at the batch they were in, the same images come out."""

import os

import numpy as np
import pytest
from PIL import Image
from toys import toy_pipeline

from textnorm_lib.images import sampling
from textnorm_lib.images.sampling import generate, image_seed, load_pipeline, plan_images
from textnorm_lib.mini import generator as model
from textnorm_lib.study.errors import DataError, StudyError
from textnorm_lib.study.weights import Weights

PROMPTS = ["a realistic photo of a deer", "a realistic photo of two frogs"]
OPTIONS = {"steps": 2, "guidance_scale": 2.0, "batch_size": 3}


@pytest.fixture(scope="module")
def pipeline():
    return toy_pipeline(PROMPTS)


@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory):
    """The same pipeline by name."""
    folder = tmp_path_factory.mktemp("saved") / "toy"
    model.save_pipeline(pipeline, folder)
    return Weights(str(folder))


def _pixels(paths) -> list[np.ndarray]:
    return [np.asarray(Image.open(path)) for path in paths]


def test_an_images_seed_depends_on_its_prompt_and_number_alone():
    few, more = plan_images(PROMPTS, 2, seed=0), plan_images(PROMPTS[::-1], 4, seed=0)
    seeds = {(row.prompt, row.image.split("_")[-1]): row.seed for row in more.itertuples()}
    assert all(seeds[row.prompt, row.image.split("_")[-1]] == row.seed for row in few.itertuples())
    assert more["seed"].is_unique and more["image"].is_unique
    assert image_seed("a", 0, seed=0) != image_seed("a", 0, seed=1)


def test_a_stopped_run_goes_on_and_gives_the_same_images(pipeline, tmp_path):
    plan = plan_images(PROMPTS, 4, seed=0)
    whole = list(generate(pipeline, plan, folder=tmp_path / "whole", **OPTIONS))
    assert [path.name for path in whole] == plan["image"].tolist()

    stopped = generate(pipeline, plan, folder=tmp_path / "stopped", **OPTIONS)
    for _ in range(4):  # into the second batch
        next(stopped)
    stopped.close()
    (tmp_path / "stopped" / plan["image"][4]).unlink()  # as if killed between two files of a batch
    resumed = list(generate(pipeline, plan, folder=tmp_path / "stopped", **OPTIONS))
    assert all(np.array_equal(a, b) for a, b in zip(_pixels(whole), _pixels(resumed), strict=True))
    assert _pixels(whole)[0].shape == (64, 64, 3)
    assert not np.array_equal(*_pixels(whole[:2]))


def test_finished_images_are_not_made_again(pipeline, tmp_path):
    plan = plan_images(PROMPTS[:1], 2, seed=0)
    first = list(generate(pipeline, plan, folder=tmp_path, **OPTIONS))
    times = [path.stat().st_mtime_ns for path in first]
    again = list(generate(pipeline, plan, folder=tmp_path, **OPTIONS))
    assert [path.stat().st_mtime_ns for path in again] == times


def test_two_processes_make_the_same_images_bit_for_bit_as_one(saved, tmp_path):
    plan = plan_images(PROMPTS, 4, seed=0)
    files = {}
    for workers in (1, 2):
        made = generate(saved, plan, folder=tmp_path / str(workers), **OPTIONS, dtype="bfloat16", workers=workers)
        files[workers] = [path.read_bytes() for path in made]
    assert files[1] == files[2] and len(files[1]) == 8


def test_a_cpu_that_could_only_emulate_bfloat16_computes_in_float32(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "_has_bfloat16", lambda: False)
    plan = plan_images(PROMPTS, 1, seed=0)
    files = {
        dtype: [path.read_bytes() for path in generate(pipeline, plan, folder=tmp_path / dtype, **OPTIONS, dtype=dtype)]
        for dtype in ("float32", "bfloat16")
    }
    assert files["float32"] == files["bfloat16"]


def test_a_batch_that_fails_is_named_in_one_line_and_the_run_goes_on_once_it_is_mended(saved, tmp_path):
    plan = plan_images(PROMPTS, 4, seed=0)
    broken = plan.assign(seed=plan["seed"].astype(object).where(plan.index != 6, 2**70))  # the last of three batches
    with pytest.raises(StudyError, match=r"images image_1_2.png to image_1_3.png: .*run again") as caught:
        list(generate(saved, broken, folder=tmp_path, **OPTIONS, workers=2))
    assert "\n" not in str(caught.value)
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert list(kept) and not [name for name in kept if name.startswith(".")]
    made = list(generate(saved, plan, folder=tmp_path, **OPTIONS))
    assert [path.name for path in made] == plan["image"].tolist()
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in kept} == kept


def test_a_file_that_cannot_be_written_leaves_nothing_behind(pipeline, tmp_path, monkeypatch):
    def full(image, file, *_):
        file.write_bytes(b"half")
        raise OSError(28, os.strerror(28), str(file))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        list(generate(pipeline, plan_images(PROMPTS[:1], 1, seed=0), folder=tmp_path, **OPTIONS))
    assert list(tmp_path.iterdir()) == []


def test_processes_cannot_share_a_loaded_pipeline(pipeline, tmp_path):
    with pytest.raises(DataError, match=r"workers = 2: .* give its Weights"):
        list(generate(pipeline, plan_images(PROMPTS, 1, seed=0), folder=tmp_path, **OPTIONS, workers=2))


def test_nothing_is_loaded_for_images_that_are_all_there(tmp_path):
    plan = plan_images(PROMPTS, 1, seed=0)
    for name in plan["image"]:
        (tmp_path / name).write_bytes(b"made")
    assert len(list(generate(Weights("/nowhere"), plan, folder=tmp_path, **OPTIONS, workers=2))) == 2
    assert list(generate(Weights("/nowhere"), plan[:0], folder=tmp_path, **OPTIONS)) == []


@pytest.mark.parametrize(
    ("model", "revision", "said"),
    [
        ("/nowhere", None, "weights '/nowhere': there is no such file or folder"),
        ("some/model", None, "weights 'some/model': no such folder here, and for the hub revision = None pins nothing"),
        ("some/model", "0" * 40, "model 'some/model' cannot be loaded (.*; connect to the network"),
        ("bundled:nothing", None, "no bundled model 'nothing'"),
    ],
)
def test_a_model_that_cannot_be_had_is_refused_in_one_line(model, revision, said, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=said.replace("(.*", r"\(.*")) as caught:
        load_pipeline(model, revision=revision)
    assert "\n" not in str(caught.value)


def test_a_damaged_model_is_refused_in_one_line(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline", "unet": ["diff')
    with pytest.raises(DataError, match=r"cannot be loaded \(.*restore the folder") as caught:
        load_pipeline(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_overflow_in_half_precision_is_an_error_and_no_black_image(saved, tmp_path):
    plan = plan_images(["a deer"], 2, seed=0)
    settings = {"steps": 2, "guidance_scale": 2.0, "batch_size": 2}
    pipeline = load_pipeline(saved.name)
    for name, weight in pipeline.unet.named_parameters():
        if name.endswith(("attn1.to_q.weight", "attn1.to_k.weight")):
            weight.data *= 1e6  # beyond what float16 holds, as the attention of SD v2.1 is at 768 pixels
    assert len(list(generate(pipeline, plan, folder=tmp_path / "single", dtype="float32", **settings))) == 2
    with pytest.raises(StudyError, match=r"image_0_0\.png: not a number.*in float16.*set generator\.dtype") as caught:
        list(generate(pipeline, plan, folder=tmp_path / "half", dtype="float16", **settings))
    assert "\n" not in str(caught.value) and list((tmp_path / "half").iterdir()) == []
