"""The store: content-addressed, resumable steps.

The result of a step lies in ``<root>/<step>/<key>/`` with ``meta.json`` beside the data. The key is a hash of the
step's name and version, its configuration and its inputs' keys: the same question is never computed twice, and another
question never overwrites an answer. A result is written to a temporary folder and renamed, so that it exists whole or
not at all; a lock that dies with its process keeps two runs side by side from writing one result at a time.
"""

import contextlib
import errno
import glob
import hashlib
import inspect
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import psutil
from filelock import FileLock, Timeout

from textnorm_lib.study.errors import DataUnavailable, StoreError

CHECKOUT = Path(__file__).parents[2]
RESULTS = CHECKOUT / "results"  # those of the default profile that come with the repository
STEPS: dict[str, Callable] = {}  # every step whose module was imported, by its name, which is part of its key
_CANNOT_WRITE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST),
}


def artifacts_folder() -> Path:
    """Where runs keep their results: ``TEXTNORM_ARTIFACTS``, else ``artifacts/`` in the checkout."""
    return Path(os.environ.get("TEXTNORM_ARTIFACTS") or CHECKOUT / "artifacts")


class Keyed(Protocol):
    """Anything that a step can take as input: its ``key`` changes whenever its content does.

    A step receives its ``value`` if it has one, as an ``Artifact`` has, and otherwise the input itself.
    """

    key: str


def step(version: int, *, unkeyed: tuple[str, ...] = (), shared: bool = False) -> Callable[[Callable], Callable]:
    """Mark a function as a step of the study.

    A step takes its inputs in order and its configuration by keyword and returns a DataFrame or a dict of DataFrames.
    A step with a parameter ``folder`` writes there itself instead, file by file, and finds there again what an
    interrupted run left; what it returns is kept in the metadata as ``measured``. Raise ``version`` whenever the same
    inputs would give another result. ``unkeyed`` names the configuration on which the result does not depend, such as
    the number of processes. ``shared``: of several processes that were launched together each does its part of it.
    """

    def mark(function: Callable) -> Callable:
        function.version, function.unkeyed, function.shared = version, unkeyed, shared
        STEPS[function.__name__] = function
        return function

    return mark


@dataclass(frozen=True, eq=False)
class Artifact:
    """The result of a step, computed or not: its key is known beforehand, its data are made when they are asked for."""

    store: "Store"
    function: Callable
    inputs: tuple[Keyed, ...]
    config: dict[str, Any]

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the key is the hash of: the step's name, version and configuration, the inputs' keys."""
        if not hasattr(self.function, "version"):
            raise StoreError(f"{self.function.__name__} is not a step: decorate it with @step(version)")
        return {
            "step": self.function.__name__,
            "version": self.function.version,
            "config": {name: value for name, value in self.config.items() if name not in self.function.unkeyed},
            "inputs": [item.key for item in self.inputs],
        }

    @cached_property
    def key(self) -> str:
        """The hash that names its folder; nothing is computed to know it."""
        return digest(self.identity)[:20]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Artifact) and (self.store.root, self.key) == (other.store.root, other.key)

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def folder(self) -> Path:
        """Where the result lies; it is computed first if it lies nowhere. Raises as ``Store.folder_of``."""
        return self.store.folder_of(self)

    @property
    def meta(self) -> dict[str, Any]:
        """What made the result: step, version, configuration, inputs, seconds."""
        return read_meta(self.folder)

    @property
    def value(self) -> pd.DataFrame | dict[str, pd.DataFrame] | Path:
        """The data: one frame, several by name, or the folder of a step that wrote its own files."""
        return read_result(self.folder)


@dataclass(frozen=True)
class Store:
    """Results under one root folder, which are computed when they are asked for.

    ``results`` is a second folder of the same form that is only read: what comes with the repository. ``prefer`` it,
    and what lies there is never computed; otherwise it serves where an input cannot be had on this machine. What was
    stored before ``since`` (seconds of the clock) does not count: every step is computed once again.
    """

    root: Path
    results: Path | None = None
    prefer: bool = False
    since: float = 0.0
    asked: set[str] = field(default_factory=set)  # keys of what somebody wanted to read
    warned: set[str] = field(default_factory=set)  # keys of results whose step was edited since

    def step(self, function: Callable, *inputs: Keyed, **config: Any) -> Artifact:
        """The result of ``function(*inputs, **config)``, which nobody has to have computed yet."""
        return Artifact(self, function, inputs, config)

    def compute(self, function: Callable, *inputs: Keyed, **config: Any) -> Artifact:
        """As ``step``, and the result is there. Raises as ``folder_of``."""
        artifact = self.step(function, *inputs, **config)
        self.folder_of(artifact)
        return artifact

    def folder_of(self, artifact: Artifact) -> Path:
        """The folder of a result, computed if it is stored nowhere.

        Raises ``StoreError`` where the result cannot be written; then nothing half-written remains. Raises
        ``DataUnavailable`` where an input cannot be had and no result came with the repository.
        """
        self.asked.add(artifact.key)
        final = self._place(artifact)
        if found := self._found(artifact):
            if found == final:
                self._warn_if_edited(artifact, final)
            return found
        try:
            self._compute(artifact, final)
        except DataUnavailable:
            if at_hand := self._at_hand(artifact):
                return at_hand
            raise
        return final

    def stored(self, artifact: Artifact) -> bool:
        """Whether the result is there without computing: computed before, or preferred as it came."""
        return self._found(artifact) is not None

    def take_part(self, artifact: Artifact) -> None:
        """Do this process's part of a shared step, whose result another process stores."""
        partial = _partial(self._place(artifact))
        partial.mkdir(parents=True, exist_ok=True)
        artifact.function(*_values(artifact), folder=partial, **artifact.config)

    def _place(self, artifact: Artifact) -> Path:
        return self.root / artifact.identity["step"] / artifact.key

    def _counts(self, folder: Path) -> bool:
        meta = folder / "meta.json"
        return meta.exists() and meta.stat().st_mtime >= self.since

    def _at_hand(self, artifact: Artifact) -> Path | None:
        folder = self.results and self.results / artifact.identity["step"] / artifact.key
        return folder if folder and (folder / "meta.json").exists() else None

    def _found(self, artifact: Artifact) -> Path | None:
        final = self._place(artifact)
        if self._counts(final):
            return final
        return self._at_hand(artifact) if self.prefer and not self.since else None

    def _warn_if_edited(self, artifact: Artifact, folder: Path) -> None:
        """Tell a developer who edited a step and forgot to raise its version: these are old results."""
        if artifact.key in self.warned or read_meta(folder)["source"] == _source(artifact.function):
            return
        self.warned.add(artifact.key)
        print(
            f"step {artifact.function.__name__}: its code changed since this result was stored, its version did not; "
            "raise the version, or run with --force if the result may differ",
            file=sys.stderr,
        )

    def _compute(self, artifact: Artifact, final: Path) -> None:
        name = artifact.function.__name__
        values = _values(artifact)  # before the lock: no process waits for one result while it holds another
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with alone(final, f"step {name}: another run is computing it, waiting for its result"):
                if not self._counts(final):
                    _write(artifact, values, final)
        except OSError as error:
            if error.errno not in _CANNOT_WRITE or not _concerns(error, self.root):
                raise
            raise StoreError(
                f"{final.parent}: {os.strerror(error.errno)} while writing step {name}; nothing "
                "half-written counts as a result: make room or make it writable (or point TEXTNORM_ARTIFACTS "
                "elsewhere), then run again"
            ) from error


