"""Direct reward gradients: a model is tuned through the reward itself (ReFL, Xu et al. 2023; DRaFT, Clark et al. 2024).

A reward that is a network can be asked more than how good an image is: in which direction it would be better. Images
are denoised as usual, the gradient of their reward goes back through the reward, the decoder and the last K denoising
steps into LoRA:

    loss = mean of  -r(y, x) / scale  +  beta |v_theta(y_t, t, x) - v_0(y_t, t, x)|^2

over images, the second term over the K steps as well; v_theta is the tuned network's output and v_0 the base's. All
else in the chain is frozen. With K = 1 the gradient passes one step (DRaFT-1), and memory grows with K. It learns from
tens of images what DDPO learns from thousands, and exploits a reward as fast.

    add_lora(pipeline, rank=8, targets=ATTENTION, generator=generator)
    curve = train_direct(pipeline, prompts, reward, settings, folder=folder)
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch

from textnorm_lib.images.sampling import autocast, image_seed
from textnorm_lib.optimise.denoising import ddim_steps, draw_noise, guided
from textnorm_lib.optimise.training import Trainer, base_only
from textnorm_lib.study.errors import ConfigError, StudyError
from textnorm_lib.study.settings import DirectSettings as Settings


class Differentiable(Protocol):
    """A reward that gradients pass: ``rewards.base.Reward``, ``confidence.textnorm.TextNormReward`` or a user's own."""

    def differentiable(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """The reward of image i with prompt i, (n,), for float images (n, 3, h, w) in [0, 1]."""


def train_direct(
    pipeline,
    prompts: Sequence[str],
    reward: Differentiable,
    settings: Settings | None = None,
    *,
    folder: Path,
    description: str = "direct gradients",
) -> pd.DataFrame:
    """Tune the adapter that ``add_lora`` put on ``pipeline``, in place, up the gradient of ``reward`` on ``prompts``.

    A step makes ``settings.batch_size`` images of the next few prompts, ``images_per_prompt`` each. Goes on from the
    latest checkpoint in ``folder``, in any number of processes, and fails, as ``training.Trainer`` says;
    ``ConfigError`` also for prompts given twice and a batch that the processes cannot share, ``StudyError`` for a
    reward that fails, passes no gradient or is no finite number.

    Returns the curve, a row a step: step, reward (mean over the step's images, before its update), kl (the squared
    difference to the base; None where beta is 0), gradient_norm (before clipping), images_per_s.
    """
    return pd.DataFrame(_Direct(pipeline, list(prompts), reward, settings or Settings(), folder).run(description))


class _Direct(Trainer):
    unit, first_number, may_change = "step", 1, ("steps", "save_every")

    def __init__(self, pipeline, prompts: list[str], reward: Differentiable, settings: Settings, folder: Path) -> None:
        super().__init__(pipeline, settings, folder, length=settings.steps, made_of={"prompts": prompts})
        self.prompts, self.reward = prompts, reward
        if not prompts or len(set(prompts)) < len(prompts):
            raise ConfigError(f"prompts are {prompts!r:.80}: give one or more, each once")
        self.at_once = settings.batch_size // settings.images_per_prompt  # prompts in a step
        if self.at_once % self.processes.count:
            raise ConfigError(f"{self.at_once} prompts a step for {self.processes.count} processes: change batch_size")
        steps = settings.denoising_steps
        self.steps = ddim_steps(pipeline.scheduler, steps, without_noise=steps, device=self.device)
        with torch.no_grad():
            self.texts, empty_texts = pipeline.encode_prompt(prompts, self.device, 1, True)
        self.empty_text, self.vae = empty_texts[:1], pipeline.vae
        if settings.gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            self.vae.enable_gradient_checkpointing()

    def step(self, step: int) -> dict[str, Any]:
        started, settings = time.monotonic(), self.settings
        places, seeds = self._plan(step)
        images, kl = self._images(self.texts[places], seeds)
        rewards = self._rewards(images, [self.prompts[place] for place in places])
        share = len(places) / settings.batch_size
        loss = -rewards.mean() / settings.reward_scale + settings.kl_coefficient * kl
        self.backward(loss * share)
        means = torch.stack([rewards.detach().mean(), kl.detach()]).double() * share
        self.processes.add_up([means])
        norm = self.descend()
        return {
            "reward": means[0].item(),
            "kl": means[1].item() if settings.kl_coefficient > 0 else None,
            "gradient_norm": norm if math.isfinite(norm) else None,
            "images_per_s": round(settings.batch_size / (time.monotonic() - started), 2),
        }

    def _plan(self, step: int) -> tuple[list[int], list[int]]:
        """For each of this process's images the place of its prompt, and its seed."""
        settings, numbers = self.settings, range(step * self.at_once, (step + 1) * self.at_once)  # prompts of the run
        own = self.processes.own([(number % len(self.prompts), number // len(self.prompts)) for number in numbers])
        each = settings.images_per_prompt
        pairs = [(place, turn * each + image) for place, turn in own for image in range(each)]
        seeds = [image_seed(self.prompts[place], number, seed=settings.seed) for place, number in pairs]
        return [place for place, _ in pairs], seeds

    def _images(self, texts: torch.Tensor, seeds: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (n, 3, h, w) in [0, 1] for texts (n, l, d), and how far their last steps are from the base's."""
        shape = (self.unet.config.in_channels, self.unet.config.sample_size, self.unet.config.sample_size)
        latents, first = (
            draw_noise(seeds, 0, shape)[:, 0].to(self.device),
            len(self.steps) - self.settings.gradient_steps,
        )
        distances = []
        for number in range(len(self.steps)):
            with torch.set_grad_enabled(number >= first):
                output = self._output(latents, number, texts)
                if number >= first and self.settings.kl_coefficient > 0:
                    with torch.no_grad(), base_only(self.unet):
                        base = self._output(latents, number, texts)
                    distances.append((output - base).square().mean())
                index = torch.full((len(texts),), number, device=self.device)
                latents = self.steps.mean(index, latents, output)
        with autocast(self.device.type, self.settings.dtype):
            images = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        kl = torch.stack(distances).mean() if distances else latents.new_zeros(())
        return (images.float() / 2 + 0.5).clamp(0, 1), kl

    def _output(self, latents: torch.Tensor, number: int, texts: torch.Tensor) -> torch.Tensor:
        times = self.steps.timesteps[number].expand(len(texts))
        with autocast(self.device.type, self.settings.dtype):
            scale = self.settings.guidance_scale
            return guided(self.unet, latents, times, texts, self.empty_text, scale=scale).float()

    def _rewards(self, images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """(n,), on the device of the images."""
        try:
            rewards = self.reward.differentiable(images, prompts).to(images.device)
        except Exception as error:  # whatever somebody's reward may raise
            raise StudyError(f"the reward raised {type(error).__name__}: {' '.join(str(error).split())}") from error
        if rewards.shape != (len(images),):
            raise StudyError(f"the reward has shape {tuple(rewards.shape)} for {len(images)} images")
        if bad := (~rewards.isfinite()).sum().item():
            raise StudyError(f"the reward is no finite number for {bad} of {len(images)} images")
        if not rewards.requires_grad:
            raise StudyError("the reward passes no gradient to the images; compute it in torch, without no_grad")
        return rewards
