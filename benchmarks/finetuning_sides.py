"""The four sides of ``finetuning.py``, each for a process of its own: our DDPO and trl's, our RWR and a plain loop."""

import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from score_matrix import random_images

from textnorm_lib import ddpo, rwr
from textnorm_lib.compat import prepare_torchvision
from textnorm_lib.lora import ATTENTION, add_lora
from textnorm_lib.mini.prompts import choose_prompts
from textnorm_lib.rewards.pixels import square
from textnorm_lib.rwr_examples import choose_examples, encode_examples
from textnorm_lib.sampling import autocast, load_pipeline
from textnorm_lib.weights import Weights

RANK = 4  # trl knows no other
PROMPTS = choose_prompts("counting", 4)
BEST = 4  # images a prompt that RWR trains on


@dataclass(frozen=True)
class Work:
    """What both sides do: ``count`` epochs of DDPO with ``images`` images each, or ``count`` steps of RWR."""

    model: str
    dtype: str
    batch_size: int
    count: int
    images: int = 0
    denoising_steps: int = 0
    guidance_scale: float = 1.0


def _libraries(*, trl: bool = False) -> float:
    """MiB with what a side imports; to be called before anything is loaded."""
    torch.set_num_threads(1)
    prepare_torchvision()
    import accelerate  # noqa: F401
    import peft  # noqa: F401
    from diffusers import StableDiffusionPipeline  # noqa: F401

    if trl:
        from trl import DDPOTrainer  # noqa: F401
    return _mib("VmRSS")


@dataclass
class Spent:
    """What a process spent on the timed part: seconds of processor and clock, MiB, rows that passed the U-Net."""

    libraries_mib: float = field(default_factory=_libraries)
    before: float = 0.0  # seconds of processor, on what is done once
    seconds: float = 0.0
    wall: float = 0.0
    peak_mib: float = 0.0
    sampled_rows: int = 0  # without a gradient
    trained_rows: int = 0
    change: np.ndarray | None = None  # of the adapter, from its start to the end

    @contextmanager
    def timed(self, unet) -> Iterator[None]:
        counter = unet.register_forward_hook(self._count)
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
        seconds, wall = time.process_time(), time.monotonic()
        yield
        self.seconds, self.wall = time.process_time() - seconds, time.monotonic() - wall
        self.peak_mib = _mib("VmHWM")
        counter.remove()

    def _count(self, _unet, _given, output) -> None:
        if torch.is_grad_enabled():
            self.trained_rows += len(output[0])
        else:
            self.sampled_rows += len(output[0])


def ddpo_ours(work: Work, more: dict[str, bool | int]) -> Spent:
    """``more`` are settings beside those that trl has as well."""
    spent, pipeline = Spent(), _adapted(work.model)
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
        ddpo.train(pipeline, PROMPTS, _brightness, settings, folder=Path(folder))
        settings = replace(settings, epochs=1 + work.count)
        with spent.timed(pipeline.unet):
            ddpo.train(pipeline, PROMPTS, _brightness, settings, folder=Path(folder))
    return spent


def ddpo_trl(work: Work) -> Spent:
    """Without checkpoints, which it would write in each epoch."""
    spent, prompts, batches = Spent(_libraries(trl=True)), itertools.cycle(PROMPTS), work.images // work.batch_size
    from accelerate import PartialState
    from trl import DDPOConfig, DDPOTrainer, DefaultDDPOStableDiffusionPipeline

    PartialState(cpu=True)  # its pipeline logs before its trainer makes one
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
            accelerator_kwargs={"cpu": True},
            project_kwargs={"project_dir": folder},
        )
        pipeline = DefaultDDPOStableDiffusionPipeline(str(Weights(work.model).path), use_lora=True)
        trainer = DDPOTrainer(config, _brightness, lambda: (next(prompts), {}), pipeline)
        pipeline.set_progress_bar_config(disable=True)
        updates = trainer.step(0, 0)
        with spent.timed(pipeline.unet):
            for epoch in range(1, 1 + work.count):
                updates = trainer.step(epoch, updates)
    return spent


def rwr_ours(work: Work, folder: Path) -> Spent:
    spent, pipeline, settings = Spent(), _adapted(work.model), _rwr_settings(work)
    first, begun = _adapter(pipeline), time.process_time()
    examples = encode_examples(pipeline, _chosen(folder, settings), folder=folder)
    spent.before = time.process_time() - begun
    with tempfile.TemporaryDirectory() as run:
        rwr.train(pipeline, examples, settings, folder=Path(run))
        with spent.timed(pipeline.unet):
            rwr.train(pipeline, examples, replace(settings, steps=1 + work.count), folder=Path(run))
    spent.change = _adapter(pipeline) - first
    return spent


