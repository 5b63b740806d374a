"""Notebook 00 in miniature: a few prompts, sixteen images of each, and whose favourite among them is good.

    study.start.rewarded.value      # a row per image: set, prompt, image, clip, textnorm, the votes, label
    favourites = run.step(pick_favourites, study.start.images, study.start.rewarded)

The prompts are of development classes, and the images have a seed of their own, so that no other notebook knows them.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from textnorm_lib.optimise.best_of_n import choose_best
from textnorm_lib.optimise.pool import TEXTNORM, check_choosers
from textnorm_lib.stats.intervals import prompt_bootstrap
from textnorm_lib.stats.names import PROMPT
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.store import step
from textnorm_lib.tia2.labels import VOTES, or_unlabelled

REWARD = "clip"
PROMPTS_PER_SET, IMAGES_PER_PROMPT = 2, 16  # what one figure can show, and half a minute on two cores
# CLIP's score is its cosine times the scale that it was trained with: at 1 the softmax is the one of its training.
TEMPERATURE = 1.0
FIRST, RANDOM = "first", "random"  # the image that was made first, and one drawn from all

RECIPE = {"rewards": [REWARD], "temperatures": [TEMPERATURE]}  # for ``tuning.given_recipe``


@step(1)
def join_labels(images: pd.DataFrame, *labels: pd.DataFrame) -> pd.DataFrame:
    """``images`` with TextNorm's column called "textnorm" and, where there are ``labels``, votes and label (else nan).

    Raises ``DataError`` for an image that nobody has voted on, and as ``check_choosers``.
    """
    images = check_choosers(images.rename(columns={f"textnorm:{REWARD}": TEXTNORM}), (REWARD, TEXTNORM))
    for votes in labels:
        images = images.merge(votes[["image", *VOTES, "label"]], on="image", how="left", validate="1:1")
        if (unseen := images["label"].isna()).any():
            raise DataError(f"{images['image'][unseen].iloc[0]} has no label; let the annotators see every image")
    return or_unlabelled(images)


@step(1)
def pick_favourites(made: Path, images: pd.DataFrame) -> pd.DataFrame:
    """Each prompt's first image, CLIP's favourite and TextNorm's, a row for each.

    Returns chooser ("first", "clip", "textnorm"), set, prompt, image, the votes, label, share_good (of all the prompt's
    images; nan without votes) and png, the file's bytes. Of equal values the earlier image is the favourite.
    """
    rows = []
    for (name, prompt), pool in images.groupby(PROMPT, sort=False):
        places = {reward: choose_best(pool[reward], len(pool), 1)[0] for reward in (REWARD, TEXTNORM)}
        for chooser, place in {FIRST: 0, **places}.items():
            one = pool.iloc[place]
            kept = one[["image", *VOTES, "label"]].to_dict()
            png = (made / one["image"]).read_bytes()
            share = pool["label"].mean()
            rows.append({"chooser": chooser, "set": name, "prompt": prompt, **kept, "share_good": share, "png": png})
    return pd.DataFrame(rows)


@step(1)
def share_of_favourites(favourites: pd.DataFrame, *, resamples: int, confidence: float, seed: int) -> pd.DataFrame:
    """How often a favourite is good: chooser ("random", "clip", "textnorm"), share, low, high, n_prompts.

    Of the two rewards each prompt has one favourite, good or not: exact intervals (Clopper and Pearson). A random
    choice is good as often as the prompt's images are; its interval draws the prompts again. Raises ``DataError`` where
    nobody has voted.
    """
    if favourites["label"].isna().any():
        raise DataError(f"{favourites['image'][favourites['label'].isna()].iloc[0]} has no label; let annotators vote")
    shares = favourites[favourites["chooser"] == FIRST]["share_good"].to_numpy(float)
    n = len(shares)
    settings = {"resamples": resamples, "confidence": confidence, "seed": seed}
    low, high = prompt_bootstrap(lambda counts: counts @ shares / n, n, **settings)
    rows = [(RANDOM, float(np.mean(shares)), float(low), float(high), n)]
    for chooser in (REWARD, TEXTNORM):
        good = int(favourites[favourites["chooser"] == chooser]["label"].sum())
        rows.append((chooser, good / n, *proportion_confint(good, n, alpha=1 - confidence, method="beta"), n))
    return pd.DataFrame(rows, columns=["chooser", "share", "low", "high", "n_prompts"])
