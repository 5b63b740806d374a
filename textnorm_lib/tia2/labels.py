"""From three votes to a label and a rating (the paper's sections 3.1 and 3.2).

A vote is 1 (good), 0 (bad) or -1 (skip: hard to answer). An image's *label* is 1 if at least two of its three votes are
good, else 0; its *rating* is the mean of the votes with a skip counted as 0.5, so one of 0, 1/6, 1/3, ..., 1.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from textnorm_lib.study.errors import DataError

INDEX = "index.parquet"  # of a folder of images: set, image, prompt, seed
ANNOTATORS = (1, 2, 3)
GOOD, BAD, SKIP = 1, 0, -1
VOTES = ["vote_1", "vote_2", "vote_3"]


def consolidate(votes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Votes (..., 3) in {1, 0, -1} -> label (...) int64 in {0, 1}, rating (...) float64 in [0, 1].

    Raises ``DataError`` for a last axis that is not three and for any other vote (NaN and bool included).
    """
    try:
        votes = np.asarray(votes)
    except (ValueError, RuntimeError):  # ragged lists, a tensor within a graph
        raise DataError("votes: some image has not exactly three votes; give an array of shape (..., 3)") from None
    if votes.ndim == 0 or votes.shape[-1] != len(ANNOTATORS):
        raise DataError(f"votes: the shape is {votes.shape}, not three votes an image; give an array of shape (..., 3)")
    if votes.dtype.kind not in "iuf":
        raise DataError(f"votes: the type is {votes.dtype}, not numbers; give 1 (good), 0 (bad) or -1 (skip)")
    wrong = ~np.isin(votes, (GOOD, BAD, SKIP))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise DataError(f"votes: the vote at {place} is {votes[place]}; give 1 (good), 0 (bad) or -1 (skip)")
    label = ((votes == GOOD).sum(axis=-1) >= 2).astype(np.int64)
    rating = np.where(votes == SKIP, 0.5, votes).mean(axis=-1)
    return label, rating


def or_unlabelled(images: pd.DataFrame) -> pd.DataFrame:
    """``images``; where nobody has voted, with nan for the three votes and the label."""
    return images if "label" in images else images.assign(**dict.fromkeys([*VOTES, "label"], np.nan))


def image_table(votes_frame: pd.DataFrame) -> pd.DataFrame:
    """One row per image, in the order in which the images first occur.

    Takes columns image, prompt, annotator (1..3), vote (one row per vote, in any order); returns image, prompt, vote_1,
    vote_2, vote_3, label, rating. Raises ``DataError`` for an image that has not exactly one vote of each annotator
    (under one prompt), or a vote outside {1, 0, -1}.
    """
    keys = ["image", "prompt"]
    twice = votes_frame.duplicated([*keys, "annotator"])
    if twice.any():
        row = votes_frame[twice].iloc[0]
        raise DataError(f"votes: annotator {row.annotator} voted twice on image {row.image!r}; keep one row a vote")
    order = pd.MultiIndex.from_frame(votes_frame[keys].drop_duplicates())
    wide = votes_frame.pivot(index=keys, columns="annotator", values="vote").reindex(order)
    if (wanted := list(ANNOTATORS)) != sorted(wide.columns) or wide.isna().any(axis=None):
        short = wide.reindex(columns=wanted).isna().any(axis=1)
        name = repr(wide.index[short.argmax()][0]) if short.any() else f"of annotators {list(wide.columns)}"
        raise DataError(f"votes: image {name} has not exactly one vote of each annotator 1, 2, 3; complete the frame")
    votes = wide[wanted].to_numpy()
    label, rating = consolidate(votes)
    columns = {f"vote_{a}": votes[:, i].astype(np.int64) for i, a in enumerate(ANNOTATORS)}
    return order.to_frame(index=False).assign(**columns, label=label, rating=rating)
