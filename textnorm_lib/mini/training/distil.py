"""The generator distilled: what the teacher does in two guided steps, the student does in one without guidance.

The teacher takes eight DDIM steps and two passes of the U-Net for each, with the prompt and without it. We keep where
its latents are after every second step. The student is a copy of the teacher's U-Net; it learns to go from each kept
latent to the next in one DDIM step and one pass. A DDIM step is x' = a x + b v, so the velocity that leads there is
v = (x' - a x) / b, and the loss is the mean squared error of the student's v. (Progressive distillation, Salimans and
Ho 2022; of guided models, Meng et al. 2023. Theirs halve the steps again and again, ours takes one round.)

Both take their steps at *trailing* times (999, 749, 499, 249 in four steps): the first one begins at pure noise. Both
compute in bfloat16 where the processor multiplies it: the student's error is many times the rounding.
"""

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save_file

from textnorm_lib.images.sampling import autocast, load_pipeline
from textnorm_lib.mini.generator import LATENT_SHAPE
from textnorm_lib.mini.training.fit import fit
from textnorm_lib.mini.training.plan import Recipe
from textnorm_lib.optimise.denoising import ddim_steps, guided
from textnorm_lib.study.processes import in_workers
from textnorm_lib.study.progress import progress
from textnorm_lib.study.weights import Weights

STEPS = 4  # the student's
TEACHER_STEPS = 8
GUIDANCE = 2.0  # the teacher's
PART = 512  # trajectories in a file
DTYPE = "bfloat16"  # of both U-Nets' passes
BATCH = 32


def trailing(scheduler) -> DDIMScheduler:
    """The scheduler with its steps counted from the end of the noise levels."""
    return DDIMScheduler.from_config(scheduler.config, timestep_spacing="trailing")


def make_trajectories(
    teacher: Weights, captions: Sequence[str], folder: Path, *, seed: int, workers: int
) -> torch.Tensor:
    """Where the teacher's latents are after every step of the student: float16 (n, STEPS + 1, c, h, w), noise first.

    They are kept in ``folder`` in files of ``PART``; those that are there are not made again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(captions), PART)
    paths = [folder / f"{start:06d}.safetensors" for start in starts]
    tasks = [
        (path, list(captions[start : start + PART]), seed * 1_000_003 + start)
        for path, start in zip(paths, starts, strict=True)
        if not path.exists()
    ]
    made = in_workers(partial(_walk, teacher), tasks, workers=workers)
    for _ in progress(made, "trajectories", total=len(tasks), unit="files"):
        pass
    return torch.cat([load_file(path)["latents"] for path in paths])


@torch.no_grad()
def _walk(teacher: Weights, task: tuple[Path, list[str], int]) -> None:
    """Make one file: the first noises of its captions, and the latents that the teacher makes of them."""
    path, captions, seed = task
    pipeline = load_pipeline(teacher.name, revision=teacher.revision)
    steps = ddim_steps(trailing(pipeline.scheduler), TEACHER_STEPS, without_noise=TEACHER_STEPS)
    kept = []
    for start in range(0, len(captions), BATCH):
        texts, empty = pipeline.encode_prompt(captions[start : start + BATCH], "cpu", 1, True)
        latents = torch.randn(len(texts), *LATENT_SHAPE, generator=torch.Generator().manual_seed(seed + start))
        states = [latents]
        for number, time in enumerate(steps.timesteps):
            index = torch.full((len(texts),), number)
            with autocast("cpu", DTYPE):
                output = guided(pipeline.unet, latents, time.expand(len(texts)), texts, empty[:1], scale=GUIDANCE)
            latents = steps.mean(index, latents, output)
            if (number + 1) % (TEACHER_STEPS // STEPS) == 0:
                states.append(latents)
        kept.append(torch.stack(states, dim=1).half())
    unfinished = path.with_suffix(".partial")
    save_file({"latents": torch.cat(kept)}, unfinished)
    unfinished.replace(path)


def distil(pipeline, trajectories: torch.Tensor, captions: Sequence[str], recipe: Recipe, *, folder: Path) -> None:
    """Put the student's U-Net and its scheduler in the place of the teacher's in ``pipeline``."""
    scheduler = trailing(pipeline.scheduler)
    steps = ddim_steps(scheduler, STEPS, without_noise=STEPS)
    texts = _read(pipeline, captions)
    student = copy.deepcopy(pipeline.unet).requires_grad_(True)

    def loss_function(step: int, generator: torch.Generator) -> torch.Tensor:
        which = torch.randint(len(trajectories), (recipe.batch_size,), generator=generator)
        at = torch.randint(STEPS, (recipe.batch_size,), generator=generator)
        here, there = trajectories[which, at].float(), trajectories[which, at + 1].float()
        velocity = (there - steps.mean(at, here, torch.zeros_like(here))) / steps.b[at, None, None, None]
        with autocast("cpu", DTYPE):
            predicted = student(here, steps.timesteps[at], texts[which].float()).sample
        return (predicted.float() - velocity).square().mean()

    fit(student, loss_function, recipe, folder=folder)
    pipeline.unet, pipeline.scheduler = student.requires_grad_(False), scheduler


@torch.no_grad()
def _read(pipeline, captions: Sequence[str]) -> torch.Tensor:
    """The captions' embeddings, float16 (n, tokens, width)."""
    starts = range(0, len(captions), 256)
    read = [pipeline.encode_prompt(list(captions[start : start + 256]), "cpu", 1, False)[0].half() for start in starts]
    return torch.cat(read)
