"""A benchmark's scores as arrays, for TextNorm and its alternatives.

    table = score_table(images, contrastive, ["clip", ...], [folder, ...])
    table.scores["clip"]                          # (n images, 1 + m): column 0 with the image's own prompt
    units(table)                                  # {"clip": 0.84, ...}

Rewards differ in scale: BLIP-2's is a probability, CLIP's a hundred cosines. One temperature can serve them if it
counts in each reward's own *unit*, the pooled standard deviation of its scores of one prompt's images with that prompt.
No label is needed for it, and the contrastive prompts have no part in it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from textnorm_lib.errors import DataError
from textnorm_lib.rewards.scoring import read_scores
from textnorm_lib.textnorm import mean_ensemble, uncertainty_ensemble

OWN = ""  # the kind of column 0


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
    and repetitions are dropped from them. A reward may be named twice, with scores of different texts. Raises
    ``DataError``, naming the first, for an image and a text without a score.
    """
    images = images.reset_index(drop=True)
    texts = _columns(images, contrastive)
    cells = images[["prompt", "image"]].reset_index(names="row").merge(texts, on="prompt")
    shape = len(images), 1 + int(texts["column"].max())
    row, column = cells["row"].to_numpy(), cells["column"].to_numpy()
    mask, kinds = np.zeros(shape, bool), np.full(shape, OWN, object)
    mask[row, column], kinds[row, column] = True, cells["kind"]
    folders: dict[str, list[Path]] = {}
    for name, folder in zip(names, scored, strict=True):
        folders.setdefault(name, []).append(folder)
    scores = {}
    for name, of_reward in folders.items():
        found = cells.merge(_read(of_reward), on=["prompt", "image", "text"], how="left")["score"].to_numpy()
        if (missing := np.isnan(found)).any():
            lost = cells[missing].iloc[0]
            raise DataError(f"{name}: no score of {lost['image']!r} with {lost['text']!r}; score it first")
        scores[name] = np.full(shape, np.nan)
        scores[name][row, column] = found
    return ScoreTable(images, scores, mask, kinds)


def _read(folders: Sequence[Path]) -> pd.DataFrame:
    keys = ["prompt", "image", "text"]
    return pd.concat([read_scores(folder) for folder in folders]).drop_duplicates(keys)


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


def ensemble(values: np.ndarray, penalty: float) -> np.ndarray:
    """Equation 3 of (k, n) values, which is equation 2 without a ``penalty``."""
    return uncertainty_ensemble(values, penalty) if penalty else mean_ensemble(values)


def raw(table: ScoreTable, rewards: tuple[str, ...], unit: Mapping[str, float] | None = None) -> np.ndarray:
    """No TextNorm: the mean of the rewards with the own prompt, each in its unit, (n,)."""
    unit = units(table) if unit is None else unit
    return np.mean([table.scores[name][:, 0] / unit[name] for name in rewards], axis=0)
