"""RWR by our loop and by a plain one that encodes in each step, each for a process of its own."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.finetuning_sides import PROMPTS, Tuned, Work, adapted, begun, trained
from benchmarks.score_matrix import random_images
from benchmarks.side_by_side import Spent
from textnorm_lib.images.pixels import square
from textnorm_lib.images.sampling import autocast, load_pipeline
from textnorm_lib.optimise import rwr
from textnorm_lib.optimise.rwr import choose_examples, encode_examples

BEST = 4  # images a prompt that is trained on


def rwr_ours(work: Work, folder: Path, *, counting: bool = False) -> Tuned:
    spent, pipeline, settings = begun(work, counting=counting), adapted(work), _rwr_settings(work)
    first, chosen, encoding = _adapter(pipeline), _chosen(folder, settings), Spent(work.device)
    with encoding.timed(len(chosen)):
        examples = encode_examples(pipeline, chosen, folder=folder)
    spent.before = encoding.seconds
    with tempfile.TemporaryDirectory() as run:
        rwr.train_rwr(pipeline, examples, settings, folder=Path(run))
        with spent.training(pipeline.unet, work.count):
            rwr.train_rwr(pipeline, examples, replace(settings, steps=1 + work.count), folder=Path(run))
    spent.change = _adapter(pipeline) - first
    return spent


def rwr_loop(work: Work, folder: Path) -> Tuned:
    """As diffusers' script, the frozen weights are in the type of autocast."""
    spent, pipeline = begun(work), adapted(work, getattr(torch, work.dtype))
    settings, first = _rwr_settings(work), _adapter(pipeline)
    optimiser = torch.optim.AdamW(trained(pipeline), settings.learning_rate)
    chosen = _chosen(folder, settings)
    _loop_step(pipeline, optimiser, chosen, folder, settings, 0)
    with spent.training(pipeline.unet, work.count):
        for step in range(1, 1 + work.count):
            _loop_step(pipeline, optimiser, chosen, folder, settings, step)
    spent.change = _adapter(pipeline) - first
    return spent


def _loop_step(pipeline, optimiser, chosen: pd.DataFrame, folder: Path, settings: rwr.Settings, step: int) -> None:
    """Latents are the means of the autoencoder's posterior, as ours, where the script draws from it."""
    vae, scheduler, size, device = pipeline.vae, pipeline.scheduler, settings.batch_size, pipeline.device
    generator = torch.Generator().manual_seed(
        settings.seed * 1_000_003 + step
    )  # as in optimise/rwr.py, to draw the same
    rows = chosen.iloc[torch.randint(len(chosen), (size,), generator=generator).tolist()]
    pixels = torch.from_numpy(np.stack([square(folder / name, _side(pipeline), name) for name in rows["image"]]))
    tokens = pipeline.tokenizer(rows["prompt"].tolist(), padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        scaled = pixels.permute(0, 3, 1, 2).to(device, vae.dtype) / 127.5 - 1
        latents = vae.encode(scaled).latent_dist.mean.float() * vae.config.scaling_factor
        texts = pipeline.text_encoder(tokens.input_ids.to(device))[0]
    times = torch.randint(scheduler.config.num_train_timesteps, (size,), generator=generator).to(device)
    noise = torch.randn(latents.shape, generator=generator).to(device)
    velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, times) if velocity else noise
    with autocast(device.type, settings.dtype):
        predicted = pipeline.unet(scheduler.add_noise(latents, noise, times), times, texts).sample
    errors = (predicted.float() - target).square().mean(dim=(1, 2, 3))
    (torch.tensor(rows["weight"].to_numpy(), dtype=torch.float32, device=device) * errors).mean().backward()
    torch.nn.utils.clip_grad_norm_(trained(pipeline), settings.max_gradient_norm)
    optimiser.step()
    optimiser.zero_grad()


def write_images(model: str, folder: Path) -> None:
    """The images that RWR trains on, of the size that the model makes."""
    side = _side(load_pipeline(model))
    for name, image in zip(_names(), random_images(len(_names())), strict=True):
        image.resize((side, side)).save(folder / name)


def _side(pipeline) -> int:
    return pipeline.unet.config.sample_size * pipeline.vae_scale_factor


def _chosen(folder: Path, settings: rwr.Settings) -> pd.DataFrame:
    rewards = np.random.default_rng(0).normal(size=len(_names()))
    images = pd.DataFrame({"prompt": np.repeat(PROMPTS, BEST), "image": _names(), "reward": rewards})
    return choose_examples(images, reward="reward", settings=settings)


def _names() -> list[str]:
    return [f"{number}.png" for number in range(len(PROMPTS) * BEST)]


def _rwr_settings(work: Work) -> rwr.Settings:
    """The paper's, but for what the work says."""
    return rwr.Settings(
        images_per_prompt=BEST, best=BEST, steps=1, batch_size=work.batch_size, dtype=work.dtype, save_every=10**6
    )


def _adapter(pipeline) -> np.ndarray:
    return torch.cat([value.detach().flatten() for value in trained(pipeline)]).cpu().numpy()
