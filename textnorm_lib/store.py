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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from textnorm_lib.errors import StoreError
from textnorm_lib.files import alone

CHECKOUT = Path(__file__).parents[1]
_CANNOT_WRITE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST),
}


def artifacts_folder() -> Path:
    """Where runs keep their results: ``TEXTNORM_ARTIFACTS``, else ``artifacts/`` in the checkout."""
    return Path(os.environ.get("TEXTNORM_ARTIFACTS") or CHECKOUT / "artifacts")


class Keyed(Protocol):
    """Anything that a step can take as input: its ``key`` changes whenever its content does."""

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
        return function

    return mark


@dataclass(frozen=True)
class Artifact:
    """The stored result of a step."""

    folder: Path

    @property
    def meta(self) -> dict[str, Any]:
        """What made it: step, version, configuration, inputs, seconds."""
        path = self.folder / "meta.json"
        try:
            meta = json.loads(path.read_text(encoding="utf-8"))
            names = meta["frames"]
            if not (names is None or all(re.fullmatch(r"[\w-]+", name) for name in names)):
                raise ValueError("frames are no names of files here")
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise _unreadable(path, error) from None
        return meta

    @property
    def key(self) -> str:
        """The hash that names its folder."""
        return self.folder.name

    @property
    def value(self) -> pd.DataFrame | dict[str, pd.DataFrame] | Path:
        """The data: one frame, several by name, or the folder of a step that wrote its own files."""
        names = self.meta["frames"]
        if names is None:
            return self.folder
        frames = {name: self._read(name) for name in names}
        return frames["data"] if names == ["data"] else frames

    def _read(self, name: str) -> pd.DataFrame:
        path = self.folder / f"{name}.parquet"
        try:
            return pd.read_parquet(path, page_checksum_verification=True)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from None


@dataclass(frozen=True)
class Store:
    """Results under one root folder."""

    root: Path

    def compute(self, function: Callable, *inputs: Keyed, force: bool = False, **config: Any) -> Artifact:
        """The result of ``function(*inputs, **config)``: read back if it is stored, else computed and stored.

        Raises ``StoreError`` where the result cannot be written; then nothing half-written remains.
        """
        identity = describe(function, inputs, config)
        final = self._place(identity)
        if not force and _complete(final):
            _warn_if_edited(final, function)
            return Artifact(final)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with alone(final, f"step {identity['step']}: another run is computing it, waiting for its result"):
                if force or not _complete(final):
                    _compute(function, inputs, config, identity, final)
        except OSError as error:
            if error.errno not in _CANNOT_WRITE or not _concerns(error, self.root):
                raise
            raise StoreError(
                f"{final.parent}: {os.strerror(error.errno)} while writing step {identity['step']}; nothing "
                "half-written counts as a result: make room or make it writable (or point TEXTNORM_ARTIFACTS "
                "elsewhere), then run again"
            ) from error
        return Artifact(final)

    def stored(self, function: Callable, *inputs: Keyed, **config: Any) -> bool:
        """Whether the result is there."""
        return _complete(self._place(describe(function, inputs, config)))

    def take_part(self, function: Callable, *inputs: Keyed, **config: Any) -> None:
        """Do this process's part of a shared step, whose result another process stores (``compute.py``)."""
        partial = _partial(self._place(describe(function, inputs, config)))
        partial.mkdir(parents=True, exist_ok=True)
        function(*_values(inputs), folder=partial, **config)

    def _place(self, identity: dict[str, Any]) -> Path:
        return self.root / identity["step"] / digest(identity)[:20]


def describe(function: Callable, inputs: tuple[Keyed, ...], config: dict[str, Any]) -> dict[str, Any]:
    """What a step's key is the hash of."""
    if not hasattr(function, "version"):
        raise StoreError(f"{function.__name__} is not a step: decorate it with @step(version)")
    return {
        "step": function.__name__,
        "module": function.__module__,
        "version": function.version,
        "config": {name: value for name, value in config.items() if name not in function.unkeyed},
        "inputs": [item.key for item in inputs],
    }


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
            if not _alive(int(left.name.split(".")[-2])):
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


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _unreadable(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path}: cannot be read ({' '.join(str(error).split())}); delete its folder and run again")


def _concerns(error: OSError, root: Path) -> bool:
    """Whether an error is about the store's own files, as far as it says; a step may fail at files of its own."""
    name = error.filename
    return name is None or Path(name).is_relative_to(root) or root.is_relative_to(name)


def _complete(folder: Path) -> bool:
    return (folder / "meta.json").exists()


def _compute(function: Callable, inputs: tuple, config: dict, identity: dict, final: Path) -> None:
    partial = _partial(final)
    resumable = "folder" in inspect.signature(function).parameters
    if not resumable:
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    values = _values(inputs)
    try:
        if resumable:
            told = {"frames": None, "measured": function(*values, folder=partial, **config)}
        else:
            told = {"frames": _write_frames(function(*values, **config), partial)}
        meta = {**identity, "source": _source(function), **told}
        meta["seconds"] = round(time.monotonic() - started, 2)
        (partial / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        if final.exists():
            (final / "meta.json").unlink(missing_ok=True)  # first: without it, a half-removed result is none
            shutil.rmtree(final)
        partial.replace(final)
        if meta["seconds"] >= 3:
            print(f"step {identity['step']}: computed in {meta['seconds']:.1f} s", file=sys.stderr)
    except BaseException:
        if not resumable:
            shutil.rmtree(partial, ignore_errors=True)
        raise


def _partial(final: Path) -> Path:
    return final.with_name(f"{final.name}.partial")


def _values(inputs: tuple) -> list:
    return [item.value if isinstance(item, Artifact) else item for item in inputs]


def _write_frames(result: Any, folder: Path) -> list[str]:
    frames = result if isinstance(result, dict) else {"data": result}
    for name, frame in frames.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False, write_page_checksum=True)
    return list(frames)


def _source(function: Callable) -> str:
    return digest(inspect.getsource(function).encode())


def _warn_if_edited(folder: Path, function: Callable) -> None:
    """A developer who edits a step and forgets to raise its version would look at old results."""
    if Artifact(folder).meta["source"] != _source(function):
        print(
            f"step {function.__name__}: its code changed since this result was stored, its version did not; "
            "raise the version, or run with --force if the result may differ",
            file=sys.stderr,
        )
