"""How the mini world's models are trained: one function a stage, on scenes that are drawn once.

    scenes = training_scenes(folder, count=60_000, seed=0)
    autoencoder = train_autoencoder(scenes, AUTOENCODER, folder=folder / "autoencoder")
    ...

Every stage goes on where it was stopped (``fit.py``); its result is a pure function of the scenes, the recipe and the
machine's arithmetic. All stages run on one device, in bf16 autocast.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from textnorm_lib.mini import generator as model
from textnorm_lib.mini.fit import Recipe, fit
from textnorm_lib.mini.grammar import write
from textnorm_lib.mini.prompts import sample_spec
from textnorm_lib.mini.scenes import render_many
from textnorm_lib.progress import progress

AUTOENCODER = Recipe(steps=10_000, learning_rate=1e-3)
GENERATOR = Recipe(steps=12_000, learning_rate=8e-4, warmup=500)
CAPTION_DROPOUT = 0.1  # share of captions that are emptied, for classifier-free guidance
SNR_CAP = 5.0  # Hang et al. 2023: noise levels that are easy do not drown the others


@dataclass(frozen=True)
class Scenes:
    """Training scenes: ``images`` uint8 (n, 64, 64, 3), memory-mapped, and one caption each."""

    images: np.ndarray
    captions: list[str]


def training_scenes(folder: Path, *, count: int, seed: int, workers: int = 2) -> Scenes:
    """Draw ``count`` scenes of the training mix once, or read them back."""
    images, captions = folder / "scenes.npy", folder / "captions.json"
    if not captions.exists():
        folder.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(seed)
        specs = [sample_spec(generator) for _ in range(count)]
        size = model.IMAGE_SIZE
        pixels = np.lib.format.open_memmap(images, "w+", dtype=np.uint8, shape=(count, size, size, 3))
        for index, scene in enumerate(render_many(specs, seed, workers=workers)):
            pixels[index] = scene.image
        pixels.flush()
        captions.write_text(json.dumps([write(spec) for spec in specs]))
    return Scenes(np.load(images, mmap_mode="r"), json.loads(captions.read_text()))


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_autoencoder(scenes: Scenes, recipe: Recipe, *, folder: Path, batch_size: int = 8, device: str = "cpu"):
    """An autoencoder that keeps colours (L1), outlines (L1 of differences between neighbours) and a tame latent (KL).

    Its ``scaling_factor`` is set so that latents have unit variance, as Stable Diffusion's.
    """
    autoencoder = model.build_autoencoder().to(device)

    def loss_function(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(scenes.images), (batch_size,), generator=generator)
        images = as_tensor(scenes.images[chosen.numpy()]).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            posterior = autoencoder.encode(images).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            restored = autoencoder.decode(posterior.mean + posterior.std * noise).sample
        error = restored.float() - images
        outlines = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        return error.abs().mean() + 0.5 * outlines + 1e-5 * posterior.kl().mean()

    fit(autoencoder, loss_function, recipe, folder=folder, description="autoencoder")
    sample = encode(autoencoder, scenes.images[:2048], device=device)
    autoencoder.register_to_config(scaling_factor=round(1 / sample.std().item(), 5))
    return autoencoder


@torch.no_grad()
def encode(autoencoder, images: np.ndarray, *, batch_size: int = 64, device: str = "cpu") -> torch.Tensor:
    """Mean latents, unscaled, in half precision: (n, 4, 16, 16)."""
    autoencoder.eval()
    latents = []
    for start in progress(range(0, len(images), batch_size), "latents", unit="batch"):
        batch = as_tensor(images[start : start + batch_size]).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            latents.append(autoencoder.encode(batch).latent_dist.mean.half().cpu())
    return torch.cat(latents)


class Denoiser(nn.Module):
    """The text encoder and the U-Net, which learn together."""

    def __init__(self, text_encoder: nn.Module, unet: nn.Module) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    def forward(self, latents: torch.Tensor, times: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.unet(latents, times, self.text_encoder(tokens).last_hidden_state).sample


def train_generator(
    latents: torch.Tensor,
    captions: list[str],
    recipe: Recipe,
    *,
    folder: Path,
    batch_size: int = 32,
    device: str = "cpu",
) -> tuple[Denoiser, object]:
    """Text encoder and U-Net on scaled ``latents`` (n, 4, 16, 16): velocity, weighted by min(SNR, 5) / (SNR + 1)."""
    tokenizer = model.build_tokenizer(sorted(set(captions)))
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    empty = tokenizer("", padding="max_length", return_tensors="pt").input_ids[0]
    denoiser = Denoiser(model.build_text_encoder(len(tokenizer)), model.build_unet()).to(device)
    scheduler = model.build_scheduler()
    alphas = scheduler.alphas_cumprod
    signal_to_noise = alphas / (1 - alphas)
    weights = signal_to_noise.clamp(max=SNR_CAP) / (signal_to_noise + 1)

    def loss_function(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(latents), (batch_size,), generator=generator)
        clean = latents[chosen].float()
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(len(alphas), (batch_size,), generator=generator)
        dropped = torch.rand(batch_size, 1, generator=generator) < CAPTION_DROPOUT
        given = torch.where(dropped, empty, tokens[chosen])
        noisy = scheduler.add_noise(clean, noise, times).to(device)
        velocity = scheduler.get_velocity(clean, noise, times).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            predicted = denoiser(noisy, times.to(device), given.to(device))
        errors = (predicted.float() - velocity).square().mean(dim=(1, 2, 3))
        return (weights[times].to(device) * errors).mean() / weights.mean()

    fit(denoiser, loss_function, recipe, folder=folder, description="generator")
    return denoiser, tokenizer
