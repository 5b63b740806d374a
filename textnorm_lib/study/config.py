"""Profiles: the one dial of the study.

A profile is a YAML file in ``profiles/``. It names models and sizes, never a world: notebooks and functions read their
numbers from it and do not ask which profile they run in. It spells out every key, or names a profile that does
(``extends``) and then only what differs. Whatever is wrong with it raises ``ConfigError`` with the file, the key, the
value and the remedy. Nothing here imports torch, which takes longer than reading a profile.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from textnorm_lib.study.errors import ConfigError, closest, first_defect, quoted, shown
from textnorm_lib.study.settings import STRICT, DdpoSettings, Dtype, RwrSettings

PROFILES = Path(__file__).parent / "profiles"
DEFAULT_PROFILE = "mini"
LONGEST_PROFILE = 50_000  # characters; the longest has some 10,000


def _three_or_none(names: tuple[str, ...]) -> tuple[str, ...]:
    if names and not len(names) == len(set(names)) == 3:
        raise ValueError("name three different ones, or none where people vote or have not voted yet")
    return names


def _growing(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if list(sizes) != sorted(set(sizes)) or min(sizes) < 1:
        raise ValueError("give different numbers of 1 or more, the smallest first")
    return sizes


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("name each reward once")
    return names


RewardName = Literal["clip", "blip2", "imagereward", "pickscore"]
Chooser = Literal[RewardName, "textnorm"]
Name = Annotated[str, Field(min_length=1)]  # of a model or of weights, as in ``study/weights.py``
Revision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None
ThreeOrNone = Annotated[tuple[str, ...], AfterValidator(_three_or_none)]
Sizes = Annotated[tuple[int, ...], Field(min_length=1), AfterValidator(_growing)]


@dataclass(frozen=True, config=STRICT)
class Bootstrap:
    """How intervals are made: whole prompts are drawn again with replacement."""

    resamples: Annotated[int, Field(ge=100, le=1_000_000)]
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]


@dataclass(frozen=True, config=STRICT)
class Generator:
    """The text-to-image model and how images are sampled from it."""

    model: Name
    revision: Revision
    steps: Annotated[int, Field(ge=1, le=1000)]
    guidance_scale: Annotated[float, Field(ge=1.0, le=30.0)]
    batch_size: Annotated[int, Field(ge=1, le=1024)]
    dtype: Dtype


@dataclass(frozen=True, config=STRICT)
class RewardWeights:
    """The weights of one reward model."""

    weights: Name
    revision: Revision


@dataclass(frozen=True, config=STRICT)
class Rewards:
    """The four reward models, and the precision that they compute in."""

    dtype: Dtype
    clip: RewardWeights
    blip2: RewardWeights
    imagereward: RewardWeights
    pickscore: RewardWeights


@dataclass(frozen=True, config=STRICT)
class TextNorm:
    """A setting of TextNorm that is not tuned here: an ensemble, a temperature for each reward, the penalty."""

    rewards: Annotated[tuple[RewardName, ...], Field(min_length=1)]
    temperatures: tuple[PositiveFloat, ...]
    penalty: NonNegativeFloat

    def __post_init__(self) -> None:
        if len(self.temperatures) != len(self.rewards):
            raise ValueError(f"{len(self.temperatures)} temperatures for {len(self.rewards)} rewards; give one each")


@dataclass(frozen=True, config=STRICT)
class PromptsPerSet:
    """How many prompts of each set; the most are the paper's."""

    comprehensive: Annotated[int, Field(ge=1, le=100)]
    counting: Annotated[int, Field(ge=1, le=150)]
    composition: Annotated[int, Field(ge=1, le=300)]


@dataclass(frozen=True, config=STRICT)
class Tia2:
    """The size of the benchmark that is built, and the files of three people who voted (``judging/labelled.py``)."""

    images_per_prompt: Annotated[int, Field(ge=1, le=1000)]
    prompts_per_set: PromptsPerSet
    votes: ThreeOrNone


