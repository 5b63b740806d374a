"""One training loop for every stage of the mini world: seeded, resumable, with a progress bar and a loss curve.

What a step sees depends on the seed and the step's number only, so that a run that was stopped and resumed draws the
same batches as one that was not. A checkpoint holds the weights, their moving average, the optimiser and the step's
number; it is written to a temporary folder and renamed. ``curves`` has of all fits in a folder what they lost.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from textnorm_lib.study.errors import DataError, StudyError
from textnorm_lib.study.progress import progress

VALIDATIONS = 20  # times in a run that early stopping looks
POINTS = 100  # of a curve that is thinned, about
LossFunction = Callable[[int, torch.Generator], torch.Tensor]  # (step, generator) -> scalar loss


@dataclass(frozen=True)
class Recipe:
    """How a stage is trained; ``learning_rate`` is reached after ``warmup`` steps and falls to zero as a cosine.

    A step sees ``batch_size`` examples.
    """

    steps: int
    learning_rate: float
    batch_size: int = 32
    weight_decay: float = 0.01
    warmup: int = 200
    average_decay: float = 0.999
    max_gradient_norm: float = 1.0
    seed: int = 0
    save_every_s: float = 60.0


def fit(
    model: nn.Module,
    loss_function: LossFunction,
    recipe: Recipe,
    *,
    folder: Path,
    description: str,
    validation: Callable[[], float] | None = None,
) -> pd.DataFrame:
    """Train ``model`` in place and leave the moving average of its weights in it; returns the curve (step, loss).

    With ``validation``, larger is better, the average is measured ``VALIDATIONS`` times over the run, the curve has a
    column more (validation, nan between), and what is left in ``model`` is the average that was best: early stopping.
    Goes on from the checkpoint in ``folder`` if there is one, and keeps it there at the end. Raises ``StudyError`` if
    the loss is no longer a number, with the step; the last checkpoint stays.
    """
    optimiser = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    average = {name: value.detach().clone() for name, value in model.state_dict().items()}
    curve = _resume(folder, model, average, optimiser)
    best = _Best(validation, every=max(1, recipe.steps // VALIDATIONS), folder=folder)
    saved = time.monotonic()
    model.train()
    done = len(curve)
    for step in progress(range(done, recipe.steps), description, total=recipe.steps, initial=done, unit="step"):
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        loss = loss_function(step, generator)
        if not math.isfinite(loss.item()):
            raise StudyError(
                f"{description}: the loss is {loss.item()} at step {step}; {folder} keeps the last good one"
            )
        _descend(model, optimiser, loss, recipe, step)
        _update(average, model, min(recipe.average_decay, (1 + step) / (10 + step)))
        curve.append(round(loss.item(), 6))
        best.look(step, model, average)
        if time.monotonic() - saved > recipe.save_every_s or step + 1 == recipe.steps:
            _save(folder, model, average, optimiser, curve, best)
            saved = time.monotonic()
    model.load_state_dict(best.weights or average)
    model.eval()
    table = pd.DataFrame({"step": range(len(curve)), "loss": curve})
    return table.assign(validation=table["step"].map(best.scores)) if validation else table


def _descend(model: nn.Module, optimiser: torch.optim.Optimizer, loss: torch.Tensor, recipe: Recipe, step: int) -> None:
    """One step down the gradient of ``loss``."""
    for group in optimiser.param_groups:
        group["lr"] = recipe.learning_rate * _schedule(step, recipe)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), recipe.max_gradient_norm)
    optimiser.step()


class _Best:
    """Early stopping: the average's weights at the step at which ``validation`` was largest."""

    def __init__(self, validation: Callable[[], float] | None, *, every: int, folder: Path) -> None:
        self.validation, self.every = validation, every
        self.scores: dict[int, float] = {}
        self.weights: dict[str, torch.Tensor] | None = None
        if (folder / "best.safetensors").exists():
            self.scores = {int(step): score for step, score in json.loads((folder / "scores.json").read_text()).items()}
            self.weights = load_file(folder / "best.safetensors")

    def look(self, step: int, model: nn.Module, average: dict[str, torch.Tensor]) -> None:
        """At every so many steps measure the average, and keep it if it is the best so far."""
        if self.validation is None or (step + 1) % self.every:
            return
        current = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(average)
        model.eval()
        score = self.validation()
        model.load_state_dict(current)
        model.train()
        if not self.scores or score > max(self.scores.values()):
            self.weights = {name: value.clone() for name, value in average.items()}
        self.scores[step] = score

    def save(self, folder: Path) -> None:
        """Write what is known so far into a checkpoint's folder."""
        if self.weights is not None:
            save_file(self.weights, folder / "best.safetensors")
            (folder / "scores.json").write_text(json.dumps(self.scores))


def _schedule(step: int, recipe: Recipe) -> float:
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    share = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1 + math.cos(math.pi * share))


@torch.no_grad()
def _update(average: dict[str, torch.Tensor], model: nn.Module, decay: float) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def _save(
    folder: Path,
    model: nn.Module,
    average: dict,
    optimiser: torch.optim.Optimizer,
    curve: list[float],
    best: _Best,
) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    state = optimiser.state_dict()["state"]
    moments = {f"{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, partial / "weights.safetensors")
    save_file(average, partial / "average.safetensors")
    save_file(moments, partial / "optimiser.safetensors")
    (partial / "curve.json").write_text(json.dumps(curve))
    best.save(partial)
    previous = _previous(folder)
    if folder.exists():
        folder.replace(previous)
    partial.replace(folder)
    shutil.rmtree(previous, ignore_errors=True)


def _previous(folder: Path) -> Path:
    """Where the last checkpoint lies for the moment in which the next one takes its place."""
    return folder.with_name(f"{folder.name}.previous")


def _resume(folder: Path, model: nn.Module, average: dict, optimiser: torch.optim.Optimizer) -> list[float]:
    if not folder.exists() and _previous(folder).exists():
        _previous(folder).replace(folder)
    if not (folder / "curve.json").exists():
        return []
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    for name, value in load_file(folder / "average.safetensors").items():
        average[name].copy_(value)  # where the model is
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(folder / "optimiser.safetensors").items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return json.loads((folder / "curve.json").read_text())


def curves(folder: Path) -> pd.DataFrame:
    """What every fit in ``folder`` has lost so far: stage, step, loss, validation (nan where none was taken)."""
    files = sorted(folder.glob("*/curve.json"))
    if not files:
        raise DataError(f"{folder} holds no training run; run a stage first")
    tables = []
    for file in files:
        loss = json.loads(file.read_text())
        scores = file.with_name("scores.json")
        found = json.loads(scores.read_text()) if scores.exists() else {}
        validation = [found.get(str(step), np.nan) for step in range(len(loss))]
        table = {"stage": file.parent.name, "step": range(len(loss)), "loss": loss, "validation": validation}
        tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)


def thinned(table: pd.DataFrame) -> pd.DataFrame:
    """``curves`` with about ``POINTS`` rows a stage, each the mean loss since the last; validations are kept."""
    every = table.groupby("stage")["step"].transform("max") // POINTS + 1
    groups = table.groupby(["stage", table["step"] // every], sort=False)
    return groups.agg(step=("step", "last"), loss=("loss", "mean"), validation=("validation", "max")).reset_index(0)
