"""DDPO: tuning a text-to-image model against a reward by policy gradients (section 5.3 and appendix 7.2 of the paper).

    add_lora(pipeline, rank=4, targets=ATTENTION, generator=generator)
    curve = train_ddpo(pipeline, prompts, reward, PAPER, folder=folder)

Each epoch samples images from the current model (``optimise/denoising.py``), scores them, and trains on the transitions
of their denoising (``optimise/policy_gradient.py``). The paper maximises E[r + lambda], with a divergence-based lambda
of which it gives neither form nor weight; here lambda is -beta times the KL divergence to the base, step by step.

The only update of an epoch, as in the paper, is made at the model that sampled: r is 1 and nothing is ever clipped. Of
several updates, each takes its share of every batch's transitions, images and steps mixed; in trl an update takes all
steps of a few images. Every random number comes from the seed and the numbers of epoch, prompt and image, so that the
images are the same for any number of processes.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from textnorm_lib.images.sampling import autocast, image_seed
from textnorm_lib.optimise.denoising import Trajectories, ddim_steps, decode, guided, sample_in_batches
from textnorm_lib.optimise.policy_gradient import RunningStatistics, clipped_loss, step_weights
from textnorm_lib.optimise.training import Trainer
from textnorm_lib.study.errors import ConfigError, StudyError
from textnorm_lib.study.settings import DdpoSettings as Settings

PAPER = Settings()
RewardFunction = Callable[[torch.Tensor, Sequence[str], Sequence[Any]], tuple[Any, Any]]


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
    form, is measured and never trained on.

    Goes on from the latest checkpoint in ``folder``, in any number of processes, and fails, as ``training.Trainer``
    says; ``ConfigError`` also for prompts given twice and batches that the processes cannot share, ``StudyError`` for a
    reward that fails or is no finite number.

    Returns the curve, a row an epoch: epoch, reward, reward_std, gold, kl, loss, ratio, first_ratio_error (largest
    |r - 1| in the first update), clip_share, gradient_norm (before clipping), images_per_s. Row e is measured on images
    of the model after e epochs (``checkpoint_e``). kl is in nats an image over the trained steps; None where it was not
    looked at.
    """
    return pd.DataFrame(_Ddpo(pipeline, list(prompts), reward, gold, settings, folder).run(description))


