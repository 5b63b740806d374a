"""What lets a tuning run go on exactly where it was: checkpoints of safetensors and JSON, and a curve of JSON lines.

    folder/curve.jsonl                                  a line an epoch, written out at once
    folder/checkpoint_00010/pytorch_lora_weights.safetensors  for ``pipeline.load_lora_weights``, after 10 epochs
                       optimiser.safetensors  state.json  digests.json

A checkpoint is written to a temporary folder and renamed: it is there whole or not at all, and none replaces another.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from textnorm_lib.optimise.lora import FILE, load_lora, save_lora
from textnorm_lib.study.errors import ConfigError, DataError, StoreError
from textnorm_lib.study.store import write_atomically

CURVE = "curve.jsonl"
_OPTIMISER, _STATE, _DIGESTS = "optimiser.safetensors", "state.json", "digests.json"
_REMEDY = "delete the checkpoint's folder to go on from the one before, or restore it"


def save_checkpoint(
    folder: Path, epoch: int, pipeline, optimiser: torch.optim.Optimizer, state: dict[str, Any]
) -> Path:
    """Write the adapter, the optimiser's moments and ``state`` (JSON) after ``epoch`` epochs; the checkpoint's folder.

    Raises ``StoreError`` where it cannot be written; then the one before it is still the latest.
    """
    final = folder / f"checkpoint_{epoch:05}"
    partial = folder / f".{final.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_lora(pipeline, partial)
        (partial / _OPTIMISER).write_bytes(save(_moments(optimiser)))
        (partial / _STATE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
        digests = {name: _digest((partial / name).read_bytes()) for name in (FILE, _OPTIMISER, _STATE)}
        (partial / _DIGESTS).write_text(json.dumps(digests), encoding="utf-8")
        partial.replace(final)
    except (OSError, SafetensorError, StoreError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise StoreError(f"{final}: {reason}; {kept(folder)}: make room or make it writable, then run again") from error
    return final


def resume(
    folder: Path,
    pipeline,
    optimiser: torch.optim.Optimizer,
    *,
    told: Mapping[str, Any],
    may_change: Collection[str],
) -> dict[str, Any] | None:
    """Set adapter and optimiser to the latest checkpoint in ``folder``; its state, None where there is none.

    ``told`` is what the run is made of, as in the state that ``save_checkpoint`` wrote. Raises ``ConfigError`` where it
    differs in more than ``may_change``, ``DataError`` for files that are missing or changed; then nothing is set.
    """
    checkpoint = latest_checkpoint(folder)
    if checkpoint is None:
        return None
    moments, state = _read(checkpoint)
    for name, value in told.items():
        if name not in may_change and value != (before := state["told"].get(name)):
            raise ConfigError(f"{folder} holds a run with another {name}, {before!r:.80}; take another folder")
    load_lora(pipeline, checkpoint)
    _set_moments(optimiser, moments)
    return state


def _read(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The optimiser's moments and the state, of a checkpoint whose files are as they were written."""
    try:
        digests = json.loads((folder / _DIGESTS).read_bytes())
        contents = {name: (folder / name).read_bytes() for name in (FILE, _OPTIMISER, _STATE)}
        changed = [name for name, content in contents.items() if _digest(content) != digests[name]]
        state = None if changed else json.loads(contents[_STATE])
        moments = None if changed else load(contents[_OPTIMISER])
        if not changed and not isinstance(state["told"], dict):
            raise TypeError(f"{_STATE} is not a run's")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise DataError(f"{folder}: cannot be read ({' '.join(str(error).split())}); {_REMEDY}") from error
    if changed:
        raise DataError(f"{folder / changed[0]} is not what was written; {_REMEDY}")
    return moments, state


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint after the most epochs."""
    found = (re.fullmatch(r"checkpoint_(\d{5,})", path.name) for path in folder.glob("checkpoint_*"))
    latest = max((match for match in found if match), key=lambda match: int(match[1]), default=None)
    return folder / latest[0] if latest else None


def kept(folder: Path) -> str:
    """What an error says of the state that is left."""
    latest = latest_checkpoint(folder)
    return f"{latest} keeps the last good state" if latest else "there is no checkpoint yet"


def append_row(folder: Path, row: dict[str, Any]) -> None:
    """Add an epoch to the curve. Raises ``StoreError`` where it cannot be written."""
    path = folder / CURVE
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; {kept(folder)}: make room, then run again") from error


def cut_curve(folder: Path, epochs: int) -> list[dict[str, Any]]:
    """The curve's first ``epochs`` rows; what was written after the checkpoint, perhaps half a line, is cut off."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CURVE
    lines = path.read_bytes().splitlines(keepends=True)[:epochs] if path.exists() else []
    try:
        rows = [json.loads(line) for line in lines]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is no JSON object")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}); restore it, or start in another folder") from error
    if len(rows) < epochs:
        raise DataError(f"{path} has {len(rows)} rows for {epochs} epochs; restore it, or start in another folder")
    write_atomically(path, b"".join(lines))
    return rows


def _moments(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    state = optimiser.state_dict()["state"]
    return {f"{index}.{name}": value.cpu() for index, entry in state.items() for name, value in entry.items()}


def _set_moments(optimiser: torch.optim.Optimizer, moments: dict[str, torch.Tensor]) -> None:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in moments.items():
        index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
