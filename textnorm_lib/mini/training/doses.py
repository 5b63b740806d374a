"""How much of each reward is appeal: every reward and dose on images of development prompts, raw and under TextNorm.

Per prompt and reward: AUROC and AP@5 against the judges' labels, and the correlations over the prompt's images with
their appeal and with their rating. TextNorm has rule-based contrasts and one temperature, the deviation of the reward
within a prompt: nothing is tuned. A reward's mean over random unrelated prompts, correlated likewise, is there as a
warning: it is no measure of appeal, because a clear image of what was asked for is *less* like anything else.

The 2 x 2 table crosses two prompts with their good images: does the right image win under its own prompt (own), and by
the difference between the two prompts (difference)? Where only the latter holds, the reward likes one of the images
whatever the prompt.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from textnorm_lib.confidence.textnorm import textnorm
from textnorm_lib.mini.annotators import read_images
from textnorm_lib.mini.appeal import colourfulness
from textnorm_lib.mini.training.measure import INTERVALS, development_images, development_prompts
from textnorm_lib.mini.training.plan import DEVELOPMENT_SEED, DOSED, DOSES, Plan, dosed
from textnorm_lib.prompts.random import random_prompts
from textnorm_lib.prompts.rules import rule_based
from textnorm_lib.prompts.sets import classes_of
from textnorm_lib.rewards import load_reward
from textnorm_lib.rewards.base import Reward
from textnorm_lib.stats.metrics import alignment_metrics, summarise
from textnorm_lib.study.progress import progress

REWARDS = ("clip_careless", "blip2_careless", *(dosed(name, dose) for name in DOSED for dose in DOSES))
CONTRASTS = 16  # by rule, and as many at random
NORMALISED = "textnorm:"

Pairs = Sequence[tuple[str, str, str]]


def measure_doses(plan: Plan, folder: Path, weights: Path) -> dict[str, pd.DataFrame]:
    """doses: means over prompts with their intervals (``metrics.summarise``). crossed: by reward and kind of pair.

    Rewards that ``weights`` do not hold are passed over.
    """
    images = development_images(plan, folder / "development", weights)
    images["appeal"] = colourfulness(read_images(folder / "development" / name for name in images["image"]))
    pairs = list(crossed_prompts(images))
    values, crossed = [], []
    for name in progress([it for it in REWARDS if (weights / "rewards" / it).is_dir()], "doses", unit="reward"):
        reward = load_reward(name.split("_")[0], folder=weights / "rewards" / name)
        matrices = _score(reward, images, pairs, folder / "development")
        values += [(*row[:2], f"{row[2]}{name}", *row[3:]) for row in _values(matrices, images)]
        crossed += [(name, *row) for row in _crossed(matrices, images, pairs)]
    per_prompt = pd.DataFrame(values, columns=["set", "prompt", "reward", "metric", "value"])
    table = pd.DataFrame(crossed, columns=["reward", "pair", "own", "difference"])
    shares = table.groupby(["reward", "pair"], sort=False).agg(["mean", "count"])
    shares.columns = [" ".join(column).removesuffix(" mean") for column in shares.columns]
    return {"doses": summarise(per_prompt, **INTERVALS), "crossed": shares.reset_index()}


def dose_lines(doses: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``doses`` about preference models: set, model, dose, form ("raw" or "TextNorm"), metric, mean, ..."""
    told = doses["reward"].str.extract(r"^(?P<form>textnorm:)?(?P<model>.*)_(?P<dose>\d{3})$").dropna(subset="dose")
    told = told.assign(
        dose=told["dose"].astype(int) / 100, form=told["form"].map({NORMALISED: "TextNorm"}).fillna("raw")
    )
    return told.join(doses.drop(columns="reward"))


