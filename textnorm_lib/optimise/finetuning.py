"""Models tuned against rewards (section 5.3): all runs of RWR and of DDPO as two steps, each run in its own process.

    trained = run.step(run_rwr, prompts, pool.rewarded, pool.images, model, rewards=[...], ...)
    trained.value                     # a folder a run, named by ``Run.name``: checkpoints and curve
    run.step(read_curves, trained)    # tuned_on, beta, run, and a row of each run's curve

A *run* is a reward, a KL coefficient and a number, which seeds the adapter and all that training draws. What was
trained when a run of this program was stopped is found again, to the same weights bit for bit.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from textnorm_lib.confidence.textnorm import TextNormReward
from textnorm_lib.images.pixels import from_tensor
from textnorm_lib.images.sampling import load_pipeline
from textnorm_lib.optimise import ddpo, rwr
from textnorm_lib.optimise.lora import ATTENTION, FEED_FORWARD, add_lora
from textnorm_lib.optimise.resuming import CURVE
from textnorm_lib.optimise.rwr import choose_examples, encode_examples
from textnorm_lib.rewards import load_reward
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.stats.names import PROMPT
from textnorm_lib.study.errors import ConfigError, DataError
from textnorm_lib.study.processes import in_workers, wait_for_all
from textnorm_lib.study.progress import progress, watch
from textnorm_lib.study.store import step
from textnorm_lib.study.weights import Weights

TARGETS = {"attention": ATTENTION, "attention and feed-forward": ATTENTION + FEED_FORWARD}


@dataclass(frozen=True)
class Run:
    """One model: the reward that it is tuned on, the KL coefficient, and which of the runs that differ by seed."""

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


@step(2)
def choose_open_prompts(judged: pd.DataFrame, *, passed_over: int, **per_set: int) -> pd.DataFrame:
    """So many prompts of each set of which nearest to half of the images are good: set, prompt.

    Of each set the first ``passed_over`` are left out: an earlier recipe may have met them.

    There a model can get better and worse. Chosen by the base's images, before anything is trained. Raises
    ``DataError`` for a set that has not so many, and where there is no rating to choose by.
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
    settings = rwr.Settings(**recipe)
    images = judged[judged["prompt"].isin(prompts["prompt"])]
    images = images.groupby("prompt", sort=False).head(settings.images_per_prompt)
    runs = all_runs(rewards, numbers, beta=beta, other_betas=other_betas)
    lora = {"rank": lora_rank, "targets": TARGETS[lora_targets], "seed": seed}
    work = partial(_train_rwr, images=images, made=made, model=model, lora=lora, recipe=recipe, folder=folder)
    return _in_processes(work, runs, folder, settings.steps, "RWR", workers)


def _train_rwr(run: Run, *, images, made: Path, model: Weights, lora: dict, recipe: Mapping, folder: Path) -> None:
    pipeline = _adapted(model, run, **lora)
    settings = rwr.Settings(**recipe, kl_coefficient=run.beta, seed=lora["seed"] + run.number)
    chosen = choose_examples(images, reward=run.reward, settings=settings)
    examples = encode_examples(pipeline, chosen, folder=made)
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
    settings = ddpo.Settings(**recipe)
    texts = contrastive.groupby("prompt", sort=False)["text"].agg(list).to_dict()
    (recipe_of_textnorm,) = textnorm.to_dict("records")
    known = dict(zip(REWARDS, weights, strict=True))
    make = partial(_reward_function, weights=known, texts=texts, textnorm=recipe_of_textnorm)
    runs = all_runs(rewards, numbers, beta=beta, other_betas=other_betas)
    lora = {"rank": lora_rank, "targets": TARGETS[lora_targets], "seed": seed}
    work = partial(
        _train_ddpo,
        prompts=prompts["prompt"].tolist(),
        make=partial(make, dtype=reward_dtype),
        model=model,
        lora=lora,
        recipe=recipe,
        folder=folder,
    )
    return _in_processes(work, runs, folder, settings.epochs, "DDPO", workers)


def _train_ddpo(
    run: Run, *, prompts: list[str], make: Callable, model: Weights, lora: dict, recipe: Mapping, folder: Path
) -> None:
    pipeline = _adapted(model, run, **lora)
    settings = ddpo.Settings(**recipe, kl_coefficient=run.beta, seed=lora["seed"] + run.number)
    reward = make(run.reward, device=str(pipeline.device))
    ddpo.train_ddpo(pipeline, prompts, reward, settings, folder=folder / run.name, description=run.name)


def _reward_function(
    name: str, *, weights: Mapping[str, Weights], texts: Mapping, textnorm: Mapping[str, Any], dtype: str, device: str
) -> ddpo.RewardFunction:
    """What DDPO calls: a reward by its name, or TextNorm. Raises ``ConfigError`` for a name that is neither."""

    def load(one: str):
        if one not in weights:
            raise ConfigError(f"rewards: {one!r} is none; known: {', '.join(weights)}, textnorm")
        return load_reward(one, folder=weights[one].path, dtype=getattr(torch, dtype), device=device)

    if name != "textnorm":
        reward = load(name)
        return lambda images, prompts, metadata: (reward.scores(from_tensor(images), prompts), {})
    ensemble = [load(one) for one in textnorm["rewards"].split("+")]
    return TextNormReward(ensemble, texts, tuple(textnorm["temperatures"]), "uncertainty", textnorm["penalty"])


def _adapted(model: Weights, run: Run, *, rank: int, targets: Sequence[str], seed: int):
    """The base with a fresh adapter, which differs from number to number and not from reward to reward."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = load_pipeline(model.name, revision=model.revision, device=device)
    generator = torch.Generator().manual_seed(seed + run.number)
    add_lora(pipeline, rank=rank, targets=targets, generator=generator)
    return pipeline


def _in_processes(
    work: Callable[[Run], None], runs: list[Run], folder: Path, length: int, name: str, workers: int
) -> dict[str, Any]:
    """``work`` on every run, with one bar over all of them; on a GPU one after the other."""
    workers = 1 if torch.cuda.is_available() else workers
    curves = [folder / run.name / CURVE for run in runs]
    with watch(lambda: sum(map(_lines, curves)), f"{name}, {len(runs)} runs", total=length * len(runs), unit="steps"):
        for _ in in_workers(work, runs, workers=workers):
            pass
    wait_for_all()
    return {"runs": len(runs), "steps": length}


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


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
