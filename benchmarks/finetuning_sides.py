"""What the sides of ``optimise/finetuning.py`` share: the work, the model with LoRA, what a side spends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.side_by_side import Spent, resident_mib
from textnorm_lib.images.sampling import load_pipeline
from textnorm_lib.optimise.training import ATTENTION, add_lora
from textnorm_lib.prompts.sets import choose_prompts

RANK = 4  # trl knows no other
PROMPTS = choose_prompts("counting", 4)


@dataclass(frozen=True)
class Work:
    """What both sides do: ``count`` epochs of DDPO with ``images`` images each, or ``count`` steps of RWR."""

    model: str
    device: str
    dtype: str
    batch_size: int
    count: int
    images: int = 0
    denoising_steps: int = 0
    guidance_scale: float = 1.0


@dataclass
class Tuned(Spent):
    """What a process spent on training, and what came of it."""

    libraries_mib: float = 0.0
    before: float = 0.0  # seconds, on what is done once
    sampled_rows: int = 0  # that passed the U-Net without a gradient
    trained_rows: int = 0
    change: np.ndarray | None = None  # of the adapter, from its start to the end

    @contextmanager
    def training(self, unet, done: int) -> Iterator[None]:
        """Within it ``unet`` is trained, which is timed."""
        counter = unet.register_forward_hook(self._count)
        with self.timed(done):
            yield
        counter.remove()

    def _count(self, _unet, _given, output) -> None:
        if torch.is_grad_enabled():
            self.trained_rows += len(output[0])
        else:
            self.sampled_rows += len(output[0])


def begun(work: Work, *, counting: bool = False, trl: bool = False) -> Tuned:
    """With the memory that the libraries of a side take; to be called before anything is loaded."""
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    from diffusers import StableDiffusionPipeline  # noqa: F401

    if trl:
        from trl import DDPOTrainer  # noqa: F401
    resident = resident_mib("VmRSS", os.getpid()) if work.device == "cpu" else 0.0
    return Tuned(work.device, counting, libraries_mib=resident)


def adapted(work: Work, dtype: torch.dtype = torch.float32):
    """The model with LoRA, its frozen weights in ``dtype``."""
    pipeline = load_pipeline(work.model, device=work.device).to(dtype)
    add_lora(pipeline, rank=RANK, targets=ATTENTION, generator=torch.Generator().manual_seed(0))
    return pipeline


def trained(pipeline) -> list[torch.nn.Parameter]:
    return [value for _, value in sorted(pipeline.unet.named_parameters()) if value.requires_grad]
