"""The trained models that come with the library, and the digests that they must have.

    folder = bundled("generator")            # a StableDiffusionPipeline's folder
    file = bundled("annotators/judge_1.safetensors")

``weights/digests.json`` holds the SHA-256 of every file below ``weights/``; ``bundled`` compares before anything is
loaded, so that a file that was cut short or exchanged is named instead of giving other numbers.
"""

import hashlib
import json
from functools import cache
from pathlib import Path

from textnorm_lib.errors import DataError
from textnorm_lib.store import write_atomically

WEIGHTS = Path(__file__).parent / "weights"
DIGESTS = "digests.json"


def bundled(part: str, *, weights: Path = WEIGHTS) -> Path:
    """The path of a bundled file or folder, checked. Raises ``DataError`` for one that is missing, new or changed."""
    path = weights / part
    known = _known_digests(weights)
    expected = {name: value for name, value in known.items() if name == part or name.startswith(f"{part}/")}
    if not expected:
        parts = sorted({name.split("/")[0] for name in known})
        raise DataError(f"there is no bundled model {part!r}; {weights} holds {', '.join(parts) or 'nothing'}")
    for name, value in expected.items():
        if not (weights / name).is_file():
            raise DataError(f"{weights / name} is missing; get it back with: git checkout -- {WEIGHTS.name}/{name}")
        stat = (weights / name).stat()
        found = _digest(weights / name, stat.st_mtime_ns, stat.st_size)
        if found != value:
            raise DataError(
                f"{weights / name}: the SHA-256 is {found[:12]}..., not {value[:12]}...; "
                f"the file is damaged or exchanged: get it back with git, or write new digests if you trained it"
            )
    return path


def bundle_digest(part: str, *, weights: Path = WEIGHTS) -> str:
    """One digest for all files of a part: what a step's key holds instead of the weights."""
    bundled(part, weights=weights)
    known = _known_digests(weights)
    lines = [f"{name} {value}" for name, value in known.items() if name == part or name.startswith(f"{part}/")]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_digests(weights: Path = WEIGHTS) -> dict[str, str]:
    """Take the digests of all files as they are now; the last stage of the training."""
    files = sorted(path for path in weights.rglob("*") if path.is_file() and path.name != DIGESTS)
    digests = {path.relative_to(weights).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    write_atomically(weights / DIGESTS, (json.dumps(digests, indent=2) + "\n").encode())
    return digests


def _known_digests(weights: Path) -> dict[str, str]:
    path = weights / DIGESTS
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path} is missing; get it back with: git checkout -- {path.name}") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); get it back with: git checkout -- {path.name}") from None


@cache
def _digest(path: Path, modified: int, size: int) -> str:
    """SHA-256 of a file, taken again only when it was written again."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
