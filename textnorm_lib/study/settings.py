"""How runs of fine-tuning are done: the settings of RWR, DDPO and direct gradients, checked when they are made."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError
from pydantic.dataclasses import dataclass

from textnorm_lib.study.errors import ConfigError, first_defect

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Dtype = Literal["float32", "bfloat16", "float16"]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


class _InOneLine(type):
    """What pydantic refuses of such a class is a ``ConfigError`` of one line."""

    def __call__(cls, *values: Any, **named: Any) -> Any:
        try:
            return super().__call__(*values, **named)
        except ValidationError as error:
            raise ConfigError(first_defect(error, cls)) from None


@dataclass(frozen=True, config=STRICT)
class RwrSettings(metaclass=_InOneLine):
    """How a run of reward-weighted regression is done: as in appendix 7.2, and where that is silent, as in diffusers.

    Called ``rwr.Settings`` elsewhere: ``Settings(best=20, weighting="centred")``. ``Settings(steps=0)`` raises
    ``ConfigError``: "steps = 0 (int): input should be greater than 0".
    """

    images_per_prompt: PositiveInt = 100  # from the base, to choose from
    best: PositiveInt = 10  # so many of them are trained on; with "centred" weights as many of the worst as well
    weighting: Literal["reward", "rank", "equal", "centred"] = "reward"  # see ``weights_of``; the paper's is not told
    steps: PositiveInt = 1000  # "up to"; which checkpoint is taken is another question
    batch_size: PositiveInt = 32  # images per step, over all processes together
    pass_size: NonNegativeInt = 0  # images per pass of the U-Net, whose gradients add up; 0: all. Less memory, less
    learning_rate: PositiveFloat = 1e-5  # constant
    kl_coefficient: NonNegativeFloat = 0.0  # beta; the paper tries 0, 0.25, 0.5, 0.75, 1 and takes the best
    caption_dropout: BelowOne = 0.0  # share of captions that are emptied; diffusers' script empties none
    dtype: Dtype = "float16"  # of autocast; adapter, losses and optimiser are in single precision in any case
    weight_decay: NonNegativeFloat = 1e-2
    beta_1: BelowOne = 0.9
    beta_2: BelowOne = 0.999
    epsilon: PositiveFloat = 1e-8
    max_gradient_norm: PositiveFloat = 1.0
    save_every: PositiveInt = 50  # steps between checkpoints, among which one is chosen later
    seed: int = 0  # of all that the steps draw

    def __post_init__(self) -> None:
        images, centred = self.images_per_prompt, self.weighting == "centred"
        if self.best > images:
            raise ValueError(f"best = {self.best}: there are only {images} images per prompt; take fewer")
        if centred and self.best > images // 2:
            raise ValueError(f"best = {self.best}: of {images}, centred takes as many worst; {images // 2} at most")
        if centred and self.batch_size % 2:
            raise ValueError(f"batch_size = {self.batch_size}: centred trains on pairs; give an even number")


@dataclass(frozen=True, config=STRICT)
class DirectSettings(metaclass=_InOneLine):
    """How a run of direct reward gradients is done (``direct.Settings``): as moved the mini world in minutes."""

    steps: PositiveInt = 60
    batch_size: PositiveInt = 16  # images per step, over all processes together
    images_per_prompt: PositiveInt = 4  # of a step; the next step takes the next prompts
    denoising_steps: PositiveInt = 50
    gradient_steps: PositiveInt = 1  # K: so many of the last steps pass the gradient
    guidance_scale: Annotated[float, Field(ge=1)] = 5.0  # 1 is no guidance
    reward_scale: PositiveFloat = 1.0  # divides the reward; its deviation within a prompt lets all rewards pull alike
    kl_coefficient: NonNegativeFloat = 0.0  # beta
    gradient_checkpointing: bool = False  # half the memory at full size, a third more time
    dtype: Dtype = "bfloat16"  # of autocast; adapter, losses and optimiser are in single precision in any case
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-4
    beta_1: BelowOne = 0.9
    beta_2: BelowOne = 0.999
    epsilon: PositiveFloat = 1e-8
    max_gradient_norm: PositiveFloat = 1.0
    save_every: PositiveInt = 10  # steps between checkpoints
    seed: int = 0  # of all images

    def __post_init__(self) -> None:
        if self.batch_size % (each := self.images_per_prompt):
            raise ValueError(f"batch_size = {self.batch_size}: it is not a multiple of images_per_prompt = {each}")
        if self.gradient_steps > self.denoising_steps:
            raise ValueError(
                f"gradient_steps = {self.gradient_steps}: there are only {self.denoising_steps}; take fewer"
            )


@dataclass(frozen=True, config=STRICT)
class DdpoSettings(metaclass=_InOneLine):
    """How a run of DDPO is done (``ddpo.Settings``): as in appendix 7.2, and where that is silent, as in trl."""

    epochs: PositiveInt = 500  # "up to"; which checkpoint is taken is another question
    images_per_epoch: PositiveInt = 256  # a multiple of batch_size, and best one of the number of prompts as well
    updates_per_epoch: PositiveInt = 1  # the paper's; more learn faster on little data, and only then the clip matters
    batch_size: PositiveInt = 64  # rows per pass, sampling and training alike: equal shapes round alike
    denoising_steps: PositiveInt = 50  # T
    untrained_steps: NonNegativeInt = 0  # last ones, without noise (eta = 0): their gradients would drown all others
    step_weights: Literal["equal", "noise"] = "equal"  # "noise": each step's loss times sigma / |b|: all pull alike
    guidance_scale: Annotated[float, Field(ge=1)] = 5.0  # w; 1 is no guidance
    frozen_empty: bool = False  # True: the base serves the empty prompt; a third less training, a slightly other policy
    dtype: Dtype = "float16"  # of autocast; log-densities, adapter and optimiser are in single precision in any case
    learning_rate: PositiveFloat = 3e-4
    weight_decay: NonNegativeFloat = 1e-4
    beta_1: BelowOne = 0.9
    beta_2: BelowOne = 0.999
    epsilon: PositiveFloat = 1e-8
    max_gradient_norm: PositiveFloat = 1.0
    clip_range: PositiveFloat = 1e-4  # eps, trl's: ratios of averaged log-densities stay that close to 1
    max_advantage: PositiveFloat = 5.0  # trl's: one lucky image must not be the whole update
    buffer_size: PositiveInt = 16  # trl's: a prompt's last rewards, from which mean and deviation are taken
    min_count: PositiveInt = 16  # trl's: with fewer of them, the epoch's mean and deviation over all prompts
    kl_coefficient: NonNegativeFloat = 0.0  # beta; trl has none, and the paper gives no value
    kl_every: PositiveInt = 10  # epochs between looks at the divergence if beta is 0: one costs half a sampling
    save_every: PositiveInt = 10  # epochs between checkpoints, among which one is chosen later
    seed: int = 0  # another one than the evaluation's, or its images start from the same noise

    def __post_init__(self) -> None:
        length, size = self.denoising_steps, self.batch_size
        transitions = size * (length - self.untrained_steps)  # trained, of each batch
        if transitions < 1:
            raise ValueError(f"untrained_steps = {self.untrained_steps}: of {length}, leave one at least to train")
        if self.min_count > self.buffer_size:
            raise ValueError(f"min_count = {self.min_count}: buffer_size, {self.buffer_size}, is the most there can be")
        if self.images_per_epoch % size:
            raise ValueError(f"images_per_epoch = {self.images_per_epoch}: give a multiple of batch_size, {size}")
        if self.updates_per_epoch > transitions:
            raise ValueError(f"updates_per_epoch = {self.updates_per_epoch}: {transitions} at most, one per transition")