def rwr_loop(work: Work, folder: Path) -> Spent:
    """As diffusers' script, the frozen weights are in the type of autocast."""
    spent, pipeline = Spent(), _adapted(work.model, getattr(torch, work.dtype))
    settings, first = _rwr_settings(work), _adapter(pipeline)
    optimiser = torch.optim.AdamW(_trained(pipeline), settings.learning_rate)
    chosen = _chosen(folder, settings)
    _loop_step(pipeline, optimiser, chosen, folder, settings, 0)
    with spent.timed(pipeline.unet):
        for step in range(1, 1 + work.count):
            _loop_step(pipeline, optimiser, chosen, folder, settings, step)
    spent.change = _adapter(pipeline) - first
    return spent


def _loop_step(pipeline, optimiser, chosen: pd.DataFrame, folder: Path, settings: rwr.Settings, step: int) -> None:
    """Latents are the means of the autoencoder's posterior, as ours, where the script draws from it."""
    vae, scheduler, size = pipeline.vae, pipeline.scheduler, settings.batch_size
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)  # as in rwr.py, to draw the same
    rows = chosen.iloc[torch.randint(len(chosen), (size,), generator=generator).tolist()]
    pixels = torch.from_numpy(np.stack([square(folder / name, _side(pipeline), name) for name in rows["image"]]))
    tokens = pipeline.tokenizer(rows["prompt"].tolist(), padding="max_length", truncation=True, return_tensors="pt")
    with torch.no_grad():
        scaled = pixels.permute(0, 3, 1, 2).to(vae.dtype) / 127.5 - 1
        latents = vae.encode(scaled).latent_dist.mean.float() * vae.config.scaling_factor
        texts = pipeline.text_encoder(tokens.input_ids)[0]
    times = torch.randint(scheduler.config.num_train_timesteps, (size,), generator=generator)
    noise = torch.randn(latents.shape, generator=generator)
    velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, times) if velocity else noise
    with autocast("cpu", settings.dtype):
        predicted = pipeline.unet(scheduler.add_noise(latents, noise, times), times, texts).sample
    errors = (predicted.float() - target).square().mean(dim=(1, 2, 3))
    (torch.tensor(rows["weight"].to_numpy(), dtype=torch.float32) * errors).mean().backward()
    torch.nn.utils.clip_grad_norm_(_trained(pipeline), settings.max_gradient_norm)
    optimiser.step()
    optimiser.zero_grad()


def write_images(model: str, folder: Path) -> None:
    """The images that RWR trains on, of the size that the model makes."""
    side = _side(load_pipeline(model))
    for name, image in zip(_names(), random_images(len(_names())), strict=True):
        image.resize((side, side)).save(folder / name)


def _side(pipeline) -> int:
    return pipeline.unet.config.sample_size * pipeline.vae_scale_factor


def _chosen(folder: Path, settings: rwr.Settings) -> pd.DataFrame:
    rewards = np.random.default_rng(0).normal(size=len(_names()))
    images = pd.DataFrame({"prompt": np.repeat(PROMPTS, BEST), "image": _names(), "reward": rewards})
    return choose_examples(images, reward="reward", settings=settings)


def _names() -> list[str]:
    return [f"{number}.png" for number in range(len(PROMPTS) * BEST)]


def _rwr_settings(work: Work) -> rwr.Settings:
    """The paper's, but for what the work says."""
    return rwr.Settings(
        images_per_prompt=BEST, best=BEST, steps=1, batch_size=work.batch_size, dtype=work.dtype, save_every=10**6
    )


def _adapted(model: str, dtype: torch.dtype = torch.float32):
    """The model with LoRA, its frozen weights in ``dtype``."""
    pipeline = load_pipeline(model).to(dtype)
    add_lora(pipeline, rank=RANK, targets=ATTENTION, generator=torch.Generator().manual_seed(0))
    return pipeline


def _trained(pipeline) -> list[torch.nn.Parameter]:
    return [value for _, value in sorted(pipeline.unet.named_parameters()) if value.requires_grad]


def _adapter(pipeline) -> np.ndarray:
    return torch.cat([value.detach().flatten() for value in _trained(pipeline)]).numpy()


def _brightness(images: torch.Tensor, prompts, metadata) -> tuple[list[float], dict]:
    return images.float().mean(dim=(1, 2, 3)).tolist(), {}


def _mib(name: str) -> float:
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0]) / 2**10
