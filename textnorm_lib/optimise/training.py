"""What all methods of fine-tuning share: LoRA on the U-Net, the run with its curve, checkpoints and going on from them.

A linear layer W gets a low-rank term beside it, W x + B A x, with A (rank, in) Gaussian and B (out, rank) zero at
first: training starts at the base. With the term off (``base_only``) the same weights in memory *are* the frozen base:
a divergence to it needs no second copy.

A method derives its run from ``Trainer`` and says what one step of it does; the rest is the same for all. A run leaves

    folder/curve.jsonl                                        a line per step or epoch, written out at once
    folder/checkpoint_00010/pytorch_lora_weights.safetensors  for ``pipeline.load_lora_weights``, after 10 of them
                            optimiser.safetensors  state.json  digests.json

A checkpoint is written to a temporary folder and renamed: it is there whole or not at all, and none replaces another.
"""

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save

from textnorm_lib.study.errors import ConfigError, DataError, StoreError, StudyError, check_regular
from textnorm_lib.study.processes import Processes
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import digest, write_atomically

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
FILE = "pytorch_lora_weights.safetensors"  # where diffusers looks in a folder
CURVE = "curve.jsonl"
_ADAPTER = "default"
_OPTIMISER, _STATE, _DIGESTS = "optimiser.safetensors", "state.json", "digests.json"


# ---- LoRA


def add_lora(pipeline, *, rank: int, targets: Sequence[str], generator: torch.Generator) -> list[torch.nn.Parameter]:
    """Put LoRA on the U-Net's layers whose names end in one of ``targets``; its parameters, all others being frozen.

    They are in single precision whatever the base's. A is drawn from ``generator`` (on the CPU) with standard deviation
    1 / rank, as in peft's and trl's Gaussian initialisation, layer by layer in the order of their names; the term is
    not scaled (alpha = rank). Raises ``ConfigError`` for a rank below 1, for a target that no layer answers to, and for
    a U-Net that has an adapter already.
    """
    from peft import LoraConfig

    unet, targets = pipeline.unet, [targets] if isinstance(targets, str) else list(targets)
    if _has_adapter(unet):
        raise ConfigError("the U-Net has an adapter already; load the pipeline anew, or set it with load_lora")
    if rank < 1:
        raise ConfigError(f"rank is {rank}: 1 or more is needed")
    layers, known = [f".{name}" for name, _ in unet.named_modules()], ", ".join(ATTENTION + FEED_FORWARD)
    if not targets:
        raise ConfigError(f"targets is empty; known: {known}")
    for target in targets:
        if not any(layer.endswith(f".{target}") for layer in layers):
            raise ConfigError(f"targets: the U-Net has no layer {target!r}; known: {known}")
    for part in (pipeline.vae, pipeline.text_encoder, unet):
        part.requires_grad_(False)
    with torch.random.fork_rng():  # peft draws first weights of its own, replaced below
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), _ADAPTER)
    trained = _trainable(unet)
    for name, value in trained.items():
        value.data = value.data.float()
        first = torch.zeros(value.shape)
        value.data.copy_(first.normal_(std=1 / rank, generator=generator) if "lora_A" in name else first)
    return list(trained.values())