def read_meta(folder: Path) -> dict[str, Any]:
    """``meta.json`` of a result. Raises ``StoreError`` for one that is damaged."""
    path = folder / "meta.json"
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        names = meta["frames"]
        if not (names is None or all(re.fullmatch(r"[\w-]+", name) for name in names)):
            raise ValueError("frames are no names of files here")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise _unreadable(path, error) from None
    return meta


def read_result(folder: Path) -> pd.DataFrame | dict[str, pd.DataFrame] | Path:
    """The data of a result, see ``Artifact.value``. Raises ``StoreError`` for a file that is damaged."""
    names = read_meta(folder)["frames"]
    if names is None:
        return folder
    frames = {}
    for name in names:
        path = folder / f"{name}.parquet"
        try:
            frames[name] = pd.read_parquet(path, page_checksum_verification=True)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from None
    return frames["data"] if names == ["data"] else frames


def _unreadable(path: Path, error: Exception) -> StoreError:
    remedy = "git checkout -- results" if path.is_relative_to(RESULTS) else "delete its folder and run again"
    return StoreError(f"{path}: cannot be read ({' '.join(str(error).split())}); {remedy}")


def digest(content: Any) -> str:
    """SHA-256 of bytes, or of the canonical JSON of anything else."""
    if not isinstance(content, bytes):
        content = json.dumps(content, sort_keys=True, allow_nan=False).encode()
    return hashlib.sha256(content).hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or none of it; an unchanged file is left alone, a killed process's leavings are removed."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
            if not psutil.pid_exists(int(left.name.split(".")[-2])):
                left.unlink(missing_ok=True)
        if path.exists() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StoreError(f"{path}: {error.strerror or error}; make room or make it writable, then run again") from error


def alone(path: Path, waiting: str) -> AbstractContextManager:
    """Held by one process at a time, through a file beside ``path``; who has to wait prints ``waiting`` first."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print(waiting, file=sys.stderr)
        return lock.acquire()


def _concerns(error: OSError, root: Path) -> bool:
    """Whether an error is about the store's own files, as far as it says; a step may fail at files of its own."""
    name = error.filename
    return name is None or Path(name).is_relative_to(root) or root.is_relative_to(name)


def _write(artifact: Artifact, values: list, final: Path) -> None:
    """Compute a result and put it in its place, whole; what a resumable step leaves behind stays for the next run."""
    function, partial = artifact.function, _partial(final)
    resumable = "folder" in inspect.signature(function).parameters
    if not resumable:
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    try:
        if resumable:
            told = {"frames": None, "measured": function(*values, folder=partial, **artifact.config)}
        else:
            result = function(*values, **artifact.config)
            frames = result if isinstance(result, dict) else {"data": result}
            for name, frame in frames.items():
                frame.to_parquet(partial / f"{name}.parquet", index=False, write_page_checksum=True)
            told = {"frames": list(frames)}
        meta = {**artifact.identity, "source": _source(function), **told}
        meta["seconds"] = round(time.monotonic() - started, 2)
        (partial / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        if final.exists():
            (final / "meta.json").unlink(missing_ok=True)  # first: without it, a half-removed result is none
            shutil.rmtree(final)
        partial.replace(final)
        if meta["seconds"] >= 3:
            print(f"step {function.__name__}: computed in {meta['seconds']:.1f} s", file=sys.stderr)
    except BaseException:
        if not resumable:
            shutil.rmtree(partial, ignore_errors=True)
        raise


def _partial(final: Path) -> Path:
    return final.with_name(f"{final.name}.partial")


def _values(artifact: Artifact) -> list:
    return [item.value if hasattr(type(item), "value") else item for item in artifact.inputs]


def _source(function: Callable) -> str:
    return digest(inspect.getsource(function).encode())
