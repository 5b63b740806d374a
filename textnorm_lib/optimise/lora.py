"""LoRA on a pipeline's U-Net: what is trained when a text-to-image model is tuned, how, and all that is stored of it.

A linear layer W gets a low-rank term beside it, W x + B A x, with A (rank, in) Gaussian and B (out, rank) zero at
first: training starts at the base. With the term off (``base_only``) the same weights in memory *are* the frozen base:
a divergence to it needs no second copy. Files are in diffusers' format, for ``pipeline.load_lora_weights``.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from textnorm_lib.study.errors import ConfigError, DataError, StudyError, check_regular
from textnorm_lib.study.processes import Processes
from textnorm_lib.study.store import write_atomically

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
FILE = "pytorch_lora_weights.safetensors"  # where diffusers looks in a folder
_NAME = "default"


def add_lora(pipeline, *, rank: int, targets: Sequence[str], generator: torch.Generator) -> list[torch.nn.Parameter]:
    """Put LoRA on the U-Net's layers whose names end in one of ``targets``; its parameters, all others being frozen.

    They are in single precision whatever the base's. A is drawn from ``generator`` (on the CPU) with standard deviation
    1 / rank, as peft's and trl's Gaussian initialisation, layer by layer in the order of their names; the term is not
    scaled (alpha = rank). Raises ``ConfigError`` for a rank below 1, for a target that no layer answers to, and for a
    U-Net that has an adapter already.
    """
    from peft import LoraConfig

    unet, targets = pipeline.unet, [targets] if isinstance(targets, str) else list(targets)
    _check(unet, rank, targets)
    for part in (pipeline.vae, pipeline.text_encoder, unet):
        part.requires_grad_(False)
    with torch.random.fork_rng():  # peft draws first weights of its own, replaced below
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), _NAME)
    trained = {name: value for name, value in sorted(unet.named_parameters()) if value.requires_grad}
    for name, value in trained.items():
        value.data = value.data.float()
        first = torch.zeros(value.shape)
        value.data.copy_(first.normal_(std=1 / rank, generator=generator) if "lora_A" in name else first)
    return list(trained.values())


class Descent:
    """How all that is trainable in ``unet`` is trained: AdamW, with the loss scaled in half precision.

    ``settings`` are those of a run (``study/config.py``); gradients are summed over ``processes``.
    """

    def __init__(self, unet, settings: Any, processes: Processes) -> None:
        self.parameters = [value for _, value in sorted(unet.named_parameters()) if value.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            settings.learning_rate,
            betas=(settings.beta_1, settings.beta_2),
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
        )
        self.optimiser.zero_grad(set_to_none=True)  # an interrupted run may have left a gradient
        self.scaler = torch.amp.GradScaler(processes.device.type, enabled=settings.dtype == "float16")
        self.processes, self.most = processes, settings.max_gradient_norm

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of ``loss`` to what there is."""
        self.scaler.scale(loss).backward()

    def step(self) -> float:
        """Clip the gradient, go down it and forget it; its norm before clipping.

        Raises ``StudyError`` for a gradient that is no number, before it touches a weight.
        """
        self.processes.add_up([value.grad for value in self.parameters])
        self.scaler.unscale_(self.optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.most).item()
        # In half precision an overflow is usual at first: the scaler passes such a step over and halves its scale.
        if not math.isfinite(norm) and self.scaler.get_scale() <= 1:
            raise StudyError(f"the norm of the gradient is {norm}; take a smaller learning_rate")
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return norm


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
    from safetensors.torch import save

    if not _has_adapter(pipeline.unet):
        raise ConfigError("the U-Net has no adapter to save; call add_lora first")
    state = {name: value.cpu().contiguous() for name, value in _state(pipeline.unet).items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FILE, save(state, {"format": "pt"}))


def load_lora(pipeline, folder: Path) -> None:
    """Set the adapter to what ``save_lora`` wrote: in place if there is one (training goes on), else it is put on.

    Raises ``DataError`` for a file that is missing, damaged, or made with another rank or other targets.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / FILE
    try:
        check_regular(path)
        loaded = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())}); restore or delete it") from error
    if not _has_adapter(pipeline.unet):
        pipeline.unet.load_lora_adapter(loaded, prefix="unet", adapter_name=_NAME)
        return
    state = _state(pipeline.unet)
    shapes = [{name: tuple(value.shape) for name, value in values.items()} for values in (state, loaded)]
    if odd := sorted(name for name, _ in shapes[0].items() ^ shapes[1].items()):
        wanted, given = (shape.get(odd[0], "no such layer") for shape in shapes)
        raise DataError(f"{path}: {odd[0]} is {given}, the adapter has {wanted}; take the rank and targets it had")
    for name, value in state.items():
        value.copy_(loaded[name])


def _check(unet, rank: int, targets: list[str]) -> None:
    if _has_adapter(unet):
        raise ConfigError("the U-Net has an adapter already; load the pipeline anew, or set it with load_lora")
    if rank < 1:
        raise ConfigError(f"rank is {rank}: 1 or more is needed")
    names = [name for name, _ in unet.named_modules()]
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise ConfigError(
                f"targets: the U-Net has no layer {target!r}; known: {', '.join(ATTENTION + FEED_FORWARD)}"
            )
    if not targets:
        raise ConfigError(f"targets is empty; known: {', '.join(ATTENTION + FEED_FORWARD)}")


def _has_adapter(unet) -> bool:
    return bool(getattr(unet, "peft_config", None))


def _state(unet) -> dict[str, torch.Tensor]:
    """The adapter's values themselves, detached, by their names in diffusers' format."""
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft.utils import get_peft_model_state_dict

    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet, adapter_name=_NAME))
    return {f"unet.{name}": value for name, value in state.items()}
