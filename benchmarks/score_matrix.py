"""A matrix of scores (images x prompts) by ``Reward.score_matrix`` beside the original packages' own calls.

    python -m benchmarks.score_matrix --images 16 --prompts 33 --pairs 6 --rewards clip pickscore imagereward blip2

The published architectures at full size with random weights, the same ones on both sides; ``--toy`` makes them small.
The originals are called as their authors show: open_clip, image-reward and LAVIS for one pair after another, PickScore
through transformers for one prompt and all images. They are timed on ``--pairs`` pairs (PickScore: on as many prompts
as make so many pairs), ours on the whole matrix; the sides take turns (``side_by_side.py``). Memory is given first
while the model is read and scores one pair, then during what is timed; of image-reward and LAVIS, which run in a
process of another environment, on a CPU only. Arithmetic is in float32, but that LAVIS reads images in float16 on a
GPU.
"""

import argparse
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from benchmarks.originals import ReferenceReward
from benchmarks.side_by_side import (
    Spent,
    Spread,
    alone,
    asked_for,
    busy,
    errors_in_one_line,
    peak_rate,
    side_by_side,
    table,
    take_turns,
    where,
)
from benchmarks.stand_in_models import CLIP_TOKENS
from benchmarks.stand_ins import write_both_sides
from textnorm_lib.prompts.sets import choose_prompts
from textnorm_lib.rewards import load_reward
from textnorm_lib.rewards.pretrained import load_model, load_tokenizer

REWARDS = ("clip", "pickscore", "imagereward", "blip2")
SIDE = 512  # pixels of an image, as Stable Diffusion makes them

# The scores of some images with one prompt, in the original's own way.
Original = Callable[[list[Image.Image], str], list[float]]


@dataclass(frozen=True)
class Work:
    """A reward, its models in ``folder``/original and ``folder``/ours, and what both sides score."""

    name: str
    folder: Path
    device: str
    images: list[Image.Image]
    prompts: list[str]


@dataclass
class Scored(Spent):
    """What a process spent on scoring, and its scores."""

    scores: np.ndarray | None = None


def open_clip_original(folder: Path, device: str) -> Original:
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}", device=device)
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")

    @torch.no_grad()
    def score(image: Image.Image, prompt: str) -> float:
        image_feature = model.encode_image(preprocess(image)[None].to(device), normalize=True)
        text_feature = model.encode_text(tokenizer([prompt]).to(device), normalize=True)
        return (model.logit_scale.exp() * image_feature @ text_feature.T).item()

    return lambda images, prompt: [score(image, prompt) for image in images]


def pickscore_original(folder: Path, device: str) -> Original:
    """What its authors published with the model, but for the softmax over the images."""
    model, tokenizer = load_model("CLIPModel", folder).to(device), load_tokenizer(folder)
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil.from_pretrained(folder)

    @torch.no_grad()
    def scores(images: list[Image.Image], prompt: str) -> list[float]:
        pixels = processor(images, return_tensors="pt").to(device)
        ids = tokenizer([prompt], padding=True, truncation=True, max_length=CLIP_TOKENS, return_tensors="pt")
        ids = ids.to(device)
        image_features = model.get_image_features(**pixels).pooler_output
        text_features = model.get_text_features(**ids).pooler_output
        image_features, text_features = (x / x.norm(dim=-1, keepdim=True) for x in (image_features, text_features))
        return (model.logit_scale.exp() * (text_features @ image_features.T)[0]).tolist()

    return scores


def original(work: Work, calls: list[tuple[range, int]]) -> Scored:
    """``calls`` say which images are scored with which prompt; the scores of all of them in a row."""
    name, folder, process = work.name, work.folder / "original", os.getpid()
    if name in ("clip", "pickscore"):
        score = (open_clip_original if name == "clip" else pickscore_original)(folder, work.device)
    else:
        before = set(psutil.Process().children())
        reference = ReferenceReward(name, folder, device=work.device)
        [process] = (worker.pid for worker in set(psutil.Process().children()) - before)

        def score(some: list[Image.Image], prompt: str) -> list[float]:
            return reference.scores(some, [prompt] * len(some)).tolist()

    score(work.images[:1], work.prompts[0])  # pays for what is done once
    spent = Scored(work.device, process=process)
    with spent.timed(sum(len(places) for places, _ in calls)):
        scores = [score([work.images[place] for place in places], work.prompts[column]) for places, column in calls]
    spent.scores = np.concatenate(scores)
    return spent


def ours(work: Work, *, counting: bool = False) -> Scored:
    reward = load_reward(work.name, folder=work.folder / "ours", device=work.device)
    reward.score_matrix(work.images[:1], work.prompts[:1])
    spent = Scored(work.device, counting)
    with spent.timed(len(work.images) * len(work.prompts)):
        spent.scores = reward.score_matrix(work.images, work.prompts)
    return spent


def compare(work: Work, *, pairs: int, toy: bool, repeats: int, peak: float) -> dict[str, float | Spread]:
    """Both sides of one reward; the largest difference of scores is a share of the range of the original's."""
    images, prompts = len(work.images), len(work.prompts)
    if work.name == "pickscore":
        calls = [(range(images), column) for column in range(min(math.ceil(pairs / images), prompts))]
    else:
        calls = [(range(place % images, place % images + 1), place % prompts) for place in range(pairs)]
    alone(write_both_sides, work.name, work.folder, work.prompts, toy)
    theirs, mine = take_turns(repeats, partial(original, work, calls), partial(ours, work))
    counted = alone(partial(ours, work, counting=True))
    same = np.concatenate([mine[0].scores[list(places), column] for places, column in calls])
    return {
        "pairs timed, original": len(same),
        **side_by_side(theirs, mine, unit="pairs", counted=counted, peak=peak),
        "MiB to load, original": Spread.of(one.before_mib for one in theirs),
        "MiB to load, ours": Spread.of(one.before_mib for one in mine),
        "largest difference": np.abs(same - theirs[0].scores).max() / np.ptp(theirs[0].scores),
    }


def random_images(count: int) -> list[Image.Image]:
    """Soft blobs of colour."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for one in coarse]


@errors_in_one_line()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Our score matrices beside the original packages' own calls.")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=33)
    parser.add_argument("--pairs", type=int, default=6, help="that the original is timed on, two at least")
    parser.add_argument("--rewards", nargs="+", choices=REWARDS, default=REWARDS)
    parser.add_argument("--toy", action="store_true", help="small models, to try the benchmark itself")
    options = asked_for(parser, arguments)
    images, prompts = random_images(options.images), list(choose_prompts("composition", options.prompts))
    peak = alone(peak_rate, options.device, "float32")
    print(f"{options.images} images x {options.prompts} prompts\n{where(options)}\npeak: {peak / 1e9:,.0f} GFLOP/s")
    settings, columns = {"pairs": options.pairs, "toy": options.toy, "repeats": options.repeats, "peak": peak}, {}
    for name in options.rewards:
        with tempfile.TemporaryDirectory() as folder:
            columns[name] = compare(Work(name, Path(folder), options.device, images, prompts), **settings)
    print(f"\n{table(columns)}\n\n{busy()}")


if __name__ == "__main__":
    main()
