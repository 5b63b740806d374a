"""The checkpoints of tuned models: what they make, how far they are from the base, which one is taken (section 5).

    images = run.step(sample_checkpoints, prompts, trained, model, checkpoints=[50, 100], ...)
    run.step(join_models, judged, images)    # a row an image, with the model that made it

Every model makes images from the same noise. The paper takes the earliest checkpoint at which the number of images that
score higher than the base's reaches its maximum. Here an image meets the base's image of the same prompt and seed, and
a tie is no win; where no image ever wins, the base is taken. The rule looks neither at losses nor at how far an image
wins, and trusts the reward: one that is misaligned may choose a checkpoint that has long been overoptimized. Beside it
stands the *oracle*: the earliest checkpoint with the highest mean gold.

Where a choice is made, frames are tidy: a row an image, with checkpoint, prompt, seed, and a column for each score.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import product
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from textnorm_lib.images.sampling import autocast, generate, load_pipeline, plan_images
from textnorm_lib.optimise.denoising import ddim_steps, draw_noise, sample
from textnorm_lib.optimise.finetuning import Run
from textnorm_lib.optimise.lora import load_lora
from textnorm_lib.stats.intervals import prompt_bootstrap
from textnorm_lib.stats.names import BASE
from textnorm_lib.study.errors import ConfigError, DataError
from textnorm_lib.study.processes import in_workers, wait_for_all
from textnorm_lib.study.progress import progress, watch
from textnorm_lib.study.store import step
from textnorm_lib.study.weights import Weights
from textnorm_lib.tia2.labels import INDEX

MODEL = ["tuned_on", "beta", "run", "checkpoint"]
KEYS = ("checkpoint", "prompt", "seed")


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
    work = partial(_make, plan=plan, weights=model, folder=folder, options=options)
    total = len(models) * len(plan)

    def made() -> int:
        return sum(1 for _ in folder.rglob("image_*.png"))

    with watch(made, f"images of {len(models)} models", total=total, unit="images"):
        for _ in in_workers(work, models, workers=_workers(workers)):
            pass
    wait_for_all()
    index = pd.concat([_index(one, plan) for one in models], ignore_index=True)
    index.to_parquet(folder / INDEX, index=False)
    return {"models": len(models), "images": total}


def _index(model: Model, plan: pd.DataFrame) -> pd.DataFrame:
    names = [(model.place / name).as_posix() for name in plan["image"]]
    return plan.assign(image=names, **_who(model))


def _who(model: Model) -> dict:
    return dict(zip(MODEL, model[:-1], strict=True))


def _make(model: Model, *, plan: pd.DataFrame, weights: Weights, folder: Path, options: dict) -> None:
    pipeline = _with_adapter(weights, model.adapter)
    for _ in generate(pipeline, plan, folder=folder / model.place, **options):
        pass


def _with_adapter(weights: Weights, adapter: Path | None):
    pipeline = _pipeline(weights, adapter.parent.parent if adapter else None)
    if adapter:
        load_lora(pipeline, adapter)
    return pipeline


@lru_cache(maxsize=2)
def _pipeline(weights: Weights, trained: Path | None):
    """A process loads the base once, and once for the adapters in ``trained``, which are alike and set each anew."""
    return load_pipeline(weights.name, revision=weights.revision, device="cuda" if torch.cuda.is_available() else "cpu")


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
    options = {"steps": steps, "left_out": left_out, "scale": guidance_scale, "batch_size": batch_size, "dtype": dtype}
    found = in_workers(partial(_divergences, weights=model, plan=plan, **options), models, workers=_workers(workers))
    found = progress(found, "divergences", total=len(models), unit="models")
    tables = [prompts.assign(**_who(one), kl=nats) for one, nats in zip(models, found, strict=True)]
    return pd.concat(tables, ignore_index=True)[[*MODEL, "set", "prompt", "kl"]]


@torch.no_grad()
def _divergences(
    model: Model,
    *,
    weights: Weights,
    plan: pd.DataFrame,
    steps: int,
    left_out: int,
    scale: float,
    batch_size: int,
    dtype: str,
) -> np.ndarray:
    """The mean of each prompt of ``plan``, in its order."""
    pipeline = _with_adapter(weights, model.adapter)
    device, unet = pipeline.device, pipeline.unet
    path, (rows, prompts) = ddim_steps(pipeline.scheduler, steps, device=device), pd.factorize(plan["prompt"])
    texts, empties = pipeline.encode_prompt(prompts.tolist(), device, 1, True)
    shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    nats = []
    for start in range(0, len(plan), batch_size):
        here = slice(start, start + batch_size)
        noise = draw_noise(plan["seed"][here].tolist(), steps, shape).to(device)
        with autocast(device.type, dtype):
            made = sample(unet, path, texts[rows[here]], empties[:1], noise, scale=scale, with_base=True)
        nats += (made.kl[:, : steps - left_out].double().sum(dim=1) * noise[0, 0].numel()).tolist()
    return pd.Series(nats).groupby(rows).mean().to_numpy()


def _workers(workers: int) -> int:
    return 1 if torch.cuda.is_available() else workers


@step(1)
def join_models(judged: pd.DataFrame, made: Path) -> pd.DataFrame:
    """``judged`` (``pool.join_judges``) with the columns of the index: tuned_on, beta, run, checkpoint, seed."""
    index = pd.read_parquet(made / INDEX)[["image", *MODEL, "seed"]]
    return judged.merge(index, on="image", how="left", validate="1:1")


@step(1)
def count_wins(images: pd.DataFrame, *, scores: Sequence[str], base: int = 0) -> pd.DataFrame:
    """How each checkpoint's images score against the base's, image by image (same prompt, same seed).

    ``images``: checkpoint (numbers in the order of training), prompt, seed, and the columns ``scores``; ``base`` is the
    checkpoint that stands for the untuned model. Returns reward (one of ``scores``), checkpoint (increasing, the base
    among them with ties only), wins, ties, losses, mean (of the score).

    Raises ``DataError`` unless each checkpoint has exactly the base's images, once, with a finite number for a score.
    """
    tables = []
    for name in scores:
        table = _table(images, name, base)
        difference = table - table.loc[base]
        counts = {"wins": difference > 0, "ties": difference == 0, "losses": difference < 0}
        summary = pd.DataFrame({kind: found.sum(axis=1) for kind, found in counts.items()})
        tables.append(summary.assign(reward=name, mean=table.mean(axis=1)).reset_index())
    columns = ["reward", "checkpoint", "wins", "ties", "losses", "mean"]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def papers_choice(images: pd.DataFrame, *, score: str, base: int = 0) -> int:
    """The earliest checkpoint with the most wins over the base by ``score``; the base where nothing ever wins.

    Raises as ``count_wins``.
    """
    return _earliest_maximum(count_wins(images, scores=[score], base=base).set_index("checkpoint")["wins"])


def oracle_choice(images: pd.DataFrame, *, gold: str, base: int = 0) -> int:
    """The earliest checkpoint, the base among them, with the highest mean of ``gold``. Raises as ``count_wins``."""
    return _earliest_maximum(_table(images, gold, base).mean(axis=1))


@step(1)
def selection_costs(
    images: pd.DataFrame,
    *,
    scores: Sequence[str],
    gold: str,
    resamples: int,
    confidence: float,
    seed: int,
    base: int = 0,
) -> pd.DataFrame:
    """What it costs to choose by each of ``scores`` with the paper's rule instead of by ``gold``, in gold's unit.

    ``images`` as for ``count_wins``. Returns reward, chosen, oracle (checkpoints), gold_base, gold_chosen, gold_oracle
    (means over all images), cost (gold_oracle - gold_chosen, 0 or more), low, high (bootstrap over prompts with both
    choices as they are; nan for a single prompt), n_prompts. The oracle chooses on the very images that it is measured
    on, so that the cost is too high by what luck gives it: more images, less luck. Raises as ``count_wins``.
    """
    table = _table(images, gold, base)
    oracle, means = oracle_choice(images, gold=gold, base=base), table.mean(axis=1)
    rows = []
    for name in scores:
        chosen = papers_choice(images, score=name, base=base)
        of_prompts = (table.loc[oracle] - table.loc[chosen]).groupby("prompt").agg(["sum", "count"]).to_numpy(float)

        def cost(counts: np.ndarray, of_prompts=of_prompts) -> np.ndarray:
            total, number = (counts @ of_prompts).T
            return total / number

        options = {"resamples": resamples, "confidence": confidence, "seed": seed}
        low, high = (float(end) for end in prompt_bootstrap(cost, len(of_prompts), **options))
        gains = {"gold_base": means[base], "gold_chosen": means[chosen], "gold_oracle": means[oracle]}
        choices = {"reward": name, "chosen": chosen, "oracle": oracle}
        interval = {"cost": means[oracle] - means[chosen], "low": low, "high": high, "n_prompts": len(of_prompts)}
        rows.append(choices | gains | interval)
    return pd.DataFrame(rows)


def _earliest_maximum(values: pd.Series) -> int:
    """The first of equal maxima; ``values`` has the checkpoints as its index, increasing."""
    return int(values.idxmax())


def _table(images: pd.DataFrame, score: str, base: int) -> pd.DataFrame:
    """One row a checkpoint, increasing, one column an image (prompt, seed): ``score``. ``DataError`` if it has gaps."""
    _check(images, score)
    table = images.pivot(index="checkpoint", columns=["prompt", "seed"], values=score).sort_index()
    if base not in table.index:
        known = ", ".join(map(str, table.index))
        raise DataError(f"images: there is no base, checkpoint {base}; there are {known}: score the base's images, too")
    for checkpoint, row in table.iterrows():
        for prompt, number in row.index[row.isna()]:
            one = f"prompt {prompt!r}, seed {number}"
            if checkpoint == base:
                raise DataError(f"images: the base (checkpoint {base}) lacks {one}, which others have; make it")
            raise DataError(f"images: checkpoint {checkpoint} lacks {one}, which others have; make it")
    return table


def _check(images: pd.DataFrame, score: str) -> None:
    """Raise ``DataError`` for missing columns or keys, an image that occurs twice, and scores that are not finite."""
    if missing := [name for name in (*KEYS, score) if name not in images]:
        raise DataError(f"images: column {missing[0]!r} is missing; {', '.join((*KEYS, score))} are needed")
    if images.empty:
        raise DataError("images has no rows; give the base's images and each checkpoint's")
    keys = images[list(KEYS)]
    if unknown := [name for name in KEYS if keys[name].isna().any()]:
        raise DataError(f"images: {unknown[0]} is missing in row {int(keys[unknown[0]].isna().argmax())}")
    for value in keys["checkpoint"].unique():
        if not isinstance(value, Integral):
            raise DataError(f"images: checkpoint holds {value!r}; whole numbers in the order of training are needed")
    if (twice := keys.duplicated()).any():
        raise DataError(f"images: {_said(keys[twice].iloc[0])} occurs twice; one row an image is needed")
    try:
        wrong = ~np.isfinite(images[score].to_numpy(float))
    except (TypeError, ValueError):
        raise DataError(f"images: {score} holds something that is no number; finite numbers are needed") from None
    if wrong.any():
        value = images[score][wrong].iloc[0]
        raise DataError(f"images: {score} is {value} at {_said(keys[wrong].iloc[0])}; a finite number is needed")


def _said(row: pd.Series) -> str:
    return f"checkpoint {row['checkpoint']}, prompt {row['prompt']!r}, seed {row['seed']}"
