"""Models tuned against rewards (section 5.3), as steps: all runs of RWR and of DDPO, and what their checkpoints make.

    trained = run.step(run_rwr, prompts, pool.rewarded, pool.images, model, rewards=[...], ...)
    trained.value                     # a folder a run, named by ``Run.name``: checkpoints and curve
    run.step(read_curves, trained)    # tuned_on, beta, run, and a row of each run's curve
    images = run.step(sample_checkpoints, prompts, trained, model, checkpoints=[50, 100], ...)
    run.step(join_models, judged, images)    # a row an image, with the model that made it

A *run* is a reward, a KL coefficient and a number, which seeds the adapter and all that training draws; each run has a
process of its own. What was trained when a run of this program was stopped is found again, to the same weights bit for
bit. Every *model*, a run at a checkpoint or the base, makes its images from the same noise.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from textnorm_lib.confidence.textnorm import TextNormReward
from textnorm_lib.images.pixels import from_tensor
from textnorm_lib.images.sampling import generate, load_pipeline, plan_images
from textnorm_lib.optimise import ddpo, rwr
from textnorm_lib.optimise.denoising import ddim_steps, sample_in_batches
from textnorm_lib.optimise.training import ATTENTION, CURVE, FEED_FORWARD, add_lora, load_lora
from textnorm_lib.rewards import load_reward
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.stats.names import BASE, PROMPT
from textnorm_lib.study.errors import ConfigError, DataError
from textnorm_lib.study.processes import in_workers, wait_for_all
from textnorm_lib.study.progress import progress, watch
from textnorm_lib.study.store import step
from textnorm_lib.study.weights import Weights
from textnorm_lib.tia2.labels import INDEX

TARGETS = {"attention": ATTENTION, "attention and feed-forward": ATTENTION + FEED_FORWARD}
MODEL = ["tuned_on", "beta", "run", "checkpoint"]


@dataclass(frozen=True)
class Run:
    """The reward that a model is tuned on, the KL coefficient, and which of the runs that differ by seed it is."""

    reward: str
    beta: float
    number: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.reward}_beta_{self.beta:.15g}_run_{self.number}"

    @classmethod
    def named(cls, name: str) -> "Run":
        """The run of the folder ``name``. Raises ``DataError`` for a folder that is no run's."""
        if not (found := re.fullmatch(r"([a-z0-9]+)_beta_([0-9.e+-]+)_run_(\d+)", name)):
            raise DataError(f"folder {name!r} is no run's; names are like clip_beta_0_run_0")
        return cls(found[1], float(found[2]), int(found[3]))


def all_runs(
    rewards: Sequence[str], numbers: int, *, beta: float, other_betas: Mapping[str, Sequence[float]]
) -> list[Run]:
    """Every reward with ``beta``, and those in ``other_betas`` with each of theirs as well; number by number."""
    pairs = [(reward, beta) for reward in rewards]
    pairs += [(reward, other) for reward, others in other_betas.items() for other in others]
    return [Run(reward, one, number) for number, (reward, one) in product(range(numbers), dict.fromkeys(pairs))]


class Model(NamedTuple):
    """A checkpoint of a run, or the base: what it was tuned on, how, for how long, and the folder of its adapter."""

    tuned_on: str
    beta: float
    run: int
    checkpoint: int
    adapter: Path | None

    @property
    def place(self) -> Path:
        """The folder of its images, below that of all."""
        return Path(self.adapter.parent.name, self.adapter.name) if self.adapter else Path(BASE)

    @property
    def columns(self) -> dict[str, Any]:
        """What says in a table which model it is."""
        return dict(zip(MODEL, self[:-1], strict=True))


def all_models(trained: Path, checkpoints: Sequence[int]) -> list[Model]:
    """The base, and each of ``checkpoints`` of each run in ``trained``. ``DataError`` for one that is not there."""
    models = [Model(BASE, 0.0, 0, 0, None)]
    folders = sorted(path for path in trained.iterdir() if path.is_dir())
    for folder, checkpoint in product(folders, checkpoints):
        run, adapter = Run.named(folder.name), folder / f"checkpoint_{checkpoint:05}"
        if not adapter.is_dir():
            raise DataError(f"{adapter} is not there: train longer, or name checkpoints that were saved")
        models.append(Model(run.reward, run.beta, run.number, checkpoint, adapter))
    return models


# ---- training


