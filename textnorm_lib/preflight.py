"""What would stop a run after hours, looked for before its first notebook: all of it, a line each.

    python -m textnorm_lib.preflight PROFILE

Every model that the profile names is there (what the hub has is fetched) and its configuration can be read; there are
prompts, and room on the disk; on a GPU, a batch of each kind of work fits into its memory (``rate_trials.py``).
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

import torch

from textnorm_lib.config import DEFAULT_PROFILE, Profile, load_profile
from textnorm_lib.errors import StudyError
from textnorm_lib.progress import progress
from textnorm_lib.rate_trials import image_side, trials
from textnorm_lib.rates import measure
from textnorm_lib.rewards import clip, pretrained
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.store import artifacts_folder
from textnorm_lib.weights import BUNDLED, Weights
from textnorm_lib.workload import SCORES, count_work, images_by

BYTES_A_PIXEL = 2  # as PNG the mini world's images take 1.3, photographs 1.2 to 1.7
BYTES_A_SCORE = 8  # as Parquet, with its texts


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
    """Whether what the profile will write fits on the disk, beside what is already there of it.

    Raises ``StudyError`` where its prompts or its pipelines cannot be read.
    """
    sides = {images_by(model): image_side(model.path) for model in _pipelines(profile).values()}
    work = [one for noted in count_work(profile).values() for one in noted]
    needed = sum(one.items * sides[one.kind] ** 2 * BYTES_A_PIXEL for one in work if one.kind in sides)
    needed += sum(one.parts * BYTES_A_SCORE for one in work if one.kind.startswith(SCORES))
    folder = artifacts_folder()
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    if free >= needed or free + _stored(folder / "steps") >= needed:
        return []
    return [
        f"{folder}: {needed / 2**30:.1f} GiB may be written, {free / 2**30:.1f} GiB are free; make room, point "
        "TEXTNORM_ARTIFACTS to a larger disk, or lower images_per_prompt in the profile"
    ]


def memory_problems(profile: Profile, *, device: str) -> list[str]:
    """Which kinds of work do not fit on ``device`` with the profile's batches, or fail there in another way."""
    problems = []
    for trial in progress(trials(profile, device=device), "a batch of each", unit="kinds of work"):
        try:
            measure(trial, device=device)
        except StudyError as error:
            problems.append(str(error))
    return problems


def preflight(profile: Profile) -> list[str]:
    """All problems, a line each; none: the run can begin."""
    problems = model_problems(profile)
    checks = [disk_problems]
    if torch.cuda.is_available():
        checks.append(lambda profile: memory_problems(profile, device="cuda"))
    for check in checks:
        try:
            found = check(profile)
        except StudyError as error:
            found = [str(error)]
        problems += [line for line in found if not any(line in known for known in problems)]  # of a missing model
    return problems


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
    tried = ", a batch of each kind of work fits" if torch.cuda.is_available() else ""
    print(f"preflight: profile {profile.name}: {len(_models(profile))} models are here, the disk has room{tried}, ok")
    return 0


if __name__ == "__main__":
    sys.exit(main())
