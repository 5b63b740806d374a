"""The pool of section 5.2: images of sealed prompts from which rewards choose, with what every reward says of each.

    study.pool.images.value       # the folder of the PNG files, with index.parquet: set, image, prompt, seed
    study.pool.rewarded.value     # a row an image: set, prompt, image, the five rewards
    study.pool.judged.value       # with votes, label, rating, quality_1 .. 3 as well

Recipes were chosen on other prompts (``tia2/split.py``), and none of these images is in the benchmark: the pool has a
seed of its own. The first images of a prompt are the same in a larger pool.
"""

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from textnorm_lib.errors import DataError
from textnorm_lib.progress import progress
from textnorm_lib.rankings import check_scores
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.store import step
from textnorm_lib.tia2.labels import ANNOTATORS, INDEX
from textnorm_lib.weights import Weights

TEXTNORM = "textnorm"
CHOOSERS = (*REWARDS, TEXTNORM)
QUALITY = tuple(f"quality_{number}" for number in ANNOTATORS)

_SEEN_AT_ONCE = 512  # images a task of the quality judges


@step(1, unkeyed=("workers",))
def rate_quality(made: Path, *judges: Weights, workers: int) -> pd.DataFrame:
    """How well each image in the folder ``made`` is drawn, by three judges in [0, 1]: image, quality_1 .. quality_3.

    Raises ``DataError`` for other than three judges.
    """
    from textnorm_lib.workers import in_workers

    if len(judges) != len(QUALITY):
        raise DataError(f"{len(judges)} quality judges; give three (in a profile: quality_judges)")
    names = pd.read_parquet(made / INDEX)["image"]
    tasks = [
        [made / name for name in names[start : start + _SEEN_AT_ONCE]] for start in range(0, len(names), _SEEN_AT_ONCE)
    ]
    rated = in_workers(partial(_rate, files=tuple(judge.path for judge in judges)), tasks, workers=workers)
    values = np.concatenate(list(progress(rated, "quality", total=len(tasks), unit="batches")))
    return pd.DataFrame(values, columns=list(QUALITY)).assign(image=names)


def _rate(images: list[Path], *, files: tuple[Path, ...]) -> np.ndarray:
    """The judges' numbers for each image: (n, 3)."""
    return np.stack([_quality_judge(file, file.stat().st_mtime_ns).quality(images) for file in files], axis=1)


@cache
def _quality_judge(file: Path, modified: int):
    """A process loads each judge once, and again only when it was written again."""
    from textnorm_lib.mini.quality import load_quality_judge

    return load_quality_judge(file)


@step(2)
def name_textnorm(images: pd.DataFrame, recipe: pd.DataFrame) -> pd.DataFrame:
    """``images`` with the column of the one recipe called "textnorm". Raises ``DataError`` as ``check_choosers``."""
    (rewards,) = recipe["rewards"]
    return check_choosers(images.rename(columns={f"textnorm:{rewards}": TEXTNORM}), CHOOSERS)


@step(1)
def join_judges(images: pd.DataFrame, labels: pd.DataFrame, quality: pd.DataFrame) -> pd.DataFrame:
    """``images`` with the annotators' votes, label and rating, and with what the judges of quality say.

    Raises ``DataError`` for an image that one of them has not seen.
    """
    for name, seen in (("label", labels.drop(columns=["set", "prompt"])), (QUALITY[0], quality)):
        images = images.merge(seen, on="image", how="left", validate="1:1")
        if (unseen := images[name].isna()).any():
            raise DataError(f"{images['image'][unseen].iloc[0]} has no {name}; let the judges see every image")
    return images


def check_choosers(images: pd.DataFrame, rewards: Sequence[str]) -> pd.DataFrame:
    """``images`` with rows numbered from 0, if every reward can choose.

    ``DataError`` for a reward without a finite score for every image, and for one that gives all images of a prompt the
    same: what it chose would be an accident of their order.
    """
    images = check_scores(images, rewards)
    for prompt, pool in images.groupby("prompt", sort=False):
        for reward in rewards:
            if pool[reward].nunique() == 1:
                value = pool[reward].iloc[0]
                raise DataError(f"{reward} gives all {len(pool)} images of {prompt!r} {value:g}: it cannot choose")
    return images