class _Ddpo(Trainer):
    unit, first_number, may_change = "epoch", 0, ("epochs", "save_every", "kl_every")

    def __init__(
        self,
        pipeline,
        prompts: list[str],
        reward: RewardFunction,
        gold: RewardFunction | None,
        settings: Settings,
        folder: Path,
    ) -> None:
        super().__init__(pipeline, settings, folder, length=settings.epochs, made_of={"prompts": prompts})
        self.prompts, self.reward, self.gold = prompts, reward, gold
        batches = settings.images_per_epoch // settings.batch_size
        if not prompts or len(set(prompts)) < len(prompts):
            raise ConfigError(f"prompts are {prompts!r:.80}: give one or more, each once")
        if batches % self.processes.count:
            raise ConfigError(f"{batches} batches an epoch for {self.processes.count} processes: change batch_size")
        count, last = settings.denoising_steps, settings.untrained_steps
        self.steps = ddim_steps(pipeline.scheduler, count, without_noise=last, device=self.device)
        self.trained, self.weights = count - last, step_weights(self.steps, settings)
        self.statistics = RunningStatistics(settings.buffer_size, settings.min_count)
        with torch.no_grad():
            self.texts, empty_texts = pipeline.encode_prompt(prompts, self.device, 1, True)
        self.empty_text = empty_texts[:1]

    def extra_state(self) -> dict[str, Any]:
        return {"buffers": self.statistics.buffers}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        self.statistics.buffers = state["buffers"]

    def step(self, epoch: int) -> dict[str, Any]:
        """Sample, score and train."""
        started, settings = time.monotonic(), self.settings
        everyone, places, seeds = self._plan(epoch)
        prompts, texts = [self.prompts[place] for place in places], self.texts[places.to(self.device)]
        looked = settings.kl_coefficient > 0 or epoch % settings.kl_every == 0
        trajectories, images = self._sample(texts, seeds, with_base=looked)
        shown = (images, prompts, tuple({"seed": seed} for seed in seeds))
        rewards = self._scores("the reward", self.reward, *shown)
        row = {"reward": rewards.mean().item(), "reward_std": rewards.std(correction=0).item()}
        if self.gold:
            row["gold"] = self._scores("the gold reward", self.gold, *shown).mean().item()
        row["kl"] = None
        if looked:
            nats = trajectories.kl.double() * trajectories.latents[0, 0].numel()
            nats = self.processes.gather(nats.unflatten(0, (-1, settings.batch_size)))
            row["kl"] = nats.sum(dim=2).mean().item()
        advantages = torch.from_numpy(self.statistics.update(everyone, rewards.flatten().numpy())).view_as(rewards)
        row |= self._learn(trajectories, texts, self.processes.own(advantages).flatten(), epoch)
        return row | {"images_per_s": round(settings.images_per_epoch / (time.monotonic() - started), 2)}

    def _plan(self, epoch: int) -> tuple[list[str], torch.Tensor, list[int]]:
        """The prompts of all processes' images; of this process's images the places in ``prompts`` and the seeds."""
        settings, total = self.settings, self.settings.images_per_epoch
        numbers = (torch.arange(total) + epoch * total).view(-1, settings.batch_size)  # images of the run
        places, counts = numbers % len(self.prompts), numbers // len(self.prompts)  # prompt, its how-manieth image
        own, own_counts = (self.processes.own(part).flatten() for part in (places, counts))
        pairs = zip(own.tolist(), own_counts.tolist(), strict=True)
        seeds = [image_seed(self.prompts[place], count, seed=settings.seed) for place, count in pairs]
        return [self.prompts[place] for place in places.flatten()], own, seeds

    def _sample(self, texts: torch.Tensor, seeds: list[int], *, with_base: bool) -> tuple[Trajectories, torch.Tensor]:
        """The trajectories and images of this process's batches."""
        settings, batch = self.settings, {"batch_size": self.settings.batch_size, "dtype": self.settings.dtype}
        options = {"scale": settings.guidance_scale, "frozen_empty": settings.frozen_empty, "with_base": with_base}
        parts = list(sample_in_batches(self.unet, self.steps, texts, self.empty_text, seeds, **batch, **options))
        with autocast(self.device.type, settings.dtype):
            images = [decode(self.pipeline.vae, part.latents[:, -1]) for part in parts]
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

    def _learn(
        self, trajectories: Trajectories, texts: torch.Tensor, advantages: torch.Tensor, epoch: int
    ) -> dict[str, float | None]:
        """An epoch's updates on this process's n images, with texts (n, l, d) and advantages (n,); what to plot of it.

        Raises ``StudyError`` for a gradient that is no number, before it touches a weight.
        """
        settings, size, count = self.settings, self.settings.batch_size, self.processes.count
        advantages = advantages.float().clamp(-settings.max_advantage, settings.max_advantage).to(self.device)
        totals, furthest = torch.zeros(3, dtype=torch.float64, device=self.device), torch.zeros(1, 1)
        norms, deals = [], self._deal(epoch)
        for number, (images, steps) in enumerate(deals):
            for image, step in zip(images.split(size), steps.split(size), strict=True):
                ratio, loss = self._ratio_and_loss(trajectories, image, step, texts[image], advantages[image])
                self.backward(loss.sum() / (len(images) * count))
                off = (ratio.detach() - 1).abs()
                totals += torch.stack([loss.detach().sum(), ratio.detach().sum(), (off > settings.clip_range).sum()])
                if number == 0:
                    furthest = torch.maximum(furthest, off.max().cpu())
            try:
                norms.append(self.descend())
            except StudyError as error:
                raise StudyError(f"update {number}: {error}") from error
        self.processes.add_up([totals])
        loss, ratio, clipped = (totals / (count * sum(len(images) for images, _ in deals))).tolist()
        norms = [norm for norm in norms if math.isfinite(norm)]
        return {
            "loss": loss,
            "ratio": ratio,
            "first_ratio_error": self.processes.gather(furthest).max().item(),
            "clip_share": clipped,
            "gradient_norm": sum(norms) / len(norms) if norms else None,
        }

    def _deal(self, epoch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For each update the (image, step) of this process's transitions, in mixed order.

        Each batch deals an equal share of its own transitions to each update, so that neither what an update is made of
        nor how much each process has to do for it depends on the number of processes.
        """
        settings, trained, length = self.settings, self.trained, self.settings.batch_size * self.trained
        batches = self.processes.own(range(settings.images_per_epoch // settings.batch_size))
        orders = [
            torch.randperm(length, generator=_generator(settings.seed, epoch, batch)) + place * length
            for place, batch in enumerate(batches)
        ]
        updates = settings.updates_per_epoch
        dealt = [torch.cat([order[update::updates] for order in orders]).to(self.device) for update in range(updates)]
        return [(transitions // trained, transitions % trained) for transitions in dealt]

    def _ratio_and_loss(
        self, trajectories: Trajectories, image, step, texts: torch.Tensor, advantages: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """r and the loss of each transition, (m,)."""
        settings, latents = self.settings, trajectories.latents[image, step]
        empty = None if trajectories.empty is None else trajectories.empty[image, step]
        options = {"scale": settings.guidance_scale, "empty": empty}
        with autocast(self.device.type, settings.dtype):
            output = guided(self.unet, latents, self.steps.timesteps[step], texts, self.empty_text, **options)
        mean = self.steps.mean(step, latents, output)
        log_prob = self.steps.log_prob(step, trajectories.latents[image, step + 1], mean)
        ratio = (log_prob - trajectories.log_probs[image, step]).exp()
        loss = clipped_loss(ratio, advantages, settings.clip_range)
        if settings.kl_coefficient > 0:
            loss = loss + settings.kl_coefficient * self.steps.kl(step, output, trajectories.base[image, step])
        return ratio, loss * self.weights[step]


def _generator(*numbers: int) -> torch.Generator:
    """A generator for these numbers alone."""
    seed = int.from_bytes(hashlib.sha256(repr(numbers).encode()).digest()[:7], "big")
    return torch.Generator().manual_seed(seed)
