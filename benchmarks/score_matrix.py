"""A matrix of scores (images x prompts) by ``Reward.score_matrix`` beside the original packages' own calls, on a CPU.

    python benchmarks/score_matrix.py --images 16 --prompts 33 --pairs 6 --rewards clip pickscore imagereward blip2

The published architectures at full size with random weights, the same ones on both sides; ``--toy`` makes them small.
The originals are called as their authors show: open_clip, image-reward and LAVIS for one pair after another, PickScore
through transformers for one prompt and all images. They are timed on ``--pairs`` pairs (PickScore: on as many prompts
as make so many pairs) and scaled to the matrix; ours is timed on the whole of it. Each side has a process of its own
and one thread. Time is processor time, which other work on the machine hardly changes; memory is the most that was
resident (as Linux tells it): first while the model is read and scores one pair, then during what is timed.
"""

import argparse
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import psutil
import torch
from PIL import Image
from random_weights import CLIP_TOKENS, make

from textnorm_lib.compat import prepare_torchvision
from textnorm_lib.mini.prompts import choose_prompts
from textnorm_lib.rewards import load_reward
from textnorm_lib.rewards.isolated import ReferenceReward
from textnorm_lib.rewards.pretrained import load_model, load_tokenizer

REWARDS = ("clip", "pickscore", "imagereward", "blip2")
SIDE = 512  # pixels of an image, as Stable Diffusion makes them

# The scores of some images with one prompt, in the original's own way.
Original = Callable[[list[Image.Image], str], list[float]]


class Measured(NamedTuple):
    """One side: its scores, its processor seconds, the most memory (MiB) to load and to score."""

    scores: np.ndarray
    seconds: float
    load_mib: float
    score_mib: float


class Meter:
    """What a process, its own or another, spends from now on; and the most memory that it has had so far."""

    def __init__(self, process: int) -> None:
        self._files = Path(f"/proc/{process}")
        self._clock = (~process << 3) | 2  # the process's own, as clock_getcpuclockid(3) finds it in Linux
        self._load_mib = self._peak_mib()
        (self._files / "clear_refs").write_text("5")  # forgets the peak
        self._begun = time.clock_gettime(self._clock)

    def measured(self, scores: np.ndarray) -> Measured:
        return Measured(scores, time.clock_gettime(self._clock) - self._begun, self._load_mib, self._peak_mib())

    def _peak_mib(self) -> float:
        return int((self._files / "status").read_text().split("VmHWM:")[1].split()[0]) / 2**10


def open_clip_original(folder: Path) -> Original:
    prepare_torchvision()
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")

    @torch.no_grad()
    def score(image: Image.Image, prompt: str) -> float:
        image_feature = model.encode_image(preprocess(image)[None], normalize=True)
        text_feature = model.encode_text(tokenizer([prompt]), normalize=True)
        return (model.logit_scale.exp() * image_feature @ text_feature.T).item()

    return lambda images, prompt: [score(image, prompt) for image in images]


def pickscore_original(folder: Path) -> Original:
    """What its authors published with the model, but for the softmax over the images."""
    model, tokenizer = load_model("CLIPModel", folder), load_tokenizer(folder)
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil.from_pretrained(folder)

    @torch.no_grad()
    def scores(images: list[Image.Image], prompt: str) -> list[float]:
        pixels = processor(images, return_tensors="pt")
        ids = tokenizer([prompt], padding=True, truncation=True, max_length=CLIP_TOKENS, return_tensors="pt")
        image_features = model.get_image_features(**pixels).pooler_output
        text_features = model.get_text_features(**ids).pooler_output
        image_features, text_features = (x / x.norm(dim=-1, keepdim=True) for x in (image_features, text_features))
        return (model.logit_scale.exp() * (text_features @ image_features.T)[0]).tolist()

    return scores


def measure_original(name: str, folder: Path, images: list[Image.Image], prompts: list[str], calls: list) -> Measured:
    """``calls`` say which images are scored with which prompt; the scores of all of them in a row."""
    torch.set_num_threads(1)
    process = os.getpid()
    if name in ("clip", "pickscore"):
        score = (open_clip_original if name == "clip" else pickscore_original)(folder)
    else:
        before = set(psutil.Process().children())
        reference = ReferenceReward(name, folder)
        [process] = (worker.pid for worker in set(psutil.Process().children()) - before)

        def score(some: list[Image.Image], prompt: str) -> list[float]:
            return reference.scores(some, [prompt] * len(some)).tolist()

    score(images[:1], prompts[0])  # pays for what is done once
    meter = Meter(process)
    scores = [score([images[place] for place in places], prompts[column]) for places, column in calls]
    return meter.measured(np.concatenate(scores))


def measure_ours(name: str, folder: Path, images: list[Image.Image], prompts: list[str]) -> Measured:
    torch.set_num_threads(1)
    reward = load_reward(name, folder=folder)
    reward.score_matrix(images[:1], prompts[:1])
    meter = Meter(os.getpid())
    return meter.measured(reward.score_matrix(images, prompts))


def compare(name: str, *, images: int, prompts: int, pairs: int, toy: bool) -> dict[str, float]:
    """Both sides of one reward; the largest difference of scores is a share of the range of the original's."""
    pictures, texts = random_images(images), list(choose_prompts("composition", prompts))
    if name == "pickscore":
        calls = [(range(images), column) for column in range(min(math.ceil(pairs / images), prompts))]
    else:
        calls = [([place % images], place % prompts) for place in range(pairs)]
    with tempfile.TemporaryDirectory() as folder:
        alone(make, name, Path(folder), texts, toy)
        theirs = alone(measure_original, name, Path(folder, "original"), pictures, texts, calls)
        ours = alone(measure_ours, name, Path(folder, "ours"), pictures, texts)
    same = np.concatenate([ours.scores[list(places), column] for places, column in calls])
    seconds = theirs.seconds * images * prompts / len(same)
    return {
        "pairs timed": len(same),
        "seconds, original": seconds,
        "ours": ours.seconds,
        "times faster": seconds / ours.seconds,
        "MiB to load, original": theirs.load_mib,
        "MiB to load, ours": ours.load_mib,
        "MiB to score, original": theirs.score_mib,
        "MiB to score, ours": ours.score_mib,
        "largest difference": np.abs(same - theirs.scores).max() / np.ptp(theirs.scores),
    }


def random_images(count: int) -> list[Image.Image]:
    """Soft blobs of colour."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for one in coarse]


def alone(function: Callable, *arguments: Any) -> Any:
    """The function's result from a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Our score matrices beside the original packages' own calls.")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=33)
    parser.add_argument("--pairs", type=int, default=6, help="that the original is timed on, two at least")
    parser.add_argument("--rewards", nargs="+", choices=REWARDS, default=REWARDS)
    parser.add_argument("--toy", action="store_true", help="small models, to try the benchmark itself")
    options = vars(parser.parse_args(arguments))
    os.environ["OMP_NUM_THREADS"] = "1"  # for the originals' processes
    rows = {name: compare(name, **options) for name in options.pop("rewards")}
    print(f"{options['images']} images x {options['prompts']} prompts, torch {torch.__version__}, one thread\n")
    print(pd.DataFrame.from_dict(rows, orient="index").to_markdown(floatfmt=".3g"))


if __name__ == "__main__":
    main()
