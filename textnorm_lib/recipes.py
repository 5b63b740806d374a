"""TextNorm as it was tuned on development prompts, ready for other images.

A *recipe* is a row of a table: ``rewards`` of an ensemble ("imagereward+pickscore"), ``temperatures``, one for each in
the reward's own scale, and the ``penalty`` of equation 3.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from textnorm_lib.errors import ConfigError
from textnorm_lib.score_table import ensemble, score_table, units
from textnorm_lib.store import step
from textnorm_lib.textnorm import textnorm
from textnorm_lib.tuning import best_settings

PAPERS_ENSEMBLE = ("imagereward", "pickscore")


@step(1)
def given_recipe(*, rewards: Sequence[str], temperatures: Sequence[float], penalty: float = 0.0) -> pd.DataFrame:
    """The recipe that somebody gave: one row."""
    return pd.DataFrame(
        [("+".join(rewards), list(temperatures), penalty)], columns=["rewards", "temperatures", "penalty"]
    )


@step(1)
def tuned_recipes(grid: pd.DataFrame, unit: pd.DataFrame) -> pd.DataFrame:
    """The best setting of each ensemble in ``grid`` (``tuning.grid_metrics``): a row each.

    ``unit`` (``reward_units``) takes temperatures from the grid's units to the rewards' own scales.
    """
    scale = dict(zip(unit["reward"], unit["unit"], strict=True))
    return pd.concat(
        [
            given_recipe(
                rewards=one.rewards,
                temperatures=[one.temperature * scale[name] for name in one.rewards],
                penalty=one.penalty,
            )
            for one in best_settings(grid)
        ],
        ignore_index=True,
    )


@step(1)
def reward_units(images: pd.DataFrame, *scored: Path, names: Sequence[str]) -> pd.DataFrame:
    """The unit of each reward on ``images`` (score_table.py): reward, unit."""
    nothing = pd.DataFrame({"prompt": [], "text": []}, dtype=object)
    return pd.DataFrame(units(score_table(images, nothing, names, scored)).items(), columns=["reward", "unit"])


@step(2)
def apply_recipes(
    images: pd.DataFrame,
    contrastive: pd.DataFrame,
    recipes: pd.DataFrame,
    *scored: Path,
    names: Sequence[str],
    prefix: str = "textnorm",
) -> pd.DataFrame:
    """``images`` with a column per recipe, named by ``prefix`` and its rewards: "textnorm:imagereward+pickscore".

    Raises ``ConfigError`` for a reward without scores.
    """
    table = score_table(images, contrastive, names, scored)
    columns = {}
    for recipe in recipes.itertuples():
        rewards = recipe.rewards.split("+")
        if lacking := set(rewards) - set(table.scores):
            raise ConfigError(f"{recipe.rewards}: there are no scores of {min(lacking)}; name it and give its folder")
        pairs = zip(rewards, recipe.temperatures, strict=True)
        values = [textnorm(np.nan_to_num(table.scores[name]), t, mask=table.mask) for name, t in pairs]
        columns[f"{prefix}:{recipe.rewards}"] = ensemble(np.stack(values), recipe.penalty)
    return table.images.assign(**columns)
