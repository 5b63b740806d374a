"""Profiles: the one dial of the study.

A profile is a YAML file in ``profiles/``. It names models and sizes, never a world: notebooks and functions read their
numbers from it and do not ask which profile they run in. It spells out every key, or names a profile that does
(``extends``) and then only what differs. An unknown key, a wrong type or a value out of range raises
``ConfigError`` with the file, the key, the value and the remedy.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from textnorm_lib.checks import shown
from textnorm_lib.config_finetuning import STRICT, Coefficient, Ddpo, PromptsPerSet, Revision, RewardName, Rwr, Sizes
from textnorm_lib.config_messages import closest, first_defect
from textnorm_lib.errors import ConfigError
from textnorm_lib.strict_yaml import Alias, KeyTwice, StrictLoader

PROFILES = Path(__file__).parent / "profiles"
DEFAULT_PROFILE = "mini"
LONGEST_PROFILE = 50_000  # characters; the longest has some 10,000
_LONGEST_MESSAGE = 500


@dataclass(frozen=True, config=STRICT)
class Bootstrap:
    """How intervals are made: whole prompts are drawn again with replacement."""

    resamples: Annotated[int, Field(ge=100, le=1_000_000)]
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)]


def _three_or_none(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(names) not in (0, 3) or len(set(names)) < len(names):
        raise ValueError("name three different ones, or none where people vote or have not voted yet")
    return names


@dataclass(frozen=True, config=STRICT)
class Generator:
    """The text-to-image model and how it is sampled; ``model`` as in ``weights.py``."""

    model: Annotated[str, Field(min_length=1)]
    revision: Revision
    steps: Annotated[int, Field(ge=1, le=1000)]
    guidance_scale: Annotated[float, Field(ge=1.0, le=30.0)]
    batch_size: Annotated[int, Field(ge=1, le=1024)]
    dtype: Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, config=STRICT)
class RewardWeights:
    """The weights of one reward model, as in ``weights.py``."""

    weights: Annotated[str, Field(min_length=1)]
    revision: Revision


@dataclass(frozen=True, config=STRICT)
class Rewards:
    """The four reward models, and the precision that they compute in."""

    dtype: Literal["float32", "bfloat16", "float16"]
    clip: RewardWeights
    blip2: RewardWeights
    imagereward: RewardWeights
    pickscore: RewardWeights


@dataclass(frozen=True, config=STRICT)
class TextNorm:
    """A setting of TextNorm that is not tuned here: an ensemble, a temperature each in its own scale, the penalty."""

    rewards: Annotated[tuple[RewardName, ...], Field(min_length=1)]
    temperatures: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    penalty: Coefficient

    def __post_init__(self) -> None:
        if len(self.temperatures) != len(self.rewards):
            raise ValueError(f"{len(self.temperatures)} temperatures for {len(self.rewards)} rewards; give one each")


@dataclass(frozen=True, config=STRICT)
class Tia2:
    """The size of the benchmark that is built, and the files of three people who voted (``tia2/people.py``)."""

    images_per_prompt: Annotated[int, Field(ge=1, le=1000)]
    prompts_per_set: PromptsPerSet
    votes: Annotated[tuple[str, ...], AfterValidator(_three_or_none)]


@dataclass(frozen=True, config=STRICT)
class BestOfN:
    """The pool that rewards choose from: sealed prompts, images of each, and n where it is followed and where judged.

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
class Profile:
    """One scale of the study; ``name`` is the file's name."""

    name: str
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    bootstrap: Bootstrap
    workers: Annotated[int, Field(ge=1, le=64)]
    generator: Generator
    annotators: Annotated[tuple[str, ...], AfterValidator(_three_or_none)]
    quality_judges: Annotated[tuple[str, ...], AfterValidator(_three_or_none)]
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


def load_profile(name: str, overrides: Mapping[str, Any] | None = None) -> Profile:
    """Read ``profiles/<name>.yaml``, with single values replaced.

    ``overrides`` maps dotted keys to values, e.g. ``{"bootstrap.resamples": 200}``.
    Raises ``ConfigError`` for an unknown profile, a file that is not YAML, an unknown or missing key, a wrong type and
    a value out of range.
    """
    if name not in profile_names():
        told = shown(repr(name) if isinstance(name, str) else name)
        raise ConfigError(f"unknown profile {told}: {closest(shown(name), profile_names())}")
    path = PROFILES / f"{name}.yaml"
    values = {"name": name, **_extended(path)}
    for key, value in (overrides or {}).items():
        _replace(values, key, value)
    try:
        # Through JSON, because pydantic's strict mode takes a plain mapping for a dataclass from JSON only.
        return TypeAdapter(Profile).validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        raise ConfigError(f"{path.name}: {shown(first_defect(error, Profile), _LONGEST_MESSAGE)}") from None
    except (TypeError, ValueError, RecursionError) as error:  # an override that no JSON can hold
        raise ConfigError(f"{path.name}: overrides: {shown(error)}; give plain numbers and texts") from None


def as_dict(profile: Profile) -> dict[str, Any]:
    """The resolved values as plain nested dictionaries, for hashing and for the manifest."""
    return dataclasses.asdict(profile)


def _extended(path: Path) -> dict[str, Any]:
    """The profile's values, on top of those of the one that it extends."""
    values = _read(path)
    if "extends" not in values:
        return values
    base = values.pop("extends")
    if base not in profile_names():
        raise ConfigError(f"{path.name}: extends = {base!r}: {closest(str(base), profile_names())}")
    whole = _read(PROFILES / f"{base}.yaml")
    if "extends" in whole:
        raise ConfigError(f"{path.name}: extends = {base!r}: extends another itself; name one that spells out all keys")
    return _merged(whole, values)


def _merged(whole: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``whole`` with ``changes``, section by section."""
    sections = [key for key in changes if isinstance(changes[key], dict) and isinstance(whole.get(key), dict)]
    return {**whole, **changes, **{key: _merged(whole[key], changes[key]) for key in sections}}


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > LONGEST_PROFILE:
            raise ConfigError(
                f"{path.name}: has {len(text):,} characters; {LONGEST_PROFILE:,} are enough for a profile"
            )
        values = yaml.load(text, Loader=StrictLoader)
    except OSError as error:
        raise ConfigError(f"{path.name}: {error.strerror}; make it a file that can be read") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path.name}: not UTF-8 text; save it as UTF-8") from None
    except KeyTwice as error:
        raise ConfigError(f"{path.name}: {error} is given twice; delete one of the two") from None
    except Alias as error:
        raise ConfigError(f"{path.name}: *{shown(error)} stands for another value; write that value out") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path.name}: not valid YAML{line}; check the indentation and the colons there") from None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:  # no such date, a wrong tag
        raise ConfigError(f"{path.name}: not valid YAML ({shown(error)}); copy a profile and change it") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path.name}: holds no keys; copy one of {', '.join(profile_names())} and change it")
    if "name" in values:
        raise ConfigError(f"{path.name}: name = {values['name']!r}: a profile is called as its file; delete the key")
    return values


def _replace(values: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, last = str(dotted).split(".")
    for section in sections:
        values = values.get(section)
        if not isinstance(values, dict):
            raise ConfigError(f"override {dotted!r}: there is no section {section!r} in the profile")
    values[last] = value
