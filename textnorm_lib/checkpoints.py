"""Which checkpoint of a fine-tuning run is taken, and what the choice costs (section 5).

The paper takes the earliest checkpoint at which the number of images that score higher than the base's reaches its
maximum. Here an image meets the base's image of the same prompt and seed, and a tie is no win; where no image
ever wins, the base is taken. The rule looks neither at losses nor at how far an image wins, and trusts the reward: one
that is misaligned may choose a checkpoint that has long been overoptimized. Beside it stands the *oracle*: the earliest
checkpoint with the highest mean gold.

Frames are tidy: a row an image, with checkpoint, prompt, seed, and a column for each score.
"""

from collections.abc import Sequence
from numbers import Integral

import numpy as np
import pandas as pd

from textnorm_lib.bootstrap import prompt_bootstrap
from textnorm_lib.errors import DataError
from textnorm_lib.store import step

KEYS = ("checkpoint", "prompt", "seed")


@step(1)
def count_wins(images: pd.DataFrame, *, scores: Sequence[str], base: int = 0) -> pd.DataFrame:
    """How each checkpoint's images score against the base's, image by image (same prompt, same seed).

    ``images``: checkpoint (numbers in the order of training), prompt, seed, and the columns ``scores``; ``base`` is the
    checkpoint that stands for the untuned model. Returns reward (one of ``scores``), checkpoint (increasing, the base
    among them with ties only), wins, ties, losses, mean (of the score).

    Raises ``DataError`` unless each checkpoint has exactly the base's images, once, with a finite number for a score.
    """
    tables = []
    for name in scores:
        table = _table(images, name, base)
        difference = table - table.loc[base]
        counts = {"wins": difference > 0, "ties": difference == 0, "losses": difference < 0}
        summary = pd.DataFrame({kind: found.sum(axis=1) for kind, found in counts.items()})
        tables.append(summary.assign(reward=name, mean=table.mean(axis=1)).reset_index())
    columns = ["reward", "checkpoint", "wins", "ties", "losses", "mean"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def papers_choice(images: pd.DataFrame, *, score: str, base: int = 0) -> int:
    """The earliest checkpoint with the most wins over the base by ``score``; the base where nothing ever wins.

    Raises as ``count_wins``.
    """
    return _earliest_maximum(count_wins(images, scores=[score], base=base).set_index("checkpoint")["wins"])


def oracle_choice(images: pd.DataFrame, *, gold: str, base: int = 0) -> int:
    """The earliest checkpoint, the base among them, with the highest mean of ``gold``. Raises as ``count_wins``."""
    return _earliest_maximum(_table(images, gold, base).mean(axis=1))


@step(1)
def selection_costs(
    images: pd.DataFrame,
    *,
    scores: Sequence[str],
    gold: str,
    resamples: int,
    confidence: float,
    seed: int,
    base: int = 0,
) -> pd.DataFrame:
    """What it costs to choose by each of ``scores`` with the paper's rule instead of by ``gold``, in gold's unit.

    ``images`` as for ``count_wins``. Returns reward, chosen, oracle (checkpoints), gold_base, gold_chosen, gold_oracle
    (means over all images), cost (gold_oracle - gold_chosen, 0 or more), low, high (bootstrap over prompts with both
    choices as they are; nan for a single prompt), n_prompts. The oracle chooses on the very images that it is measured
    on, so that the cost is too high by what luck gives it: more images, less luck. Raises as ``count_wins``.
    """
    table = _table(images, gold, base)
    oracle, means = oracle_choice(images, gold=gold, base=base), table.mean(axis=1)
    rows = []
    for name in scores:
        chosen = papers_choice(images, score=name, base=base)
        of_prompts = (table.loc[oracle] - table.loc[chosen]).groupby("prompt").agg(["sum", "count"]).to_numpy(float)

        def cost(counts: np.ndarray, of_prompts=of_prompts) -> np.ndarray:
            total, number = (counts @ of_prompts).T
            return total / number

        options = {"resamples": resamples, "confidence": confidence, "seed": seed}
        low, high = (float(end) for end in prompt_bootstrap(cost, len(of_prompts), **options))
        gains = {"gold_base": means[base], "gold_chosen": means[chosen], "gold_oracle": means[oracle]}
        choices = {"reward": name, "chosen": chosen, "oracle": oracle}
        interval = {"cost": means[oracle] - means[chosen], "low": low, "high": high, "n_prompts": len(of_prompts)}
        rows.append(choices | gains | interval)
    return pd.DataFrame(rows)


def _earliest_maximum(values: pd.Series) -> int:
    """The first of equal maxima; ``values`` has the checkpoints as its index, increasing."""
    return int(values.idxmax())


def _table(images: pd.DataFrame, score: str, base: int) -> pd.DataFrame:
    """One row a checkpoint, increasing, one column an image (prompt, seed): ``score``. ``DataError`` if it has gaps."""
    _check(images, score)
    table = images.pivot(index="checkpoint", columns=["prompt", "seed"], values=score).sort_index()
    if base not in table.index:
        known = ", ".join(map(str, table.index))
        raise DataError(f"images: there is no base, checkpoint {base}; there are {known}: score the base's images, too")
    for checkpoint, row in table.iterrows():
        for prompt, number in row.index[row.isna()]:
            one = f"prompt {prompt!r}, seed {number}"
            if checkpoint == base:
                raise DataError(f"images: the base (checkpoint {base}) lacks {one}, which others have; make it")
            raise DataError(f"images: checkpoint {checkpoint} lacks {one}, which others have; make it")
    return table


def _check(images: pd.DataFrame, score: str) -> None:
    """Raise ``DataError`` for missing columns or keys, an image that occurs twice, and scores that are not finite."""
    if missing := [name for name in (*KEYS, score) if name not in images]:
        raise DataError(f"images: column {missing[0]!r} is missing; {', '.join((*KEYS, score))} are needed")
    if images.empty:
        raise DataError("images has no rows; give the base's images and each checkpoint's")
    keys = images[list(KEYS)]
    if unknown := [name for name in KEYS if keys[name].isna().any()]:
        raise DataError(f"images: {unknown[0]} is missing in row {int(keys[unknown[0]].isna().argmax())}")
    for value in keys["checkpoint"].unique():
        if not isinstance(value, Integral):
            raise DataError(f"images: checkpoint holds {value!r}; whole numbers in the order of training are needed")
    if (twice := keys.duplicated()).any():
        raise DataError(f"images: {_said(keys[twice].iloc[0])} occurs twice; one row an image is needed")
    try:
        wrong = ~np.isfinite(images[score].to_numpy(float))
    except (TypeError, ValueError):
        raise DataError(f"images: {score} holds something that is no number; finite numbers are needed") from None
    if wrong.any():
        value = images[score][wrong].iloc[0]
        raise DataError(f"images: {score} is {value} at {_said(keys[wrong].iloc[0])}; a finite number is needed")


def _said(row: pd.Series) -> str:
    return f"checkpoint {row['checkpoint']}, prompt {row['prompt']!r}, seed {row['seed']}"
