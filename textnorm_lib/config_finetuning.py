"""The sections ``rwr`` and ``ddpo`` of a profile: what is tuned, on how much, and how it differs from the paper."""

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from textnorm_lib import ddpo_settings, rwr_settings
from textnorm_lib.config_messages import closest
from textnorm_lib.errors import ConfigError

STRICT = ConfigDict(extra="forbid", strict=True)
RewardName = Literal["clip", "blip2", "imagereward", "pickscore"]
Chooser = Literal[RewardName, "textnorm"]


def growing(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Whole numbers from 1 up, each larger than the one before."""
    if list(sizes) != sorted(set(sizes)) or min(sizes) < 1:
        raise ValueError("give different numbers of 1 or more, the smallest first")
    return sizes


Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None
Coefficient = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Sizes = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(growing)]


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("name each reward once")
    return names


@dataclass(frozen=True, config=STRICT)
class PromptsPerSet:
    """How many prompts of each set; the most are the paper's."""

    comprehensive: Annotated[int, Field(ge=1, le=100)]
    counting: Annotated[int, Field(ge=1, le=150)]
    composition: Annotated[int, Field(ge=1, le=300)]


@dataclass(frozen=True, config=STRICT)
class Finetuning:
    """What both methods have: prompts of the pool, rewards, runs, the adapter, the checkpoints that are looked at.

    ``recipe``: the settings that are not those of the paper (appendix 7.2), by their names in ``rwr_settings.py`` and
    ``ddpo_settings.py``. ``seed`` and ``kl_coefficient`` are not among them: runs differ by the one, ``beta`` is the
    other, and ``other_betas`` are tried beside it.
    """

    prompts_per_set: PromptsPerSet
    passed_over: Annotated[int, Field(ge=0)]  # of each set's, the first that would be taken
    rewards: Annotated[tuple[Chooser, ...], Field(min_length=1), AfterValidator(_different)]
    numbers: Annotated[int, Field(ge=1, le=100)]
    beta: Coefficient
    other_betas: dict[Chooser, tuple[Coefficient, ...]]
    lora_rank: Annotated[int, Field(ge=1, le=256)]
    lora_targets: Literal["attention", "attention and feed-forward"]
    recipe: dict[str, Any]
    checkpoints: Sizes
    images_per_prompt: Annotated[int, Field(ge=8, le=10_000)]  # two sets of four are judged

    def _check(self, module, last: str) -> None:
        """Raise ``ValueError`` for a recipe that is none, and a checkpoint that training does not save."""
        known = [one.name for one in dataclasses.fields(module.Settings) if one.name not in ("seed", "kl_coefficient")]
        if unknown := [name for name in self.recipe if name not in known]:
            raise ValueError(f"recipe: {unknown[0]!r} is no setting; {closest(unknown[0], known)}")
        defaults = dataclasses.asdict(module.PAPER)
        for name, value in self.recipe.items():
            kinds = (int, float) if isinstance(defaults[name], float) else (type(defaults[name]),)
            if type(value) not in kinds:
                hint = "; write 1.0e-4, YAML reads 1e-4 as text" if isinstance(value, str) and float in kinds else ""
                raise ValueError(f"recipe: {name} is {value!r}, {kinds[-1].__name__} is needed{hint}")
        try:
            settings = module.Settings(**self.recipe)
        except ConfigError as error:
            raise ValueError(f"recipe: {error}") from None
        length = getattr(settings, last)
        for one in self.checkpoints:
            if one > length or (one % settings.save_every and one != length):
                raise ValueError(
                    f"checkpoints: {one} is not saved; one is every {settings.save_every} to {length} ({last})"
                )


@dataclass(frozen=True, config=STRICT)
class Rwr(Finetuning):
    """Reward-weighted regression."""

    def __post_init__(self) -> None:
        self._check(rwr_settings, "steps")


@dataclass(frozen=True, config=STRICT)
class Ddpo(Finetuning):
    """DDPO; of ``model``, as in ``weights.py``."""

    model: Annotated[str, Field(min_length=1)]
    revision: Revision

    def __post_init__(self) -> None:
        self._check(ddpo_settings, "epochs")
