"""TIA2 in miniature: prompts -> images -> votes -> labels, in the frames of the released set.

    study.images.value      # the folder of the PNG files, with index.parquet: set, image, prompt, seed
    study.votes.value       # set, image, prompt, annotator (1..3), vote (1 good, 0 bad, -1 skip)
    study.labels.value      # what describe.collect_images gives for the released sets

The mini world's annotators take the place of people (whose answers ``judging/labelled.py`` reads): their vote follows
from what they see in an image and from what the prompt asks for (the rule: ``mini/annotators.py``), so that they can
vote on every prompt that ``prompts.grammar.parse`` reads.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd

from textnorm_lib.study.processes import wait_for_all
from textnorm_lib.study.store import step
from textnorm_lib.study.weights import Weights
from textnorm_lib.tia2.labels import INDEX, image_table


@step(1, unkeyed=("workers",), shared=True)
def make_images(
    prompts: pd.DataFrame,
    model: Weights,
    *,
    images_per_prompt: int,
    steps: int,
    guidance_scale: float,
    batch_size: int,
    dtype: str,
    seed: int,
    workers: int,
    folder: Path,
) -> dict[str, float]:
    """The images of ``prompts`` (set, prompt) and their index; returns how fast they were made.

    A run that was stopped goes on at the batch it was in.
    """
    from textnorm_lib.images.sampling import generate, plan_images  # with torch and, for new images only, diffusers

    plan = plan_images(prompts["prompt"].tolist(), images_per_prompt, seed=seed)
    plan.insert(0, "set", np.repeat(prompts["set"].to_numpy(), images_per_prompt))
    before, started = sum((folder / name).exists() for name in plan["image"]), time.monotonic()
    settings = {"steps": steps, "guidance_scale": guidance_scale, "batch_size": batch_size, "dtype": dtype}
    for _ in generate(model, plan, folder=folder, workers=workers, **settings):
        pass
    wait_for_all()
    seconds = time.monotonic() - started
    plan.to_parquet(folder / INDEX, index=False)
    new = len(plan) - before
    return {"images": new, "images_per_second": round(new / max(seconds, 1e-3), 2), "workers": workers}


@step(1)
def list_images(made: Path) -> pd.DataFrame:
    """The images in the folder ``made``: set, prompt, image."""
    return pd.read_parquet(made / INDEX, columns=["set", "prompt", "image"])


@step(1)
def pick_to_label(made: Path, *, per_set: int, seed: int) -> pd.DataFrame:
    """Of each set so many of the images in the folder ``made``, drawn at random: set, prompt, image, png."""
    mixed = list_images(made).sample(frac=1, random_state=seed)
    few = mixed.groupby("set").head(per_set)
    return few.assign(png=[(made / name).read_bytes() for name in few["image"]])


@step(1)
def label_images(votes: pd.DataFrame) -> pd.DataFrame:
    """Votes to labels and ratings, one row per image, as ``describe.collect_images`` does for the released sets."""
    tables = [image_table(rows.drop(columns="set")).assign(set=name) for name, rows in votes.groupby("set", sort=False)]
    return pd.concat(tables, ignore_index=True)
