"""Notebook 00 in miniature: a few prompts, sixteen images of each, and whose favourite among them is good.

    start = build_start(run.step, run.profile)
    start.images.value      # the folder of the PNG files, with index.parquet: set, image, prompt, seed
    start.rated.value       # a row an image: set, prompt, image, clip, textnorm, the votes, label
    favourites = run.step(pick_favourites, start.images, start.rated)

The prompts are of development classes, and the images have a seed of their own, so that no other notebook knows them.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from statsmodels.stats.proportion import proportion_confint

from textnorm_lib.best_of_n import choose_best
from textnorm_lib.bootstrap import prompt_bootstrap
from textnorm_lib.config import Profile, PromptsPerSet
from textnorm_lib.errors import DataError
from textnorm_lib.pool import TEXTNORM, check_choosers
from textnorm_lib.prompt_sets import choose_prompts, contrast_sets
from textnorm_lib.recipes import Recipe, apply_recipes
from textnorm_lib.rewards.scoring import own_scores, score_images
from textnorm_lib.store import Artifact, step
from textnorm_lib.tia2.build import collect_votes, label_images, list_images, make_images
from textnorm_lib.tia2.labels import VOTES, or_unlabelled
from textnorm_lib.tia2.split import DEVELOPMENT
from textnorm_lib.weights import BUNDLED, Weights

REWARD = "clip"
PROMPTS_A_SET, IMAGES_A_PROMPT = 2, 16  # what one figure can show, and half a minute on two cores
# CLIP's score is its cosine times the scale that it was trained with: at 1 the softmax is the one of its training.
TEMPERATURE = 1.0
FIRST, RANDOM = "first", "random"  # the image that was made first, and one drawn from all

_RECIPE = Recipe((REWARD,), (TEMPERATURE,))
_SEED_OFFSET = 2000  # from the benchmark's seed; the pool's is at 1000
_PROMPT = ["set", "prompt"]


@dataclass(frozen=True)
class Start:
    """The notebook's images, step by step; see the module's example."""

    prompts: Artifact
    images: Artifact
    contrastive: Artifact
    scored: Artifact  # CLIP's, see ``rewards.scoring.read_scores``
    rated: Artifact


def build_start(compute: Callable[..., Artifact], profile: Profile) -> Start:
    """Make the images that ``profile``'s generator makes of a few prompts, let CLIP score them and annotators vote.

    ``compute`` is a ``Run``'s ``step``. Raises ``DataError`` as the steps do.
    """
    generator = asdict(profile.generator)
    model = Weights(generator.pop("model"), generator.pop("revision"))
    per_set = PromptsPerSet(**dict.fromkeys(asdict(profile.tia2.prompts_per_set), PROMPTS_A_SET))
    prompts = choose_prompts(compute, profile, per_set, only=DEVELOPMENT)
    options = {"images_per_prompt": IMAGES_A_PROMPT, "seed": profile.seed + _SEED_OFFSET, "workers": profile.workers}
    images = compute(make_images, prompts, model, **generator, **options)
    contrastive = contrast_sets(compute, profile, prompts)
    reward = profile.rewards.clip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options = {"dtype": profile.rewards.dtype, "device": device, "workers": profile.workers}
    weights = Weights(reward.weights, reward.revision)
    scored = compute(score_images, images, contrastive, weights, name=REWARD, **options)
    own = compute(own_scores, compute(list_images, images), scored, names=[REWARD])
    normalised = compute(apply_recipes, own, contrastive, scored, names=[REWARD], recipes=[_RECIPE.config()])
    labels = []
    if profile.annotators:
        judges = [Weights(f"{BUNDLED}annotators/{name}.safetensors") for name in profile.annotators]
        labels = [compute(label_images, compute(collect_votes, images, *judges, workers=profile.workers))]
    return Start(prompts, images, contrastive, scored, compute(join_labels, normalised, *labels))


@step(1)
def join_labels(images: pd.DataFrame, *labels: pd.DataFrame) -> pd.DataFrame:
    """``images`` with TextNorm's column called "textnorm" and, where there are ``labels``, votes and label (else nan).

    Raises ``DataError`` for an image that nobody has voted on, and as ``check_choosers``.
    """
    images = check_choosers(images.rename(columns={_RECIPE.name: TEXTNORM}), (REWARD, TEXTNORM))
    for votes in labels:
        images = images.merge(votes[["image", *VOTES, "label"]], on="image", how="left", validate="1:1")
        if (unseen := images["label"].isna()).any():
            raise DataError(f"{images['image'][unseen].iloc[0]} has no label; let the annotators see every image")
    return or_unlabelled(images)


@step(1)
def pick_favourites(made: Path, images: pd.DataFrame) -> pd.DataFrame:
    """Of each prompt the image made first, CLIP's favourite and TextNorm's: a row each.

    Returns chooser ("first", "clip", "textnorm"), set, prompt, image, the votes, label, share_good (of all the prompt's
    images; nan without votes) and png, the file's bytes. Of equal values the earlier image is the favourite.
    """
    rows = []
    for (name, prompt), pool in images.groupby(_PROMPT, sort=False):
        places = {reward: choose_best(pool[reward], len(pool), 1)[0] for reward in (REWARD, TEXTNORM)}
        for chooser, place in {FIRST: 0, **places}.items():
            one = pool.iloc[place]
            kept = one[["image", *VOTES, "label"]].to_dict()
            png = (made / one["image"]).read_bytes()
            share = pool["label"].mean()
            rows.append({"chooser": chooser, "set": name, "prompt": prompt, **kept, "share_good": share, "png": png})
    return pd.DataFrame(rows)


@step(1)
def share_good(favourites: pd.DataFrame, *, resamples: int, confidence: float, seed: int) -> pd.DataFrame:
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
