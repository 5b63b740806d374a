"""Denoising as a Markov decision process (DDPO, Black et al. 2024; section 5.3 of the paper).

The state is a noisy latent x, its step and the prompt c; the action is the next latent x', drawn by DDIM with eta = 1:

    p_theta(x' | x, c) = N(a x + b f_theta(x, t, c), sigma^2 I)

f is the U-Net's guided output, w f(c) + (1 - w) f(empty prompt); a, b, sigma belong to the step, not to the model. So

    log p_theta(x' | x, c) = - |x' - mean|^2 / (2 sigma^2) - D log sigma - D/2 log 2 pi     (D elements)
    KL(p_theta || p_base)  =   |b (f_theta - f_base)|^2 / (2 sigma^2)

and the second is exact, because both transitions are Gaussian with one variance. As in ddpo-pytorch and trl, what is
trained on are log-densities *averaged* over the D elements, not summed: ratios of sums would leave any clip range at
once. A step's arithmetic is in single precision whatever the U-Net's type is.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from textnorm_lib.images.sampling import autocast
from textnorm_lib.optimise.training import base_only
from textnorm_lib.study.errors import ConfigError


@dataclass(frozen=True)
class Steps:
    """The T denoising steps, first to last: U-Net timesteps (T,) int64; a, b, sigma (T,) float32.

    The last ones may be without noise (sigma is 0): no decisions, but a part of what makes a reward of a latent.
    """

    timesteps: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    sigma: torch.Tensor

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def decisions(self) -> int:
        """The number of steps with noise."""
        return int((self.sigma > 0).sum())

    def mean(self, index: torch.Tensor, latents: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The mean of the next latents (n, c, h, w); ``index`` (n,) says at which step each latent is."""
        return _rows(self.a[index]) * latents + _rows(self.b[index]) * output.float()

    def log_prob(self, index: torch.Tensor, following: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """log p(x' | x, c) averaged over the latent's elements, (n,)."""
        sigma = self.sigma[index]
        distance = ((following - mean) / _rows(sigma)).square().flatten(1).mean(dim=1)
        return -distance / 2 - sigma.log() - math.log(2 * math.pi) / 2

    def kl(self, index: torch.Tensor, output: torch.Tensor, base: torch.Tensor) -> torch.Tensor:
        """KL(tuned || base) of a step, averaged over the elements, (n,); times their number it is in nats."""
        distance = (output.float() - base.float()).square().flatten(1).mean(dim=1)
        return (self.b[index] / self.sigma[index]).square() * distance / 2


@dataclass(frozen=True)
class Trajectories:
    """n images' ways from noise: latents (n, T + 1, c, h, w), averaged log-densities of the D decisions (n, D).

    Where they were asked for, the frozen base's outputs (n, D, c, h, w), for the empty prompt (``empty``) and guided
    (``base``), and the averaged divergences to it, ``kl`` (n, D).
    """

    latents: torch.Tensor
    log_probs: torch.Tensor
    empty: torch.Tensor | None
    base: torch.Tensor | None
    kl: torch.Tensor | None

    @classmethod
    def join(cls, parts: Sequence["Trajectories"]) -> "Trajectories":
        """One after another."""
        fields = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(None if values[0] is None else torch.cat(values) for values in fields))


def ddim_steps(scheduler, count: int, *, without_noise: int = 0, device: torch.device | str = "cpu") -> Steps:
    """What diffusers' DDIMScheduler with the configuration of ``scheduler`` does in ``count`` steps.

    The last ``without_noise`` steps have eta = 0, the others eta = 1. A step is affine in the latent, the output and
    the noise, so that its coefficients can be read off by giving it a one and two zeros, for any prediction type.
    Raises ``ConfigError`` for a scheduler that clips its estimates, or whose last step has no noise: neither has a
    density.
    """
    from diffusers import DDIMScheduler

    ddim = DDIMScheduler.from_config(scheduler.config)
    if on := [key for key in ("clip_sample", "thresholding", "set_alpha_to_one") if ddim.config[key]]:
        raise ConfigError(f"the scheduler has {on[0]} on: some steps have no Gaussian density; turn it off")
    ddim.set_timesteps(count)
    latent, output, noise = torch.eye(3, dtype=torch.float64)
    etas = [1.0] * (count - without_noise) + [0.0] * without_noise
    coefficients = [
        ddim.step(output, int(time), latent, eta=eta, variance_noise=noise).prev_sample
        for time, eta in zip(ddim.timesteps, etas, strict=True)
    ]
    a, b, sigma = torch.stack(coefficients).float().to(device).unbind(dim=1)
    return Steps(ddim.timesteps.to(device), a, b, sigma)


