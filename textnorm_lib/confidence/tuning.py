"""Temperature and penalty without leaks, and what leaks are worth (the paper's section 8 tunes on all labels).

    table = score_table(images, contrastive, ["clip", ...], [folder, ...])
    table.scores["clip"]    # (n images, 1 + m): column 0 with the image's own prompt
    units(table)            # {"clip": 0.84, ...}

Rewards differ in scale: BLIP-2's is a probability, CLIP's a hundred cosines. One temperature can serve them if it
counts in each reward's own *unit*, the pooled standard deviation of its scores of one prompt's images with that prompt,
for which neither labels nor contrastive prompts are needed.

A setting is as good as the mean over prompts of AP@5, AP@10 and AP@25, the paper's criterion. *Held out* means chosen
on some prompts and judged on others: each of several folds of prompts is judged under the setting that is best on the
rest. Nothing else is fitted, so nested cross-validation would come to the same mean. *Classes held out* is stricter: a
prompt is judged under the setting that is best on the prompts that share no class of objects with it. Two other choices
look at what they are judged on: the *one setting* that is best for all prompts, and each prompt's own best, which is
how the released TextNorm scores came to their 20 settings.

What was tuned on development prompts serves other images as a *recipe*, a row of a table: the ``rewards`` of an
ensemble ("imagereward+pickscore"), ``temperatures``, one for each in its own scale, and the ``penalty`` of equation 3.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

from textnorm_lib.confidence.textnorm import mean_ensemble, textnorm, uncertainty_ensemble
from textnorm_lib.prompts.sets import classes_of
from textnorm_lib.rewards.scoring import read_scores
from textnorm_lib.stats.metrics import ranking_metrics
from textnorm_lib.stats.names import PROMPT
from textnorm_lib.study.errors import ConfigError, DataError
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import step

PAPERS_ENSEMBLE = ("imagereward", "pickscore")
TEMPERATURES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # in units of each reward
PENALTIES = (0.0, 0.1, 0.5, 1.0, 2.0, 4.0)
HELD_OUT, CLASSES_HELD_OUT, HINDSIGHT, BY_PROMPT = CHOICES = (
    "held out",
    "classes held out",
    "one setting in hindsight",
    "a setting a prompt",
)
OWN = ""  # the kind of column 0
_NO_CONTRASTS = pd.DataFrame({"prompt": [], "text": []}, dtype=object)
_SETTING = ["temperature", "penalty"]
_ROUNDING_DECIMALS = 9  # of settings that are equally good the grid's first is taken


@dataclass(frozen=True)
class ScoreTable:
    """n images with their own prompt (column 0) and its contrastive prompts, of which there are at most m.

    ``images``: set, prompt, image, label, rating and more, rows numbered from 0. ``scores``: by reward (n, 1 + m)
    float64, nan where ``mask`` (n, 1 + m) is False because the prompt has fewer; ``kinds`` (n, 1 + m) of the contrasts.
    """

    images: pd.DataFrame
    scores: dict[str, np.ndarray]
    mask: np.ndarray
    kinds: np.ndarray


def score_table(
    images: pd.DataFrame, contrastive: pd.DataFrame, names: Sequence[str], scored: Iterable[Path]
) -> ScoreTable:
    """Arrange what ``score_images`` wrote to each of the folders ``scored``, by the reward of that place in ``names``.

    ``contrastive``: prompt, text and possibly kind. A prompt's contrastive prompts keep their order; the prompt itself
    and repetitions are dropped from them. A reward may be named twice, with scores of different texts. ``DataError``
    names the first image and text without a score.
    """
    images = images.reset_index(drop=True)
    texts = _columns(images, contrastive)
    cells = images[["prompt", "image"]].reset_index(names="row").merge(texts, on="prompt")
    shape = len(images), 1 + int(texts["column"].max())
    row, column = cells["row"].to_numpy(), cells["column"].to_numpy()
    mask, kinds = np.zeros(shape, bool), np.full(shape, OWN, object)
    mask[row, column], kinds[row, column] = True, cells["kind"]
    pairs, scores, keys = list(zip(names, scored, strict=True)), {}, ["prompt", "image", "text"]
    for name in dict.fromkeys(names):
        stored = pd.concat([read_scores(folder) for other, folder in pairs if other == name]).drop_duplicates(keys)
        found = cells.merge(stored, on=keys, how="left")["score"].to_numpy()
        if (missing := np.isnan(found)).any():
            lost = cells[missing].iloc[0]
            raise DataError(f"{name}: no score of {lost['image']!r} with {lost['text']!r}; score it first")
        scores[name] = np.full(shape, np.nan)
        scores[name][row, column] = found
    return ScoreTable(images, scores, mask, kinds)


def _columns(images: pd.DataFrame, contrastive: pd.DataFrame) -> pd.DataFrame:
    """prompt, text, kind, column: 0 for the prompt itself, then its contrasts."""
    prompts = images["prompt"].drop_duplicates()
    own = pd.DataFrame({"prompt": prompts, "text": prompts, "kind": OWN})
    others = contrastive.assign(kind=contrastive.get("kind", "contrast"))[["prompt", "text", "kind"]]
    texts = pd.concat([own, others[others["prompt"].isin(prompts)]]).drop_duplicates(["prompt", "text"])
    return texts.assign(column=texts.groupby("prompt").cumcount())


def units(table: ScoreTable) -> dict[str, float]:
    """Each reward's unit: the pooled standard deviation of its scores of a prompt's images with that prompt."""
    found = {}
    for name, matrix in table.scores.items():
        own = pd.Series(matrix[:, 0]).groupby(table.images["prompt"].to_numpy())
        found[name] = float(np.sqrt(own.var(ddof=0).mean()))
        if not found[name] > 0:
            raise DataError(f"{name} gives all images of a prompt the same score: it has no unit; check its weights")
    return found


@dataclass(frozen=True)
class Setting:
    """Which rewards, the temperature in their units, and the penalty of equation 3 (0: equation 2)."""

    rewards: tuple[str, ...]
    temperature: float
    penalty: float = 0.0


def _as_frame(settings: Sequence[Setting]) -> pd.DataFrame:
    rows = [("+".join(one.rewards), one.temperature, one.penalty) for one in settings]
    return pd.DataFrame(rows, columns=["rewards", *_SETTING])


def every_ensemble(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Each reward alone, then every pair, triple and so on."""
    return [subset for size in range(1, len(names) + 1) for subset in combinations(names, size)]


