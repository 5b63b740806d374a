"""How the rewards order the images of one prompt: against the ratings, and against each other.

Everything here is within a prompt, because the scores of different prompts have different levels: that CLIP gives
"a neon sign of a frog" less than "two dogs" says nothing about their images. A prompt counts only where both labels
occur. ``images`` has one row per image: set, prompt, image, label, rating and, per name in ``rewards``, the score of
the image with its own prompt.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from textnorm_lib.stats.metrics import ALL_SETS, summarise
from textnorm_lib.stats.names import PROMPT
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.store import step

RATING = "rating"  # what people say, beside the rewards
SPREAD = {"p5": 0.05, "p25": 0.25, "p75": 0.75, "p95": 0.95}


def check_scores(images: pd.DataFrame, rewards: Sequence[str]) -> pd.DataFrame:
    """``images`` with rows numbered from 0; ``DataError`` unless every reward has a finite score for every image."""
    for reward in rewards:
        if reward not in images:
            raise DataError(f"images has no column {reward!r}; add the scores of that reward")
        wrong = ~np.isfinite(images[reward].to_numpy(float))
        if wrong.any():
            row = images[wrong].iloc[0]
            raise DataError(f"{reward} of {row['image']!r} is {row[reward]}: score every image with a finite number")
    return images.reset_index(drop=True)


@step(1)
def scores_by_rating(
    images: pd.DataFrame, *, rewards: Sequence[str], resamples: int, confidence: float, seed: int
) -> pd.DataFrame:
    """Each reward's standardised scores by what people say: how far up they go, and how much they overlap.

    A score is counted from its prompt's mean in its prompt's standard deviations; where all scores of a prompt are
    equal it has no place and is left out. Returns reward, rating, mean (first over a prompt's images of that rating,
    then over prompts) with its bootstrap interval low and high, n_prompts, n_images, and p5 to p95, the quantiles over
    all images of that rating. Raises ``DataError`` as ``check_scores`` does, and if no prompt has both labels.
    """
    images = check_scores(images, rewards)
    chosen = images[_has_both_labels(images)]
    if chosen.empty:
        raise DataError("no prompt of images has both labels; build the benchmark with more images a prompt")
    scores = chosen.groupby(PROMPT, sort=False)[list(rewards)]
    equal = scores.transform("max") == scores.transform("min")
    standard = ((chosen[list(rewards)] - scores.transform("mean")) / scores.transform("std", ddof=0)).mask(equal)
    keys = [*PROMPT, "rating"]
    tidy = chosen[keys].join(standard).melt(keys, var_name="reward").dropna()
    by_prompt = tidy.groupby([*keys, "reward"], sort=False)["value"].mean().reset_index()
    means = summarise(
        by_prompt.rename(columns={"rating": "metric"}), resamples=resamples, confidence=confidence, seed=seed
    )
    means = means[means["set"] == ALL_SETS].rename(columns={"metric": "rating"}).drop(columns="set")
    values = tidy.groupby(["reward", "rating"])["value"]
    spread = pd.DataFrame({"n_images": values.size(), **{name: values.quantile(q) for name, q in SPREAD.items()}})
    return means.join(spread, on=["reward", "rating"]).sort_values(["reward", "rating"], ignore_index=True)


@step(1)
def rank_correlations(images: pd.DataFrame, *, rewards: Sequence[str]) -> pd.DataFrame:
    """Spearman's rho within each prompt of every two rewards, the rating as one of them, for ``metrics.summarise``.

    Returns set, prompt, reward, metric (the other of the two), value in [-1, 1]; each pair once, the rating always as
    the other, which makes the value the metric "spearman". All pairs are nan where the prompt has one label only, so
    that their means are over the same prompts; a pair also where all scores or ratings of one of the two are equal.
    """
    images = check_scores(images, rewards)
    names = [*rewards, RATING]
    ranks = images.groupby(PROMPT, sort=False)[names].rank().where(_has_both_labels(images))
    rho = ranks.groupby([images["set"], images["prompt"]], sort=False).corr()
    pairs = [
        rho[two].xs(one, level=2).rename("value").reset_index().assign(reward=one, metric=two)
        for one, two in itertools.combinations(names, 2)
    ]
    return pd.concat(pairs, ignore_index=True)[[*PROMPT, "reward", "metric", "value"]]


def _has_both_labels(images: pd.DataFrame) -> pd.Series:
    """Of each image, whether its prompt has good and bad ones."""
    return images.groupby(PROMPT, sort=False)["label"].transform("nunique") == 2
