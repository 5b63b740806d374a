"""The learning half of DDPO: advantages, the clipped importance-sampled objective, and an epoch's updates.

With r = p_theta(x' | x, c) / p_old(x' | x, c), both densities averaged over the latent's elements, and the advantage A
of the image's reward within its prompt, the loss is the mean over transitions (x, x') of

    max(-A r, -A clip(r, 1 - eps, 1 + eps)) + beta KL(p_theta(. | x, c) || p_base(. | x, c))

The first term is that of ddpo-pytorch and trl, which have no second. The divergence of a step is exact (both Gaussian,
one variance), and averaged over the elements as the log-densities are; its gradient is taken at the visited states and
not through the way there.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch

from textnorm_lib.images.sampling import autocast
from textnorm_lib.optimise.denoising import Steps, Trajectories, guided
from textnorm_lib.optimise.lora import Descent
from textnorm_lib.stats.metrics import finite_column
from textnorm_lib.study.config import DdpoSettings
from textnorm_lib.study.errors import DataError, StudyError
from textnorm_lib.study.processes import Processes


class RunningStatistics:
    """Advantages of rewards within their prompt: (r - mean) / deviation over the prompt's last ``buffer_size`` rewards.

    Until a prompt has ``min_count`` of them, mean and deviation are those of the epoch over all prompts (as in trl).
    """

    def __init__(self, buffer_size: int, min_count: int) -> None:
        self.buffer_size, self.min_count = buffer_size, min_count
        self.buffers: dict[str, list[float]] = {}

    def update(self, prompts: Sequence[str], rewards: np.ndarray) -> np.ndarray:
        """Take in an epoch's rewards (n,) and give their advantages (n,).

        Raises ``DataError`` for anything but one finite number a prompt, before anything is taken in.
        """
        finite_column("rewards", rewards)
        rewards = np.asarray(rewards)
        if len(rewards) != len(prompts):
            raise DataError(f"{len(rewards)} rewards of {len(prompts)} prompts: a finite number each is needed")
        names, advantages = np.array(prompts), np.empty(len(rewards))
        for prompt in dict.fromkeys(prompts):
            own = rewards[names == prompt]
            buffer = [*self.buffers.get(prompt, ()), *own.tolist()][-self.buffer_size :]
            known = rewards if len(buffer) < self.min_count else np.array(buffer)
            advantages[names == prompt] = (own - known.mean()) / (known.std() + 1e-6)
            self.buffers[prompt] = buffer
        return advantages


def clipped_loss(ratio: torch.Tensor, advantages: torch.Tensor, clip_range: float) -> torch.Tensor:
    """The importance-sampled objective as a loss of each transition, max(-A r, -A clip(r)), (n,)."""
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip_range, 1 + clip_range))


def step_weights(steps: Steps, settings: DdpoSettings) -> torch.Tensor:
    """What each trained step's loss is multiplied by, 1 on average, (trained,).

    The gradient of a log-density grows with |b| / sigma, fiftyfold from the first step to the last but one, and what an
    update does is what the late steps want, which settle details. "noise" divides by it.
    """
    trained = settings.denoising_steps - settings.untrained_steps
    weights = (steps.sigma / steps.b.abs())[:trained] if settings.step_weights == "noise" else torch.ones(trained)
    return (weights / weights.mean()).to(steps.sigma.device)


class Learner:
    """An epoch's updates of all that is trainable in a U-Net."""

    def __init__(self, unet, steps: Steps, settings: DdpoSettings, processes: Processes) -> None:
        self.unet, self.steps, self.settings, self.processes = unet, steps, settings, processes
        self.descent = Descent(unet, settings, processes)
        self.weights = step_weights(steps, settings)

    def learn(
        self,
        trajectories: Trajectories,
        texts: torch.Tensor,
        empty_text: torch.Tensor,
        advantages: torch.Tensor,
        *,
        epoch: int,
    ) -> dict[str, float | None]:
        """An epoch's updates on this process's n images, with texts (n, l, d) and advantages (n,); what to plot of it.

        Raises ``StudyError`` for a gradient that is no number, before it touches a weight.
        """
        settings, size, device = self.settings, self.settings.batch_size, self.processes.device
        advantages = advantages.float().clamp(-settings.max_advantage, settings.max_advantage).to(device)
        totals, furthest, norms = torch.zeros(3, dtype=torch.float64, device=device), torch.zeros(1, 1), []
        deals = self._deal(epoch)
        for number, (images, steps) in enumerate(deals):
            for image, step in zip(images.split(size), steps.split(size), strict=True):
                ratio, loss = self._ratio_and_loss(
                    trajectories, image, step, texts[image], empty_text, advantages[image]
                )
                self.descent.backward(loss.sum() / (len(images) * self.processes.count))
                off = (ratio.detach() - 1).abs()
                clipped = (off > settings.clip_range).sum()
                totals += torch.stack([loss.detach().sum(), ratio.detach().sum(), clipped])
                if number == 0:
                    furthest = torch.maximum(furthest, off.max().cpu())
            try:
                norms.append(self.descent.step())
            except StudyError as error:
                raise StudyError(f"update {number}: {error}") from error
        self.processes.add_up([totals])
        loss, ratio, clipped = (totals / (self.processes.count * sum(len(images) for images, _ in deals))).tolist()
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
        size, updates = self.settings.batch_size, self.settings.updates_per_epoch
        trained, device = self.settings.denoising_steps - self.settings.untrained_steps, self.processes.device
        batches = self.processes.own(range(self.settings.images_per_epoch // size))
        orders = [
            torch.randperm(size * trained, generator=_generator(self.settings.seed, epoch, batch))
            + place * size * trained
            for place, batch in enumerate(batches)
        ]
        dealt = [torch.cat([order[update::updates] for order in orders]).to(device) for update in range(updates)]
        return [(transitions // trained, transitions % trained) for transitions in dealt]

    def _ratio_and_loss(
        self, trajectories: Trajectories, image, step, texts: torch.Tensor, empty_text: torch.Tensor, advantages
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """r and the loss of each transition, (m,)."""
        settings, latents = self.settings, trajectories.latents[image, step]
        empty = None if trajectories.empty is None else trajectories.empty[image, step]
        with autocast(self.processes.device.type, settings.dtype):
            times = self.steps.timesteps[step]
            output = guided(self.unet, latents, times, texts, empty_text, scale=settings.guidance_scale, empty=empty)
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
