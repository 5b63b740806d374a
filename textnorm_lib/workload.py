"""How much a profile asks for, notebook by notebook: images, scores, training; counted before anything is computed.

    work = count_work(profile)      # {"01_build_tia2": [Work("images by bundled:generator", 4680, 37440), ...], ...}

The notebooks' own functions are called with a ``Plan`` in the place of ``Run.step``. It chooses prompts and their
contrastive prompts as a run does, and of the steps that take long it notes what they would do. What two notebooks need
is made by the first of them, and counted there. Which of the pool's prompts models are tuned on is not known yet, so
there the contrastive prompts are those of the first.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from textnorm_lib.checkpoint_images import measure_divergences, sample_checkpoints
from textnorm_lib.config import Profile, TextNorm
from textnorm_lib.contrastive.rules import rule_sets
from textnorm_lib.contrastive.sets import first_contrasts, random_sets, released_sets
from textnorm_lib.finetuning import all_runs, choose_open_prompts, train_ddpo, train_rwr
from textnorm_lib.pool import build_pool, rate_quality
from textnorm_lib.prompt_sets import contrast_sets, mini_prompts, released_prompts
from textnorm_lib.recipes import PAPERS_ENSEMBLE
from textnorm_lib.rewards.scoring import score_images, score_rewards
from textnorm_lib.settings import DdpoSettings, RwrSettings
from textnorm_lib.start_here import build_start
from textnorm_lib.tia2.build import build_tia2, collect_votes, make_images
from textnorm_lib.tia2.official import SETS, load_official, release_available
from textnorm_lib.tuned import tune_by_ddpo, tune_by_rwr
from textnorm_lib.weights import Weights

IMAGES, SCORES, VOTES, QUALITY = "images by", "scores by", "votes", "quality"
RWR, DDPO_SAMPLING, DDPO_TRAINING = "RWR steps", "DDPO images", "DDPO rows"
_TUNED = TextNorm(rewards=PAPERS_ENSEMBLE, temperatures=(1.0,) * len(PAPERS_ENSEMBLE), penalty=0.0)


def images_by(model: Weights) -> str:
    """The kind of work that making images with ``model`` is."""
    return f"{IMAGES} {model.name}"


def scores_by(reward: str) -> str:
    """The kind of work that scoring with ``reward`` is."""
    return f"{SCORES} {reward}"


@dataclass(frozen=True)
class Work:
    """So much of one kind of work.

    kind             items                      parts
    images by ...    images                     their denoising steps
    scores by ...    images                     their texts, that is scores
    votes, quality   images, each by three
    RWR steps        the optimiser's steps      images that are encoded before
    DDPO images      images sampled             their denoising steps
    DDPO rows        denoising steps trained
    """

    kind: str
    items: int
    parts: int = 0


def count_work(profile: Profile) -> dict[str, list[Work]]:
    """What each notebook that computes for long does, by its name, as if nothing were stored yet.

    Raises ``DataError`` for prompts that cannot be had.
    """
    profile = replace(profile, textnorm=profile.textnorm or _TUNED)  # which setting is best takes the same work
    plan, work = Plan(), {}
    build_start(plan, profile)
    work["00_start_here"] = plan.taken()
    built = build_tia2(plan, profile)
    work["01_build_tia2"] = plan.taken()
    contrastive = contrast_sets(plan, profile, built.prompts)
    score_rewards(plan, profile, built.images, contrastive)
    work["02b_benchmark_mini_rewards"] = plan.taken()
    if built.labels:
        score_rewards(plan, profile, built.images, plan(random_sets, contrastive, seed=profile.seed))
        if release_available()[0]:
            papers = plan(released_sets, built.prompts, *(load_official(name) for name in SETS))
            score_rewards(plan, profile, built.images, papers)
    work["03_textnorm_ablations"] = plan.taken()
    pool = build_pool(plan, profile)
    work["04_best_of_n"] = plan.taken()
    for notebook, tune in (("05_rwr_finetuning", tune_by_rwr), ("06_ddpo_finetuning", tune_by_ddpo)):
        tune(plan, profile, pool)
        work[notebook] = plan.taken()
    return work


@dataclass(frozen=True)
class Planned:
    """Stands in for a step's ``Artifact``: prompts and texts, how many images of each prompt, how many runs."""

    value: Any


