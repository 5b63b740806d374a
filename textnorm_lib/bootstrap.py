"""Intervals by drawing whole prompts again: the images of one prompt share its difficulty and are not independent."""

import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats


def prompt_bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], n_prompts: int, *, resamples: int, confidence: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval of a statistic of whole prompts drawn again with replacement.

    ``statistic`` takes counts (b, n_prompts), how often each of b resamples drew each prompt, and returns (..., b): a
    sum over prompts becomes one matrix product. Returns low (...) and high (...), nan with fewer than two prompts.
    """
    if n_prompts < 2:
        nothing = np.full(statistic(np.ones((1, n_prompts))).shape[:-1], np.nan)
        return nothing, nothing

    def of_draws(draws: np.ndarray, axis: int) -> np.ndarray:
        rows = np.arange(len(draws))[:, None] * n_prompts  # (b, 1), so that one bincount serves all resamples
        return statistic(np.bincount((draws + rows).ravel(), minlength=draws.size).reshape(draws.shape))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # nan says it; scipy's text blames another method
        interval = stats.bootstrap(
            (np.arange(n_prompts),),
            of_draws,
            n_resamples=resamples,
            batch=1000,  # 1,000 resamples of 525 prompts: 4 MB an array
            vectorized=True,
            confidence_level=confidence,
            method="percentile",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return interval.low, interval.high
