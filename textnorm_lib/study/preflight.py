"""What would stop a run after hours, looked for before its first notebook: all of it, a line each.

Every model that the profile names is there (what only the hub has is fetched) and its configuration can be read; there
is room on the disk, and a GPU for what computes in float16. Where an earlier run of the profile is stored, the seconds
of its steps are the best estimate of how long the next one takes. ``Pipeline`` knows the models and how many images are
made; ``python -m textnorm_lib preflight`` asks it and prints what is found here.
"""

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from textnorm_lib.study.config import Profile
from textnorm_lib.study.errors import DataError, StudyError
from textnorm_lib.study.progress import progress
from textnorm_lib.study.run import records_folder
from textnorm_lib.study.store import artifacts_folder
from textnorm_lib.study.weights import Weights

BYTES_PER_PIXEL = 2  # as PNG the mini world's images take 1.3, photographs 1.2 to 1.7
PIPELINE_FILES = ("model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json")


def model_problems(models: Mapping[str, tuple[Weights, tuple[str, ...]]]) -> list[str]:
    """What is wrong with models (by their keys in the profile: weights, files they need); the hub's are fetched."""
    by_model: dict[Weights, tuple[list[str], tuple[str, ...]]] = {}
    for key, (weights, files) in models.items():
        by_model.setdefault(weights, ([], files))[0].append(key)
    problems = []
    for weights, (keys, files) in progress(by_model.items(), "models", unit="models"):
        named = " and ".join(keys)
        try:
            path = weights.path
        except StudyError as error:
            problems.append(f"{named}: {error}")
            continue
        problems += [f"{named}: {path / name} {defect}; copy {path} anew" for name, defect in _defects(path, files)]
    return problems


def disk_problems(images: Mapping[Weights, int]) -> list[str]:
    """Whether so many images of each pipeline fit on the disk, beside what is already there of them.

    Raises ``StudyError`` for a pipeline that cannot be read.
    """
    needed = sum(BYTES_PER_PIXEL * image_side(model.path) ** 2 * count for model, count in images.items())
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
    if not keys:
        return []
    import torch

    if torch.cuda.is_available():
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


def _defects(path: Path, needed: tuple[str, ...]) -> list[tuple[str, str]]:
    """Files of the model in ``path`` that are missing, and configurations that are no JSON."""
    if path.is_file():
        return []
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
