"""Counting by eye: do the judges' votes still hold for the images that an optimised choice prefers?

    picked = pick_for_eye(pool.images.value, pool.judged.value, chosen.value, number=60, seed=0)
    write_sheet(picked, folder)             # sheet.png and ballot.csv to vote from, votes.csv to be opened afterwards
    counted(folder)                         # the filled ballot beside the judges' votes

Who counts looks at ``sheet.png`` alone: numbered images and what was asked for, in random order, no votes, no rewards.
"""

import io
import itertools
import textwrap
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from textnorm_lib.prompts.templates import PREFIX
from textnorm_lib.stats.rankings import RATING
from textnorm_lib.study.drawing import house_style, render
from textnorm_lib.study.errors import DataError, file_within
from textnorm_lib.study.store import write_atomically

SHEET, BALLOT, VOTES = "sheet.png", "ballot.csv", "votes.csv"
ABREAST, SIDE, PITCH = 6, 1.92, 1.25  # images a row; an image's side in inches; from row to row, in images' sides
DPI = 100
ANSWERS = (1, 0, -1)  # good, bad, cannot be told

_ASKED = ["number", "prompt"]
_JUDGED = ["set", "chosen_by", "vote_1", "vote_2", "vote_3", "label"]


def pick_for_eye(made: Path, images: pd.DataFrame, chosen: pd.DataFrame, *, number: int, seed: int) -> pd.DataFrame:
    """``number`` different images among those that rewards chose at the largest n, rewards and sets in turn, at random.

    ``images`` as ``pool.join_judges``, ``chosen`` as ``selection.choose_sets`` gives them. Returns number (1 ..), set,
    prompt, chosen_by (all rewards that chose it), vote_1 .. vote_3, label, png, in random order. Raises ``DataError``
    if so many were not chosen.
    """
    rng = np.random.default_rng(seed)
    last = chosen[(chosen["n"] == chosen["n"].max()) & (chosen["model"] != RATING)]
    if (there := last["image"].nunique()) < number:
        raise DataError(f"number is {number}, but the rewards chose {there} different images; ask for fewer")
    queues = [rng.permutation(rows["image"].unique()) for _, rows in last.groupby(["set", "model"], sort=False)]
    dealt = itertools.chain.from_iterable(itertools.zip_longest(*queues))
    taken = list(dict.fromkeys(image for image in dealt if image is not None))[:number]
    by = last.groupby("image")["model"].unique().str.join("+").rename("chosen_by")
    told = images.set_index("image").join(by).loc[rng.permutation(taken)].reset_index()
    files = [file_within(made, name).read_bytes() for name in told["image"]]
    return told[["prompt", *_JUDGED]].assign(number=range(1, number + 1), png=files)


def draw_blind(picked: pd.DataFrame) -> Figure:
    """Numbered images with what was asked for below each, and nothing else."""
    rows = -(-len(picked) // ABREAST)
    figure = Figure(figsize=(ABREAST * SIDE, rows * PITCH * SIDE), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, ABREAST), ylim=(rows * PITCH, 0))
    axes.set_axis_off()
    for place, one in enumerate(picked.itertuples()):
        left, top = place % ABREAST, place // ABREAST * PITCH
        extent = (left + 0.02, left + 0.98, top + 0.98, top + 0.02)
        axes.imshow(matplotlib.image.imread(io.BytesIO(one.png)), extent=extent, interpolation="none", aspect="auto")
        text = textwrap.fill(f"{one.number}: {one.prompt.removeprefix(PREFIX)}", 32)
        axes.text(left + 0.03, top + 1.0, text, size=8, va="top")
    return figure


def write_sheet(picked: pd.DataFrame, folder: Path) -> None:
    """The sheet, the empty ballot and the judges' votes. Raises ``DataError`` rather than overwrite a filled ballot."""
    if (folder / BALLOT).exists() and pd.read_csv(folder / BALLOT)["by_eye"].notna().any():
        raise DataError(f"{folder / BALLOT} holds votes; give another folder, or remove it")
    with house_style():
        write_atomically(folder / SHEET, render(draw_blind(picked), "png", DPI))
    write_atomically(folder / BALLOT, _csv(picked[_ASKED].assign(by_eye="")))
    write_atomically(folder / VOTES, _csv(picked[["number", *_JUDGED]]))


def counted(folder: Path) -> pd.DataFrame:
    """The ballot with the judges' votes: set, prompt, chosen_by, vote_1 .. vote_3, label, by_eye.

    Raises ``DataError`` for a ballot on which an image has no answer of ``ANSWERS`` (1 good, 0 bad, -1 cannot be told).
    """
    ballot = pd.read_csv(folder / BALLOT)
    wrong = ballot[~ballot["by_eye"].isin(ANSWERS)]
    if len(wrong):
        raise DataError(f"{folder / BALLOT}: number {wrong['number'].iloc[0]} has no answer 1, 0 or -1; give it one")
    table = ballot.merge(pd.read_csv(folder / VOTES), on="number", validate="1:1")
    return table[["set", "prompt", *_JUDGED[1:], "by_eye"]].astype({"by_eye": int})


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()
