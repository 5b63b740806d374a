"""TextNorm as it was tuned on development prompts, ready for other images: notebooks 03 to 07 use the same one.

recipe = tuned_textnorm(run.step, run.profile)               # the paper's ensemble, ImageReward and PickScore
judged = run.step(apply_recipes, images, contrastive, *scored.values(), names=list(scored), recipes=[recipe.config()])
TextNormReward(rewards, contrastive, recipe.temperatures, "uncertainty", recipe.penalty)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from textnorm_lib.config import Profile
from textnorm_lib.errors import ConfigError
from textnorm_lib.metrics import prompt_metrics
from textnorm_lib.prompt_sets import contrast_sets
from textnorm_lib.rewards.scoring import REWARDS, own_scores, score_rewards
from textnorm_lib.score_table import ensemble, score_table, units
from textnorm_lib.store import Artifact, step
from textnorm_lib.textnorm import textnorm
from textnorm_lib.tia2.build import Built, build_tia2
from textnorm_lib.tia2.split import DEVELOPMENT, SEALED, images_of_side
from textnorm_lib.tuning import Setting, best_settings, grid_metrics

PAPERS_ENSEMBLE = ("imagereward", "pickscore")


@dataclass(frozen=True)
class Recipe:
    """An ensemble of rewards with a temperature each, in the reward's own scale, and the penalty of equation 3."""

    rewards: tuple[str, ...]
    temperatures: tuple[float, ...]
    penalty: float = 0.0

    @property
    def name(self) -> str:
        """The column of its values: "textnorm:imagereward+pickscore" and the like."""
        return self.column("textnorm")

    def column(self, prefix: str) -> str:
        """Its name with another prefix than "textnorm", where several are in one frame."""
        return f"{prefix}:{'+'.join(self.rewards)}"

    def config(self) -> dict[str, Any]:
        """For ``apply_recipes``."""
        return {"rewards": list(self.rewards), "temperatures": list(self.temperatures), "penalty": self.penalty}


def recipe_of(setting: Setting, unit: Mapping[str, float]) -> Recipe:
    """A setting of the grid in the rewards' own scales."""
    temperatures = tuple(setting.temperature * unit[name] for name in setting.rewards)
    return Recipe(setting.rewards, temperatures, setting.penalty)


@step(1)
def reward_units(images: pd.DataFrame, *scored: Path, names: Sequence[str]) -> pd.DataFrame:
    """The unit of each reward on ``images`` (score_table.py): reward, unit."""
    nothing = pd.DataFrame({"prompt": [], "text": []}, dtype=object)
    return pd.DataFrame(units(score_table(images, nothing, names, scored)).items(), columns=["reward", "unit"])


@step(1)
def apply_recipes(
    images: pd.DataFrame,
    contrastive: pd.DataFrame,
    *scored: Path,
    names: Sequence[str],
    recipes: Sequence[Mapping[str, Any]],
    prefix: str = "textnorm",
) -> pd.DataFrame:
    """``images`` with a column for each recipe, named by ``prefix`` and its rewards.

    Raises ``ConfigError`` for a reward without scores.
    """
    table = score_table(images, contrastive, names, scored)
    columns = {}
    for given in recipes:
        recipe = Recipe(tuple(given["rewards"]), tuple(given["temperatures"]), given["penalty"])
        if lacking := set(recipe.rewards) - set(table.scores):
            raise ConfigError(f"{recipe.name}: there are no scores of {min(lacking)}; name it and give its folder")
        pairs = zip(recipe.rewards, recipe.temperatures, strict=True)
        values = [textnorm(np.nan_to_num(table.scores[name]), t, mask=table.mask) for name, t in pairs]
        columns[recipe.column(prefix)] = ensemble(np.stack(values), recipe.penalty)
    return table.images.assign(**columns)


@dataclass(frozen=True)
class Benchmark:
    """What notebooks share of the benchmark: labels, scores with contrasts by rule, development and sealed rows."""

    built: Built
    rules: Artifact
    scored: dict[str, Artifact]
    development: Artifact
    sealed: Artifact


def scored_benchmark(compute: Callable[..., Artifact], profile: Profile) -> Benchmark:
    """The benchmark, scored; ``compute`` is a ``Run``'s ``step``. What notebooks 01 and 02b have made is read back."""
    built = build_tia2(compute, profile)
    rules = contrast_sets(compute, profile, built.prompts)
    scored = score_rewards(compute, profile, built.images, rules)
    labelled = compute(own_scores, built.labels, *scored.values(), names=list(REWARDS))
    sides = [compute(images_of_side, labelled, side=side) for side in (DEVELOPMENT, SEALED)]
    return Benchmark(built, rules, scored, *sides)


def tune(
    compute: Callable[..., Artifact],
    benchmark: Benchmark,
    ensembles: Sequence[Sequence[str]],
    *,
    contrastive: Artifact | None = None,
    scored: Mapping[str, Artifact] | None = None,
) -> list[Recipe]:
    """Each ensemble's best setting on the development prompts, with contrasts by rule or as given with their scores."""
    contrastive, scored = contrastive or benchmark.rules, scored or benchmark.scored
    images, names, folders = benchmark.development, list(REWARDS), scored.values()
    settings = [list(rewards) for rewards in ensembles]
    grid = compute(grid_metrics, images, contrastive, *folders, names=names, ensembles=settings)
    unit = compute(reward_units, images, *benchmark.scored.values(), names=names).value
    unit = dict(zip(unit["reward"], unit["unit"], strict=True))
    return [recipe_of(setting, unit) for setting in best_settings(grid.value)]


def tuned_textnorm(compute: Callable[..., Artifact], profile: Profile) -> Recipe:
    """TextNorm as notebooks 04 to 07 use it: the paper's ensemble at its best setting on the development prompts.

    Or as the profile gives it, where there are no votes to tune it on (``config.TextNorm``).
    """
    if profile.textnorm:
        return Recipe(profile.textnorm.rewards, profile.textnorm.temperatures, profile.textnorm.penalty)
    return tune(compute, scored_benchmark(compute, profile), [PAPERS_ENSEMBLE])[0]


def evaluate_sealed(
    compute: Callable[..., Artifact], benchmark: Benchmark, controls: Artifact, scored_controls: Mapping[str, Artifact]
) -> tuple[Artifact, Artifact]:
    """The sealed images with what the rewards and TextNorm, as tuned on development prompts, say; and the metrics.

    Under TextNorm are each reward alone, the paper's ensemble and all four, with contrasts by rule ("textnorm:...")
    and, tuned as well, with the ``controls``' random ones ("random:...").
    """
    ensembles = [*((name,) for name in REWARDS), PAPERS_ENSEMBLE, REWARDS]
    judged, columns = benchmark.sealed, list(REWARDS)
    for prefix, texts, scored in (
        ("textnorm", benchmark.rules, benchmark.scored),
        ("random", controls, scored_controls),
    ):
        recipes = tune(compute, benchmark, ensembles, contrastive=texts, scored=scored)
        configs = [recipe.config() for recipe in recipes]
        folders = scored.values()
        judged = compute(apply_recipes, judged, texts, *folders, names=list(REWARDS), recipes=configs, prefix=prefix)
        columns += [recipe.column(prefix) for recipe in recipes]
    return judged, compute(prompt_metrics, judged, rewards=columns)
