"""A short try of each kind of work that a profile asks for, with its models, batch sizes and types (``rates.py``).

Each is done by the library's own functions: once to warm up, then with few parts and with more (denoising steps, texts)
to tell what an image costs by itself from what each part adds. Of DDPO one batch is sampled and trained on;
what an epoch keeps of its other batches, their latents, comes on top of its memory.
"""

import json
import shutil
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from textnorm_lib import ddpo, rwr
from textnorm_lib.config import Finetuning, Profile
from textnorm_lib.contrastive.rules import rule_based
from textnorm_lib.errors import DataError
from textnorm_lib.finetuning import TARGETS
from textnorm_lib.lora import add_lora
from textnorm_lib.pool import rate_quality
from textnorm_lib.rates import Seconds, Trial, split, timed
from textnorm_lib.rewards import load_reward
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.rwr_examples import choose_examples, encode_examples
from textnorm_lib.sampling import generate, load_pipeline, plan_images
from textnorm_lib.tia2.build import collect_votes
from textnorm_lib.tia2.labels import INDEX
from textnorm_lib.weights import BUNDLED, Weights
from textnorm_lib.workload import DDPO_SAMPLING, DDPO_TRAINING, QUALITY, RWR, VOTES, images_by, scores_by

PROMPT = "a realistic photo of a cat and a dog"
FEW, MORE = 2, 8  # denoising steps
SHOWN = 32  # images that are scored and judged
ENCODED = 8  # images that are encoded for RWR


def trials(profile: Profile, *, device: str) -> list[Trial]:
    """A try of each kind of work that ``profile`` asks for, on ``device`` ("cpu" or "cuda")."""
    models = dict.fromkeys(Weights(one.model, one.revision) for one in (profile.generator, profile.ddpo))
    on = {"device": device}
    made = [Trial(images_by(one), "generator.batch_size", partial(_images, profile, one, **on)) for one in models]
    scored = [Trial(scores_by(name), "rewards.dtype", partial(_scores, profile, name, **on)) for name in REWARDS]
    judged = [Trial(f"{VOTES} and {QUALITY}", "annotators", partial(_judges, profile))] if profile.annotators else []
    by_rwr = Trial("RWR", "rwr.recipe.pass_size", partial(_rwr, profile, **on))
    by_ddpo = Trial("DDPO", "ddpo.recipe.batch_size", partial(_ddpo, profile, **on))
    return [*made, *scored, *judged, by_rwr, by_ddpo]


def image_side(model: Path) -> int:
    """Pixels a side of the images that the pipeline in the folder ``model`` makes.

    Raises ``DataError`` for configurations that cannot be read, or are not those of a latent diffusion model.
    """
    try:
        unet, vae = (json.loads((model / part / "config.json").read_bytes()) for part in ("unet", "vae"))
        return int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DataError(f"{model}: unet/config.json or vae/config.json is no use ({reason}); copy it anew") from error


def _images(profile: Profile, model: Weights, folder: Path, *, device: str) -> Seconds:
    pipeline = load_pipeline(model.name, revision=model.revision, device=device)
    settings = {name: getattr(profile.generator, name) for name in ("guidance_scale", "batch_size", "dtype")}
    plan = plan_images([PROMPT], profile.generator.batch_size, seed=profile.seed)

    def make(steps: int) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as made:
            list(generate(pipeline, plan, folder=Path(made), steps=steps, **settings))

    make(FEW)
    few, more = ((steps, timed(partial(make, steps))) for steps in (FEW, MORE))
    return {images_by(model): split(few, more, len(plan))}


def _scores(profile: Profile, name: str, folder: Path, *, device: str) -> Seconds:
    asked, dtype = getattr(profile.rewards, name), getattr(torch, profile.rewards.dtype)
    path = Weights(asked.weights, asked.revision).path
    reward = load_reward(name, folder=path, dtype=dtype, device=device)
    images, texts = _shown(profile, folder)[: profile.tia2.images_per_prompt], [PROMPT, *rule_based(PROMPT)]
    reward.score_matrix(images, texts[:1])
    numbers = 1, 1 + profile.contrastive_prompts
    few, more = ((number, timed(lambda n=number: reward.score_matrix(images, texts[:n]))) for number in numbers)
    return {scores_by(name): split(few, more, len(images))}


