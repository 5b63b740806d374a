"""One training loop for every stage of the mini world: seeded, resumable, with a progress bar and a loss curve.

What a step sees depends on the seed and the step's number only, so that a run that was stopped and resumed draws the
same batches as one that was not. A checkpoint is one file with the weights, their moving average, the best average so
far, the optimiser's moments and the curve; it replaces the one before it only once it is whole.
"""

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from textnorm_lib.mini.training.plan import Recipe
from textnorm_lib.study.errors import DataError, StudyError
from textnorm_lib.study.progress import progress

CHECKPOINT = "checkpoint.safetensors"
VALIDATIONS = 20  # times in a run that early stopping looks
POINTS = 100  # of a curve that is thinned, about
LossFunction = Callable[[int, torch.Generator], torch.Tensor]  # (step, generator) -> scalar loss
Weights = dict[str, torch.Tensor]


@dataclass
class _Run:
    """What a checkpoint holds: ``scores`` are the validations by step, ``best`` the average at the best of them."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: Weights
    best: Weights = field(default_factory=dict)
    curve: list[float] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)


def fit(
    model: nn.Module,
    loss_function: LossFunction,
    recipe: Recipe,
    *,
    folder: Path,
    validation: Callable[[], float] | None = None,
) -> pd.DataFrame:
    """Train ``model`` in place and leave the moving average of its weights in it.

    Returns the curve: step, loss, validation (nan where none was taken). With ``validation``, of which larger is
    better, the average is measured ``VALIDATIONS`` times over the run, and ``model`` is left with the average that was
    best: early stopping. The run goes on from the checkpoint in ``folder``, whose name is that of what is trained, and
    keeps its last one there. Raises ``StudyError`` with the step if the loss is no longer a number.
    """
    optimiser = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    run = _Run(model, optimiser, _copy(model.state_dict()))
    _resume(run, folder / CHECKPOINT)
    every = max(1, recipe.steps // VALIDATIONS)
    saved, done = time.monotonic(), len(run.curve)
    model.train()
    for step in progress(range(done, recipe.steps), folder.name, total=recipe.steps, initial=done, unit="step"):
        loss = loss_function(step, torch.Generator().manual_seed(recipe.seed * 1_000_003 + step))
        if not math.isfinite(loss.item()):
            kept = f"{folder} keeps the last good one"
            raise StudyError(f"{folder.name}: the loss is {loss.item()} at step {step}; {kept}")
        _descend(run, loss, recipe, step)
        _update(run.average, model, min(recipe.average_decay, (1 + step) / (10 + step)))
        run.curve.append(round(loss.item(), 6))
        if validation and (step + 1) % every == 0:
            score = _measure(run, validation)
            if not run.scores or score > max(run.scores.values()):
                run.best = _copy(run.average)
            run.scores[step] = score
        if time.monotonic() - saved > recipe.save_every_s or step + 1 == recipe.steps:
            _save(run, folder / CHECKPOINT)
            saved = time.monotonic()
    model.load_state_dict(run.best or run.average)
    model.eval()
    return _table(run.curve, run.scores)


def _descend(run: _Run, loss: torch.Tensor, recipe: Recipe, step: int) -> None:
    """One step down the gradient of ``loss``."""
    share = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    rate = (step + 1) / recipe.warmup if step < recipe.warmup else 0.5 * (1 + math.cos(math.pi * share))
    for group in run.optimiser.param_groups:
        group["lr"] = recipe.learning_rate * rate
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(run.model.parameters(), recipe.max_gradient_norm)
    run.optimiser.step()


@torch.no_grad()
def _update(average: Weights, model: nn.Module, decay: float) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def _measure(run: _Run, validation: Callable[[], float]) -> float:
    """``validation`` while the model has the averaged weights."""
    current = _copy(run.model.state_dict())
    run.model.load_state_dict(run.average)
    run.model.eval()
    score = validation()
    run.model.load_state_dict(current)
    run.model.train()
    return score


def _copy(weights: Weights) -> Weights:
    return {name: value.detach().clone() for name, value in weights.items()}


def _save(run: _Run, file: Path) -> None:
    state = run.optimiser.state_dict()["state"]
    moments = {f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}
    parts = {"weights": run.model.state_dict(), "average": run.average, "best": run.best, "moments": moments}
    tensors = {f"{part}.{name}": value.contiguous() for part, named in parts.items() for name, value in named.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    save_file(tensors, partial, {"curve": json.dumps(run.curve), "scores": json.dumps(run.scores)})
    partial.replace(file)


def _resume(run: _Run, file: Path) -> None:
    """Set ``run`` to the checkpoint, if there is one."""
    if not file.exists():
        return
    parts: dict[str, Weights] = defaultdict(dict)
    for key, value in load_file(file).items():
        part, name = key.split(".", 1)
        parts[part][name] = value
    run.model.load_state_dict(parts["weights"])
    run.best = parts["best"]
    for name, value in parts["average"].items():
        run.average[name].copy_(value)  # where the model is
    state: dict[int, Weights] = defaultdict(dict)
    for key, value in parts["moments"].items():
        index, name = key.split(".")
        state[int(index)][name] = value
    run.optimiser.load_state_dict({**run.optimiser.state_dict(), "state": dict(state)})
    run.curve, run.scores = _noted(file)


def _noted(file: Path) -> tuple[list[float], dict[int, float]]:
    """A checkpoint's curve, and the validations by step."""
    with safe_open(file, "pt") as opened:
        curve, scores = (json.loads(opened.metadata()[name]) for name in ("curve", "scores"))
    return curve, {int(step): score for step, score in scores.items()}


def _table(curve: list[float], scores: dict[int, float]) -> pd.DataFrame:
    steps = range(len(curve))
    return pd.DataFrame({"step": steps, "loss": curve, "validation": [scores.get(step, np.nan) for step in steps]})


def curves(folder: Path) -> pd.DataFrame:
    """What every fit in ``folder`` has lost so far: stage, step, loss, validation (nan where none was taken)."""
    tables = {file.parent.name: _table(*_noted(file)) for file in sorted(folder.glob(f"*/{CHECKPOINT}"))}
    if not tables:
        raise DataError(f"{folder} holds no training run; run a stage first")
    return pd.concat(tables, names=["stage"]).reset_index("stage").reset_index(drop=True)


def thinned(table: pd.DataFrame) -> pd.DataFrame:
    """``curves`` with about ``POINTS`` rows per stage, each the mean loss since the last; validations are kept."""
    every = table.groupby("stage")["step"].transform("max") // POINTS + 1
    groups = table.groupby(["stage", table["step"] // every], sort=False)
    return groups.agg(step=("step", "last"), loss=("loss", "mean"), validation=("validation", "max")).reset_index(0)
