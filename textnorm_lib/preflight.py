"""What would stop a run after hours, looked for before its first notebook: all of it, a line each.

    python -m textnorm_lib.preflight PROFILE

Every model that the profile names is there (what only the hub has is fetched) and its configuration can be read; there
are prompts, room on the disk, and a GPU for what computes in float16. Where an earlier run of the profile is stored,
the seconds of its steps are printed: the best estimate of how long the next one takes.
"""

import argparse
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import torch

from textnorm_lib.config import DEFAULT_PROFILE, Finetuning, Profile, load_profile
from textnorm_lib.errors import DataError, StudyError
from textnorm_lib.finetuning import all_runs
from textnorm_lib.mini.prompts import choose_prompts
from textnorm_lib.progress import progress
from textnorm_lib.rewards import clip, pretrained
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.run import records_folder
from textnorm_lib.store import artifacts_folder
from textnorm_lib.tia2.split import SEALED
from textnorm_lib.weights import BUNDLED, Weights

BYTES_A_PIXEL = 2  # as PNG the mini world's images take 1.3, photographs 1.2 to 1.7


def model_problems(profile: Profile) -> list[str]:
    """What is wrong with the models that the profile names, after its keys; what the hub has is fetched."""
    problems = []
    for keys, weights in progress(_models(profile), "models", unit="models"):
        try:
            path = weights.path
        except StudyError as error:
            problems.append(f"{keys}: {error}")
            continue
        problems += [f"{keys}: {path / name} {defect}; copy {path} anew" for name, defect in _defects(keys, path)]
    return problems


def disk_problems(profile: Profile) -> list[str]:
    """Whether the images that the profile asks for fit on the disk, beside what is already there of them.

    Raises ``StudyError`` where its prompts or its pipelines cannot be read.
    """
    sides = {key: image_side(weights.path) for key, weights in _pipelines(profile).items()}
    needed = sum(BYTES_A_PIXEL * sides[key] ** 2 * count for key, count in _images_asked_for(profile).items())
    folder = artifacts_folder()
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    if free >= needed or free + _stored(folder / "steps") >= needed:
        return []
    return [
        f"{folder}: {needed / 2**30:.1f} GiB may be written, {free / 2**30:.1f} GiB are free; make room, point "
        "TEXTNORM_ARTIFACTS to a larger disk, or lower images_per_prompt in the profile"
    ]


def gpu_problems(profile: Profile) -> list[str]:
    """Whether anything computes in float16, and there is no GPU for it."""
    dtypes = {part: getattr(profile, part).dtype for part in ("generator", "rewards")}
    dtypes |= {f"{part}.recipe": getattr(profile, part).recipe.get("dtype") for part in ("rwr", "ddpo")}
    keys = [f"{part}.dtype" for part, dtype in dtypes.items() if dtype == "float16"]
    if not keys or torch.cuda.is_available():
        return []
    remedy = "install a CUDA build of torch, or take bfloat16, in which a CPU is several times faster"
    return [f"{' and '.join(keys)}: float16 wants a GPU, and torch finds none here; {remedy}"]


def seconds_stored(profile: str) -> dict[str, float]:
    """What the steps behind the figures and tables of the profile's last run took, by step, the longest first."""
    steps, seconds = {}, Counter()
    try:
        for path in records_folder(profile).glob("*.json"):
            for made in json.loads(path.read_bytes())["made"].values():
                steps |= {one["key"]: one["step"] for one in made["steps"]}
        for key, step in steps.items():
            meta = artifacts_folder() / "steps" / step / key / "meta.json"
            seconds[step] += json.loads(meta.read_bytes())["seconds"] if meta.is_file() else 0.0
    except (OSError, ValueError, LookupError, TypeError):
        return {}  # damaged: whoever reads these for their content says so
    return dict(seconds.most_common())


def preflight(profile: Profile) -> list[str]:
    """All problems, a line each; none: the run can begin."""
    problems = model_problems(profile) + gpu_problems(profile)
    try:
        problems += disk_problems(profile)
    except StudyError as error:
        if not any(str(error) in known for known in problems):  # of a missing model
            problems.append(str(error))
    return problems


