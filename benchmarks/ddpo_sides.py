"""DDPO by our loop and by trl's trainer, each for a process of its own."""

import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.finetuning_sides import PROMPTS, Tuned, Work, adapted, begun
from textnorm_lib.optimise import ddpo
from textnorm_lib.study.weights import Weights


def ddpo_ours(work: Work, more: dict[str, bool | int], *, counting: bool = False) -> Tuned:
    """``more`` are settings beside those that trl has as well."""
    spent, pipeline = begun(work, counting=counting), adapted(work)
    settings = ddpo.Settings(
        epochs=1,
        images_per_epoch=work.images,
        batch_size=work.batch_size,
        denoising_steps=work.denoising_steps,
        guidance_scale=work.guidance_scale,
        dtype=work.dtype,
        kl_every=work.count + 1,  # in the first epoch only: trl never looks at the divergence
        **more,
    )
    with tempfile.TemporaryDirectory() as folder:
        ddpo.train_ddpo(pipeline, PROMPTS, _brightness, settings, folder=Path(folder))
        settings = replace(settings, epochs=1 + work.count)
        with spent.training(pipeline.unet, work.count * work.images):
            ddpo.train_ddpo(pipeline, PROMPTS, _brightness, settings, folder=Path(folder))
    return spent


def ddpo_trl(work: Work) -> Tuned:
    """Without checkpoints, which it would write in each epoch."""
    spent, on_cpu = begun(work, trl=True), work.device == "cpu"
    prompts, batches = itertools.cycle(PROMPTS), work.images // work.batch_size
    from accelerate import PartialState
    from trl import DDPOConfig, DDPOTrainer, DefaultDDPOStableDiffusionPipeline

    PartialState(cpu=on_cpu)  # its pipeline logs before its trainer makes one
    with tempfile.TemporaryDirectory() as folder:
        config = DDPOConfig(
            mixed_precision={"float32": "no", "bfloat16": "bf16"}[work.dtype],
            sample_num_steps=work.denoising_steps,
            sample_guidance_scale=work.guidance_scale,
            sample_batch_size=work.batch_size,
            sample_num_batches_per_epoch=batches,
            train_batch_size=work.batch_size,
            train_gradient_accumulation_steps=batches,
            per_prompt_stat_tracking=True,
            save_freq=work.count + 1,
            accelerator_kwargs={"cpu": on_cpu},
            project_kwargs={"project_dir": folder},
        )
        pipeline = DefaultDDPOStableDiffusionPipeline(str(Weights(work.model).path), use_lora=True)
        trainer = DDPOTrainer(config, _brightness, lambda: (next(prompts), {}), pipeline)
        pipeline.set_progress_bar_config(disable=True)
        updates = trainer.step(0, 0)
        with spent.training(pipeline.unet, work.count * work.images):
            for epoch in range(1, 1 + work.count):
                updates = trainer.step(epoch, updates)
    return spent


def _brightness(images: torch.Tensor, prompts, metadata) -> tuple[list[float], dict]:
    return images.float().mean(dim=(1, 2, 3)).tolist(), {}
