"""From prompts to images: each image has a seed of its own, and a stopped run goes on at the batch it was in.

An image is a prompt and a seed. Its first noise comes from that seed alone, so that an image does not depend on which
others are made beside it. The arithmetic of a batch may depend on its size in the last bits: batches are fixed by the
list of images and never cut anew when a run resumes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from textnorm_lib.progress import progress


def plan_images(prompts: Sequence[str], images_per_prompt: int, *, seed: int) -> pd.DataFrame:
    """One row an image: image (its file's name), prompt, seed. With more images a prompt the first stay as they are."""
    rows = [
        (f"image_{number}_{index}.png", prompt, image_seed(prompt, index, seed=seed))
        for number, prompt in enumerate(prompts)
        for index in range(images_per_prompt)
    ]
    return pd.DataFrame(rows, columns=["image", "prompt", "seed"])


def image_seed(prompt: str, index: int, *, seed: int) -> int:
    """The seed of a prompt's image number ``index``, in [0, 2**32): the same in any list of prompts."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}/{prompt}".encode()).digest()[:4], "big")


def generate(
    pipeline, plan: pd.DataFrame, *, folder: Path, steps: int, guidance_scale: float, batch_size: int
) -> Iterator[Path]:
    """Make the images of ``plan`` as PNG files in ``folder``, batch by batch, and give each file's path.

    ``pipeline`` is a StableDiffusionPipeline. A batch whose files are all there is passed over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pipeline.set_progress_bar_config(disable=True)
    starts = range(0, len(plan), batch_size)
    for start in progress(starts, "images", unit="batch"):
        batch = plan.iloc[start : start + batch_size]
        paths = [folder / name for name in batch["image"]]
        if not all(path.exists() for path in paths):
            generators = [torch.Generator().manual_seed(seed) for seed in batch["seed"].tolist()]
            made = pipeline(
                batch["prompt"].tolist(),
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                generator=generators,
                output_type="np",
            ).images
            for path, image in zip(paths, made, strict=True):
                _save(path, image)
        yield from paths


def _save(path: Path, image: np.ndarray) -> None:
    """Write a float image (h, w, 3) in [0, 1] whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    Image.fromarray((image * 255).round().astype(np.uint8)).save(partial, "PNG")
    partial.replace(path)
