"""What several test modules make: a pipeline that is small, a figure as the study draws it."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

from textnorm_lib.figures import FIGURES
from textnorm_lib.figures.style import house_style, settle, stamp
from textnorm_lib.mini import generator


def toy_pipeline(prompts: Sequence[str] = ("a deer", "two frogs"), channels: tuple[int, int] = (16, 16)):
    """The mini world's architecture, smaller, with random weights."""
    torch.manual_seed(0)
    tokenizer = generator.build_tokenizer(list(prompts))
    parts = (generator.build_autoencoder((8, 8, 8)), generator.build_text_encoder(len(tokenizer)), tokenizer)
    return generator.build_pipeline(*parts, generator.build_unet(channels))


def draw(name: str, *frames) -> Figure:
    """The registered figure, as a run draws it; it is as wide as a page's text."""
    with house_style():
        figure = FIGURES[name].build(*frames)
        stamp(figure, "smoke")
        settle(figure)
    assert figure.get_size_inches()[0] == 5.5
    return figure
