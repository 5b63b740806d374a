"""What the checkpoints of tuned models make, beside the base and from the same noise, and how far they are from it.

images = run.step(sample_checkpoints, prompts, trained, model, checkpoints=[50, 100], ...)
run.step(join_models, judged, images)                                # a row an image, with the model that made it
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from textnorm_lib.denoising import ddim_steps, draw_noise, sample
from textnorm_lib.errors import ConfigError, DataError
from textnorm_lib.finetuning import Run
from textnorm_lib.lora import load_lora
from textnorm_lib.names import BASE
from textnorm_lib.processes import in_workers, wait_for_all
from textnorm_lib.progress import progress, watch
from textnorm_lib.sampling import autocast, generate, load_pipeline, plan_images
from textnorm_lib.store import step
from textnorm_lib.tia2.labels import INDEX
from textnorm_lib.weights import Weights

MODEL = ["tuned_on", "beta", "run", "checkpoint"]


class Model(NamedTuple):
    """A checkpoint of a run, or the base: what it was tuned on, how, for how long, and the folder of its adapter."""

    tuned_on: str
    beta: float
    run: int
    checkpoint: int
    adapter: Path | None

    @property
    def place(self) -> Path:
        """The folder of its images, below that of all."""
        return Path(self.adapter.parent.name, self.adapter.name) if self.adapter else Path(BASE)


def all_models(trained: Path, checkpoints: Sequence[int]) -> list[Model]:
    """The base, and each of ``checkpoints`` of each run in ``trained``. ``DataError`` for one that is not there."""
    models = [Model(BASE, 0.0, 0, 0, None)]
    folders = sorted(path for path in trained.iterdir() if path.is_dir())
    for folder, checkpoint in product(folders, checkpoints):
        run, adapter = Run.named(folder.name), folder / f"checkpoint_{checkpoint:05}"
        if not adapter.is_dir():
            raise DataError(f"{adapter} is not there: train longer, or name checkpoints that were saved")
        models.append(Model(run.reward, run.beta, run.number, checkpoint, adapter))
    return models


@step(1, unkeyed=("workers",), shared=True)
def sample_checkpoints(
    prompts: pd.DataFrame,
    trained: Path,
    model: Weights,
    *,
    checkpoints: Sequence[int],
    images_per_prompt: int,
    steps: int,
    guidance_scale: float,
    batch_size: int,
    dtype: str,
    seed: int,
    workers: int,
    folder: Path,
) -> dict[str, int]:
    """Images of ``prompts`` (set, prompt) by every model, each from the same noises, and their index.

    The index: tuned_on ("base" or a reward), beta, run, checkpoint, set, image, prompt, seed. A run that was stopped
    goes on at the batch it was in.
    """
    plan = plan_images(prompts["prompt"].tolist(), images_per_prompt, seed=seed)
    plan.insert(0, "set", np.repeat(prompts["set"].to_numpy(), images_per_prompt))
    models = all_models(trained, checkpoints)
    options = {"steps": steps, "guidance_scale": guidance_scale, "batch_size": batch_size, "dtype": dtype}
    work = partial(_make, plan=plan, weights=model, folder=folder, options=options)
    total = len(models) * len(plan)

    def made() -> int:
        return sum(1 for _ in folder.rglob("image_*.png"))

    with watch(made, f"images of {len(models)} models", total=total, unit="images"):
        for _ in in_workers(work, models, workers=_workers(workers)):
            pass
    wait_for_all()
    index = pd.concat([_index(one, plan) for one in models], ignore_index=True)
    index.to_parquet(folder / INDEX, index=False)
    return {"models": len(models), "images": total}


def _workers(workers: int) -> int:
    return 1 if torch.cuda.is_available() else workers


def _index(model: Model, plan: pd.DataFrame) -> pd.DataFrame:
    names = [(model.place / name).as_posix() for name in plan["image"]]
    return plan.assign(image=names, **_who(model))


def _who(model: Model) -> dict:
    return dict(zip(MODEL, model[:-1], strict=True))


def _make(model: Model, *, plan: pd.DataFrame, weights: Weights, folder: Path, options: dict) -> None:
    pipeline = _with_adapter(weights, model.adapter)
    for _ in generate(pipeline, plan, folder=folder / model.place, **options):
        pass


@lru_cache(maxsize=2)
def _pipeline(weights: Weights, trained: Path | None):
    """A process loads the base once, and once for the adapters in ``trained``, which are alike and set each anew."""
    return load_pipeline(weights.name, revision=weights.revision, device="cuda" if torch.cuda.is_available() else "cpu")


def _with_adapter(weights: Weights, adapter: Path | None):
    pipeline = _pipeline(weights, adapter.parent.parent if adapter else None)
    if adapter:
        load_lora(pipeline, adapter)
    return pipeline


@step(2, unkeyed=("workers",))
def measure_divergences(
    prompts: pd.DataFrame,
    trained: Path,
    model: Weights,
    *,
    checkpoints: Sequence[int],
    paths: int,
    steps: int,
    left_out: int,
    guidance_scale: float,
    batch_size: int,
    dtype: str,
    seed: int,
    workers: int,
) -> pd.DataFrame:
    """How far each tuned model is from the base: tuned_on, beta, run, checkpoint, set, prompt, kl (nats an image).

    The exact divergence of the denoising steps (``denoising.py``; DDIM with eta = 1 in ``steps`` steps), summed along
    the tuned model's own paths and averaged over those of a prompt: ``paths`` in all, at least one per prompt. The last
    ``left_out`` steps do not count: their standard deviations are so small that they would be nearly all of the sum,
    whatever they change. Raises ``ConfigError`` where none is left.
    """
    if not 0 <= left_out < steps:
        raise ConfigError(f"left_out is {left_out} of {steps} steps: some have to count")
    models = all_models(trained, checkpoints)[1:]
    plan = plan_images(prompts["prompt"].tolist(), -(-paths // len(prompts)), seed=seed)
    options = {"steps": steps, "left_out": left_out, "scale": guidance_scale, "batch_size": batch_size, "dtype": dtype}
    found = in_workers(partial(_divergences, weights=model, plan=plan, **options), models, workers=_workers(workers))
    found = progress(found, "divergences", total=len(models), unit="models")
    tables = [prompts.assign(**_who(one), kl=nats) for one, nats in zip(models, found, strict=True)]
    return pd.concat(tables, ignore_index=True)[[*MODEL, "set", "prompt", "kl"]]


@torch.no_grad()
def _divergences(
    model: Model,
    *,
    weights: Weights,
    plan: pd.DataFrame,
    steps: int,
    left_out: int,
    scale: float,
    batch_size: int,
    dtype: str,
) -> np.ndarray:
    """The mean of each prompt of ``plan``, in its order."""
    pipeline = _with_adapter(weights, model.adapter)
    device, unet = pipeline.device, pipeline.unet
    path, (rows, prompts) = ddim_steps(pipeline.scheduler, steps, device=device), pd.factorize(plan["prompt"])
    texts, empties = pipeline.encode_prompt(prompts.tolist(), device, 1, True)
    shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    nats = []
    for start in range(0, len(plan), batch_size):
        here = slice(start, start + batch_size)
        noise = draw_noise(plan["seed"][here].tolist(), steps, shape).to(device)
        with autocast(device.type, dtype):
            made = sample(unet, path, texts[rows[here]], empties[:1], noise, scale=scale, with_base=True)
        nats += (made.kl[:, : steps - left_out].double().sum(dim=1) * noise[0, 0].numel()).tolist()
    return pd.Series(nats).groupby(rows).mean().to_numpy()


@step(1)
def join_models(judged: pd.DataFrame, made: Path) -> pd.DataFrame:
    """``judged`` (``pool.join_judges``) with the columns of the index: tuned_on, beta, run, checkpoint, seed."""
    index = pd.read_parquet(made / INDEX)[["image", *MODEL, "seed"]]
    return judged.merge(index, on="image", how="left", validate="1:1")
