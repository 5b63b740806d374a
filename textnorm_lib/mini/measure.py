"""How good the trained models are: what the model card says is computed here.

Annotators are measured on scenes that no training saw; the generator and the rewards on *development* prompts only, so
that recipes can be chosen by these numbers without a look at what the study evaluates on.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from statsmodels.stats.proportion import proportion_confint

from textnorm_lib.metrics import prompt_metrics, summarise
from textnorm_lib.mini import spoil, train_annotators
from textnorm_lib.mini.annotators import collect_votes, detect, load_annotator, vote
from textnorm_lib.mini.generator import as_tensor
from textnorm_lib.mini.grammar import parse
from textnorm_lib.mini.plan import DEVELOPMENT_SEED, HELD_OUT_SEED, JUDGES, PREFERENCE_ANNOTATORS, Plan
from textnorm_lib.mini.prompts import SETS, mini_prompts, split
from textnorm_lib.mini.train import training_scenes
from textnorm_lib.progress import progress
from textnorm_lib.rewards import load_reward
from textnorm_lib.sampling import load_pipeline
from textnorm_lib.tia2.build import label_images, make_images
from textnorm_lib.tia2.describe import share_good
from textnorm_lib.weights import Weights

REWARDS = ("clip", "blip2", "imagereward", "pickscore")
INTERVALS = {"resamples": 10_000, "confidence": 0.95, "seed": 0}


def measure_annotators(plan: Plan, folder: Path, weights: Path) -> pd.DataFrame:
    """Share of held-out scenes whose objects an annotator sees exactly, and its votes on them.

    A row an annotator and version of the scenes (as drawn, through the autoencoder, half-finished, degraded): exact,
    low, high (Wilson, 95%), good and skip: shares of its votes, all of which ought to be good.
    """
    folder, count = folder / "held_out", plan.held_out
    scenes = training_scenes(folder, count=count, seed=HELD_OUT_SEED, workers=plan.workers)
    pipeline = load_pipeline(str(weights / "generator"))
    options = {"count": count, "seed": HELD_OUT_SEED}
    restored = spoil.restored(scenes, pipeline.vae, folder / "restored.npy", **options)
    halves = spoil.half_finished(scenes, pipeline, folder / "half_finished.npy", **options)
    drawn = as_tensor(scenes.images)
    versions = {
        "as drawn": drawn,
        "through the autoencoder": as_tensor(restored),
        "half-finished": as_tensor(halves),
        "degraded": spoil.degrade(drawn, torch.Generator().manual_seed(HELD_OUT_SEED)),
    }
    rows = []
    for name in progress((*JUDGES, *PREFERENCE_ANNOTATORS), "annotators", unit="annotator"):
        annotator = load_annotator(weights / "annotators" / f"{name}.safetensors")
        for version, images in versions.items():
            exact = train_annotators.share_exact(annotator, scenes, images)[:, 0]
            votes = _votes(annotator, images, scenes.captions)
            low, high = proportion_confint(exact.sum(), count, method="wilson")
            rows.append((name, version, exact.mean(), low, high, (votes == 1).mean(), (votes == -1).mean()))
    return pd.DataFrame(rows, columns=["annotator", "version", "exact", "low", "high", "good", "skip"])


def _votes(annotator, images: torch.Tensor, captions: Sequence[str]) -> np.ndarray:
    starts = range(0, len(images), 100)
    seen = [one for start in starts for one in detect(annotator, images[start : start + 100])]
    return np.array([vote(one, parse(caption)) for one, caption in zip(seen, captions, strict=True)])


def measure_development(plan: Plan, folder: Path, weights: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """On development prompts: the share of good images by the judges, and the seven metrics of every reward.

    Two tables with means over prompts and their intervals, a row a set, reward and metric (``metrics.summarise``).
    """
    folder = folder / "development"
    images = development_images(plan, folder, weights)
    scored = images.copy()
    paths = [folder / name for name in images["image"]]
    for name in REWARDS:
        scored[name] = load_reward(name, folder=weights / "rewards" / name).scores(paths, images["prompt"].tolist())
    return summarise(share_good(images), **INTERVALS), summarise(prompt_metrics(scored, REWARDS), **INTERVALS)


def development_images(plan: Plan, folder: Path, weights: Path) -> pd.DataFrame:
    """Images of development prompts in ``folder``, and the judges' votes: set, columns of ``labels.image_table``."""
    make_images(
        development_prompts(plan.development_prompts),
        Weights(str(weights / "generator")),
        images_per_prompt=plan.development_images,
        steps=plan.sampling_steps,
        guidance_scale=plan.guidance_scale,
        batch_size=32,
        dtype="bfloat16",
        seed=DEVELOPMENT_SEED,
        workers=plan.workers,
        folder=folder,
    )
    judges = [Weights(str(weights / "annotators" / f"{name}.safetensors")) for name in JUDGES]
    return label_images(collect_votes(folder, *judges, workers=plan.workers))


def development_prompts(most: int | None = None) -> pd.DataFrame:
    """The prompts of development classes, of each set all or ``most`` at even distances: set, prompt."""
    rows = []
    for name in SETS:
        prompts = [prompt for prompt in mini_prompts(name) if split(prompt) == "development"]
        places = range(len(prompts)) if most is None else np.linspace(0, len(prompts) - 1, most).astype(int)
        rows += [(name, prompts[place]) for place in places]
    return pd.DataFrame(rows, columns=["set", "prompt"])
