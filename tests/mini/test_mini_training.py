"""The mini world's training at toy size: the loss falls, a killed run goes on to the same weights, the result loads."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from textnorm_lib.mini import generator as model
from textnorm_lib.mini.training import scenes as train
from textnorm_lib.mini.training.fit import curves, fit
from textnorm_lib.mini.training.plan import Recipe
from textnorm_lib.study.errors import StudyError
from textnorm_lib.study.weights import WEIGHTS

RECIPE = Recipe(steps=12, learning_rate=0.05, warmup=2, save_every_s=0.0)


def _line() -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(3, 1)


def _regression(model: torch.nn.Module, stop_at: int | None = None):
    def loss_function(step: int, generator: torch.Generator) -> torch.Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        inputs = torch.randn(16, 3, generator=generator)
        return (model(inputs) - inputs.sum(dim=1, keepdim=True)).square().mean()

    return loss_function


def test_an_interrupted_fit_goes_on_to_the_same_weights(tmp_path):
    whole, halves = _line(), _line()
    curve = fit(whole, _regression(whole), RECIPE, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(halves, _regression(halves, stop_at=7), RECIPE, folder=tmp_path / "halves")
    again = torch.nn.Linear(3, 1)
    resumed = fit(again, _regression(again), RECIPE, folder=tmp_path / "halves")
    assert curve.equals(resumed) and curve["loss"].iloc[-1] < curve["loss"].iloc[0]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_a_kill_while_a_checkpoint_is_written_keeps_the_last_one(tmp_path, monkeypatch):
    line = _line()
    fit(line, _regression(line), RECIPE, folder=tmp_path / "line")

    def killed(tensors, file, metadata):
        file.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr("textnorm_lib.mini.training.fit.save_file", killed)
    longer = replace(RECIPE, steps=RECIPE.steps + 1)
    with pytest.raises(KeyboardInterrupt):
        fit(_line(), _regression(line), longer, folder=tmp_path / "line")
    again = torch.nn.Linear(3, 1)
    fit(again, _regression(again, stop_at=0), RECIPE, folder=tmp_path / "line")
    assert all(torch.equal(a, b) for a, b in zip(line.parameters(), again.parameters(), strict=True))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(tmp_path):
    line = _line()

    def loss_function(step: int, generator: torch.Generator) -> torch.Tensor:
        return line(torch.ones(1, 3)).sum() * (float("nan") if step == 5 else 1.0)

    with pytest.raises(StudyError, match="nan at step 5"):
        fit(line, loss_function, RECIPE, folder=tmp_path / "line")
    assert len(curves(tmp_path)) == 5


def test_early_stopping_keeps_the_best_average_and_survives_an_interruption(tmp_path):
    recipe = Recipe(steps=40, learning_rate=0.05, warmup=2, save_every_s=0.0)
    scores = iter([0.1, 0.9, 0.3] + [0.2] * 17)
    seen: list[torch.Tensor] = []

    def validation(line: torch.nn.Linear) -> float:
        seen.append(line.weight.detach().clone())
        return next(scores)

    line = _line()
    with pytest.raises(KeyboardInterrupt):
        loss_function = _regression(line, stop_at=11)
        fit(line, loss_function, recipe, folder=tmp_path / "l", validation=lambda: validation(line))
    again = torch.nn.Linear(3, 1)
    curve = fit(
        again,
        _regression(again),
        recipe,
        folder=tmp_path / "l",
        validation=lambda: validation(again),
    )
    assert torch.equal(again.weight, seen[1]) and not torch.equal(again.weight, seen[-1])
    assert curve["validation"].count() == 20 and curve["validation"].max() == 0.9


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> train.Scenes:
    return train.training_scenes(tmp_path_factory.mktemp("scenes"), count=64, seed=0, workers=1)


def test_scenes_are_drawn_once_and_read_back(scenes, tmp_path):
    first = train.training_scenes(tmp_path, count=8, seed=0, workers=1)
    assert np.array_equal(first.images, scenes.images[:8]) and first.captions == scenes.captions[:8]
    (tmp_path / "scenes.npy").touch()
    assert np.array_equal(train.training_scenes(tmp_path, count=8, seed=0, workers=1).images, first.images)


def test_the_autoencoder_learns_and_its_latents_have_unit_variance(scenes, tmp_path):
    recipe = Recipe(steps=15, learning_rate=2e-3, batch_size=8, warmup=1)
    autoencoder = train.train_autoencoder(scenes, recipe, folder=tmp_path / "autoencoder")
    curve = curves(tmp_path)["loss"]
    assert np.mean(curve[-3:]) < 0.8 * np.mean(curve[:3])
    latents = train.encode(autoencoder, scenes.images).float() * autoencoder.config.scaling_factor
    assert latents.shape == (64, *model.LATENT_SHAPE) and latents.std().item() == pytest.approx(1.0, rel=0.02)


def test_the_generator_learns_and_loads_as_stable_diffusion(scenes, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.manual_seed(0)
    latents = torch.randn(64, *model.LATENT_SHAPE).half()
    recipe = Recipe(steps=10, learning_rate=1e-3, batch_size=8, warmup=1)
    tokenizer = model.build_tokenizer(scenes.captions)
    denoiser = train.train_generator(latents, scenes.captions, tokenizer, recipe, folder=tmp_path / "g")
    curve = curves(tmp_path)["loss"]
    assert np.mean(curve[-3:]) < np.mean(curve[:3])

    from diffusers import StableDiffusionPipeline

    pipeline = model.build_pipeline(model.build_autoencoder(), denoiser.text_encoder, tokenizer, denoiser.unet)
    model.save_pipeline(pipeline, tmp_path / "pipeline")
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    loaded.set_progress_bar_config(disable=True)
    assert loaded.tokenizer(scenes.captions[0]).input_ids == tokenizer(scenes.captions[0]).input_ids
    images = [
        loaded(
            scenes.captions[0], num_inference_steps=2, generator=torch.Generator().manual_seed(1), output_type="np"
        ).images[0]
        for _ in range(2)
    ]
    assert images[0].shape == (64, 64, 3) and np.array_equal(*images)


def test_every_word_of_the_captions_is_one_token(scenes):
    tokenizer = model.build_tokenizer(scenes.captions)
    longest = max(scenes.captions, key=lambda caption: len(caption.split()))
    assert tokenizer.tokenize(longest) == [f"{word}</w>" for word in longest.split()]
    assert len(tokenizer(longest).input_ids) <= model.MAX_TOKENS
    assert len(tokenizer.tokenize("zebra")) > 1


def test_the_bundled_autoencoder_restores_scenes_it_never_saw(tmp_path):
    from diffusers import AutoencoderKL

    autoencoder = AutoencoderKL.from_pretrained(WEIGHTS / "generator" / "vae", local_files_only=True)
    held_out = train.as_tensor(train.training_scenes(tmp_path, count=100, seed=999, workers=1).images)
    with torch.no_grad():
        restored = autoencoder.decode(autoencoder.encode(held_out).latent_dist.mean).sample.clamp(-1, 1)
    error = ((restored - held_out) / 2).square().mean(dim=(1, 2, 3))
    assert (-10 * torch.log10(error)).mean() > 29  # decibels; docs/decisions.md