@step(2)
def choose_open_prompts(judged: pd.DataFrame, *, passed_over: int, **per_set: int) -> pd.DataFrame:
    """So many prompts of each set of which nearest to half of the images are good: set, prompt.

    There a model can get better and worse. They are chosen by the base's images, before anything is trained. Of each
    set the first ``passed_over`` are left out: an earlier recipe may have met them. Raises ``DataError`` for a set that
    has not so many, and where there is no rating to choose by.
    """
    rated = judged if "rating" in judged else judged.assign(rating=np.nan)
    rating = rated.groupby(PROMPT, sort=False)["rating"].mean().reset_index()
    rating["off"] = (rating["rating"] - 0.5).abs()
    chosen = []
    for name, number in per_set.items():
        rows = rating[rating["set"] == name]
        if len(rows) < number + passed_over:
            asked = f"{number} prompts are asked for" + (f" beside {passed_over} passed over" if passed_over else "")
            raise DataError(f"{name}: {asked}, the pool has {len(rows)}; raise best_of_n")
        if len(rows) > number and rows["off"].isna().any():
            raise DataError(f"{name}: votes choose {number} of {len(rows)} prompts; name annotators, or take all")
        chosen.append(rows.sort_values("off", kind="stable")[passed_over:][:number].sort_index())
    return pd.concat(chosen, ignore_index=True)[PROMPT]


@step(1, unkeyed=("workers",), shared=True)
def run_rwr(
    prompts: pd.DataFrame,
    judged: pd.DataFrame,
    made: Path,
    model: Weights,
    *,
    rewards: Sequence[str],
    numbers: int,
    beta: float,
    other_betas: Mapping[str, Sequence[float]],
    lora_rank: int,
    lora_targets: str,
    recipe: Mapping[str, Any],
    seed: int,
    workers: int,
    folder: Path,
) -> dict[str, Any]:
    """Reward-weighted regression on ``prompts``, a folder a run; ``recipe`` is what differs from ``rwr.PAPER``.

    ``judged`` has prompt, image (files in ``made``) and a column for each of ``rewards``; of a prompt with more images
    than the recipe asks for, the first are taken. Runs are those of ``all_runs``.
    """
    settings = rwr.Settings(**recipe, seed=seed)
    images = judged[judged["prompt"].isin(prompts["prompt"])]
    images = images.groupby("prompt", sort=False).head(settings.images_per_prompt)
    begin = partial(_begin, settings=settings, model=model, rank=lora_rank, targets=lora_targets)
    work = partial(_train_rwr, begin=begin, images=images, made=made, folder=folder)
    runs = all_runs(rewards, numbers, beta=beta, other_betas=other_betas)
    return _train_all(work, runs, folder, settings.steps, "RWR", workers)


def _train_rwr(run: Run, *, begin: Callable, images: pd.DataFrame, made: Path, folder: Path) -> None:
    pipeline, settings = begin(run)
    chosen = rwr.choose_examples(images, reward=run.reward, settings=settings)
    examples = rwr.encode_examples(pipeline, chosen, folder=made)
    rwr.train_rwr(pipeline, examples, settings, folder=folder / run.name, description=run.name)


@step(2, unkeyed=("workers",), shared=True)
def run_ddpo(
    prompts: pd.DataFrame,
    contrastive: pd.DataFrame,
    textnorm: pd.DataFrame,
    model: Weights,
    *weights: Weights,
    rewards: Sequence[str],
    numbers: int,
    beta: float,
    other_betas: Mapping[str, Sequence[float]],
    lora_rank: int,
    lora_targets: str,
    recipe: Mapping[str, Any],
    reward_dtype: str,
    seed: int,
    workers: int,
    folder: Path,
) -> dict[str, Any]:
    """DDPO on ``prompts``, a folder a run; ``recipe`` is what differs from ``ddpo.PAPER``.

    ``weights``: of the four rewards, in the order of ``REWARDS``; "textnorm" is made of them by the one recipe in
    ``textnorm`` (confidence/tuning.py) and the ``contrastive`` prompts (prompt, text). Runs are those of ``all_runs``.
    """
    settings = ddpo.Settings(**recipe, seed=seed)
    begin = partial(_begin, settings=settings, model=model, rank=lora_rank, targets=lora_targets)
    (mixture,) = textnorm.to_dict("records")
    texts = contrastive.groupby("prompt", sort=False)["text"].agg(list).to_dict()
    known = dict(zip(REWARDS, weights, strict=True))
    reward = partial(_reward_function, weights=known, texts=texts, textnorm=mixture, dtype=reward_dtype)
    work = partial(_train_ddpo, begin=begin, prompts=prompts["prompt"].tolist(), reward=reward, folder=folder)
    runs = all_runs(rewards, numbers, beta=beta, other_betas=other_betas)
    return _train_all(work, runs, folder, settings.epochs, "DDPO", workers)


