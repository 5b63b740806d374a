"""TIA2 in miniature: prompts -> images -> votes -> labels, in the frames of the released set.

    built = build_tia2(run.step, run.profile)
    built.images.value      # the folder of the PNG files, with index.parquet: set, image, prompt, seed
    built.votes.value       # set, image, prompt, annotator (1..3), vote (1 good, 0 bad, -1 skip)
    built.labels.value      # what describe.collect_images gives for the released sets

The mini world's annotators take the place of people (whose answers ``people.py`` reads): their vote follows from what
they see in an image and from what the prompt asks for (the rule: ``mini/annotators.py``), so that they can vote on
every prompt that ``mini.grammar.parse`` reads.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from textnorm_lib.config import Profile
from textnorm_lib.errors import DataError
from textnorm_lib.mini.grammar import parse
from textnorm_lib.processes import in_workers, wait_for_all
from textnorm_lib.progress import progress
from textnorm_lib.prompt_sets import choose_prompts
from textnorm_lib.store import Artifact, step
from textnorm_lib.tia2.labels import ANNOTATORS, INDEX, image_table
from textnorm_lib.tia2.people import answers_files, people_votes
from textnorm_lib.weights import BUNDLED, Weights

VOTED_AT_ONCE = 64  # images; a detector's arithmetic may depend on it in the last bits, so it is fixed


@dataclass(frozen=True)
class Built:
    """The built benchmark, step by step; see the module's example. Without votes as long as nobody has voted."""

    prompts: Artifact
    images: Artifact
    votes: Artifact | None
    labels: Artifact | None


def build_tia2(compute: Callable[..., Artifact], profile: Profile) -> Built:
    """Build what ``profile`` asks for, or read it back; ``compute`` is a ``Run``'s ``step``.

    Every notebook that calls it gets the same benchmark. Raises ``DataError`` as the steps below do.
    """
    generator = asdict(profile.generator)
    model = Weights(generator.pop("model"), generator.pop("revision"))
    annotators = [Weights(f"{BUNDLED}annotators/{name}.safetensors") for name in profile.annotators]
    prompts = choose_prompts(compute, profile, profile.tia2.prompts_per_set)
    options = {"images_per_prompt": profile.tia2.images_per_prompt, "seed": profile.seed, "workers": profile.workers}
    images = compute(make_images, prompts, model, **generator, **options)
    if annotators:
        votes = compute(collect_votes, images, *annotators, workers=profile.workers)
    elif profile.tia2.votes:
        votes = compute(people_votes, images, *answers_files(profile.tia2.votes))
    else:
        return Built(prompts, images, None, None)
    return Built(prompts, images, votes, compute(label_images, votes))


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
    from textnorm_lib.sampling import generate, plan_images  # with torch and, for new images only, diffusers

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


@step(1, unkeyed=("workers",))
def collect_votes(made: Path, *annotators: Weights, workers: int) -> pd.DataFrame:
    """The votes of three annotators on the images in the folder ``made``: set, image, prompt, annotator (1..3), vote.

    Raises ``DataError`` for an image that cannot be read, for other than three annotators, and for a prompt that these
    do not understand: an unknown class, a count beyond eight, an empty one.
    """
    if len(annotators) != len(ANNOTATORS):
        raise DataError(f"{len(annotators)} annotators; give three (in a profile: annotators)")
    index = pd.read_parquet(made / INDEX)
    tasks = [index.iloc[start : start + VOTED_AT_ONCE] for start in range(0, len(index), VOTED_AT_ONCE)]
    files = tuple(annotator.path for annotator in annotators)
    given = in_workers(partial(_vote, folder=made, files=files), tasks, workers=workers)
    votes = np.concatenate(list(progress(given, "votes", total=len(tasks), unit="batches")))
    rows = index[["set", "image", "prompt"]].loc[index.index.repeat(len(ANNOTATORS))].reset_index(drop=True)
    return rows.assign(annotator=np.tile(ANNOTATORS, len(index)), vote=votes.ravel())


def _vote(images: pd.DataFrame, *, folder: Path, files: tuple[Path, ...]) -> np.ndarray:
    """The votes of the annotators in ``files`` on rows of the index: (n, 3)."""
    import torch

    from textnorm_lib.mini.annotators import detect, vote

    pixels = torch.from_numpy(np.stack([_read(folder / name) for name in images["image"]]))
    pixels = pixels.permute(0, 3, 1, 2) / 127.5 - 1
    specs = [parse(prompt) for prompt in images["prompt"]]
    seen = [detect(_annotator(file, file.stat().st_mtime_ns), pixels) for file in files]
    return np.array([[vote(*pair) for pair in zip(by_one, specs, strict=True)] for by_one in seen]).T


@cache
def _annotator(file: Path, modified: int):
    """A process loads each annotator once, and again only when it was written again."""
    from textnorm_lib.mini.annotators import load_annotator

    return load_annotator(file)


def _read(path: Path) -> np.ndarray:
    """An image as uint8 (h, w, 3)."""
    try:
        return np.asarray(Image.open(path).convert("RGB"))
    except OSError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({reason}); delete its folder and run again") from None


@step(1)
def label_images(votes: pd.DataFrame) -> pd.DataFrame:
    """Votes to labels and ratings, one row an image, as ``describe.collect_images`` does for the released sets."""
    tables = [image_table(rows.drop(columns="set")).assign(set=name) for name, rows in votes.groupby("set", sort=False)]
    return pd.concat(tables, ignore_index=True)