def crossed_prompts(images: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """Pairs of prompts: kind, one, other. Near: of one set, with a class in common; far: of two sets, with none."""
    of = {name: list(dict.fromkeys(rows["prompt"])) for name, rows in images.groupby("set")}
    for name in ("counting", "composition"):
        left = of[name].copy()
        while left:
            one = left.pop(0)
            if other := next((it for it in left if _share_a_class(one, it)), None):
                left.remove(other)
                yield "near", one, other
    for one, other in zip(of["counting"], reversed(of["composition"]), strict=False):
        if not _share_a_class(one, other):
            yield "far", one, other


def _share_a_class(one: str, other: str) -> bool:
    return not set(classes_of(one)).isdisjoint(classes_of(other))


def _score(reward: Reward, images: pd.DataFrame, pairs: Pairs, folder: Path) -> dict[str, pd.DataFrame]:
    """By prompt: its images with itself, its contrasts by rule, random ones, and the prompts it is paired with."""
    met = defaultdict(list)
    for _, one, other in pairs:
        met[one].append(other)
        met[other].append(one)
    matrices = {}
    for prompt, rows in progress(images.groupby("prompt", sort=False), f"{reward.name}: prompts", unit="prompts"):
        rule, random = _contrasts(prompt)
        texts = list(dict.fromkeys([prompt, *rule, *random, *met[prompt]]))
        scores = reward.score_matrix([folder / name for name in rows["image"]], texts)
        matrices[prompt] = pd.DataFrame(scores, rows.index, texts, dtype=float)
    return matrices


@cache
def _contrasts(prompt: str) -> tuple[list[str], list[str]]:
    """By rule, and at random of development prompts of other classes."""
    unrelated = [one for one in development_prompts()["prompt"] if not _share_a_class(prompt, one)]
    return rule_based(prompt)[:CONTRASTS], random_prompts(prompt, unrelated, CONTRASTS, DEVELOPMENT_SEED)


def _values(matrices: dict[str, pd.DataFrame], images: pd.DataFrame) -> Iterator[tuple[str, str, str, str, float]]:
    """set, prompt, form ("" or that of TextNorm), metric, value."""
    temperature = np.sqrt(np.mean([matrix[prompt].var() for prompt, matrix in matrices.items()]))
    for prompt, matrix in matrices.items():
        rows, (rule, random) = images.loc[matrix.index], _contrasts(prompt)
        forms = {"": matrix[prompt], NORMALISED: textnorm(matrix[[prompt, *rule]].to_numpy(), temperature)}
        for form, scores in forms.items():
            metrics = alignment_metrics(scores, rows["label"], rows["rating"])
            values = {name: metrics[name] for name in ("auroc", "ap5")}
            values |= {name: _correlation(scores, rows[name]) for name in ("appeal", "rating")}
            yield from ((rows["set"].iloc[0], prompt, form, name, value) for name, value in values.items())
        for name in ("appeal", "rating"):
            value = _correlation(matrix[random].mean(axis=1), rows[name])
            yield rows["set"].iloc[0], prompt, "", f"mean over random prompts, {name}", value


def _correlation(one: ArrayLike, other: ArrayLike) -> float:
    """Pearson's; nan where either is the same for all images."""
    return np.nan if np.ptp(one) == 0 or np.ptp(other) == 0 else float(np.corrcoef(one, other)[0, 1])


def _crossed(
    matrices: dict[str, pd.DataFrame], images: pd.DataFrame, pairs: Pairs
) -> Iterator[tuple[str, float, float]]:
    """For each pair of prompts, both ways round: kind, and the two shares over all pairs of their good images."""
    good = images.index[images["label"] == 1]
    for kind, *both in pairs:
        for one, other in (both, both[::-1]):
            right, wrong = (
                matrices[it].loc[matrices[it].index.isin(good), [one, other]].to_numpy() for it in (one, other)
            )
            if len(right) and len(wrong):
                own = np.subtract.outer(right[:, 0], wrong[:, 0])
                difference = np.subtract.outer(right[:, 0] - right[:, 1], wrong[:, 0] - wrong[:, 1])
                yield kind, (own > 0).mean(), (difference > 0).mean()