def draw_noise(seeds: Sequence[int], steps: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Each image's own noise (n, T + 1, c, h, w), for its first latent and then step by step, from its seed alone."""
    return torch.stack([torch.randn(steps + 1, *shape, generator=torch.Generator().manual_seed(s)) for s in seeds])


def guided(
    unet,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    texts: torch.Tensor,
    empty_text: torch.Tensor,
    *,
    scale: float,
    empty: torch.Tensor | None = None,
) -> torch.Tensor:
    """The guided output (n, c, h, w) for texts (n, l, d): both branches in one batch, or the conditional one alone.

    The latter where ``scale`` is 1 (no guidance), or where the output for the empty prompt is given as ``empty``.
    """
    if scale == 1:
        return unet(latents, timesteps, texts).sample
    if empty is None:
        both = torch.cat([empty_text.expand_as(texts), texts])
        empty, conditional = unet(torch.cat([latents] * 2), torch.cat([timesteps] * 2), both).sample.chunk(2)
    else:
        conditional = unet(latents, timesteps, texts).sample
    return empty + scale * (conditional - empty)


@torch.no_grad()
def sample(
    unet,
    steps: Steps,
    texts: torch.Tensor,
    empty_text: torch.Tensor,
    noise: torch.Tensor,
    *,
    scale: float,
    frozen_empty: bool = False,
    with_base: bool = False,
) -> Trajectories:
    """Denoise ``noise`` (n, T + 1, c, h, w) under texts (n, l, d); ``empty_text`` (1, l, d) is the empty prompt's.

    ``frozen_empty`` takes the branch of the empty prompt from the frozen base and keeps its outputs, so that training
    passes through the conditional branch alone; what diffusers samples from the saved adapter, tuned in both branches,
    is then a near relative of the policy. ``with_base`` keeps the base's guided outputs.
    """
    latents, log_probs, empties, bases, divergences = [noise[:, 0]], [], [], [], []
    decisions = steps.decisions  # once: on a GPU each look waits for the device
    for number, time in enumerate(steps.timesteps):
        x, times, empty = latents[-1], time.expand(len(texts)), None
        index = torch.full((len(texts),), number, device=noise.device)
        if frozen_empty and scale != 1:
            with base_only(unet):
                empty = unet(x, times, empty_text.expand_as(texts)).sample.float()
        output = guided(unet, x, times, texts, empty_text, scale=scale, empty=empty)
        mean = steps.mean(index, x, output)
        latents.append(mean + steps.sigma[number] * noise[:, number + 1])
        if number >= decisions:
            continue
        log_probs.append(steps.log_prob(index, latents[-1], mean))
        if empty is not None:
            empties.append(empty)
        if with_base:
            with base_only(unet):
                bases.append(guided(unet, x, times, texts, empty_text, scale=scale, empty=empty).float())
            divergences.append(steps.kl(index, output, bases[-1]))
    kept = (latents, log_probs, empties, bases, divergences)
    return Trajectories(*(torch.stack(values, dim=1) if values else None for values in kept))


def sample_in_batches(
    unet,
    steps: Steps,
    texts: torch.Tensor,
    empty_text: torch.Tensor,
    seeds: Sequence[int],
    *,
    batch_size: int,
    dtype: str,
    **options: float | bool,
) -> Iterator[Trajectories]:
    """``sample`` with each image's own noise, in ``batch_size`` rows per pass and in ``dtype``."""
    shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    for start in range(0, len(seeds), batch_size):
        here = slice(start, start + batch_size)
        noise = draw_noise(seeds[here], len(steps), shape).to(texts.device)
        with autocast(texts.device.type, dtype):
            batch = sample(unet, steps, texts[here], empty_text, noise, **options)
        yield batch


@torch.no_grad()
def decode(vae, latents: torch.Tensor) -> torch.Tensor:
    """Latents (n, c, h, w) to images (n, 3, h, w) float32 in [0, 1], on the CPU."""
    images = vae.decode(latents / vae.config.scaling_factor).sample
    return (images.float() / 2 + 0.5).clamp(0, 1).cpu()


def _rows(values: torch.Tensor) -> torch.Tensor:
    """(n,) to (n, 1, 1, 1)."""
    return values[:, None, None, None]
