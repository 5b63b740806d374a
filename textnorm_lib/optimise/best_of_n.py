"""Best-of-n: choose among n images by a reward, and what that does to the gold standard (section 5.2, appendix 9).

A *pool* holds N images of one prompt, each with a *proxy* (the reward that chooses) and a *gold* (what is wanted). Of
the C(N, n) ways to draw n of them without replacement, C(i - 1, n - 1) are won by the image of proxy rank i, the lowest
being 1, so

    E[gold of the best of n] = sum over i of C(i - 1, n - 1) / C(N, n) * gold_i

uses the whole pool and is unbiased (Nakano et al. 2021, WebGPT, estimate it so). Images with the same proxy share their
ranks equally. With d = sqrt(KL), KL = log n - (n - 1) / n being how far choosing moves from the generator, and R the
gold beyond the generator's own, Gao, Schulman and Hilton 2023 ("Scaling laws for reward model overoptimization") found

    R(d) = d (a - b d)    for best-of-n,          R(d) = d (a - b log d)    for reinforcement learning.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import xlogy

from textnorm_lib.stats.intervals import prompt_bootstrap
from textnorm_lib.stats.metrics import ALL_SETS, finite_column
from textnorm_lib.stats.names import PROMPT
from textnorm_lib.study.errors import DataError, shown
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import step

_LARGEST = 1e150  # gold whose squares can still be added up
_NO_GAIN = 1e-12  # what rounding may leave of a mean gain of none


def expected_gold(proxy: ArrayLike, gold: ArrayLike, n: int) -> float:
    """Unbiased mean gold of the best of n images by ``proxy``, from one pool of N >= n images; in gold's unit.

    ``proxy`` and ``gold`` (N,) are finite. Of the proxy only the order counts; where it is the same for all images, and
    for n = 1, the result is the pool's mean. Raises ``DataError`` for a value that is not finite, lengths that differ,
    n < 1 and n > N.
    """
    proxy, gold = finite_column("proxy", proxy), finite_column("gold", gold)
    if (largest := np.abs(gold).max()) > _LARGEST:
        raise DataError(f"gold holds {largest}: numbers up to {_LARGEST} are needed, as they are squared and added up")
    if proxy.size != gold.size:
        raise DataError(f"proxy has {proxy.size} values, gold {gold.size}: one each an image")
    _check_number("n", n, at_most=proxy.size)
    _, group, ties = np.unique(proxy, return_inverse=True, return_counts=True)
    shared = np.repeat(np.bincount(group, weights=gold) / ties, ties)  # by increasing proxy: the mean of those tied
    # C(i - 1, n - 1) / C(N, n), from the best down by factors of at most 1: nothing overflows, nor loses digits as
    # differences of log-gammas do.
    ranks = np.arange(proxy.size, n, -1)
    falling = np.cumprod(np.append(n / proxy.size, (ranks - n) / (ranks - 1)))
    return float(np.append(np.zeros(n - 1), falling[::-1]) @ shared)


def kl_best_of_n(n: int) -> float:
    """KL divergence of the best of n from one image, in nats: log n - (n - 1) / n.

    Exact where no two draws tie, an upper bound else (Beirami et al. 2024). Raises ``DataError`` for n < 1.
    """
    _check_number("n", n)
    return float(np.log(n) - (n - 1) / n)


def choose_best(proxy: ArrayLike, n: int, k: int) -> np.ndarray:
    """Indices (k,), best first, of the k best of the pool's first n images; of equal ones the earlier comes first.

    Appendix 9 shows the best four. Raises ``DataError`` for a value that is not finite, n > N, k > n, and n or k < 1.
    """
    proxy = finite_column("proxy", proxy)
    _check_number("n", n, at_most=proxy.size)
    _check_number("k", k, at_most=n)
    return np.argsort(-proxy[:n], kind="stable")[:k]


@step(1)
def gold_curves(images: pd.DataFrame, *, rewards: Sequence[str], gold: str, sizes: Sequence[int]) -> pd.DataFrame:
    """``expected_gold`` of every prompt and reward for every n in ``sizes``.

    ``images``: one row an image with set, prompt, the column named ``gold`` and one per name in ``rewards``. Returns
    set, prompt, reward, n, gold, base (the mean, n = 1), possible (best of n by gold itself).
    """
    rows = []
    prompts = images.groupby(PROMPT, sort=False)
    for (name, prompt), pool in progress(prompts, "best of n", total=prompts.ngroups, unit="prompts"):
        for n in sizes:
            possible, base = expected_gold(pool[gold], pool[gold], n), pool[gold].mean()
            rows += [(name, prompt, by, n, expected_gold(pool[by], pool[gold], n), base, possible) for by in rewards]
    return pd.DataFrame(rows, columns=[*PROMPT, "reward", "n", "gold", "base", "possible"])


@step(1)
def gain_realised(curves: pd.DataFrame, *, resamples: int, confidence: float, seed: int) -> pd.DataFrame:
    """The share of the possible gain that a reward realises: mean of gold - base over mean of possible - base.

    ``curves`` as from ``gold_curves``. 1: as good as choosing by gold itself; 0: no better than one image; below 0:
    worse. The means are over prompts, since one whose images are all alike has nothing to gain. Returns set (each and
    ``"all"``), reward, n, share, low, high (bootstrap over prompts), n_prompts; nan where nothing can be gained, as at
    n = 1.
    """
    tables = []
    for name, reward, group in progress(_groups(curves), "gain realised", unit="rewards"):
        gains = group.assign(gained=group["gold"] - group["base"], possible=group["possible"] - group["base"])
        wide = gains.pivot(index=PROMPT, columns="n", values=["gained", "possible"])
        gained, possible = (wide[part].fillna(0).to_numpy() / len(wide) for part in ("gained", "possible"))

        def shares(counts: np.ndarray, gained=gained, possible=possible) -> np.ndarray:
            own, most = counts @ gained, counts @ possible
            return np.divide(own, most, out=np.full_like(own, np.nan), where=most > _NO_GAIN).T

        low, high = prompt_bootstrap(shares, len(wide), resamples=resamples, confidence=confidence, seed=seed)
        table = pd.DataFrame({"share": shares(np.ones((1, len(wide))))[:, 0], "low": low, "high": high})
        about = {"set": name, "reward": reward, "n": wide["gained"].columns}
        tables.append(table.assign(**about, n_prompts=wide["gained"].count().array))
    return pd.concat(tables, ignore_index=True)[["set", "reward", "n", "share", "low", "high", "n_prompts"]]


@step(1)
def fit_gold(
    curves: pd.DataFrame, *, form: Literal["best_of_n", "rl"], resamples: int, confidence: float, seed: int
) -> pd.DataFrame:
    """The a and b of R(d), and the d at which gold peaks: a / (2 b) for best-of-n, exp(a / b - 1) for RL.

    ``curves``: set, prompt, reward, gold, and n (form "best_of_n") or kl in nats (form "rl"). R is gold minus the
    prompt's own at n = 1 (kl = 0); the fit is least squares over all prompts and distances. Where R rises in the end
    (b < 0, or b = 0 < a) the peak is infinite, where it only falls it is 0; beyond the largest d of the curves it is
    extrapolated. Returns set (each and ``"all"``), reward, term ("a", "b", "peak"), value, low, high (bootstrap over
    prompts), n_prompts. Raises ``DataError`` for an unknown form, and for a prompt without a base or with fewer than
    two distances beside it.
    """
    if form not in ("best_of_n", "rl"):
        raise DataError(f"form is {form!r}; known are 'best_of_n' and 'rl'")
    tables = []
    for name, reward, group in progress(_groups(curves), "fits", unit="rewards"):
        products = _products(group, form)

        def terms(counts: np.ndarray, products=products) -> np.ndarray:
            uu, uv, vv, ur, vr = (counts @ products).T
            a, b = np.array([vv * ur - uv * vr, uu * vr - uv * ur]) / (uu * vv - uv**2)
            return np.array([a, b, 1 - 1 / (1 + _peak(a, b, form))])  # bounded: percentiles of infinities would be nan

        bounds = prompt_bootstrap(terms, len(products), resamples=resamples, confidence=confidence, seed=seed)
        columns = np.array([terms(np.ones((1, len(products))))[:, 0], *bounds])
        with np.errstate(divide="ignore"):
            columns[:, 2] = 1 / (1 - columns[:, 2]) - 1
        table = pd.DataFrame(columns.T, columns=["value", "low", "high"])
        tables.append(table.assign(set=name, reward=reward, term=["a", "b", "peak"], n_prompts=len(products)))
    return pd.concat(tables, ignore_index=True)[["set", "reward", "term", "value", "low", "high", "n_prompts"]]


def _products(group: pd.DataFrame, form: str) -> np.ndarray:
    """Per prompt the sums of uu, uv, vv, ur, vr that least squares of r = a u + b v is made of: (prompts, 5)."""
    kl = np.array([kl_best_of_n(n) for n in group["n"]]) if form == "best_of_n" else group["kl"].to_numpy(float)
    distance = np.sqrt(kl)
    keys = [group["set"], group["prompt"]]
    base = group["gold"].where(distance == 0).groupby(keys).transform("max")
    others = pd.Series(distance > 0, group.index).groupby(keys).transform("sum")
    if (short := base.isna() | (others < 2)).any():
        prompt = group["prompt"][short].iloc[0]
        raise DataError(f"curves: prompt {prompt!r} needs a base (n = 1, or kl = 0) and two distances more")
    u, r = distance, (group["gold"] - base).to_numpy()
    v = -(u**2 if form == "best_of_n" else xlogy(u, u))
    return pd.DataFrame(np.transpose([u * u, u * v, v * v, u * r, v * r]), group.index).groupby(keys).sum().to_numpy()


def _peak(a: np.ndarray, b: np.ndarray, form: str) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        turning = np.maximum(a, 0) / (2 * b) if form == "best_of_n" else np.exp(a / b - 1)
    return np.where(b > 0, turning, np.where((b < 0) | (a > 0), np.inf, 0.0))


def _groups(curves: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """The rows of each set, and of all together, by reward: set, reward, rows."""
    sets = [*curves.groupby("set", sort=False), (ALL_SETS, curves)]
    return [(name, *of_reward) for name, rows in sets for of_reward in rows.groupby("reward", sort=False)]


def _check_number(name: str, value: int, *, at_most: float = np.inf) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or not 1 <= value <= at_most:
        limit = "" if at_most == np.inf else f" to {at_most}, the images there are to choose from,"
        raise DataError(f"{name} is {shown(value)}: a whole number from 1{limit or ' up'} is needed")
