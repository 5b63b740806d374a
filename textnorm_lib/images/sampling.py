"""From prompts to images: each image has a seed of its own, and a stopped run goes on at the batch it was in.

An image is a prompt and a seed. Its first noise comes from that seed alone, whichever others are made beside it. The
arithmetic of a batch may depend on its size in the last bits: batches are fixed by the list of images and never cut
anew when a run resumes, and on a CPU one thread computes each, in as many processes as asked for. So the images are the
same bit for bit, whatever the number of processes.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from textnorm_lib.study.errors import DataError, StudyError, shown
from textnorm_lib.study.processes import in_workers, launched, own_share
from textnorm_lib.study.progress import progress
from textnorm_lib.study.weights import Weights


def plan_images(prompts: Sequence[str], images_per_prompt: int, *, seed: int) -> pd.DataFrame:
    """One row per image: image (its file's name), prompt, seed. More images per prompt leave the first as they are."""
    rows = [
        (f"image_{number}_{index}.png", prompt, image_seed(prompt, index, seed=seed))
        for number, prompt in enumerate(prompts)
        for index in range(images_per_prompt)
    ]
    return pd.DataFrame(rows, columns=["image", "prompt", "seed"])


def image_seed(prompt: str, index: int, *, seed: int) -> int:
    """The seed of a prompt's image number ``index``, in [0, 2**32): the same in any list of prompts."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}/{prompt}".encode()).digest()[:4], "big")


def load_pipeline(model: str, *, revision: str | None = None, device: str = "cpu"):
    """The StableDiffusionPipeline that ``Weights(model, revision)`` names, in single precision, from safetensors only.

    Raises ``DataError``, one line, where there is none, it cannot be read or (bundled) a digest is wrong.
    """
    path = Weights(model, revision).path
    import diffusers.utils.logging
    import transformers.utils.logging
    from diffusers import StableDiffusionPipeline

    diffusers.utils.logging.disable_progress_bar()  # bars over five small files
    transformers.utils.logging.disable_progress_bar()
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(path, use_safetensors=True, local_files_only=True)
    except Exception as error:  # of a dozen kinds, by what is missing or damaged
        raise DataError(f"model {model!r} cannot be loaded ({shown(error, 200)}); restore the folder {path}") from error
    return pipeline.to(device)


def generate(
    pipeline,
    plan: pd.DataFrame,
    *,
    folder: Path,
    steps: int,
    guidance_scale: float,
    batch_size: int,
    dtype: str = "float32",
    workers: int = 1,
) -> Iterator[Path]:
    """Make the images of ``plan`` as PNG files in ``folder``, batch by batch, and give each file's path, in order.

    ``pipeline`` is a StableDiffusionPipeline, or ``Weights`` from which each of ``workers`` processes loads its own; on
    a GPU it is one process. ``dtype`` is the type of autocast; a CPU that can only emulate bfloat16, many times slower,
    computes in float32 instead. A batch whose files are all there is passed over; no image is half-written. Raises
    ``StudyError`` for what goes wrong in a batch. Of several processes that were launched together
    (``study/processes.py``) each makes its own batches, and gives their paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    batches = own_share([plan.iloc[start : start + batch_size] for start in range(0, len(plan), batch_size)])
    waiting = [not all((folder / name).exists() for name in batch["image"]) for batch in batches]
    tasks = [batch for batch, waits in zip(batches, waiting, strict=True) if waits]
    if isinstance(pipeline, Weights) and tasks:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        workers = 1 if device == "cuda" or launched() > 1 else min(workers, len(tasks))
        if workers == 1:
            pipeline = load_pipeline(pipeline.name, revision=pipeline.revision, device=device)
    elif workers > 1 and tasks:
        raise DataError(f"workers = {workers}: processes cannot share a loaded pipeline; give its Weights")
    settings = {"steps": steps, "guidance_scale": guidance_scale, "dtype": dtype}
    made = in_workers(partial(_make, pipeline, folder=folder, **settings), tasks, workers=workers)
    total = sum(map(len, tasks))
    new = iter(progress(chain.from_iterable(made), "images", total=total, unit="images"))
    for batch, waits in zip(batches, waiting, strict=True):
        for name in batch["image"]:
            yield next(new) if waits else folder / name


def _make(pipeline, batch: pd.DataFrame, *, folder: Path, steps: int, guidance_scale: float, dtype: str) -> list[Path]:
    """Make the images of one batch; the files' paths."""
    if isinstance(pipeline, Weights):
        pipeline = _loaded(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    try:
        with autocast(pipeline.device.type, dtype):
            made = pipeline(
                batch["prompt"].tolist(),
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                generator=[torch.Generator().manual_seed(seed) for seed in batch["seed"].tolist()],
                output_type="np",
            ).images
    except Exception as error:
        first, last = batch["image"].iloc[[0, -1]]
        raise StudyError(
            f"images {first} to {last}: {type(error).__name__}: {shown(error, 200)}; "
            "finished batches are kept: mend it and run again"
        ) from error
    for name, image in zip(batch["image"], made, strict=True):
        if not np.isfinite(image).all():
            raise StudyError(
                f"{name}: not a number where pixels should be, a black image if it were kept: in {dtype} an attention "
                "overflowed, as SD v2.1's does at 768 pixels; set generator.dtype to bfloat16 or float32 and run again"
            )
    paths = [folder / name for name in batch["image"]]
    for path, image in zip(paths, made, strict=True):
        _save(path, image)
    return paths


def autocast(device: str, dtype: str) -> AbstractContextManager:
    """Arithmetic in ``dtype`` within it; single precision on a CPU that would only emulate bfloat16."""
    emulated = device == "cpu" and dtype == "bfloat16" and not _has_bfloat16()
    return nullcontext() if dtype == "float32" or emulated else torch.autocast(device, getattr(torch, dtype))


def _has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 itself; where it does not, torch takes four times as long as in float32."""
    can = torch.cpu.get_capabilities()
    return any(can.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))  # x86, x86, Arm


@lru_cache(maxsize=1)
def _loaded(weights: Weights):
    """A worker's own pipeline, loaded for its first batch."""
    return load_pipeline(weights.name, revision=weights.revision)


def _save(path: Path, image: np.ndarray) -> None:
    """Write a float image (h, w, 3) in [0, 1] whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        Image.fromarray((image * 255).round().astype(np.uint8)).save(partial, "PNG")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