def _train_ddpo(run: Run, *, begin: Callable, prompts: list[str], reward: Callable, folder: Path) -> None:
    pipeline, settings = begin(run)
    function = reward(run.reward, device=str(pipeline.device))
    ddpo.train_ddpo(pipeline, prompts, function, settings, folder=folder / run.name, description=run.name)


def _reward_function(
    name: str, *, weights: Mapping[str, Weights], texts: Mapping, textnorm: Mapping[str, Any], dtype: str, device: str
) -> ddpo.RewardFunction:
    """A reward by its name, or TextNorm, as training calls it."""

    def load(one: str):
        return load_reward(one, folder=weights[one].path, dtype=getattr(torch, dtype), device=device)

    if name != "textnorm":
        reward = load(name)
        return lambda images, prompts, metadata: (reward.scores(from_tensor(images), prompts), {})
    ensemble = [load(one) for one in textnorm["rewards"].split("+")]
    return TextNormReward(ensemble, texts, tuple(textnorm["temperatures"]), "uncertainty", textnorm["penalty"])


def _begin(run: Run, *, settings: Any, model: Weights, rank: int, targets: str):
    """The base with a fresh adapter, which differs from number to number and not from reward to reward; the settings.

    ``settings`` are those of all runs, with the seed of the first.
    """
    settings = replace(settings, kl_coefficient=run.beta, seed=settings.seed + run.number)
    pipeline = load_pipeline(model.name, revision=model.revision, device=_device())
    add_lora(pipeline, rank=rank, targets=TARGETS[targets], generator=torch.Generator().manual_seed(settings.seed))
    return pipeline, settings


def _train_all(
    work: Callable[[Run], None], runs: list[Run], folder: Path, length: int, name: str, workers: int
) -> dict[str, Any]:
    curves = [folder / run.name / CURVE for run in runs]

    def done() -> int:
        return sum(path.read_bytes().count(b"\n") for path in curves if path.exists())

    with watch(done, f"{name}, {len(runs)} runs", total=length * len(runs), unit="steps"):
        for _ in in_workers(work, runs, workers=_at_once(workers)):
            pass
    wait_for_all()
    return {"runs": len(runs), "steps": length}


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _at_once(workers: int) -> int:
    """How many runs or models at a time: on a GPU one after the other."""
    return 1 if torch.cuda.is_available() else workers


@step(2)
def read_curves(trained: Path) -> pd.DataFrame:
    """The curves of all runs in a folder: tuned_on, beta, run, step (of RWR) or epoch (of DDPO), what was measured.

    Without speeds: what depends on nothing but the run is the same bytes again.
    """
    tables = []
    for file in progress(sorted(trained.glob(f"*/{CURVE}")), "curves", unit="runs"):
        run = Run.named(file.parent.name)
        rows = pd.DataFrame([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()])
        tables.append(rows.assign(tuned_on=run.reward, beta=run.beta, run=run.number))
    return pd.concat(tables, ignore_index=True).drop(columns=["steps_per_s", "images_per_s"], errors="ignore")


# ---- what the checkpoints make


@step(1, unkeyed=("workers",), shared=True)
def sample_checkpoints(
    prompts: pd.DataFrame,
    trained: Path,
    model: Weights,
    *,
    checkpoints: Sequence[int],
    images_per_prompt: int,
    steps: int,
    guidance_scale: float,
    batch_size: int,
    dtype: str,
    seed: int,
    workers: int,
    folder: Path,
) -> dict[str, int]:
    """Images of ``prompts`` (set, prompt) by every model, each from the same noises, and their index.

    The index: tuned_on ("base" or a reward), beta, run, checkpoint, set, image, prompt, seed. A run that was stopped
    goes on at the batch it was in.
    """
    plan = plan_images(prompts["prompt"].tolist(), images_per_prompt, seed=seed)
    plan.insert(0, "set", np.repeat(prompts["set"].to_numpy(), images_per_prompt))
    models = all_models(trained, checkpoints)
    options = {"steps": steps, "guidance_scale": guidance_scale, "batch_size": batch_size, "dtype": dtype}
    work = partial(_make_images, plan=plan, weights=model, folder=folder, options=options)
    total = len(models) * len(plan)

    def made() -> int:
        return sum(1 for _ in folder.rglob("image_*.png"))

    with watch(made, f"images of {len(models)} models", total=total, unit="images"):
        for _ in in_workers(work, models, workers=_at_once(workers)):
            pass
    wait_for_all()
    index = [plan.assign(image=f"{one.place.as_posix()}/" + plan["image"], **one.columns) for one in models]
    pd.concat(index, ignore_index=True).to_parquet(folder / INDEX, index=False)
    return {"models": len(models), "images": total}


