"""The pool of section 5.2: images of sealed prompts from which rewards choose, with what every reward says of each.

    pool = build_pool(run.step, run.profile)
    pool.images.value       # the folder of the PNG files, with index.parquet: set, image, prompt, seed
    pool.rewarded.value     # a row an image: set, prompt, image, the five rewards
    pool.judged.value       # with votes, label, rating, quality_1 .. 3 as well

Recipes were chosen on other prompts (``tia2/split.py``), and none of these images is in the benchmark: the pool has a
seed of its own. The first images of a prompt are the same in a larger pool.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd

from textnorm_lib.config import Profile
from textnorm_lib.errors import DataError
from textnorm_lib.processes import in_workers
from textnorm_lib.progress import progress
from textnorm_lib.prompt_sets import choose_prompts, contrast_sets
from textnorm_lib.rankings import check_scores
from textnorm_lib.recipes import apply_recipes, tuned_textnorm
from textnorm_lib.rewards.scoring import REWARDS, own_scores, score_rewards
from textnorm_lib.store import Artifact, step
from textnorm_lib.tia2.build import collect_votes, label_images, list_images, make_images
from textnorm_lib.tia2.labels import ANNOTATORS, INDEX
from textnorm_lib.tia2.split import SEALED
from textnorm_lib.weights import BUNDLED, Weights

TEXTNORM = "textnorm"
CHOOSERS = (*REWARDS, TEXTNORM)
QUALITY = tuple(f"quality_{number}" for number in ANNOTATORS)

_SEED_OFFSET = 1000  # between the benchmark's seed and the pool's
_SEEN_AT_ONCE = 512  # images a task of the quality judges


@dataclass(frozen=True)
class Pool:
    """The pool, step by step; see the module's example. ``judged`` is None where the profile names no annotators."""

    prompts: Artifact
    images: Artifact
    contrastive: Artifact
    scored: dict[str, Artifact]
    rewarded: Artifact  # what training may depend on
    judged: Artifact | None


def build_pool(compute: Callable[..., Artifact], profile: Profile) -> Pool:
    """Make the pool that ``profile`` asks for, or read it back; ``compute`` is a ``Run``'s ``step``.

    Every notebook that calls it gets the same pool. Raises ``DataError`` as the steps below do.
    """
    generator = asdict(profile.generator)
    model = Weights(generator.pop("model"), generator.pop("revision"))
    asked = profile.best_of_n
    prompts = choose_prompts(compute, profile, asked.prompts_per_set, only=SEALED)
    options = {"images_per_prompt": asked.images_per_prompt, "workers": profile.workers}
    images = compute(make_images, prompts, model, **generator, **options, seed=profile.seed + _SEED_OFFSET)
    contrastive = contrast_sets(compute, profile, prompts)
    return Pool(prompts, images, contrastive, *judge_images(compute, profile, images, contrastive))


def judge_images(
    compute: Callable[..., Artifact], profile: Profile, images: Artifact, contrastive: Artifact
) -> tuple[dict[str, Artifact], Artifact, Artifact | None]:
    """What everyone says of the folder ``images``: ``scored``, ``rewarded`` and ``judged`` of a ``Pool``."""
    scored = score_rewards(compute, profile, images, contrastive)
    own = compute(own_scores, compute(list_images, images), *scored.values(), names=list(scored))
    recipe = tuned_textnorm(compute, profile)
    normalised = compute(
        apply_recipes, own, contrastive, *scored.values(), names=list(scored), recipes=[recipe.config()]
    )
    rewarded = compute(name_textnorm, normalised, recipe=recipe.name)
    if not profile.annotators:
        return scored, rewarded, None
    votes = compute(collect_votes, images, *_judges(profile.annotators), workers=profile.workers)
    quality = compute(rate_quality, images, *_judges(profile.quality_judges), workers=profile.workers)
    return scored, rewarded, compute(join_judges, rewarded, compute(label_images, votes), quality)


def _judges(names: Sequence[str]) -> list[Weights]:
    return [Weights(f"{BUNDLED}annotators/{name}.safetensors") for name in names]


@step(1, unkeyed=("workers",))
def rate_quality(made: Path, *judges: Weights, workers: int) -> pd.DataFrame:
    """How well each image in the folder ``made`` is drawn, by three judges in [0, 1]: image, quality_1 .. quality_3.

    Raises ``DataError`` for other than three judges.
    """
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


@step(1)
def name_textnorm(images: pd.DataFrame, *, recipe: str) -> pd.DataFrame:
    """``images`` with the column named ``recipe`` called "textnorm". Raises ``DataError`` as ``check_choosers``."""
    return check_choosers(images.rename(columns={recipe: TEXTNORM}), CHOOSERS)


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
