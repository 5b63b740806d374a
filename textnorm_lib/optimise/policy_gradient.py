"""What DDPO learns from: advantages, and the clipped importance-sampled objective.

With r = p_theta(x' | x, c) / p_old(x' | x, c), both densities averaged over the latent's elements, and the advantage A
of the image's reward within its prompt, the loss is the mean over transitions (x, x') of

    max(-A r, -A clip(r, 1 - eps, 1 + eps)) + beta KL(p_theta(. | x, c) || p_base(. | x, c))

The first term is that of ddpo-pytorch and trl, which have no second. The divergence of a step is exact (both Gaussian,
one variance), and averaged over the elements as the log-densities are; its gradient is taken at the visited states and
not through the way there.
"""

from collections.abc import Sequence

import numpy as np
import torch

from textnorm_lib.optimise.denoising import Steps
from textnorm_lib.stats.metrics import finite_column
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.settings import DdpoSettings


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