@dataclass(frozen=True, config=STRICT)
class BestOfN:
    """The pool of images of sealed prompts that rewards choose from, each n that is followed, and each that is judged.

    Judged are two sets of the best four of n, from two halves of the pool.
    """

    prompts_per_set: PromptsPerSet
    images_per_prompt: Annotated[int, Field(ge=8, le=10_000)]
    sizes: Sizes
    judged: Sizes

    def __post_init__(self) -> None:
        if self.sizes[0] != 1 or len(self.sizes) < 3:
            raise ValueError(f"sizes = {list(self.sizes)}: begin with 1 and give two more, to fit a curve to")
        if not set(self.judged) <= set(self.sizes) or self.judged[0] < 4:
            raise ValueError(f"judged = {list(self.judged)}: choose among sizes, 4 or more, as sets of four are judged")
        if 2 * self.sizes[-1] > self.images_per_prompt:
            raise ValueError(
                f"images_per_prompt = {self.images_per_prompt}: two disjoint best of {self.sizes[-1]} are judged, "
                f"which needs {2 * self.sizes[-1]}; raise it, or lower sizes"
            )


@dataclass(frozen=True, config=STRICT)
class Finetuning:
    """What both methods have: prompts of the pool, rewards, runs, the adapter, the checkpoints that are looked at.

    ``recipe`` holds what differs from the defaults of ``RwrSettings`` or ``DdpoSettings``, but for ``seed``, by which
    runs differ, and ``kl_coefficient``, which is ``beta``; ``other_betas`` are tried beside it.
    """

    prompts_per_set: PromptsPerSet
    passed_over: NonNegativeInt  # of each set's, the first that would be taken
    rewards: Annotated[tuple[Chooser, ...], Field(min_length=1), AfterValidator(_different)]
    numbers: Annotated[int, Field(ge=1, le=100)]
    beta: NonNegativeFloat
    other_betas: dict[Chooser, tuple[NonNegativeFloat, ...]]
    lora_rank: Annotated[int, Field(ge=1, le=256)]
    lora_targets: Literal["attention", "attention and feed-forward"]
    recipe: dict[str, Any]
    checkpoints: Sizes
    images_per_prompt: Annotated[int, Field(ge=8, le=10_000)]  # two sets of four are judged

    def _check(self, kind: type, last: str) -> None:
        """Raise ``ValueError`` for a recipe that makes no ``kind``, or a checkpoint that training does not save."""
        for name, remedy in (("seed", "each run has its own"), ("kl_coefficient", "set beta")):
            if name in self.recipe:
                raise ValueError(f"recipe: {name} is not given here; delete it, {remedy}")
        try:
            settings = kind(**self.recipe)
        except ConfigError as error:
            raise ValueError(f"recipe: {error}") from None
        length, every = getattr(settings, last), settings.save_every
        for one in self.checkpoints:
            if one > length or (one % every and one != length):
                raise ValueError(f"checkpoints: {one} is not saved; one is every {every} to {length} ({last})")


@dataclass(frozen=True, config=STRICT)
class Rwr(Finetuning):
    """Reward-weighted regression of the profile's generator."""

    def __post_init__(self) -> None:
        self._check(RwrSettings, "steps")


@dataclass(frozen=True, config=STRICT)
class Ddpo(Finetuning):
    """DDPO of ``model``."""

    model: Name
    revision: Revision

    def __post_init__(self) -> None:
        self._check(DdpoSettings, "epochs")


@dataclass(frozen=True, config=STRICT)
class Profile:
    """One scale of the study; ``name`` is the file's name."""

    name: str
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    bootstrap: Bootstrap
    workers: Annotated[int, Field(ge=1, le=64)]
    generator: Generator
    annotators: ThreeOrNone
    quality_judges: ThreeOrNone
    rewards: Rewards
    prompts: Literal["sprites", "released"]
    contrastive_prompts: Annotated[int, Field(ge=1, le=32)]
    textnorm: TextNorm | None
    training: Literal["toy", "bundled"]
    tia2: Tia2
    best_of_n: BestOfN
    rwr: Rwr
    ddpo: Ddpo

    def __post_init__(self) -> None:
        if self.annotators and self.prompts == "released":
            raise ValueError(f"prompts = {self.prompts!r}: the annotators understand those of sprites only; name none")
        if not (self.textnorm or self.annotators or self.tia2.votes):
            raise ValueError("textnorm = null: it is tuned on votes; give a setting, annotators or tia2.votes")


