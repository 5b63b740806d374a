"""The metrics of thousands of rewards of one prompt's images at once, for searches over settings."""

import numpy as np
from scipy import stats

from textnorm_lib.errors import DataError


def ranking_metrics(rewards: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """AUROC and AP@5, 10, 25 of many rewards of one prompt's images at once: (c, n) with labels (n,) -> (c,) each.

    The same numbers as ``metrics.alignment_metrics``, and as tolerant of ties. ``rewards`` finite, both labels
    present. Raises ``DataError`` for one label only.
    """
    good = int(labels.sum())
    bad = labels.size - good
    if not good or not bad:
        raise DataError(f"labels are all {int(labels[0])}: good and bad images are needed")
    ranks = stats.rankdata(rewards, axis=1)  # ties share their mean rank
    values = {"auroc": ((ranks * labels).sum(axis=1) - good * (good + 1) / 2) / (good * bad)}
    order = np.argsort(-rewards, axis=1, kind="stable")
    best_first = np.take_along_axis(rewards, order, axis=1)
    hits = np.c_[np.zeros(len(rewards)), labels[order].cumsum(axis=1)]
    ends = np.c_[np.ones(len(rewards), bool), best_first[:, :-1] != best_first[:, 1:], np.ones(len(rewards), bool)]
    return values | {f"ap{k}": _average_precisions(hits, ends, min(k, labels.size)) for k in (5, 10, 25)}


def _average_precisions(hits: np.ndarray, ends: np.ndarray, k: int) -> np.ndarray:
    """AP@k of c orders at once, (c,): the hits (c, 1 + n) among the t best, and whether a block of ties ends there."""
    places, rows = np.arange(hits.shape[1]), np.arange(len(hits))
    last_end = np.maximum.accumulate(np.where(ends, places, 0), axis=1)
    before, after = last_end[:, k - 1], k + ends[:, k:].argmax(axis=1)
    gained = hits - np.take_along_axis(hits, np.c_[last_end[:, :1], last_end[:, :-1]], axis=1)
    sums = np.where(ends & (places < k), gained * hits / np.maximum(places, 1), 0).sum(axis=1)
    straddling = (hits[rows, after] - hits[rows, before]) * (k - before) / (after - before)
    hits_to_k = hits[rows, before] + straddling
    return np.where(hits_to_k > 0, (sums + straddling * hits_to_k / k) / np.maximum(hits_to_k, 1e-9), 0.0)
