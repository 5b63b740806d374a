"""Reading a folder in transformers' format: model, tokenizer, how pixels become a vision transformer's."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from textnorm_lib.rewards.base import Reward

FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")


@contextmanager
def no_bars() -> Iterator[None]:
    """Keep transformers from drawing a progress bar over reading or writing a few tensors."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_model(class_name: str, folder: Path):
    """The transformers model in ``folder`` in single precision; weights that are missing there raise ``ValueError``.

    transformers itself would draw missing weights at random and only warn.
    """
    import transformers

    with no_bars():
        model, found = getattr(transformers, class_name).from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
    absent = sorted([*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])])
    if absent:
        raise ValueError(f"{len(absent)} weights are missing or of another shape, such as {absent[0]}")
    return model.eval()


def load_tokenizer(folder: Path):
    """The tokenizer in ``folder``, of the class that it names."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def read_folder(reward: Reward, model: nn.Module, vision_config) -> None:
    """Set what ``reward`` needs beside its ``model``: the tokenizer, and how pixels become a vision transformer's."""
    reward.model, reward.tokenizer = model, load_tokenizer(reward.folder)
    preprocessing = json.loads((reward.folder / "preprocessor_config.json").read_text())
    reward.mean, reward.std = preprocessing["image_mean"], preprocessing["image_std"]
    reward.image_size = vision_config.image_size
    patches = (vision_config.image_size // vision_config.patch_size) ** 2
    reward.tokens_size = (1 + patches) * vision_config.hidden_size