@dataclass
class Plan:
    """Takes the place of ``Run.step``; see the module's docstring."""

    noted: list[Work] = field(default_factory=list)

    def __call__(self, function: Callable, *inputs: Any, **config: Any) -> Planned:
        values = [one.value if isinstance(one, Planned) else one for one in inputs]
        if function in _DONE:
            return Planned(function(*values, **config))
        if function not in _COUNTED:  # one that adds to its first input, in a moment
            return Planned(values[0] if values else None)
        value, work = _COUNTED[function](*values, **config)
        self.noted += work
        return Planned(value)

    def taken(self) -> list[Work]:
        """What was noted since it was last asked."""
        noted, self.noted = self.noted, []
        return noted


def _images(prompts: pd.DataFrame, model: Weights, *, images_per_prompt: int, steps: int, **_):
    images = len(prompts) * images_per_prompt
    return prompts.assign(images=images_per_prompt), [Work(images_by(model), images, images * steps)]


def _votes(images: pd.DataFrame, *_, **__):
    return images, [Work(VOTES, int(images["images"].sum()))]


def _quality(images: pd.DataFrame, *_, **__):
    return images, [Work(QUALITY, int(images["images"].sum()))]


def _scores(images: pd.DataFrame, contrastive: pd.DataFrame, _: Weights, *, name: str, **__):
    number = images.set_index("prompt")["images"]
    scores = (number * _texts(images, contrastive)).sum()
    return None, [Work(scores_by(name), int(number.sum()), int(scores))]


def _open_prompts(images: pd.DataFrame, *, passed_over: int, **per_set: int):
    chosen = [images[images["set"] == name].head(number) for name, number in per_set.items()]
    return pd.concat(chosen, ignore_index=True)[["set", "prompt"]], []


def _rwr(prompts: pd.DataFrame, *_, rewards, numbers, beta, other_betas, recipe, **__):
    runs = len(all_runs(rewards, numbers, beta=beta, other_betas=other_betas))
    settings = RwrSettings(**recipe)
    kept = settings.best * (2 if settings.weighting == "centred" else 1)
    return runs, [Work(RWR, runs * settings.steps, runs * len(prompts) * kept)]


def _ddpo(prompts, contrastive, *_, rewards, textnorm, numbers, beta, other_betas, recipe, **__):
    runs = all_runs(rewards, numbers, beta=beta, other_betas=other_betas)
    settings = DdpoSettings(**recipe)
    images, length = settings.epochs * settings.images_per_epoch, settings.denoising_steps
    sampled, trained = len(runs) * images, length - settings.untrained_steps
    work = [Work(DDPO_SAMPLING, sampled, sampled * length), Work(DDPO_TRAINING, sampled * trained)]
    texts = _texts(prompts, contrastive).mean()
    for run in runs:
        normalised = run.reward == "textnorm"
        scores = round(images * texts) if normalised else images
        work += [
            Work(scores_by(name), images, scores) for name in (textnorm["rewards"] if normalised else [run.reward])
        ]
    return len(runs), work


def _checkpoints(prompts: pd.DataFrame, runs: int, model: Weights, *, checkpoints, images_per_prompt, steps, **_):
    models = 1 + runs * len(checkpoints)
    return _images(prompts, model, images_per_prompt=models * images_per_prompt, steps=steps)


def _divergences(prompts: pd.DataFrame, runs: int, model: Weights, *, checkpoints, ways, steps, **_):
    taken = runs * len(checkpoints) * len(prompts) * ways * steps
    return None, [Work(images_by(model), 0, 2 * taken)]  # each by the model and, from the same latent, by the base


_DONE = (mini_prompts, released_prompts, rule_sets, released_sets, first_contrasts)  # in a moment
_COUNTED = {
    make_images: _images,
    collect_votes: _votes,
    rate_quality: _quality,
    score_images: _scores,
    choose_open_prompts: _open_prompts,
    train_rwr: _rwr,
    train_ddpo: _ddpo,
    sample_checkpoints: _checkpoints,
    measure_divergences: _divergences,
}


def _texts(prompts: pd.DataFrame, contrastive: pd.DataFrame) -> pd.Series:
    """How many texts an image of each prompt meets: the prompt itself and its contrastive prompts, each once."""
    texts = pd.concat([prompts.assign(text=prompts["prompt"]), contrastive])
    return texts[["prompt", "text"]].drop_duplicates().groupby("prompt").size()
