"""Notebook 00 in print: a few prompts, whose favourite image is good, and how often."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from IPython.display import Image
from matplotlib.figure import Figure
from PIL import Image as Picture

from textnorm_lib.figures import style
from textnorm_lib.prompts.templates import PREFIX
from textnorm_lib.stats.names import REWARD_NAMES
from textnorm_lib.study.items import of_notebook

figure, table = of_notebook("00_start_here")

ROWS = {"first": "made first", "clip": "CLIP's\nfavourite", "textnorm": "TextNorm's\nfavourite"}
BESIDE, PITCH, BELOW, LINE = 0.95, 1.22, 0.2, 0.14  # images' sides: left of a row, row to row, votes, a line of text
SHEET_COLUMNS, SHEET_SIDE = 8, 96  # of the sheet in the notebook: images per row, pixels per side


def image_sheet(made: Path, names: Sequence[str], *, alt: str) -> Image:
    """Images of the folder ``made`` side by side, eight per row, for a notebook; ``alt`` tells what there is to see."""
    rows = -(-len(names) // SHEET_COLUMNS)
    sheet = Picture.new("RGB", (min(len(names), SHEET_COLUMNS) * SHEET_SIDE, rows * SHEET_SIDE), "white")
    for place, name in enumerate(names):
        one = Picture.open(made / name).convert("RGB").resize((SHEET_SIDE - 2, SHEET_SIDE - 2))
        sheet.paste(one, (place % SHEET_COLUMNS * SHEET_SIDE + 1, place // SHEET_COLUMNS * SHEET_SIDE + 1))
    buffer = io.BytesIO()
    sheet.quantize(128).save(buffer, "PNG", optimize=True)
    return Image(buffer.getvalue(), format="png", alt=alt)


def _describe_favourites(frame: pd.DataFrame) -> str:
    shown = f"For each of {frame['prompt'].nunique()} prompts the image made first, CLIP's favourite and TextNorm's"
    if frame["label"].isna().any():
        return f"{shown}; nobody has voted: {', '.join(frame['prompt'].unique())}."
    words = []
    for prompt, rows in frame.groupby("prompt", sort=False):
        good = [ROWS[one.chooser].replace("\n", " ") for one in rows.itertuples() if one.label == 1]
        words.append(f"{prompt}: {', '.join(good) or 'none'}")
    return f"{shown}. Good by the majority of the annotators: {'; '.join(words)}."


@figure(
    "fig10_start_here",
    "Two prompts of each set (above; of sixteen images so many are good), and of their images the one made first, "
    "CLIP's favourite, and the favourite of the same CLIP under TextNorm. Below an image its three votes; framed: good "
    "by the majority. The prompts are the first two of development classes, by rule.",
    alt=_describe_favourites,
    needs="prompts",
)
def favourite_images(frame: pd.DataFrame) -> Figure:
    """``pick_favourites``: a column per prompt, a row per chooser; below an image its votes, framed if it is good.

    Where nobody has voted there are neither votes nor frames.
    """
    heads = {prompt: _head(prompt, rows) for prompt, rows in frame.groupby("prompt", sort=False)}
    above = LINE * (1 + max(head.count("\n") for head in heads.values())) + 0.05
    width, height = BESIDE + len(heads), above + (len(ROWS) - 1) * PITCH + 1 + BELOW
    figure, axes = style.new_sheet(width, height)
    for column, (prompt, head) in enumerate(heads.items()):
        left = BESIDE + column
        axes.text(left + 0.5, above - 0.02, head, size=6.5, ha="center", va="bottom", linespacing=1.1)
        for _, one in frame[frame["prompt"] == prompt].iterrows():
            top = above + list(ROWS).index(one["chooser"]) * PITCH
            style.draw_image(axes, left, top, one["png"], framed=one["label"] == 1)
            if not pd.isna(one["label"]):
                axes.text(left + 0.5, top + 0.98, style.votes_as_marks(one), size=7, ha="center", va="top")
    for row, (chooser, name) in enumerate(ROWS.items()):
        axes.text(0, above + row * PITCH + 0.5, f"{name}{_counted(frame, chooser)}", size=7, va="center")
    return figure


def _head(prompt: str, rows: pd.DataFrame) -> str:
    share = rows["share_good"].iloc[0]
    words = textwrap.fill(prompt.removeprefix(PREFIX), 15, break_long_words=False)
    return words if pd.isna(share) else f"{words}\n({share:.0%} good)"


def _counted(frame: pd.DataFrame, chooser: str) -> str:
    labels = frame[frame["chooser"] == chooser]["label"]
    return "" if labels.isna().any() else f"\ngood: {int(labels.sum())} of {len(labels)}"


@table(
    "tab39_start_here",
    "How often one image of sixteen is good, chosen by chance, by CLIP, and by the same CLIP under TextNorm, with 95% "
    "intervals: exact for the two rewards, by drawing prompts again for chance.",
    needs="annotators",
)
def chooser_table(shares: pd.DataFrame) -> pd.DataFrame:
    """A row for each way to choose: chance, CLIP, TextNorm."""
    cells = style.with_cells(shares, "share", digits=2)
    table = cells[["chooser", "cell", "n_prompts"]].replace({"chooser": {"random": "chance", **REWARD_NAMES}})
    return table.set_axis(["chosen by", "good", "prompts"], axis=1)
