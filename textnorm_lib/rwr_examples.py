"""What reward-weighted regression trains on: the best images of each prompt, weighted, as latents (``rwr.py``)."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from textnorm_lib.best_of_n import choose_best
from textnorm_lib.errors import DataError
from textnorm_lib.progress import progress
from textnorm_lib.rewards.pixels import square
from textnorm_lib.settings import RwrSettings

MOST_CENTRED = 3.0  # one odd image must not be the whole update
_ENCODED_AT_ONCE = 8  # images of 768 pixels take a gigabyte


class Examples(NamedTuple):
    """What is trained on: n latents (n, c, h, w), scaled as the U-Net reads them, each with a weight and a prompt."""

    latents: torch.Tensor
    weights: torch.Tensor  # (n,), 1 on average over each prompt's, or 0 if they are centred
    prompt: torch.Tensor  # (n,), the row of ``texts``
    texts: torch.Tensor  # (prompts, tokens, width)
    empty_text: torch.Tensor  # (1, tokens, width)


def weights_of(rewards: np.ndarray, best: np.ndarray, weighting: str) -> np.ndarray:
    """The weights of one prompt's ``best`` images, which sum to their number; ``rewards`` (n,): of all its images.

    "reward": in proportion to how far the reward lies above the lowest of the n, whatever its origin and unit;
    "rank": in proportion to k, k - 1, ..., 1 from the best down; "equal": 1, only the choice counts.
    And "centred", which sum to about 0: by how many standard deviations a reward lies above the prompt's mean, at most
    ``MOST_CENTRED`` either way.
    """
    alike = np.ptp(rewards) == 0  # whatever rounding makes of their mean and deviation
    if weighting == "centred":
        weights = np.zeros(len(best)) if alike else (rewards[best] - rewards.mean()) / rewards.std()
        return weights.clip(-MOST_CENTRED, MOST_CENTRED)
    weights = np.ones(len(best))
    if weighting == "rank":
        weights = np.arange(len(best), 0, -1.0)
    elif weighting == "reward" and not alike:
        weights = rewards[best] - rewards.min()
    return weights / weights.mean()


def choose_examples(images: pd.DataFrame, *, reward: str, settings: RwrSettings) -> pd.DataFrame:
    """Each prompt's best images by ``reward``, best first, with their weights: prompt, image, reward, weight.

    With "centred" weights its worst images follow, as many.

    ``images``: prompt, image (its file's name) and the column ``reward``, with as many rows a prompt as ``settings``
    say. Raises ``DataError`` for a column or images that are missing, and a reward that is no finite number.
    """
    if missing := [name for name in ("prompt", "image", reward) if name not in images]:
        raise DataError(f"images: column {missing[0]!r} is missing; prompt, image and {reward} are needed")
    if images.empty:
        raise DataError("images has no rows; give the images of each prompt")
    chosen = []
    for prompt, group in images.groupby("prompt", sort=False, dropna=False):
        if len(group) != settings.images_per_prompt:
            raise DataError(f"prompt {prompt!r} has {len(group)} images, not {settings.images_per_prompt}; make them")
        rewards = group[reward].to_numpy(float)
        if (wrong := np.flatnonzero(~np.isfinite(rewards))).size:
            image = group["image"].iloc[wrong[0]]
            raise DataError(f"{reward} is {rewards[wrong[0]]} for {image} ({prompt}); a finite number is needed")
        ranking = choose_best(rewards, len(rewards), len(rewards))
        worst = ranking[len(ranking) - settings.best :] if settings.weighting == "centred" else ranking[:0]
        best = np.concatenate([ranking[: settings.best], worst])
        weights = weights_of(rewards, best, settings.weighting)
        names = group["image"].to_numpy()[best]
        chosen.append(pd.DataFrame({"prompt": prompt, "image": names, "reward": rewards[best], "weight": weights}))
    return pd.concat(chosen, ignore_index=True)


@torch.no_grad()
def encode_examples(pipeline, chosen: pd.DataFrame, *, folder: Path) -> Examples:
    """The images of ``choose_examples``, which lie in ``folder``, as latents (means of the autoencoder's posterior).

    In single precision on the CPU, wherever the pipeline is. Raises ``DataError`` for an image that cannot be read.
    """
    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    vae, latents = pipeline.vae, []
    starts = range(0, len(chosen), _ENCODED_AT_ONCE)
    for start in progress(starts, "latents", unit="batch"):
        names = chosen["image"].iloc[start : start + _ENCODED_AT_ONCE]
        pixels = torch.from_numpy(np.stack([square(folder / name, size, f"image {name}") for name in names]))
        scaled = pixels.permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
        latents.append(vae.encode(scaled).latent_dist.mean.float().cpu() * vae.config.scaling_factor)
    rows, prompts = pd.factorize(chosen["prompt"])
    texts, empties = pipeline.encode_prompt(prompts.tolist(), pipeline.device, 1, True)
    weights = torch.from_numpy(chosen["weight"].to_numpy(np.float32, copy=True))
    return Examples(torch.cat(latents), weights, torch.from_numpy(rows), texts.float().cpu(), empties[:1].float().cpu())
