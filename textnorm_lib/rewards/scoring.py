"""A reward over a benchmark: each image with its own prompt and with that prompt's contrastive prompts.

    read_scores(study.scores["clip"].value)   # prompt, image, text, score: the text is the prompt itself or a contrast

Work goes prompt by prompt: its images meet its texts in one matrix, so each image and each text is encoded once.
"""

import sys
import warnings
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path

import pandas as pd
import torch

from textnorm_lib.rewards import load_reward
from textnorm_lib.rewards.base import CutPrompt
from textnorm_lib.study.errors import DataError, file_within
from textnorm_lib.study.processes import in_workers, own_share, wait_for_all
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import step
from textnorm_lib.study.weights import Weights
from textnorm_lib.tia2.labels import INDEX

REWARDS = ("clip", "blip2", "imagereward", "pickscore")
_load_once = cache(load_reward)  # in each process


@step(2, unkeyed=("workers",), shared=True)
def score_images(
    made: Path,
    contrastive: pd.DataFrame,
    weights: Weights,
    *,
    name: str,
    dtype: str,
    workers: int,
    folder: Path,
) -> dict[str, int]:
    """Score the images in the folder ``made`` with the reward ``name``; returns how many of the scores it made anew.

    ``contrastive``: prompt, text; a prompt without rows meets itself only. Each prompt has a file of its own in
    ``folder``, where a run that was stopped goes on. On a CPU ``workers`` processes share the prompts.
    """
    index = pd.read_parquet(made / INDEX)
    unknown = set(contrastive["prompt"]) - set(index["prompt"])
    if unknown:
        raise DataError(f"contrastive prompts for {min(unknown)!r}, of which {made} has no image; leave them out")
    texts = contrastive.groupby("prompt", sort=False)["text"].agg(list).to_dict()
    tasks = [
        (folder / f"{number:05d}.parquet", prompt, images["image"].tolist(), texts.get(prompt, []))
        for number, (prompt, images) in enumerate(index.groupby("prompt", sort=False))
    ]
    tasks = [task for task in own_share(tasks) if not task[0].exists()]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    work = partial(_score_prompt, made=made, name=name, path=weights.path, dtype=dtype, device=device)
    found = in_workers(work, tasks, workers=workers if device == "cpu" else 1)
    counts = list(progress(found, f"{name}: prompts", total=len(tasks), unit="prompts"))
    wait_for_all()
    if cut := sum(texts for _, texts in counts):
        print(f"{name}: {cut} texts are longer than it reads, their ends were cut off", file=sys.stderr)
    return {"scores": sum(scores for scores, _ in counts)}


def _score_prompt(
    task: tuple[Path, str, list[str], list[str]], *, made: Path, name: str, path: Path, dtype: str, device: str
) -> tuple[int, int]:
    """Write a file (prompt, image, text, score) of one prompt's images; how many scores, and how many texts cut."""
    file, prompt, images, contrasts = task
    texts = list(dict.fromkeys([prompt, *contrasts]))
    reward = _load_once(name, folder=path, dtype=getattr(torch, dtype), device=device)
    with warnings.catch_warnings(record=True, action="always", category=CutPrompt) as warned:
        matrix = reward.score_matrix([file_within(made, image) for image in images], texts)
    rows = pd.MultiIndex.from_product([[prompt], images, texts], names=["prompt", "image", "text"])
    partial_file = file.with_suffix(".partial")
    pd.DataFrame({"score": matrix.reshape(-1)}, index=rows).reset_index().to_parquet(partial_file, index=False)
    partial_file.replace(file)
    return matrix.size, sum(issubclass(warning.category, CutPrompt) for warning in warned)


def read_scores(folder: Path) -> pd.DataFrame:
    """What ``score_images`` wrote: prompt, image, text, score, in the order of the benchmark."""
    return pd.concat([pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))], ignore_index=True)


@step(1)
def scores_of_prompt(scored: Path, *, prompt: str) -> pd.DataFrame:
    """Those of ``read_scores`` that are of one prompt's images: prompt, image, text, score."""
    scores = read_scores(scored)
    return scores[scores["prompt"] == prompt].reset_index(drop=True)


@step(1)
def own_scores(labels: pd.DataFrame, *scored: Path, names: Iterable[str]) -> pd.DataFrame:
    """``labels`` (a row per image) with a column for each reward's score of the image with its own prompt."""
    for name, folder in zip(names, scored, strict=True):
        scores = read_scores(folder).query("text == prompt").set_index(["prompt", "image"])["score"]
        labels = labels.join(scores.rename(name), on=["prompt", "image"])
    return labels
