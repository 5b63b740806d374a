"""DDPO: tuning a text-to-image model against a reward by policy gradients (section 5.3 and appendix 7.2 of the paper).

    add_lora(pipeline, rank=4, targets=ATTENTION, generator=generator)
    curve = train_ddpo(pipeline, prompts, reward, PAPER, folder=folder)

Each epoch samples images from the current model (``optimise/denoising.py``), scores them, and trains on the transitions
of their denoising (``optimise/policy_gradient.py``). The paper maximises E[r + lambda], with a divergence-based lambda
of which it gives neither form nor weight; here it is -beta times the KL divergence to the base, step by step, and 0
unless asked for.

The only update of an epoch, as in the paper, is made at the model that sampled: r is 1 and nothing is ever clipped. Of
several updates, each takes its share of every batch's transitions, images and steps mixed. (trl mixes steps as well,
but an update takes all steps of a few images.) Every random number comes from the seed and the numbers of epoch, prompt
and image: no generator's state has to be kept, and the images are the same for any number of processes.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from textnorm_lib.images.sampling import autocast, image_seed
from textnorm_lib.optimise.denoising import Trajectories, ddim_steps, decode, draw_noise, sample
from textnorm_lib.optimise.policy_gradient import Learner, RunningStatistics
from textnorm_lib.optimise.resuming import append_row, cut_curve, kept, resume, save_checkpoint
from textnorm_lib.study.config import DdpoSettings as Settings
from textnorm_lib.study.errors import ConfigError, StudyError
from textnorm_lib.study.processes import Processes
from textnorm_lib.study.progress import progress

__all__ = ["PAPER", "RewardFunction", "Settings", "train_ddpo"]

PAPER = Settings()
RewardFunction = Callable[[torch.Tensor, Sequence[str], Sequence[Any]], tuple[Any, Any]]
_MAY_CHANGE = ("epochs", "save_every", "kl_every")  # of a run that goes on: no weight depends on them


def train_ddpo(
    pipeline,
    prompts: Sequence[str],
    reward: RewardFunction,
    settings: Settings = PAPER,
    *,
    folder: Path,
    gold: RewardFunction | None = None,
    description: str = "DDPO",
) -> pd.DataFrame:
    """Tune the adapter that ``add_lora`` put on ``pipeline``, in place, towards a high ``reward`` on ``prompts``.

    ``reward(images, prompts, metadata) -> (rewards, info)`` takes images (n, 3, h, w) float32 in [0, 1] on the CPU, one
    prompt and one {"seed": ...} an image, and gives (n,) finite numbers; info is not looked at. ``gold``, of the same
    form, is measured and never trained on. Goes on from the latest checkpoint in ``folder``, to the same weights as a
    run that was never stopped (bit for bit on a CPU with the same number of threads and processes). Under ``accelerate
    launch`` each process takes its share of the batches, gradients are summed, and the first one writes.

    Returns the curve (in the first process), also in ``folder``/curve.jsonl, a row an epoch: reward, reward_std, gold,
    kl, loss, ratio, first_ratio_error (largest |r - 1| in the first update), clip_share, gradient_norm (before
    clipping), images_per_s. Row e is measured on images of the model after e epochs (``checkpoint_e``). kl is in nats
    an image over the trained steps; None where it was not looked at.

    Raises ``ConfigError`` for a pipeline without a trainable adapter and for other settings than those of the run in
    ``folder``; ``StudyError`` for a reward that fails or is no finite number, with the epoch, and for a gradient that
    is none, with the update as well; ``StoreError`` and ``DataError`` for files. The last good checkpoint always stays.
    """
    run = _Run(pipeline, list(prompts), settings, folder)
    done = run.resume()
    epochs = range(done, settings.epochs)
    if run.processes.first:
        epochs = progress(epochs, description, total=settings.epochs, initial=done, unit="epoch")
    for epoch in epochs:
        try:
            row = run.epoch(epoch, reward, gold)
        except StudyError as error:
            raise StudyError(f"{description}: epoch {epoch}: {error}; {kept(folder)}") from error
        run.rows.append(row)
        if run.processes.first:
            append_row(folder, row)
            if (epoch + 1) % settings.save_every == 0 or epoch + 1 == settings.epochs:
                save_checkpoint(folder, epoch + 1, pipeline, run.learner.descent.optimiser, run.state(epoch + 1))
    return pd.DataFrame(run.rows)


class _Run:
    """What a run holds from epoch to epoch, and one epoch of it."""

    def __init__(self, pipeline, prompts: list[str], settings: Settings, folder: Path) -> None:
        self.prompts, self.settings, self.folder = prompts, settings, folder
        self.processes = Processes(pipeline.device)
        device = self.processes.device
        self.pipeline, self.unet = pipeline.to(device), pipeline.unet.eval()
        self._check()
        untrained = settings.untrained_steps
        self.steps = ddim_steps(pipeline.scheduler, settings.denoising_steps, without_noise=untrained, device=device)
        self.learner = Learner(self.unet, self.steps, settings, self.processes)
        self.statistics = RunningStatistics(settings.buffer_size, settings.min_count)
        self.rows: list[dict[str, Any]] = []
        with torch.no_grad():
            self.texts, empty_texts = pipeline.encode_prompt(prompts, device, 1, True)
        self.empty_text = empty_texts[:1]

    def _check(self) -> None:
        if not any(value.requires_grad for value in self.unet.parameters()):
            raise ConfigError("the U-Net has no trainable adapter: call add_lora on the pipeline first")
        batches = self.settings.images_per_epoch // self.settings.batch_size
        if not self.prompts or len(set(self.prompts)) < len(self.prompts):
            raise ConfigError(f"prompts are {self.prompts!r:.80}: give one or more, each once")
        if batches % self.processes.count:
            raise ConfigError(f"{batches} batches an epoch for {self.processes.count} processes: change batch_size")

    def resume(self) -> int:
        """Go on from the latest checkpoint, if there is one; the number of epochs that are done."""
        told, done = self.state(0)["told"], 0
        state = resume(self.folder, self.pipeline, self.learner.descent.optimiser, told=told, may_change=_MAY_CHANGE)
        if state:
            self.statistics.buffers, done = state["buffers"], state["epoch"]
            self.learner.descent.scaler.load_state_dict(state["scaler"])
        elif self.processes.first:  # so that a run in this very process starts anew from the same adapter
            save_checkpoint(self.folder, 0, self.pipeline, self.learner.descent.optimiser, self.state(0))
        self.rows = cut_curve(self.folder, done) if self.processes.first else []
        return done

    def state(self, epoch: int) -> dict[str, Any]:
        """All of the run that is neither weight nor moment, after ``epoch`` epochs."""
        told = {**dataclasses.asdict(self.settings), "prompts": self.prompts}
        scaler = self.learner.descent.scaler.state_dict()
        return {"epoch": epoch, "told": told, "buffers": self.statistics.buffers, "scaler": scaler}

    def epoch(self, epoch: int, reward: RewardFunction, gold: RewardFunction | None) -> dict[str, Any]:
        """Sample, score and train; the row of the curve."""
        started, total = time.monotonic(), self.settings.images_per_epoch
        numbers = torch.arange(total) + epoch * total  # images of the run
        numbers = numbers.view(-1, self.settings.batch_size)
        places, counts = numbers % len(self.prompts), numbers // len(self.prompts)  # prompt, its how-manieth image
        own = self.processes.own(places).flatten()
        prompts = [self.prompts[place] for place in own]
        pairs = zip(prompts, self.processes.own(counts).flatten().tolist(), strict=True)
        seeds = [image_seed(prompt, count, seed=self.settings.seed) for prompt, count in pairs]
        texts = self.texts[own.to(self.texts.device)]
        looked = self.settings.kl_coefficient > 0 or epoch % self.settings.kl_every == 0
        trajectories, images = self._sample(texts, seeds, with_base=looked)
        shown = (images, prompts, tuple({"seed": seed} for seed in seeds))
        rewards = self._scores("the reward", reward, *shown)
        row = {"epoch": epoch, "reward": rewards.mean().item(), "reward_std": rewards.std(correction=0).item()}
        if gold:
            row["gold"] = self._scores("the gold reward", gold, *shown).mean().item()
        everyone = [self.prompts[place] for place in places.flatten()]
        advantages = torch.from_numpy(self.statistics.update(everyone, rewards.flatten().numpy())).view_as(places)
        row |= self._divergence(trajectories)
        row |= self.learner.learn(
            trajectories, texts, self.empty_text, self.processes.own(advantages).flatten(), epoch=epoch
        )
        return row | {"images_per_s": round(total / (time.monotonic() - started), 2)}

    def _sample(self, texts: torch.Tensor, seeds: list[int], *, with_base: bool) -> tuple[Trajectories, torch.Tensor]:
        """The trajectories and images of this process's batches."""
        settings, size, device = self.settings, self.settings.batch_size, self.processes.device
        side = self.unet.config.sample_size
        parts, images = [], []
        for start in range(0, len(seeds), size):
            here = slice(start, start + size)
            noise = draw_noise(seeds[here], len(self.steps), (self.unet.config.in_channels, side, side)).to(device)
            with autocast(device.type, settings.dtype):
                part = sample(
                    self.unet,
                    self.steps,
                    texts[here],
                    self.empty_text,
                    noise,
                    scale=settings.guidance_scale,
                    frozen_empty=settings.frozen_empty,
                    with_base=with_base,
                )
                images.append(decode(self.pipeline.vae, part.latents[:, -1]))
            parts.append(part)
        return Trajectories.join(parts), torch.cat(images)

    def _scores(self, what: str, function: RewardFunction, images: torch.Tensor, prompts, metadata) -> torch.Tensor:
        """The rewards of all processes' images, (batches, size) float64 on the CPU."""
        try:
            values = torch.as_tensor(function(images, prompts, metadata)[0], dtype=torch.float64).detach().cpu()
        except Exception as error:  # whatever somebody's reward may raise
            raise StudyError(f"{what} raised {type(error).__name__}: {' '.join(str(error).split())}") from error
        if values.shape != (len(images),):
            raise StudyError(f"{what} has shape {tuple(values.shape)} for {len(images)} images")
        values = self.processes.gather(values.view(-1, self.settings.batch_size))
        if bad := (~values.isfinite()).sum().item():
            raise StudyError(f"{what} is no finite number for {bad} of {values.numel()} images")
        return values

    def _divergence(self, trajectories: Trajectories) -> dict[str, float | None]:
        """The mean KL divergence to the base in nats an image, where it was looked at."""
        if trajectories.kl is None:
            return {"kl": None}
        nats = trajectories.kl.double() * trajectories.latents[0, 0].numel()
        return {"kl": self.processes.gather(nats.unflatten(0, (-1, self.settings.batch_size))).sum(dim=2).mean().item()}
