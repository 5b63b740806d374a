"""Versions of one scene whose order of quality is known: spoilt by degrees, or generated in more and in fewer steps.

Severity 0 is the scene through the autoencoder (and, where the generator mends, what it makes of that); at 1 its
objects are hard to make out. Of two versions of one kind the more severe one continues what the other began (the same
noise, the same pieces), so that it is worse and not just different. Kinds in the latent are made once and kept on disk,
kinds in pixels are drawn anew in each training step, and of generated images the order of severity alone is known, not
the severity.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from textnorm_lib.mini.generator import LATENT_SHAPE, as_tensor
from textnorm_lib.mini.spoil import CELL, IMAGE, denoised, warped, written_once
from textnorm_lib.mini.train import Scenes

MOST_NOISE = 0.7  # on the latent at severity 1, in units of its own spread
MOST_SWAPS = 12  # pieces of an object that change places
MOST_MIXED = 0.5  # share of the image that another scene takes
LATEST_TIME = 800  # of 1,000, from which unfinished versions are denoised in one step
MENDING_TIMES, MENDING_STEPS = (100, 350), 3  # what is broken or mixed is smoothed by the generator
MOST_BLUR = 2.0  # pixels, the standard deviation
MOST_WARP = 0.12  # in units of half the image
MOST_GRAIN = 0.2  # the standard deviation, of pixels in [-1, 1]
STEPS = (8, 5, 3, 2)  # in which images are generated, from the best to the worst
GUIDANCE = (1.0, 4.0)  # between these


@torch.no_grad()
def spoilt(
    kind: str,
    scenes: Scenes,
    severities: np.ndarray,
    pipeline,
    path: Path,
    *,
    seed: int,
    batch_size: int = 64,
) -> np.ndarray:
    """Scenes spoilt in the latent, scene i with ``severities[i]``: uint8 (n, 64, 64, 3), kept at ``path``."""
    autoencoder = pipeline.vae
    scale = autoencoder.config.scaling_factor

    def spoil(batch: np.ndarray, start: int, generator: torch.Generator) -> torch.Tensor:
        latents = autoencoder.encode(as_tensor(batch).to(autoencoder.device)).latent_dist.mean.float().cpu() * scale
        where = slice(start, start + len(batch))
        severity = torch.from_numpy(severities[where]).float()
        latents = LATENT_KINDS[kind](latents, severity, scenes.objects[where], generator)
        times = _times(kind, severity, generator)
        if times is not None:
            noisy = pipeline.scheduler.add_noise(latents, torch.randn(latents.shape, generator=generator), times[0])
            latents = denoised(pipeline, noisy.to(autoencoder.device), times, scenes.captions[where])
        return autoencoder.decode(latents.to(autoencoder.device) / scale).sample

    device = autoencoder.device.type
    return written_once(scenes.images, spoil, path, device=device, seed=seed, batch_size=batch_size)


def _times(kind: str, severity: torch.Tensor, generator: torch.Generator) -> torch.Tensor | None:
    """Between which times the generator denoises: (steps + 1, n, 1, 1, 1)."""
    if kind == "noise":
        return None
    if kind == "unfinished":
        latest, steps = severity.sqrt() * LATEST_TIME, 1
    else:
        low, high = MENDING_TIMES
        latest, steps = (low + (high - low) * torch.rand((), generator=generator)).expand(len(severity)), MENDING_STEPS
    shares = torch.linspace(1, 0, steps + 1)[:, None]
    return (shares * latest).long()[..., None, None, None]


def _noise(
    latents: torch.Tensor, severity: torch.Tensor, objects: np.ndarray, generator: torch.Generator
) -> torch.Tensor:
    """White noise."""
    return latents + MOST_NOISE * severity.view(-1, 1, 1, 1) * torch.randn(latents.shape, generator=generator)


def _broken(
    latents: torch.Tensor, severity: torch.Tensor, objects: np.ndarray, generator: torch.Generator
) -> torch.Tensor:
    """Square pieces of objects change places, one pair after the other."""
    latents = latents.clone()
    grid = latents.shape[-1]
    for latent, swaps, own in zip(latents, (severity * MOST_SWAPS).round().int().tolist(), objects, strict=True):
        own = own[own[:, 0] >= 0]
        drawn = torch.rand(MOST_SWAPS, 6, generator=generator).tolist()
        for which, size, *corners in drawn[:swaps]:
            box = own[int(which * len(own)), 1:5] / CELL
            side = 2 + int(size * 2)
            low, high = np.floor(box[:2]), np.maximum(np.ceil(box[2:]) - side, np.floor(box[:2]))
            places = (low + np.array(corners).reshape(2, 2) * (high - low)).round().clip(0, grid - side).astype(int)
            (x0, y0), (x1, y1) = places.tolist()
            first, second = (latent[:, y : y + side, x : x + side].clone() for x, y in places.tolist())
            latent[:, y0 : y0 + side, x0 : x0 + side] = second.flip(-1)
            latent[:, y1 : y1 + side, x1 : x1 + side] = first.flip(-1)
    return latents


def _mixed(
    latents: torch.Tensor, severity: torch.Tensor, objects: np.ndarray, generator: torch.Generator
) -> torch.Tensor:
    """Parts of the scene before it in the batch, their outlines soft: halves of objects, and blends of two."""
    field = torch.rand(len(latents), 1, 6, 6, generator=generator)
    field = F.interpolate(field, size=latents.shape[-2:], mode="bicubic", align_corners=True)
    ranks = field.flatten(1).argsort(dim=1).argsort(dim=1).view_as(field) / field[0].numel()
    share = MOST_MIXED * severity.view(-1, 1, 1, 1)
    return torch.lerp(latents, latents.roll(1, dims=0), ((share - ranks) * 20).sigmoid() * (share > 0))


def _unfinished(
    latents: torch.Tensor, severity: torch.Tensor, objects: np.ndarray, generator: torch.Generator
) -> torch.Tensor:
    """Nothing of its own: noised to a later time before it is denoised."""
    return latents


LATENT_KINDS: dict[str, Callable[..., torch.Tensor]] = {
    "noise": _noise,
    "broken": _broken,
    "mixed": _mixed,
    "unfinished": _unfinished,
}


@torch.no_grad()
def generated(captions: list[str], pipeline, path: Path, *, steps: int, seed: int, batch_size: int = 64) -> np.ndarray:
    """An image of each caption in so many steps: uint8 (n, 64, 64, 3), kept at ``path``.

    First noise and guidance depend on ``seed`` and the caption's place, not on ``steps``.
    """
    pipeline.set_progress_bar_config(disable=True)

    def make(batch: np.ndarray, start: int, generator: torch.Generator) -> torch.Tensor:
        low, high = GUIDANCE
        guidance = low + (high - low) * torch.rand((), generator=generator).item()
        noise = torch.randn(len(batch), *LATENT_SHAPE, generator=generator)
        made = pipeline(
            captions[start : start + len(batch)],
            latents=noise,
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="pt",
        )
        return made.images * 2 - 1

    images = np.zeros((len(captions), IMAGE, IMAGE, 3), dtype=np.uint8)
    return written_once(images, make, path, device=pipeline.device.type, seed=seed, batch_size=batch_size)


def spoil_pixels(kind: str, images: torch.Tensor, severities: torch.Tensor, *, seed: int) -> torch.Tensor:
    """Versions (n, 3, 64, 64) in [-1, 1] of images, image i with ``severities[i]``; with the same noise."""
    generator = torch.Generator().manual_seed(seed)
    return PIXEL_KINDS[kind](images, severities.view(-1, 1, 1, 1), generator).clamp(-1, 1)


def _blur(images: torch.Tensor, severity: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    reach = torch.arange(-5, 6)
    kernel = torch.exp(-reach.square() / (2 * (MOST_BLUR * severity).clamp(min=1e-3).square()))
    kernel = (kernel / kernel.sum(dim=-1, keepdim=True)).repeat_interleave(3, dim=0)  # (3 n, 1, 1, 11)
    flat = F.pad(images, (5, 5, 5, 5), mode="replicate").flatten(0, 1)[None]
    flat = F.conv2d(F.conv2d(flat, kernel, groups=len(kernel)), kernel.transpose(2, 3), groups=len(kernel))
    return flat[0].view_as(images)


def _warp(images: torch.Tensor, severity: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    offsets = (torch.rand(1, 2, 12, 12, generator=generator) * 2 - 1) * severity * MOST_WARP
    return warped(images, offsets)


def _grain(images: torch.Tensor, severity: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return images + MOST_GRAIN * severity * torch.randn(1, *images.shape[1:], generator=generator)


PIXEL_KINDS: dict[str, Callable[..., torch.Tensor]] = {"blur": _blur, "warp": _warp, "grain": _grain}
KINDS = (*LATENT_KINDS, *PIXEL_KINDS)
