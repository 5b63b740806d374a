"""Notebooks 05 and 06: models tuned on prompts of the pool, and what everyone says of the images they make.

    pool = build_pool(run.step, run.profile)
    tuned = tune_by_rwr(run.step, run.profile, pool)        # or tune_by_ddpo
    tuned.rewarded.value     # a row an image: as the pool's, with tuned_on, beta, run, checkpoint, seed; so is judged

Prompts are the pool's, of sealed classes; all settings were chosen on other prompts (docs/decisions.md).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from textnorm_lib.checkpoint_images import join_models, measure_divergences, sample_checkpoints
from textnorm_lib.config import Finetuning, Profile
from textnorm_lib.finetuning import choose_open_prompts, read_curves, train_ddpo, train_rwr
from textnorm_lib.pool import Pool, judge_images
from textnorm_lib.prompt_sets import contrast_sets
from textnorm_lib.recipes import tuned_textnorm
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.store import Artifact
from textnorm_lib.weights import Weights

UNCOUNTED_STEPS = 2  # of a divergence, the last ones (checkpoint_images.py)
_WAYS = 9  # from noise to image on which a divergence is measured, at least one a prompt: it varies little
_TRAINING_SEED, _EVALUATION_SEED = 2000, 3000  # apart from the benchmark's (0) and the pool's (1000)


@dataclass(frozen=True)
class Tuned:
    """Tuned models step by step; see the module's example."""

    prompts: Artifact
    trained: Artifact
    curves: Artifact
    images: Artifact
    rewarded: Artifact
    judged: Artifact | None
    divergences: Artifact


def tune_by_rwr(compute: Callable[..., Artifact], profile: Profile, pool: Pool) -> Tuned:
    """Reward-weighted regression on the pool's images, as ``profile.rwr`` asks for; ``compute`` is a ``Run``'s step."""
    model = Weights(profile.generator.model, profile.generator.revision)
    prompts = compute(choose_open_prompts, pool.judged or pool.rewarded, **_prompts(profile.rwr))
    options = _options(profile.rwr, profile)
    trained = compute(train_rwr, prompts, pool.rewarded, pool.images, model, **options)
    return _look_at(compute, profile, profile.rwr, prompts, trained, model)


def tune_by_ddpo(compute: Callable[..., Artifact], profile: Profile, pool: Pool) -> Tuned:
    """DDPO as ``profile.ddpo`` asks for, on prompts chosen by the pool; ``compute`` is a ``Run``'s ``step``."""
    model = Weights(profile.ddpo.model, profile.ddpo.revision)
    prompts = compute(choose_open_prompts, pool.judged or pool.rewarded, **_prompts(profile.ddpo))
    contrastive = contrast_sets(compute, profile, prompts)
    weights = [Weights(one.weights, one.revision) for one in (getattr(profile.rewards, name) for name in REWARDS)]
    recipe = {"textnorm": tuned_textnorm(compute, profile).config(), "reward_dtype": profile.rewards.dtype}
    options = {**recipe, **_options(profile.ddpo, profile)}
    trained = compute(train_ddpo, prompts, contrastive, model, *weights, **options)
    return _look_at(compute, profile, profile.ddpo, prompts, trained, model)


def _prompts(asked: Finetuning) -> dict[str, int]:
    return {"passed_over": asked.passed_over, **asdict(asked.prompts_per_set)}


def _options(asked: Finetuning, profile: Profile) -> dict:
    names = ("rewards", "numbers", "beta", "other_betas", "lora_rank", "lora_targets", "recipe")
    options = {name: value for name, value in asdict(asked).items() if name in names}
    return {**options, "seed": profile.seed + _TRAINING_SEED, "workers": profile.workers}


def _look_at(
    compute: Callable[..., Artifact],
    profile: Profile,
    asked: Finetuning,
    prompts: Artifact,
    trained: Artifact,
    model: Weights,
) -> Tuned:
    """Images of every checkpoint of ``model``, judged, and its distance from the base."""
    generator = {name: value for name, value in asdict(profile.generator).items() if name not in ("model", "revision")}
    options = {**generator, "checkpoints": list(asked.checkpoints), "workers": profile.workers}
    data, seed = (prompts, trained, model), profile.seed + _EVALUATION_SEED
    images = compute(sample_checkpoints, *data, **options, images_per_prompt=asked.images_per_prompt, seed=seed)
    ways = {"ways": -(-_WAYS // len(prompts.value)), "left_out": UNCOUNTED_STEPS}
    divergences = compute(measure_divergences, *data, **options, **ways, seed=seed)
    contrastive = contrast_sets(compute, profile, prompts)
    _, *told = judge_images(compute, profile, images, contrastive)
    rewarded, judged = (compute(join_models, one, images) if one else None for one in told)
    return Tuned(prompts, trained, compute(read_curves, trained), images, rewarded, judged, divergences)
