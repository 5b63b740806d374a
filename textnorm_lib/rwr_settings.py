"""How a run of reward-weighted regression is done: every setting with its reason; the defaults are the paper's."""

import math
from dataclasses import dataclass

from textnorm_lib.settings_checks import require, require_counts, require_optimisation

WEIGHTINGS = ("reward", "rank", "equal", "centred")


@dataclass(frozen=True)
class Settings:
    """How a run is done. The defaults are the paper's (appendix 7.2), or where it is silent those of diffusers."""

    images_per_prompt: int = 100  # from the base, to choose from
    best: int = 10  # so many of them are trained on; with "centred" weights as many of the worst as well
    weighting: str = "reward"  # how they weigh, see ``weights_of``; the paper's form of it is not told
    steps: int = 1000  # "up to"; which checkpoint is taken is another question
    batch_size: int = 32  # images a step, over all processes together
    pass_size: int = 0  # images of one pass of the U-Net, whose gradients are added up; 0: all. Less memory, less
    learning_rate: float = 1e-5  # constant
    kl_coefficient: float = 0.0  # beta; the paper tries 0, 0.25, 0.5, 0.75, 1 and takes the best
    caption_dropout: float = 0.0  # share of captions that are emptied; diffusers' script empties none
    dtype: str = "float16"  # of autocast; adapter, losses and optimiser are in single precision in any case
    weight_decay: float = 1e-2
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    max_gradient_norm: float = 1.0
    save_every: int = 50  # steps between checkpoints, among which one is chosen later
    seed: int = 0  # of all that the steps draw

    def __post_init__(self) -> None:
        """Raises ``ConfigError``, naming the setting."""
        require_counts(self, "images_per_prompt", "best", "steps", "batch_size", "save_every")
        require_optimisation(self)
        require(0 <= self.pass_size < math.inf, "pass_size", self, "a number of 0 (all at once) or more is needed")
        require(self.best <= self.images_per_prompt, "best", self, f"of {self.images_per_prompt} images a prompt")
        require(self.weighting in WEIGHTINGS, "weighting", self, f"known: {', '.join(WEIGHTINGS)}")
        if self.weighting == "centred":
            half = self.images_per_prompt // 2
            require(self.best <= half, "best", self, f"of {self.images_per_prompt}, centred has as many worst: {half}")
            require(self.batch_size % 2 == 0, "batch_size", self, "centred trains on pairs")
        require(0 <= self.caption_dropout < 1, "caption_dropout", self, "a share of 0 or more, below 1, is needed")


PAPER = Settings()