@contextmanager
def base_only(unet) -> Iterator[None]:
    """Within it the U-Net computes as the frozen base does; a U-Net without an adapter is the base anyway."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [layer for layer in unet.modules() if isinstance(layer, BaseTunerLayer) and not layer.disable_adapters]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def save_lora(pipeline, folder: Path) -> None:
    """Write the adapter to ``folder``, whole or not at all, for ``load_lora`` and ``pipeline.load_lora_weights``.

    Raises ``ConfigError`` where there is no adapter, ``StoreError`` where it cannot be written.
    """
    if not _has_adapter(pipeline.unet):
        raise ConfigError("the U-Net has no adapter to save; call add_lora first")
    state = {name: value.cpu().contiguous() for name, value in _adapter(pipeline.unet).items()}
    write_atomically(folder / FILE, save(state, {"format": "pt"}))


def load_lora(pipeline, folder: Path) -> None:
    """Set the adapter to what ``save_lora`` wrote: in place if there is one (training goes on), else it is put on.

    Raises ``DataError`` for a file that is missing, damaged, or made with another rank or other targets.
    """
    path = folder / FILE
    try:
        check_regular(path)
        loaded = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())}); restore or delete it") from error
    if not _has_adapter(pipeline.unet):
        pipeline.unet.load_lora_adapter(loaded, prefix="unet", adapter_name=_ADAPTER)
        return
    state = _adapter(pipeline.unet)
    wanted, given = ({name: tuple(value.shape) for name, value in values.items()} for values in (state, loaded))
    if odd := min((name for name, _ in wanted.items() ^ given.items()), default=None):
        shapes = [shape.get(odd, "no such layer") for shape in (given, wanted)]
        raise DataError(f"{path}: {odd} is {shapes[0]}, the adapter has {shapes[1]}; take the rank and targets it had")
    for name, value in state.items():
        value.copy_(loaded[name])


def _trainable(unet) -> dict[str, torch.nn.Parameter]:
    return {name: value for name, value in sorted(unet.named_parameters()) if value.requires_grad}


def _has_adapter(unet) -> bool:
    return bool(getattr(unet, "peft_config", None))


def _adapter(unet) -> dict[str, torch.Tensor]:
    """The adapter's values themselves, detached, by their names in diffusers' format."""
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet, adapter_name=_ADAPTER))
    return {f"unet.{name}": value for name, value in state.items()}


# ---- a run


class Trainer:
    """A run of fine-tuning: AdamW on all that is trainable in the U-Net, the loss scaled in half precision.

    It goes on from the latest checkpoint in its folder, to the same weights as a run that was never stopped (bit for
    bit on a CPU with the same number of threads and processes). Under ``accelerate launch`` each process takes its
    share of a batch, gradients are summed, and the first process writes.

    Raises ``ConfigError`` where anything but an adapter would be trained and where the folder holds a run with other
    settings; ``StudyError``, with the step, for a step that fails, as with a gradient that is no number; ``StoreError``
    and ``DataError`` for files. The last good checkpoint always stays.

    A method says what a ``step`` is (an epoch, in DDPO) and, with ``extra_state``, what else it has to find again after
    a stop. All that is random comes from the seed and the step's number: no generator's state is kept.
    """

    unit: ClassVar[str]  # what the curve has a row for: a step, an epoch
    first_number: ClassVar[int]  # of a row of the curve, and in what an error says
    may_change: ClassVar[tuple[str, ...]]  # settings of a run that goes on: no weight depends on them

    def __init__(self, pipeline, settings: Any, folder: Path, *, length: int, made_of: Mapping[str, Any]) -> None:
        """``settings``: one of ``study/settings.py``; ``made_of``: what beside them makes it this run and no other."""
        self.settings, self.folder, self.length = settings, folder, length
        self.processes = Processes(pipeline.device)
        self.device = self.processes.device
        self.pipeline, self.unet = pipeline.to(self.device), pipeline.unet.eval()
        trained = _trainable(self.unet)
        if not trained or any("lora_" not in name for name in trained):
            raise ConfigError("the U-Net needs an adapter, and nothing else that is trained: call add_lora on it first")
        self.parameters = list(trained.values())
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            settings.learning_rate,
            betas=(settings.beta_1, settings.beta_2),
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
        )
        self.optimiser.zero_grad(set_to_none=True)  # an interrupted run may have left a gradient
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.dtype == "float16")
        self.told = {**dataclasses.asdict(settings), **made_of}
        self.rows: list[dict[str, Any]] = []

    def step(self, step: int) -> dict[str, Any]:
        """Do step number ``step``, counted from 0; what the curve says of it."""
        raise NotImplementedError

    def extra_state(self) -> dict[str, Any]:
        """What the next steps depend on beside weights and moments, for JSON."""
        return {}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Set it to what a checkpoint keeps."""

    def saves_after(self, step: int) -> bool:
        """Whether step number ``step`` ends in a checkpoint."""
        return (step + 1) % self.settings.save_every == 0 or step + 1 == self.length

    def run(self, description: str) -> list[dict[str, Any]]:
        """Train to the end; the curve's rows (in the first process), also in the folder's curve.jsonl."""
        done = self._resume()
        steps = range(done, self.length)
        if self.processes.first:
            steps = progress(steps, description, total=self.length, initial=done, unit=self.unit)
        for step in steps:
            number = step + self.first_number
            try:
                row = {self.unit: number, **self.step(step)}
            except StudyError as error:
                raise StudyError(f"{description}: {self.unit} {number}: {error}; {kept(self.folder)}") from error
            self.rows.append(row)
            if self.processes.first:
                append_row(self.folder, row)
                if self.saves_after(step):
                    self._save(step + 1)
        return self.rows

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of ``loss`` to what there is."""
        self.scaler.scale(loss).backward()

    def descend(self) -> float:
        """Sum the gradient over the processes, clip it, go down it and forget it; its norm before clipping.

        Raises ``StudyError`` for a gradient that is no number, before it touches a weight.
        """
        self.processes.add_up([value.grad for value in self.parameters])
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.max_gradient_norm).item()
        # In half precision an overflow is usual at first: the scaler passes such a step over and halves its scale.
        if not math.isfinite(norm) and self.scaler.get_scale() <= 1:
            raise StudyError(f"the norm of the gradient is {norm}; take a smaller learning_rate")
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return norm

    def _resume(self) -> int:
        """Go on from the latest checkpoint, if there is one; the number of steps that are done."""
        state = resume(self.folder, self.pipeline, self.optimiser, told=self.told, may_change=self.may_change)
        done = 0
        if state:
            done = state[self.unit]
            self.scaler.load_state_dict(state["scaler"])
            self.set_extra_state(state)
        elif self.processes.first:  # so that a run in this very process starts anew from the same adapter
            self._save(0)
        self.rows = cut_curve(self.folder, done) if self.processes.first else []
        return done

    def _save(self, done: int) -> None:
        """Write the adapter, the optimiser's moments and the state after ``done`` steps.

        Raises ``StoreError`` where they cannot be written; then the checkpoint before is still the latest.
        """
        final = self.folder / f"checkpoint_{done:05}"
        partial = self.folder / f".{final.name}.partial"
        entries = self.optimiser.state_dict()["state"].items()
        moments = {f"{index}.{name}": value.cpu() for index, entry in entries for name, value in entry.items()}
        state = {self.unit: done, "told": self.told, **self.extra_state(), "scaler": self.scaler.state_dict()}
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_lora(self.pipeline, partial)
            (partial / _OPTIMISER).write_bytes(save(moments))
            (partial / _STATE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
            digests = {name: digest((partial / name).read_bytes()) for name in (FILE, _OPTIMISER, _STATE)}
            (partial / _DIGESTS).write_text(json.dumps(digests), encoding="utf-8")
            partial.replace(final)
        except (OSError, SafetensorError, StoreError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())
            told = f"{final}: {reason}; {kept(self.folder)}"
            raise StoreError(f"{told}: make room or make it writable, then run again") from error


# ---- checkpoints and curves


def resume(
    folder: Path, pipeline, optimiser: torch.optim.Optimizer, *, told: Mapping[str, Any], may_change: Collection[str]
) -> dict[str, Any] | None:
    """Set adapter and optimiser to the latest checkpoint in ``folder``; its state, None where there is none.

    ``told`` is what the run is made of, as in the state that a ``Trainer`` wrote. Raises ``ConfigError`` where it
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
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in moments.items():
        index, name = key.split(".")
        entries.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})
    return state