def image_side(model: Path) -> int:
    """Pixels a side of the images that the pipeline in the folder ``model`` makes.

    Raises ``DataError`` for configurations that cannot be read, or are not those of a latent diffusion model.
    """
    try:
        unet, vae = (json.loads((model / part / "config.json").read_bytes()) for part in ("unet", "vae"))
        return int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DataError(f"{model}: unet/config.json or vae/config.json is no use ({reason}); copy it anew") from error


def _images_asked_for(profile: Profile) -> dict[str, int]:
    """By the key of the pipeline that makes them, as if nothing were stored yet; notebook 00 makes few."""

    def at_once(function, *inputs, **config):
        return function(*inputs, **config)

    def of_checkpoints(asked: Finetuning) -> int:
        runs = all_runs(asked.rewards, asked.numbers, beta=asked.beta, other_betas=asked.other_betas)
        prompts = sum(vars(asked.prompts_per_set).values())
        return prompts * asked.images_per_prompt * (1 + len(runs) * len(asked.checkpoints))

    tia2, pool = profile.tia2, profile.best_of_n
    images = len(choose_prompts(at_once, profile, tia2.prompts_per_set)) * tia2.images_per_prompt
    images += len(choose_prompts(at_once, profile, pool.prompts_per_set, only=SEALED)) * pool.images_per_prompt
    images += of_checkpoints(profile.rwr)
    return {"generator.model": images, "ddpo.model": of_checkpoints(profile.ddpo)}


def _pipelines(profile: Profile) -> dict[str, Weights]:
    """By their keys."""
    pairs = (("generator", profile.generator), ("ddpo", profile.ddpo))
    return {f"{key}.model": Weights(one.model, one.revision) for key, one in pairs}


def _models(profile: Profile) -> list[tuple[str, Weights]]:
    """Each model once, after the keys that name it."""
    named = _pipelines(profile)
    for name in REWARDS:
        reward = getattr(profile.rewards, name)
        named[f"rewards.{name}"] = Weights(reward.weights, reward.revision)
    for key in ("annotators", "quality_judges"):
        named |= {f"{key} {name}": Weights(f"{BUNDLED}annotators/{name}.safetensors") for name in getattr(profile, key)}
    by_model: dict[Weights, list[str]] = {}
    for key, weights in named.items():
        by_model.setdefault(weights, []).append(key)
    return [(" and ".join(keys), weights) for weights, keys in by_model.items()]


def _defects(keys: str, path: Path) -> list[tuple[str, str]]:
    """Files of the model in ``path`` that are missing, and configurations that are no JSON."""
    if path.is_file():
        return []
    needed = ("model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json")
    if "rewards." in keys:
        needed = clip.FILES if keys == "rewards.clip" else pretrained.FILES
    missing = [(name, "is missing") for name in needed if not (path / name).is_file()]
    broken = []
    for file in sorted(path.rglob("*.json")):
        try:
            json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or "no JSON"
            broken.append((file.relative_to(path).as_posix(), f"cannot be read ({reason})"))
    return missing + broken


def _stored(folder: Path) -> int:
    """Bytes of the files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m textnorm_lib.preflight", description="Look before hours are spent."
    )
    parser.add_argument("profile", nargs="?", default=DEFAULT_PROFILE)
    options = parser.parse_args(arguments)
    try:
        profile = load_profile(options.profile)
        problems = preflight(profile)
    except StudyError as error:
        problems = [str(error)]
    for problem in problems:
        print(f"preflight: {problem}", file=sys.stderr)
    if problems:
        return 2
    print(f"preflight: profile {profile.name}: {len(_models(profile))} models are here, the disk has room, ok")
    if seconds := seconds_stored(profile.name):
        told = ", ".join(f"{step} {spent:,.0f}" for step, spent in seconds.items() if spent >= 1) or "less than 1 each"
        print(f"preflight: its last run is stored; seconds of its steps: {told}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
