"""Votes become labels and ratings as the paper's sections 3.1 and 3.2 say."""

import itertools

import numpy as np
import pandas as pd
import pytest

from textnorm_lib.study.errors import DataError
from textnorm_lib.tia2 import consolidate
from textnorm_lib.tia2.labels import image_table


@pytest.mark.parametrize(
    ("votes", "label", "rating"),
    [
        ((1, 1, 1), 1, 1.0),
        ((1, 1, 0), 1, 2 / 3),
        ((1, 1, -1), 1, 5 / 6),
        ((1, 0, 0), 0, 1 / 3),
        ((1, 0, -1), 0, 0.5),
        ((1, -1, -1), 0, 2 / 3),
        ((0, 0, 0), 0, 0.0),
        ((0, -1, -1), 0, 1 / 3),
        ((-1, -1, -1), 0, 0.5),
    ],
)
def test_consolidate_one_image(votes, label, rating):
    for order in itertools.permutations(votes):
        got = consolidate(order)
        assert got[0] == label
        assert got[1] == pytest.approx(rating, abs=1e-15)


def test_consolidate_keeps_the_leading_shape():
    votes = np.array(list(itertools.product((1, 0, -1), repeat=3))).reshape(3, 9, 3)
    label, rating = consolidate(votes)
    assert label.shape == rating.shape == (3, 9)
    assert label.dtype == np.int64 and rating.dtype == np.float64
    assert label[0, 0] == 1 and rating[0, 0] == 1.0
    assert rating.min() >= 0 and rating.max() <= 1
    flat_label, flat_rating = consolidate(votes.reshape(27, 3).astype(float))
    np.testing.assert_array_equal(flat_label, label.ravel())
    np.testing.assert_array_equal(flat_rating, rating.ravel())


def test_consolidate_no_images():
    label, rating = consolidate(np.empty((0, 3), dtype=int))
    assert label.shape == rating.shape == (0,)


@pytest.mark.parametrize(
    ("votes", "says"),
    [
        ([[1, 0, 1], [1, 2, 0]], r"the vote at \(1, 1\) is 2"),
        ([1, 0, float("nan")], r"the vote at \(2,\) is nan"),
        ([0.5, 0, 1], r"the vote at \(0,\) is 0.5"),
        ([1, 0], r"shape is \(2,\)"),
        (1, r"shape is \(\)"),
        ([[1, 0, 1], [1, 0]], "not exactly three votes"),
        ([True, False, True], "type is bool"),
        (["1", "0", "1"], "not numbers"),
    ],
)
def test_consolidate_rejects(votes, says):
    with pytest.raises(DataError, match=says) as caught:
        consolidate(votes)
    message = str(caught.value)
    assert "\n" not in message and "; give" in message


def votes_frame():
    votes = {"b.jpg": ("a dog", (1, 0, 1)), "a.jpg": ("a cat", (0, -1, 1)), "c.jpg": ("a dog", (-1, 1, 1))}
    rows = [(image, prompt, slot, vote) for image, (prompt, v) in votes.items() for slot, vote in enumerate(v, start=1)]
    return pd.DataFrame(rows, columns=["image", "prompt", "annotator", "vote"])


def test_image_table_is_one_row_an_image_in_file_order():
    table = image_table(votes_frame())
    assert list(table.columns) == ["image", "prompt", "vote_1", "vote_2", "vote_3", "label", "rating"]
    assert table["image"].tolist() == ["b.jpg", "a.jpg", "c.jpg"]
    assert table["prompt"].tolist() == ["a dog", "a cat", "a dog"]
    assert table[["vote_1", "vote_2", "vote_3"]].to_numpy().tolist() == [[1, 0, 1], [0, -1, 1], [-1, 1, 1]]
    assert table["label"].tolist() == [1, 0, 1]
    assert table["rating"].tolist() == pytest.approx([2 / 3, 0.5, 5 / 6])
    assert table["vote_1"].dtype == np.int64


def test_image_table_takes_the_annotators_in_any_order():
    frame = votes_frame()
    mixed = pd.concat([group.iloc[::-1] for _, group in frame.groupby("image", sort=False)])
    pd.testing.assert_frame_equal(image_table(mixed), image_table(frame))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: f.drop(index=4), "'a.jpg' has not exactly one vote"),
        (lambda f: pd.concat([f, f.iloc[[7]]]), "annotator 2 voted twice on image 'c.jpg'"),
        (lambda f: f.assign(vote=[1, 2, *f["vote"][2:]]), r"the vote at \(0, 1\) is 2"),
        (lambda f: f.assign(annotator=f["annotator"] - 1), "not exactly one vote of each annotator"),
        (lambda f: pd.concat([f, f.iloc[[0]].assign(annotator=4)]), "not exactly one vote of each annotator"),
        (lambda f: f.assign(prompt=["x", *f["prompt"][1:]]), "'b.jpg' has not exactly one vote"),
    ],
)
def test_image_table_rejects(spoil, says):
    with pytest.raises(DataError, match=says) as caught:
        image_table(spoil(votes_frame()))
    assert "\n" not in str(caught.value)
