"""How fast a model makes images, beside diffusers' StableDiffusionPipeline as its documentation shows it.

    python -m benchmarks.sampling                                                # the bundled generator, on a CPU
    python -m benchmarks.sampling --model FOLDER --dtypes float16 --steps 50 --guidance-scale 7.5 --batch-size 8

Both sides make the same images (prompts, first noises, steps, guidance, batches) and save them; they take turns
(``side_by_side.py``), each with a first batch to warm up. diffusers' weights are in float16 on a GPU, in float32 on a
CPU; ours stay in float32 and compute in each of ``--dtypes``. The difference is that of the first image, on average
over its pixels, of 255 levels. Below it is how ours divides its time, for one batch.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.side_by_side import (
    Spent,
    Spread,
    alone,
    asked_for,
    busy,
    errors_in_one_line,
    peak_rate,
    side_by_side,
    table,
    take_turns,
    where,
)
from textnorm_lib.images.sampling import generate, load_pipeline, plan_images
from textnorm_lib.prompts.sets import choose_prompts
from textnorm_lib.rewards.pretrained import no_bars
from textnorm_lib.study.config import load_profile
from textnorm_lib.study.weights import Weights

PROMPTS = choose_prompts("counting", 4)


@dataclass(frozen=True)
class Work:
    """What both sides do; ``dtype`` is ours alone."""

    model: str
    device: str
    steps: int
    guidance_scale: float
    batch_size: int
    batches: int
    dtype: str = "float32"

    def plan(self, batches: int) -> pd.DataFrame:
        """The images of so many batches."""
        images = self.batch_size * batches
        return plan_images(PROMPTS, -(-images // len(PROMPTS)), seed=0).iloc[:images]


@dataclass
class Made(Spent):
    """What a process spent on making images, and the first of those that were timed."""

    image: np.ndarray | None = None


def ours(work: Work, *, counting: bool = False) -> Made:
    pipeline = load_pipeline(work.model, device=work.device)
    return _measured(work, partial(_generate, pipeline, work), counting=counting)


def original(work: Work) -> Made:
    import diffusers.utils.logging
    from diffusers import StableDiffusionPipeline

    diffusers.utils.logging.disable_progress_bar()
    dtype = torch.float16 if work.device == "cuda" else torch.float32
    with no_bars():
        pipeline = StableDiffusionPipeline.from_pretrained(Weights(work.model).path, dtype=dtype).to(work.device)
    pipeline.set_progress_bar_config(disable=True)

    def make(plan: pd.DataFrame, folder: Path) -> None:
        for start in range(0, len(plan), work.batch_size):
            batch = plan.iloc[start : start + work.batch_size]
            images = pipeline(
                batch["prompt"].tolist(),
                num_inference_steps=work.steps,
                guidance_scale=work.guidance_scale,
                generator=[torch.Generator().manual_seed(seed) for seed in batch["seed"].tolist()],
            ).images
            for image, name in zip(images, batch["image"], strict=True):
                image.save(folder / name)

    return _measured(work, make)


def _generate(pipeline, work: Work, plan: pd.DataFrame, folder: Path) -> None:
    settings = {name: getattr(work, name) for name in ("steps", "guidance_scale", "batch_size", "dtype")}
    for _ in generate(pipeline, plan, folder=folder, **settings):
        pass


def _measured(work: Work, make: Callable[[pd.DataFrame, Path], None], *, counting: bool = False) -> Made:
    """``make`` makes the images of a plan in a folder: a first batch, then those that are timed."""
    spent, plan = Made(work.device, counting), work.plan(1 + work.batches)
    first, timed = plan[: work.batch_size], plan[work.batch_size :]
    with tempfile.TemporaryDirectory() as folder:
        make(first, Path(folder))
        with spent.timed(len(timed)):
            make(timed, Path(folder))
        spent.image = np.asarray(Image.open(Path(folder, timed["image"].iloc[0])), dtype=float)
    return spent


def shares_of_time(work: Work) -> dict[str, float]:
    """Per cent of the time that each part of our pipeline takes, for one batch after the first."""
    pipeline, plan = load_pipeline(work.model, device=work.device), work.plan(2)
    parts = {"text encoder": pipeline.text_encoder, "U-Net": pipeline.unet, "decoder": pipeline.vae.decoder}
    clock = Spent(work.device).clock
    seconds, started = dict.fromkeys(parts, 0.0), {}
    with tempfile.TemporaryDirectory() as folder:
        _generate(pipeline, work, plan[: work.batch_size], Path(folder))
        for name, part in parts.items():
            part.register_forward_pre_hook(lambda *_, name=name: started.update({name: clock()}))
            part.register_forward_hook(
                lambda *_, name=name: seconds.update({name: seconds[name] + clock() - started[name]})
            )
        begun = clock()
        _generate(pipeline, work, plan[work.batch_size :], Path(folder))
        total = clock() - begun
    shares = {f"% of time, {name}": 100 * spent / total for name, spent in seconds.items()}
    return {**shares, "% of time, the rest": 100 - sum(shares.values())}


def compare(work: Work, peaks: dict[str, float], *, repeats: int) -> dict[str, dict[str, float | Spread]]:
    """A column for each type of our arithmetic, whose peaks are given."""
    works = [replace(work, dtype=dtype) for dtype in peaks]
    theirs, *all_ours = take_turns(repeats, partial(original, work), *(partial(ours, one) for one in works))
    columns = {}
    for one, made in zip(works, all_ours, strict=True):
        counted = alone(partial(ours, replace(one, batches=1), counting=True))
        columns[one.dtype] = {
            **side_by_side(theirs, made, unit="images", counted=counted, peak=peaks[one.dtype]),
            "difference": np.abs(made[0].image - theirs[0].image).mean(),
            **alone(shares_of_time, one),
        }
    return columns


@errors_in_one_line()
def main(arguments: list[str] | None = None) -> None:
    profile = load_profile("mini").generator
    parser = argparse.ArgumentParser(description="Our sampling beside diffusers' pipeline.")
    parser.add_argument(
        "--dtypes", nargs="+", choices=("float32", "bfloat16", "float16"), default=("float32", "bfloat16")
    )
    parser.add_argument("--model", default="bundled:generator", help="or a folder in diffusers' format")
    parser.add_argument("--steps", type=int, default=profile.steps)
    parser.add_argument("--guidance-scale", type=float, default=profile.guidance_scale)
    parser.add_argument("--batch-size", type=int, default=profile.batch_size)
    parser.add_argument("--batches", type=int, default=4, help="that are timed")
    options = asked_for(parser, arguments)
    sizes = {name: getattr(options, name) for name in ("steps", "guidance_scale", "batch_size", "batches")}
    print(f"{options.model}, {', '.join(f'{name} {value}' for name, value in sizes.items())}\n{where(options)}")
    peaks = {dtype: alone(peak_rate, options.device, dtype) for dtype in options.dtypes}
    print("peak:", ", ".join(f"{dtype} {peak / 1e9:,.0f} GFLOP/s" for dtype, peak in peaks.items()), flush=True)
    columns = compare(Work(options.model, options.device, **sizes), peaks, repeats=options.repeats)
    print(f"\n{table(columns)}\n\n{busy()}")


if __name__ == "__main__":
    main()
