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
from textnorm_lib.contrastive.sets import rule_sets
from textnorm_lib.errors import ConfigError
from textnorm_lib.rewards.scoring import REWARDS, own_scores, score_rewards
from textnorm_lib.score_table import ensemble, score_table, units
from textnorm_lib.store import Artifact, step
from textnorm_lib.textnorm import textnorm
from textnorm_lib.tia2.build import build_tia2
from textnorm_lib.tia2.split import DEVELOPMENT, images_of_side
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
        """The column that it makes: "textnorm:imagereward+pickscore" and the like."""
        return f"textnorm:{'+'.join(self.rewards)}"

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
) -> pd.DataFrame:
    """``images`` with a column for each recipe, by its name. Raises ``ConfigError`` for a reward without scores."""
    table = score_table(images, contrastive, names, scored)
    columns = {}
    for given in recipes:
        recipe = Recipe(tuple(given["rewards"]), tuple(given["temperatures"]), given["penalty"])
        if lacking := set(recipe.rewards) - set(table.scores):
            raise ConfigError(f"{recipe.name}: there are no scores of {min(lacking)}; name it and give its folder")
        pairs = zip(recipe.rewards, recipe.temperatures, strict=True)
        values = [textnorm(np.nan_to_num(table.scores[name]), t, mask=table.mask) for name, t in pairs]
        columns[recipe.name] = ensemble(np.stack(values), recipe.penalty)
    return table.images.assign(**columns)


def tuned_textnorm(
    compute: Callable[..., Artifact], profile: Profile, rewards: Sequence[str] = PAPERS_ENSEMBLE
) -> Recipe:
    """The ensemble's best setting on the benchmark's development prompts; ``compute`` is a ``Run``'s ``step``.

    Whatever of it notebooks 01 to 03 have made is read back.
    """
    built = build_tia2(compute, profile)
    contrastive = compute(rule_sets, built.prompts, most=profile.contrastive_prompts)
    scored = score_rewards(compute, profile, built.images, contrastive)
    folders, names = scored.values(), list(REWARDS)
    labelled = compute(own_scores, built.labels, *folders, names=names)
    development = compute(images_of_side, labelled, side=DEVELOPMENT)
    grid = compute(grid_metrics, development, contrastive, *folders, names=names, ensembles=[list(rewards)])
    unit = compute(reward_units, development, *folders, names=names).value
    (setting,) = best_settings(grid.value)
    return recipe_of(setting, dict(zip(unit["reward"], unit["unit"], strict=True)))