def _judges(profile: Profile, folder: Path) -> Seconds:
    shown = _shown(profile, folder)
    index = pd.DataFrame({"set": "composition", "image": [path.name for path in shown], "prompt": PROMPT})
    index.to_parquet(folder / INDEX)
    found = {}
    for kind, judge, names in (
        (VOTES, collect_votes, profile.annotators),
        (QUALITY, rate_quality, profile.quality_judges),
    ):
        judges = [Weights(f"{BUNDLED}annotators/{name}.safetensors") for name in names]
        work = partial(judge, folder, *judges, workers=1)
        work()
        found[kind] = (timed(work) / len(shown), 0.0)
    return found


def _rwr(profile: Profile, folder: Path, *, device: str) -> Seconds:
    asked = profile.rwr
    settings = rwr.Settings(**asked.recipe, kl_coefficient=asked.beta)
    settings = replace(settings, images_per_prompt=ENCODED, best=ENCODED // 2, steps=4, save_every=4)
    shown = [path.name for path in _shown(profile, folder)[:ENCODED]]
    images = pd.DataFrame({"prompt": PROMPT, "image": shown, "reward": np.arange(ENCODED, dtype=float)})
    chosen = choose_examples(images, reward="reward", settings=settings)
    pipeline = _adapted(Weights(profile.generator.model, profile.generator.revision), asked, device)
    examples = encode_examples(pipeline, chosen, folder=folder)
    encoding = timed(lambda: encode_examples(pipeline, chosen, folder=folder)) / len(chosen)
    curve = rwr.train(pipeline, examples, settings, folder=folder / "run", description="RWR, a try")
    steps = curve["steps_per_s"].iloc[1:-1]  # the first warms up, the last looks at the divergence in any case
    return {RWR: ((1 / steps).mean(), encoding)}


def _ddpo(profile: Profile, folder: Path, *, device: str) -> Seconds:
    asked = profile.ddpo
    pipeline = _adapted(Weights(asked.model, asked.revision), asked, device)
    recipe = ddpo.Settings(**asked.recipe, kl_coefficient=asked.beta)
    size = recipe.batch_size
    settings = replace(recipe, images_per_epoch=size, updates_per_epoch=1, epochs=2, save_every=2)
    sampling = []
    for steps in (FEW, MORE):
        untrained = recipe.untrained_steps * steps // recipe.denoising_steps  # the same share
        settings = replace(settings, denoising_steps=steps, untrained_steps=untrained)
        sampled, learnt = _epoch(pipeline, settings, folder / f"{steps}_steps")
        sampling.append((steps, sampled))
    row = learnt / (size * (settings.denoising_steps - settings.untrained_steps))
    return {DDPO_SAMPLING: split(*sampling, size), DDPO_TRAINING: (row, 0.0)}


def _epoch(pipeline, settings: ddpo.Settings, folder: Path) -> tuple[float, float]:
    """Seconds of sampling and of learning in the last epoch."""
    answered = []

    def reward(images: torch.Tensor, *_) -> tuple[torch.Tensor, dict]:
        answered.append(time.monotonic())
        return torch.linspace(0, 1, len(images)), {}

    curve = ddpo.train(pipeline, [PROMPT], reward, settings, folder=folder, description="DDPO, a try")
    learnt = time.monotonic() - answered[-1]  # with a checkpoint, which is small
    return settings.images_per_epoch / curve["images_per_s"].iloc[-1] - learnt, learnt


def _adapted(model: Weights, asked: Finetuning, device: str):
    pipeline = load_pipeline(model.name, revision=model.revision, device=device)
    generator = torch.Generator().manual_seed(0)
    add_lora(pipeline, rank=asked.lora_rank, targets=TARGETS[asked.lora_targets], generator=generator)
    return pipeline


def _shown(profile: Profile, folder: Path) -> list[Path]:
    """Image files of the generator's size in ``folder``, all of them the same."""
    side = image_side(Weights(profile.generator.model, profile.generator.revision).path)
    colours = np.random.default_rng(0).integers(256, size=(16, 16, 3), dtype=np.uint8)
    paths = [folder / f"shown_{number}.png" for number in range(SHOWN)]
    Image.fromarray(colours).resize((side, side)).save(paths[0])
    for path in paths[1:]:
        shutil.copyfile(paths[0], path)
    return paths
