"""How a DDPO run is done: every setting with its reason; the defaults are the paper's."""

import math
from dataclasses import dataclass

from textnorm_lib.settings_checks import require, require_counts, require_optimisation


@dataclass(frozen=True)
class Settings:
    """How a run is done. The defaults are the paper's (appendix 7.2), or where it is silent trl's, which it used."""

    epochs: int = 500  # "up to"; which checkpoint is taken is another question
    images_per_epoch: int = 256  # samples per iteration; a multiple of batch_size, best of the prompts' number as well
    updates_per_epoch: int = 1  # the paper's; more learn faster on little data, and only then the clip matters
    batch_size: int = 64  # rows of one pass, sampling and training alike: equal shapes round alike; less memory, less
    denoising_steps: int = 50  # T
    untrained_steps: int = 0  # last ones, taken without noise (eta = 0): their gradients would drown all others
    step_weights: str = "equal"  # or "noise": each step's loss times sigma / |b|, so that all steps pull alike
    guidance_scale: float = 5.0  # w; 1 is no guidance
    frozen_empty: bool = (
        False  # the empty prompt's branch from the base: a third less training, a slightly other policy
    )
    dtype: str = "float16"  # of autocast; log-densities, adapter and optimiser are in single precision in any case
    learning_rate: float = 3e-4
    weight_decay: float = 1e-4
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    max_gradient_norm: float = 1.0
    clip_range: float = 1e-4  # eps, trl's: ratios of averaged log-densities stay that close to 1
    max_advantage: float = 5.0  # trl's: one lucky image must not be the whole update
    buffer_size: int = 16  # trl's: a prompt's last rewards, from which mean and deviation are taken
    min_count: int = 16  # trl's: with fewer of them, the epoch's mean and deviation over all prompts
    kl_coefficient: float = 0.0  # beta; trl has none, and the paper gives no value
    kl_every: int = 10  # epochs between looks at the divergence where beta is 0: they cost as much as half the sampling
    save_every: int = 10  # epochs between checkpoints, among which one is chosen later
    seed: int = 0  # another one than the evaluation's, or its images start from the same noise

    def __post_init__(self) -> None:
        """Raises ``ConfigError``, naming the setting."""
        trained = self.denoising_steps - self.untrained_steps
        require_counts(self, "epochs", "images_per_epoch", "updates_per_epoch", "batch_size", "denoising_steps")
        require_counts(self, "buffer_size", "min_count", "kl_every", "save_every")
        require_optimisation(self)
        for name in ("clip_range", "max_advantage"):
            require(0 < getattr(self, name) < math.inf, name, self, "a finite number above 0 is needed")
        require(1 <= self.guidance_scale < math.inf, "guidance_scale", self, "1 (no guidance) or more is needed")
        require(self.step_weights in ("equal", "noise"), "step_weights", self, "known: equal, noise")
        require(self.untrained_steps >= 0 and trained > 0, "untrained_steps", self, "some step has to be trained")
        require(self.min_count <= self.buffer_size, "min_count", self, "the buffer never holds so many")
        require(self.images_per_epoch % self.batch_size == 0, "images_per_epoch", self, "not a multiple of batch_size")
        transitions = self.batch_size * trained
        require(self.updates_per_epoch <= transitions, "updates_per_epoch", self, "more than transitions")


PAPER = Settings()