@step(2)
def grid_metrics(
    images: pd.DataFrame,
    contrastive: pd.DataFrame,
    *scored: Path,
    names: Sequence[str],
    ensembles: Sequence[Sequence[str]],
    most: int | None = None,
    kinds: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Every ensemble under every setting of the grid, prompt by prompt: rewards, temperature, penalty, ..., ap, auroc.

    ``images``: set, prompt, image, label. ``contrastive``: prompt, text, kind, of which the first ``most`` per prompt
    are used, or those of some ``kinds``; a prompt that then has none is left out, as is one with one label only.
    ``scored``: ``score_images``' folders, in the order of ``names``. ``rewards`` is "clip+pickscore" and the like,
    ``ap`` the mean of the three AP metrics. A reward alone has no penalty.
    """
    if kinds is not None:
        contrastive = contrastive[contrastive["kind"].isin(kinds)]
    if most is not None:
        contrastive = contrastive.groupby("prompt", sort=False).head(most)
    table = score_table(images[images["prompt"].isin(contrastive["prompt"])], contrastive, names, scored)
    settings = [
        Setting(tuple(some), temperature, penalty)
        for some in ensembles
        for temperature in TEMPERATURES
        for penalty in (PENALTIES if len(some) > 1 else (0.0,))
    ]
    return judge_values(table, settings, _values(table, settings))


@step(2)
def raw_metrics(
    images: pd.DataFrame, *scored: Path, names: Sequence[str], ensembles: Sequence[Sequence[str]]
) -> pd.DataFrame:
    """The rewards themselves, without TextNorm, as ``grid_metrics`` gives them; temperature and penalty are nan."""
    table = score_table(images, _NO_CONTRASTS, names, scored)
    settings = [Setting(tuple(some), np.nan, np.nan) for some in ensembles]
    unit = units(table)
    scaled = {name: table.scores[name][:, 0] / unit[name] for name in unit}
    values = [np.mean([scaled[name] for name in setting.rewards], axis=0) for setting in settings]
    return judge_values(table, settings, np.stack(values))


def _values(table: ScoreTable, settings: Sequence[Setting]) -> np.ndarray:
    """Every setting's value of every image: (settings, n). Each reward is normalised once per temperature."""
    unit = units(table)
    normalised = {
        (name, temperature): textnorm(np.nan_to_num(matrix), temperature * unit[name], mask=table.mask)
        for name, matrix in table.scores.items()
        for temperature in {setting.temperature for setting in settings}
    }
    values = []
    for one in settings:
        of_rewards = np.stack([normalised[name, one.temperature] for name in one.rewards])
        values.append(_ensemble(of_rewards, one.penalty))
    return np.stack(values)


def _ensemble(values: np.ndarray, penalty: float) -> np.ndarray:
    """Equation 3 of (k, n) values, which is equation 2 without a ``penalty``."""
    return uncertainty_ensemble(values, penalty) if penalty else mean_ensemble(values)


def judge_values(table: ScoreTable, settings: Sequence[Setting], values: np.ndarray) -> pd.DataFrame:
    """``values`` (settings, n) prompt by prompt: rewards, temperature, penalty, set, prompt, ap, auroc.

    A prompt with one label only is left out; if no other is there, ``DataError``.
    """
    labels, frames = table.images["label"].to_numpy(), []
    columns = _as_frame(settings)
    groups = table.images.groupby(PROMPT, sort=False).indices.items()
    for (name, prompt), rows in progress(groups, "settings: prompts", unit="prompts"):
        if np.ptp(labels[rows]) == 0:
            continue
        found = ranking_metrics(values[:, rows], labels[rows])
        ap = (found["ap5"] + found["ap10"] + found["ap25"]) / 3
        frames.append(columns.assign(set=name, prompt=prompt, ap=ap, auroc=found["auroc"]))
    if not frames:
        raise DataError("no prompt has good and bad images; take more images a prompt")
    return pd.concat(frames, ignore_index=True)


@step(1)
def choose_settings(
    grid: pd.DataFrame, *, seed: int, folds: int = 10, penalties: Sequence[float] | None = None
) -> pd.DataFrame:
    """Each prompt under the setting that each of ``CHOICES`` gives it: rewards, choice, set, prompt, ap, auroc.

    ``grid`` as ``grid_metrics`` gives it, of which only some ``penalties`` may be allowed; of fewer prompts than
    ``folds`` each is a fold. Also temperature and penalty, nan where a prompt's best are several (their metrics are
    averaged). Raises ``ConfigError`` for a single prompt, and where no prompt is left that shares no class with
    another.
    """
    if penalties is not None:
        grid = grid[grid["penalty"].isin(penalties)]
    frames = []
    for rewards, of_ensemble in grid.groupby("rewards", sort=False):
        ap, auroc = (of_ensemble.pivot(index=PROMPT, columns=_SETTING, values=of) for of in ("ap", "auroc"))
        if len(ap) < 2:
            raise ConfigError("one prompt cannot be judged under a setting that others choose; take more prompts")
        for choice, weights in _choices(ap, seed=seed, folds=min(folds, len(ap))):
            frame = pd.DataFrame({"ap": (ap.to_numpy() * weights).sum(1), "auroc": (auroc.to_numpy() * weights).sum(1)})
            one = weights.max(axis=1) == 1
            for place, name in enumerate(_SETTING):
                levels = ap.columns.get_level_values(place).to_numpy()
                frame[name] = np.where(one, levels[weights.argmax(axis=1)], np.nan)
            frames.append(frame.set_index(ap.index).reset_index().assign(rewards=rewards, choice=choice))
    return pd.concat(frames, ignore_index=True)[["rewards", "choice", *PROMPT, "ap", "auroc", *_SETTING]]


def _choices(ap: pd.DataFrame, *, seed: int, folds: int) -> Iterator[tuple[str, np.ndarray]]:
    """A choice and how much of each prompt's number comes from which setting: weights (prompts, settings)."""
    values = ap.to_numpy().round(_ROUNDING_DECIMALS)
    chosen = np.zeros(len(values), int)
    for train, test in KFold(folds, shuffle=True, random_state=seed).split(values):
        chosen[test] = _best(values[train])
    alone = np.eye(values.shape[1])  # all of a prompt's number from one setting
    yield HELD_OUT, alone[chosen]
    classes = [set(classes_of(prompt)) for prompt in ap.index.get_level_values("prompt")]
    for row, own in enumerate(classes):
        others = [place for place, other in enumerate(classes) if not own & other]
        if not others:
            raise ConfigError("a prompt shares a class with every other one; take prompts of more classes")
        chosen[row] = _best(values[others])
    yield CLASSES_HELD_OUT, alone[chosen]
    yield HINDSIGHT, alone[np.full(len(values), _best(values))]
    best = values == values.max(axis=1, keepdims=True)
    yield BY_PROMPT, best / best.sum(axis=1, keepdims=True)


def _best(values: np.ndarray) -> int:
    return int(values.mean(axis=0).round(_ROUNDING_DECIMALS).argmax())


def best_settings(grid: pd.DataFrame) -> list[Setting]:
    """The setting of each ensemble that is best on all prompts of ``grid``: those of development, to judge others."""
    means = grid.groupby(["rewards", *_SETTING], sort=False)["ap"].mean().round(_ROUNDING_DECIMALS).reset_index()
    best = means.loc[means.groupby("rewards", sort=False)["ap"].idxmax()]
    return [Setting(tuple(row.rewards.split("+")), row.temperature, row.penalty) for row in best.itertuples()]


def at_settings(grid: pd.DataFrame, settings: Sequence[Setting]) -> pd.DataFrame:
    """The rows of ``grid`` under the setting of their ensemble: rewards, set, prompt, ap, auroc."""
    return grid.merge(_as_frame(settings))[["rewards", *PROMPT, "ap", "auroc"]]


@step(1)
def given_recipe(*, rewards: Sequence[str], temperatures: Sequence[float], penalty: float = 0.0) -> pd.DataFrame:
    """The recipe that somebody gave: one row."""
    row = "+".join(rewards), list(temperatures), penalty
    return pd.DataFrame([row], columns=["rewards", "temperatures", "penalty"])


@step(1)
def tuned_recipes(grid: pd.DataFrame, unit: pd.DataFrame) -> pd.DataFrame:
    """The best setting of each ensemble in ``grid`` (``grid_metrics``): a row each.

    ``unit`` (``reward_units``) takes temperatures from the grid's units to the rewards' own scales.
    """
    scale = dict(zip(unit["reward"], unit["unit"], strict=True))
    recipes = []
    for one in best_settings(grid):
        temperatures = [one.temperature * scale[name] for name in one.rewards]
        recipes.append(given_recipe(rewards=one.rewards, temperatures=temperatures, penalty=one.penalty))
    return pd.concat(recipes, ignore_index=True)


@step(1)
def reward_units(images: pd.DataFrame, *scored: Path, names: Sequence[str]) -> pd.DataFrame:
    """The unit of each reward on ``images``: reward, unit."""
    return pd.DataFrame(units(score_table(images, _NO_CONTRASTS, names, scored)).items(), columns=["reward", "unit"])


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
        columns[f"{prefix}:{recipe.rewards}"] = _ensemble(np.stack(values), recipe.penalty)
    return table.images.assign(**columns)
