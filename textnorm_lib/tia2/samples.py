"""Scenes of the mini world, to be looked at."""

import io

import numpy as np
import pandas as pd
from PIL import Image

from textnorm_lib.mini.grammar import write
from textnorm_lib.mini.prompts import sample_spec
from textnorm_lib.store import step


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
