"""Twenty epochs of DDPO beside twenty of trl's trainer: on one noise the same curve, on other seeds the same learning.

The mini world's model draws latents of 4 x 4 in two noisy steps, and is tuned towards bright images: white is the best.
"""

from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch

from textnorm_lib.images.sampling import load_pipeline
from textnorm_lib.optimise.ddpo import Settings, train_ddpo
from textnorm_lib.optimise.denoising import draw_noise
from textnorm_lib.optimise.training import ATTENTION, add_lora

PROMPTS = ["a realistic photo of a deer", "a realistic photo of two frogs"]
LATENT = (4, 4, 4)
SEEDS = (0, 1, 2)
SAME = 1e-3  # of the reward, after twenty epochs in which rounding had time to grow
SETTINGS = {
    "epochs": 20,
    "images_per_epoch": 16,
    "batch_size": 16,
    "denoising_steps": 2,
    "guidance_scale": 2.0,
    "learning_rate": 2e-2,
    "dtype": "float32",
    "kl_every": 20,
    "save_every": 20,
}

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore"),  # deprecations inside trl and diffusers
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A folder with the pipeline. Its steps stay so noisy that none drowns the others' gradients."""
    from diffusers import DDIMScheduler

    pipeline, folder = load_pipeline("bundled:generator"), tmp_path_factory.mktemp("model")
    betas = {"num_train_timesteps": 4, "beta_start": 0.2, "beta_end": 0.6, "beta_schedule": "linear"}
    same = {name: pipeline.scheduler.config[name] for name in ("prediction_type", "clip_sample", "set_alpha_to_one")}
    pipeline.scheduler = DDIMScheduler(**betas, **same, steps_offset=1)
    pipeline.unet.register_to_config(sample_size=LATENT[-1])
    pipeline.save_pretrained(folder)
    return folder


class Brightness:
    """The reward, mean brightness in [0, 1]; what it was asked for."""

    def __init__(self) -> None:
        self.curve: list[float] = []
        self.seeds: list[list[int]] = []

    def __call__(self, images, prompts, metadata):
        values = images.mean(dim=(1, 2, 3))
        self.curve.append(values.mean().item())
        self.seeds.append([item.get("seed") for item in metadata])
        return values.tolist(), {}


def _adapted(model: Path, seed: int):
    pipeline = load_pipeline(str(model))
    add_lora(pipeline, rank=4, targets=ATTENTION, generator=torch.Generator().manual_seed(seed))
    return pipeline


@pytest.fixture(scope="module")
def ours(model, tmp_path_factory) -> list[Brightness]:
    """What a run of each seed showed."""
    rewards = [Brightness() for _ in SEEDS]
    for seed, reward in zip(SEEDS, rewards, strict=True):
        settings = Settings(**SETTINGS, seed=seed)
        train_ddpo(_adapted(model, seed), PROMPTS, reward, settings, folder=tmp_path_factory.mktemp("ours"))
    return rewards


def _trainer(model: Path, folder: Path, seed: int, reward: Brightness):
    """trl's, with the same settings."""
    from accelerate import PartialState
    from trl import DDPOConfig, DDPOTrainer, DefaultDDPOStableDiffusionPipeline

    PartialState()
    prompts = cycle(PROMPTS)
    config = DDPOConfig(
        seed=seed,
        mixed_precision="no",
        sample_num_steps=SETTINGS["denoising_steps"],
        sample_guidance_scale=SETTINGS["guidance_scale"],
        sample_batch_size=SETTINGS["batch_size"],
        sample_num_batches_per_epoch=1,
        train_batch_size=SETTINGS["batch_size"],
        train_learning_rate=SETTINGS["learning_rate"],
        per_prompt_stat_tracking=True,
        save_freq=SETTINGS["epochs"],
        project_kwargs={"project_dir": str(folder)},
    )
    pipeline = DefaultDDPOStableDiffusionPipeline(str(model))
    trainer = DDPOTrainer(config, reward, lambda: (next(prompts), {}), pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return trainer


def test_from_the_same_adapter_and_noise_all_twenty_epochs_are_trls(model, ours, tmp_path, monkeypatch):
    from trl.models import modeling_sd_base

    reward = Brightness()
    trainer = _trainer(model, tmp_path, SEEDS[0], reward)
    trainer.sd_pipeline.unet.load_state_dict(_adapted(model, SEEDS[0]).unet.state_dict())
    for epoch, seeds in enumerate(ours[0].seeds):
        noise = iter(draw_noise(seeds, SETTINGS["denoising_steps"], LATENT).unbind(dim=1))
        monkeypatch.setattr(trainer.sd_pipeline.sd_pipeline, "prepare_latents", lambda *_, noise=noise: next(noise))
        monkeypatch.setattr(modeling_sd_base, "randn_tensor", lambda *_, noise=noise, **__: next(noise))
        trainer.step(epoch, epoch)
    np.testing.assert_allclose(ours[0].curve, reward.curve, rtol=0, atol=SAME)
    between_seeds = np.std([run.curve for run in ours], axis=0, ddof=1)
    assert between_seeds.mean() > 20 * SAME  # so this says far more than that the curves are of one kind


def test_from_their_own_adapters_and_noise_both_learn_alike(model, ours, tmp_path):
    theirs = [Brightness() for _ in SEEDS]
    for seed, reward in zip(SEEDS, theirs, strict=True):
        trainer = _trainer(model, tmp_path, seed, reward)
        for epoch in range(SETTINGS["epochs"]):
            trainer.step(epoch, epoch)
    curves = np.array([[run.curve for run in runs] for runs in (ours, theirs)])  # whose, seed, epoch
    assert (curves[..., -5:].mean(axis=-1) > curves[..., 0] + 0.1).all()
    for means in (curves.mean(axis=-1), curves[..., -5:].mean(axis=-1)):
        spread = np.sqrt(means.var(axis=1, ddof=1).mean())
        assert abs(np.subtract(*means.mean(axis=1))) < 2 * spread