def profile_names() -> tuple[str, ...]:
    """The profiles that exist, in alphabetical order."""
    return tuple(sorted(path.stem for path in PROFILES.glob("*.yaml")))


def load_profile(name: str) -> Profile:
    """Read ``profiles/<name>.yaml``.

    Raises ``ConfigError`` for an unknown profile, a file that is not YAML, an unknown or missing key, a wrong type and
    a value out of range.
    """
    if name not in profile_names():
        raise ConfigError(f"unknown profile {quoted(name)}: {closest(shown(name), profile_names())}")
    values = {"name": name, **_extended(name)}
    try:
        # Through JSON, because pydantic's strict mode takes a plain mapping for a dataclass from JSON only.
        return TypeAdapter(Profile).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ConfigError(f"{name}.yaml: {first_defect(error, Profile)}") from None
    except (TypeError, ValueError, RecursionError) as error:  # what no JSON can hold
        raise ConfigError(f"{name}.yaml: {shown(error)}; give plain numbers and texts") from None


def as_dict(profile: Profile) -> dict[str, Any]:
    """The values as plain nested dictionaries, for hashing and for the manifest."""
    return dataclasses.asdict(profile)


def _extended(name: str) -> dict[str, Any]:
    """The profile's values, on top of those of the one that it extends."""
    values = _read(name)
    if "extends" not in values:
        return values
    base = values.pop("extends")
    if base not in profile_names():
        raise ConfigError(f"{name}.yaml: extends = {quoted(base)}: {closest(shown(base), profile_names())}")
    whole = _read(base)
    if "extends" in whole:
        raise ConfigError(f"{name}.yaml: extends = {base!r}: extends another itself; name one that spells out all keys")
    return _merged(whole, values)


def _merged(whole: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = [key for key in changes if isinstance(changes[key], dict) and isinstance(whole.get(key), dict)]
    return {**whole, **changes, **{key: _merged(whole[key], changes[key]) for key in both}}


class StrictLoader(yaml.SafeLoader):
    """YAML that says what it means: safe types only, each key once and as text, no aliases."""

    def compose_node(self, parent, index):
        """A node, unless it is an alias: a few lines of these can stand for more than any memory holds."""
        if self.check_event(yaml.AliasEvent):
            raise ConfigError(f"*{shown(self.peek_event().anchor)} stands for another value; write that value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        """A mapping whose keys are texts, each there once; of two, YAML would silently keep the second."""
        seen = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise ConfigError(f"the key {shown(key.value)} is no text; put it in quotation marks, or delete it")
            if key.value in seen:
                raise ConfigError(f"{shown(key.value)} is given twice; delete one of the two")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read(name: str) -> dict[str, Any]:
    """What the file of the profile holds, unchecked but for its form."""
    try:
        return _parsed((PROFILES / f"{name}.yaml").read_text(encoding="utf-8"))
    except OSError as error:
        defect = f"{error.strerror}; make it a file that can be read"
    except UnicodeDecodeError:
        defect = "not UTF-8 text; save it as UTF-8"
    except ConfigError as error:
        defect = str(error)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        defect = f"not valid YAML{line}; check the indentation and the colons there"
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:  # no such date, a wrong tag
        defect = f"not valid YAML ({shown(error)}); copy a profile and change it"
    raise ConfigError(f"{name}.yaml: {defect}")


def _parsed(text: str) -> dict[str, Any]:
    if len(text) > LONGEST_PROFILE:
        raise ConfigError(f"has {len(text):,} characters; {LONGEST_PROFILE:,} are enough for a profile")
    values = yaml.load(text, Loader=StrictLoader)
    if not isinstance(values, dict):
        raise ConfigError(f"holds no keys; copy one of {', '.join(profile_names())} and change it")
    if "name" in values:
        raise ConfigError(f"name = {quoted(values['name'])}: a profile is called as its file; delete the key")
    return values
