"""The pool of section 5.2: images of sealed prompts from which rewards choose, with what every reward says of each.

    study.pool.images.value       # the folder of the PNG files, with index.parquet: set, image, prompt, seed
    study.pool.rewarded.value     # a row an image: set, prompt, image, the five rewards
    study.pool.judged.value       # with votes, label, rating, quality_1 .. 3 as well

Recipes were chosen on other prompts (``prompts/sets.py``), and none of these images is in the benchmark: the pool has a
seed of its own. The first images of a prompt are the same in a larger pool.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.stats.names import PROMPT
from textnorm_lib.stats.rankings import check_scores
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.store import step
from textnorm_lib.tia2.labels import ANNOTATORS

TEXTNORM = "textnorm"
CHOOSERS = (*REWARDS, TEXTNORM)
QUALITY = tuple(f"quality_{number}" for number in ANNOTATORS)


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
    for name, seen in (("label", labels.drop(columns=PROMPT)), (QUALITY[0], quality)):
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


def pooled_deviations(images: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """The unit of each column: the pooled standard deviation of its numbers for a prompt's images.

    ``DataError`` for a column that is the same for all images of each prompt.
    """
    units = np.sqrt(images.groupby(PROMPT)[list(columns)].var(ddof=0).mean())
    if (lacking := ~(units > 0)).any():
        raise DataError(
            f"{units.index[lacking][0]} tells no images of a prompt apart: it has no unit; check its weights"
        )
    return units