def _read(checkpoint: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The optimiser's moments and the state, of a checkpoint whose files are as they were written."""
    try:
        digests = json.loads((checkpoint / _DIGESTS).read_bytes())
        contents = {name: (checkpoint / name).read_bytes() for name in (FILE, _OPTIMISER, _STATE)}
        for name, content in contents.items():
            if digest(content) != digests[name]:
                raise ValueError(f"{name} is not what was written")
        moments, state = load(contents[_OPTIMISER]), json.loads(contents[_STATE])
        if not isinstance(state["told"], dict):
            raise TypeError(f"{_STATE} is not a run's")
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise DataError(
            f"{checkpoint}: cannot be read ({' '.join(str(error).split())}); "
            "delete the checkpoint's folder to go on from the one before, or restore it"
        ) from error
    return moments, state


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint after the most steps."""
    found = (re.fullmatch(r"checkpoint_(\d{5,})", path.name) for path in folder.glob("checkpoint_*"))
    latest = max((match for match in found if match), key=lambda match: int(match[1]), default=None)
    return folder / latest[0] if latest else None


def kept(folder: Path) -> str:
    """What an error says of the state that is left."""
    latest = latest_checkpoint(folder)
    return f"{latest} keeps the last good state" if latest else "there is no checkpoint yet"


def append_row(folder: Path, row: Mapping[str, Any]) -> None:
    """Add a row to the curve. Raises ``StoreError`` where it cannot be written."""
    path = folder / CURVE
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; {kept(folder)}: make room, then run again") from error


def cut_curve(folder: Path, done: int) -> list[dict[str, Any]]:
    """The curve's first ``done`` rows; what was written after the checkpoint, perhaps half a line, is cut off."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CURVE
    lines = path.read_bytes().splitlines(keepends=True)[:done] if path.exists() else []
    try:
        rows = [json.loads(line) for line in lines]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line is no JSON object")
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged ({error}); restore it, or start in another folder") from error
    if len(rows) < done:
        raise DataError(f"{path} has {len(rows)} rows for {done} epochs; restore it, or start in another folder")
    write_atomically(path, b"".join(lines))
    return rows
