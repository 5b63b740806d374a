"""How a run of fine-tuning is done, by RWR or by DDPO: every setting with its reason; the defaults are the paper's.

    RwrSettings(best=20, weighting="centred")       # all else as in appendix 7.2
    RwrSettings(steps=0)                            # ConfigError: steps = 0 (int): input should be greater than 0

Elsewhere they are called ``rwr.Settings`` and ``ddpo.Settings``. They stand apart from both methods because profiles
hold them too, and reading a profile must not take as long as importing torch.
"""

import dataclasses
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from textnorm_lib.study.errors import ConfigError, closest, quoted, shown

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_LONGEST_MESSAGE = 500  # characters

Dtype = Literal["float32", "bfloat16", "float16"]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


class _InOneLine(type):
    """Of classes whose refusals by pydantic are a ``ConfigError`` with the first defect."""

    def __call__(cls, *values: Any, **named: Any) -> Any:
        try:
            return super().__call__(*values, **named)
        except ValidationError as error:
            raise ConfigError(first_defect(error, cls)) from None


@dataclass(frozen=True, config=STRICT)
class RwrSettings(metaclass=_InOneLine):
    """How a run of reward-weighted regression is done (appendix 7.2; where it is silent, as diffusers does)."""

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
class DdpoSettings(metaclass=_InOneLine):
    """How a run of DDPO is done (appendix 7.2; where it is silent, as trl does, which the paper used)."""

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


def first_defect(error: ValidationError, kind: type) -> str:
    """What is wrong with the values of a ``kind``, a dataclass (of dataclasses): the key, its value and the remedy."""
    # A misspelt key is also a missing one: the first says more.
    defect = min(error.errors(include_url=False), key=lambda defect: defect["type"] != "unexpected_keyword_argument")
    path, value = [str(part) for part in defect["loc"]], defect["input"]
    key, message = shown(".".join(path)), defect["msg"].removeprefix("Value error, ")
    told = f"{key} = {quoted(value)} ({type(value).__name__}): {message[0].lower()}{message[1:]}"
    if defect["type"] == "unexpected_keyword_argument":
        told = f"{key} = {quoted(value)}: unknown key; {closest(path[-1], _keys(kind, path[:-1]))}"
    elif defect["type"] == "missing":
        told = f"{key} is missing; add it (every profile spells out every key)"
    elif defect["type"] == "value_error" and not isinstance(value, list):  # values that do not go together
        told = f"{key}: {message}" if key else message
    elif defect["type"] == "float_type" and isinstance(value, str):
        told += "; YAML reads 1e-4 as text, write 1.0e-4"
    return shown(told, _LONGEST_MESSAGE)


def _keys(kind: Any, sections: list[str]) -> list[str]:
    """The keys that the section of ``kind`` at this path knows."""
    for section in sections:
        kind = next(field.type for field in dataclasses.fields(kind) if field.name == section)
        kind = next(iter(get_args(kind)), kind)  # TextNorm | None
    return [field.name for field in dataclasses.fields(kind)]
