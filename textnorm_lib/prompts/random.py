"""Random contrastive prompts, the control: the "random" row of the paper's table 1."""

import hashlib
from collections.abc import Iterable

import numpy as np
import pandas as pd

from textnorm_lib.prompts.linter import meaning
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.store import step


def random_prompts(prompt: str, pool: Iterable[str], m: int, seed: int) -> list[str]:
    """``m`` prompts drawn without replacement from ``pool``, no two of which mean the same, nor the same as ``prompt``.

    ``m`` is the size of the set that they are the control of. The draw depends on ``prompt``, ``seed`` and what is in
    the pool, not on its order or on other draws, and fewer are the first of more. Raises ``DataError`` if the pool has
    not so many.
    """
    if isinstance(pool, str):
        raise DataError(f"random_prompts: the pool is the single string {pool!r:.80}; give a list of prompts")
    if m < 1:
        raise DataError(f"random_prompts: m = {m} prompts for {prompt!r}; ask for at least one")
    pool = sorted(pool)
    others = {meaning(other): other for other in pool if meaning(other) != meaning(prompt)}
    if len(others) < m:
        raise DataError(
            f"random_prompts: m = {m}, but of the pool's {len(pool)} prompts {len(others)} mean something else than "
            f"{prompt!r} and each other; enlarge the pool or ask for fewer"
        )
    digest = hashlib.sha256(f"{seed}/{prompt}".encode()).digest()
    order = np.random.default_rng(int.from_bytes(digest)).permutation(len(others))
    candidates = list(others.values())
    return [candidates[place] for place in order[:m]]


@step(1)
def random_sets(contrastive: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """The control: for each prompt as many random prompts of the other prompts' sets: set, prompt, text, kind."""
    pool = sorted(set(contrastive["text"]) | set(contrastive["prompt"]))
    rows = [
        (name, prompt, text, "random")
        for (name, prompt), own in contrastive.groupby(["set", "prompt"], sort=False)
        for text in random_prompts(prompt, pool, len(own), seed)
    ]
    return pd.DataFrame(rows, columns=["set", "prompt", "text", "kind"])