def _make_images(model: Model, *, plan: pd.DataFrame, weights: Weights, folder: Path, options: dict) -> None:
    for _ in generate(_with_adapter(weights, model), plan, folder=folder / model.place, **options):
        pass


def _with_adapter(weights: Weights, model: Model):
    pipeline = _pipeline(weights, model.adapter and model.adapter.parent.parent)
    if model.adapter:
        load_lora(pipeline, model.adapter)
    return pipeline


@lru_cache(maxsize=2)
def _pipeline(weights: Weights, trained: Path | None):
    """A process loads the base once, and once for the adapters in ``trained``, which are alike and set each anew."""
    return load_pipeline(weights.name, revision=weights.revision, device=_device())


@step(1)
def join_models(judged: pd.DataFrame, made: Path) -> pd.DataFrame:
    """``judged`` (``pool.join_judges``) with the columns of the index: tuned_on, beta, run, checkpoint, seed."""
    index = pd.read_parquet(made / INDEX)[["image", *MODEL, "seed"]]
    return judged.merge(index, on="image", how="left", validate="1:1")


@step(2, unkeyed=("workers",))
def measure_divergences(
    prompts: pd.DataFrame,
    trained: Path,
    model: Weights,
    *,
    checkpoints: Sequence[int],
    paths: int,
    steps: int,
    left_out: int,
    guidance_scale: float,
    batch_size: int,
    dtype: str,
    seed: int,
    workers: int,
) -> pd.DataFrame:
    """How far each tuned model is from the base: tuned_on, beta, run, checkpoint, set, prompt, kl (nats an image).

    The exact divergence of the denoising steps (``optimise/denoising.py``; DDIM with eta = 1 in ``steps`` steps),
    summed along the tuned model's own paths and averaged over those of a prompt: ``paths`` in all, at least one per
    prompt. The last ``left_out`` steps do not count: their standard deviations are so small that they would be nearly
    all of the sum, whatever they change. Raises ``ConfigError`` where none is left.
    """
    if not 0 <= left_out < steps:
        raise ConfigError(f"left_out is {left_out} of {steps} steps: some have to count")
    models = all_models(trained, checkpoints)[1:]
    plan = plan_images(prompts["prompt"].tolist(), -(-paths // len(prompts)), seed=seed)
    counted, sampling = {"steps": steps, "left_out": left_out}, {"batch_size": batch_size, "dtype": dtype}
    work = partial(_divergences, weights=model, plan=plan, **counted, scale=guidance_scale, **sampling)
    found = in_workers(work, models, workers=_at_once(workers))
    found = progress(found, "divergences", total=len(models), unit="models")
    tables = [prompts.assign(**one.columns, kl=nats) for one, nats in zip(models, found, strict=True)]
    return pd.concat(tables, ignore_index=True)[[*MODEL, "set", "prompt", "kl"]]


@torch.no_grad()
def _divergences(
    model: Model, *, weights: Weights, plan: pd.DataFrame, steps: int, left_out: int, **options: Any
) -> np.ndarray:
    """The mean of each prompt of ``plan``, in its order."""
    pipeline = _with_adapter(weights, model)
    path, (rows, prompts) = ddim_steps(pipeline.scheduler, steps, device=pipeline.device), pd.factorize(plan["prompt"])
    texts, empties = pipeline.encode_prompt(prompts.tolist(), pipeline.device, 1, True)
    data = (pipeline.unet, path, texts[rows], empties[:1], plan["seed"].tolist())
    nats = []
    for made in sample_in_batches(*data, with_base=True, **options):
        counted = made.kl[:, : steps - left_out].double().sum(dim=1)
        nats += (counted * made.latents[0, 0].numel()).tolist()
    return pd.Series(nats).groupby(rows).mean().to_numpy()
