"""Controls for contrastive sets: prompts drawn at random, the "random" row of the paper's table 1."""

import hashlib
from collections.abc import Iterable

import numpy as np

from textnorm_lib.contrastive.meaning import meaning
from textnorm_lib.errors import DataError


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
