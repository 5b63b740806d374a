"""What is looked at: scenes of the mini world, generated images with votes, failures; not chosen by their looks."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from textnorm_lib.mini.grammar import write
from textnorm_lib.mini.prompts import sample_spec
from textnorm_lib.store import step
from textnorm_lib.tia2.labels import VOTES


@step(1)
def sample_scenes(*, number: int, seed: int) -> pd.DataFrame:
    """Scenes of the training mix with their captions: prompt, png."""
    from textnorm_lib.mini.scenes import render_many

    generator = np.random.default_rng(seed)
    specs = [sample_spec(generator) for _ in range(number)]
    images = [_png(scene.image) for scene in render_many(specs, seed)]
    return pd.DataFrame({"prompt": [write(spec) for spec in specs], "png": images})


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


@step(1)
def pick_samples(made: Path, labels: pd.DataFrame, *, prompts_per_set: int, images_per_prompt: int) -> pd.DataFrame:
    """Images to look at, not chosen by their looks: of each set prompts at even distances, of each the first images.

    ``made`` is the folder of the images. Returns set, prompt, vote_1, vote_2, vote_3, label and png, the file's bytes.
    """
    rows = []
    for _, group in labels.groupby("set", sort=False):
        prompts = group["prompt"].unique()
        places = np.linspace(0, len(prompts) - 1, min(prompts_per_set, len(prompts))).round().astype(int)
        for prompt in prompts[places]:
            rows.append(group[group["prompt"] == prompt].head(images_per_prompt))
    chosen = pd.concat(rows, ignore_index=True)
    return _with_files(chosen, made)


@step(1)
def pick_failures(made: Path, labels: pd.DataFrame, *, number: int) -> pd.DataFrame:
    """Images that the majority calls bad, a prompt each, the prompts at even distances; columns as ``pick_samples``."""
    bad = labels[labels["label"] == 0].drop_duplicates(["set", "prompt"])
    places = np.linspace(0, len(bad) - 1, min(number, len(bad))).round().astype(int)
    return _with_files(bad.iloc[places], made)


def _with_files(chosen: pd.DataFrame, made: Path) -> pd.DataFrame:
    files = [(made / name).read_bytes() for name in chosen["image"]]
    return chosen[["set", "prompt", *VOTES, "label"]].assign(png=files).reset_index(drop=True)
