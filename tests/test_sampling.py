"""Sampling: seeds belong to images, runs resume at the batch they were in, the same images come out."""

import numpy as np
import pytest
from PIL import Image

from textnorm_lib.mini import generator as model
from textnorm_lib.sampling import generate, image_seed, plan_images

PROMPTS = ["a realistic photo of a deer", "a realistic photo of two frogs"]
OPTIONS = {"steps": 2, "guidance_scale": 2.0, "batch_size": 3}


@pytest.fixture(scope="module")
def pipeline():
    """The mini world's architecture with random weights."""
    import torch

    torch.manual_seed(0)
    tokenizer = model.build_tokenizer(PROMPTS)
    text_encoder = model.build_text_encoder(len(tokenizer))
    unet = model.build_unet(channels=(32, 32), layers=1)
    return model.build_pipeline(model.build_autoencoder(), text_encoder, tokenizer, unet)


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
