"""Reward-weighted regression (RWR): LoRA is trained on the base's own best images (section 5.3 and appendix 7.2).

Of each prompt's images from the base the best k by the reward are kept. With their weights w, a noise level t, the
noisy latent y_t, the network's target v (the noise or the velocity), the tuned network v_theta and, adapter off, the
base's v_0:

    loss = mean of  w |v_theta(y_t, t, x) - v|^2  +  beta |v_theta(y_t, t, x) - v_0(y_t, t, x)|^2

over images, noise levels and the elements of a latent. The first term stands for -w log p_theta(y | x): a bound of it,
up to the weights of the noise levels. The printed objective leaves three things open:

- How a reward becomes a weight. Origin and unit differ from model to model: PickScore's are all near 20, ImageReward's
  may be negative, which would push the model away from an image without bound. Here a prompt's weights are divided by
  their mean (``weights_of``): prompts count alike, and beta means the same for every reward.
- What the regulariser is. The printed + beta log(p_theta / p_theta0), maximised over the kept images, only adds beta to
  every weight and holds nothing near the base. Here it is the divergence of the tuned Gaussian denoising steps from the
  base's: the squared difference above, up to a factor of the noise level.
- What fitting to one's own images does by itself. A model that is trained on *all* of them with equal weights drifts:
  its samples are sharper (guidance) and simpler than the model is. On the mini world every reward falls by half a
  standard deviation in 80 steps, several times what the choice of the best gains. Neither noise levels, nor more
  sampling steps, nor images without guidance cured that.

A baseline cures it. With *centred* weights, w = (r - mean) / deviation over all of a prompt's images, the pull towards
one's own images cancels and the pull of the reward stays. The best k and the worst k are kept, because they say most. A
step takes them in pairs of one prompt at one noise and noise level: what a single image's loss says of the noise
cancels in a pair. A network that could fit everything would end at

    v_theta = v_0 + E[w (v - v_0) | y_t, x] / (beta + E[w | y_t, x])

so that beta says how far. Where a single image can be told from y_t and its w is below -beta, nothing bounds the way
from it, and the model runs away. Where k is a fifth of all, weights are 1.4 in size on average: take no smaller beta.

    chosen = choose_examples(scored, reward="clip", settings=settings)
    examples = encode_examples(pipeline, chosen, folder=images)      # once: the loop reads no image and no text
    add_lora(pipeline, rank=4, targets=ATTENTION, generator=generator)
    curve = train_rwr(pipeline, examples, settings, folder=folder)
"""

import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from textnorm_lib.images.pixels import square
from textnorm_lib.images.sampling import autocast
from textnorm_lib.optimise.best_of_n import choose_best
from textnorm_lib.optimise.training import Trainer, base_only
from textnorm_lib.stats.rankings import check_scores
from textnorm_lib.study.errors import ConfigError, DataError, StudyError
from textnorm_lib.study.progress import progress
from textnorm_lib.study.settings import RwrSettings as Settings
from textnorm_lib.study.store import digest

PAPER = Settings()
MOST_CENTRED = 3.0  # one odd image must not be the whole update
_ENCODED_AT_ONCE = 8  # images of 768 pixels take a gigabyte


class Examples(NamedTuple):
    """What is trained on: n latents (n, c, h, w), scaled as the U-Net reads them, each with a weight and a prompt."""

    latents: torch.Tensor
    weights: torch.Tensor  # (n,), 1 on average over each prompt's, or 0 if they are centred
    prompt: torch.Tensor  # (n,), the row of ``texts``
    texts: torch.Tensor  # (prompts, tokens, width)
    empty_text: torch.Tensor  # (1, tokens, width)


def choose_examples(images: pd.DataFrame, *, reward: str, settings: Settings) -> pd.DataFrame:
    """Each prompt's best images by ``reward``, best first, with their weights: prompt, image, reward, weight.

    With "centred" weights its worst images follow, as many. ``images``: prompt, image (its file's name) and the column
    ``reward``, with as many rows a prompt as ``settings`` say. Raises ``DataError`` for images that are missing, a
    column ``reward`` that is, and a reward that is no finite number.
    """
    if images.empty:
        raise DataError("images has no rows; give the images of each prompt")
    numbers = images.groupby("prompt", sort=False).size()
    if (wrong := numbers != settings.images_per_prompt).any():
        prompt = wrong.idxmax()
        raise DataError(f"prompt {prompt!r} has {numbers[prompt]} images, not {settings.images_per_prompt}; make them")
    chosen = []
    for prompt, group in check_scores(images, [reward]).groupby("prompt", sort=False):
        rewards = group[reward].to_numpy(float)
        ranking = choose_best(rewards, len(rewards), len(rewards))
        best = ranking[: settings.best]
        if settings.weighting == "centred":
            best = np.concatenate([best, ranking[-settings.best :]])
        weights = weights_of(rewards, best, settings.weighting)
        names = group["image"].to_numpy()[best]
        chosen.append(pd.DataFrame({"prompt": prompt, "image": names, "reward": rewards[best], "weight": weights}))
    return pd.concat(chosen, ignore_index=True)


def weights_of(rewards: np.ndarray, best: np.ndarray, weighting: str) -> np.ndarray:
    """The weights of one prompt's ``best`` images, which sum to their number; ``rewards`` (n,): of all its images.

    "reward": in proportion to how far the reward lies above the lowest of the n; "rank": to k, k - 1, ..., 1 from the
    best down; "equal": 1, only the choice counts. And "centred", which sum to about 0: by how many standard deviations
    a reward lies above the prompt's mean, at most ``MOST_CENTRED`` either way.
    """
    alike = np.ptp(rewards) == 0  # whatever rounding makes of their mean and deviation
    if weighting == "centred":
        weights = np.zeros(len(best)) if alike else (rewards[best] - rewards.mean()) / rewards.std()
        return weights.clip(-MOST_CENTRED, MOST_CENTRED)
    weights = np.ones(len(best))
    if weighting == "rank":
        weights = np.arange(len(best), 0, -1.0)
    elif weighting == "reward" and not alike:
        weights = rewards[best] - rewards.min()
    return weights / weights.mean()


@torch.no_grad()
def encode_examples(pipeline, chosen: pd.DataFrame, *, folder: Path) -> Examples:
    """The images of ``choose_examples``, which lie in ``folder``, as latents (means of the autoencoder's posterior).

    In single precision on the CPU, wherever the pipeline is. Raises ``DataError`` for an image that cannot be read.
    """
    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    vae, latents = pipeline.vae, []
    starts = range(0, len(chosen), _ENCODED_AT_ONCE)
    for start in progress(starts, "latents", unit="batch"):
        names = chosen["image"].iloc[start : start + _ENCODED_AT_ONCE]
        pixels = torch.from_numpy(np.stack([square(folder / name, size, f"image {name}") for name in names]))
        scaled = pixels.permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
        latents.append(vae.encode(scaled).latent_dist.mean.float().cpu() * vae.config.scaling_factor)
    rows, prompts = pd.factorize(chosen["prompt"])
    texts, empties = pipeline.encode_prompt(prompts.tolist(), pipeline.device, 1, True)
    weights = torch.from_numpy(chosen["weight"].to_numpy(np.float32, copy=True))
    return Examples(torch.cat(latents), weights, torch.from_numpy(rows), texts.float().cpu(), empties[:1].float().cpu())


def train_rwr(
    pipeline, examples: Examples, settings: Settings = PAPER, *, folder: Path, description: str = "RWR"
) -> pd.DataFrame:
    """Tune the adapter that ``add_lora`` put on ``pipeline``, in place, on ``examples``.

    Goes on from the latest checkpoint in ``folder`` (``checkpoint_00050`` is the one after 50 steps), in any number of
    processes, and fails, as ``training.Trainer`` says; ``ConfigError`` also for a network that predicts neither noise
    nor velocity and a batch that the processes cannot share, ``StudyError`` for a loss that is no number.

    Returns the curve: a row a step with step, loss (the weighted first term), kl (the squared difference; where beta is
    0 it is measured at the steps that end in a checkpoint, else nan), gradient_norm (before clipping), steps_per_s.
    """
    rows = _Rwr(pipeline, examples, settings, folder).run(description)
    columns = ["step", "loss", "kl", "gradient_norm", "steps_per_s"]
    return pd.DataFrame(rows, columns=columns).astype({"kl": float, "gradient_norm": float})


class _Rwr(Trainer):
    unit, first_number, may_change = "step", 1, ("steps", "save_every")

    def __init__(self, pipeline, examples: Examples, settings: Settings, folder: Path) -> None:
        made_of = {"set of examples": digest(b"".join(part.numpy().tobytes() for part in examples))}
        super().__init__(pipeline, settings, folder, length=settings.steps, made_of=made_of)
        self.examples, self.scheduler, count = examples, self.pipeline.scheduler, self.processes.count
        if settings.batch_size % count:
            raise ConfigError(f"batch_size is {settings.batch_size}: {count} processes cannot share it equally")
        if (kind := self.scheduler.config.prediction_type) not in ("epsilon", "v_prediction"):
            raise ConfigError(f"the scheduler's prediction_type is {kind!r}; known: epsilon, v_prediction")

    def step(self, step: int) -> dict[str, Any]:
        started, means = time.monotonic(), torch.zeros(3, device=self.device)
        settings, batch = self.settings, self._batch(step)
        measured = settings.kl_coefficient > 0 or self.saves_after(step)
        for rows in zip(*(part.split(settings.pass_size or len(part)) for part in batch), strict=True):
            fit, kl = self._losses(*rows, measure_kl=measured)
            loss = fit + settings.kl_coefficient * kl
            self.backward(loss)
            means += torch.stack([loss, fit, kl]).detach()
        self.processes.add_up([means])
        whole_loss, whole_fit, whole_kl = means.tolist()
        if not math.isfinite(whole_loss):
            raise StudyError(f"the loss is {whole_loss}; take a smaller learning_rate")
        norm = self.descend()
        return {
            "loss": whole_fit,
            "kl": whole_kl if measured else None,
            "gradient_norm": norm if math.isfinite(norm) else None,
            "steps_per_s": round(1 / (time.monotonic() - started), 3),
        }

    def _losses(
        self,
        weights: torch.Tensor,
        noisy: torch.Tensor,
        times: torch.Tensor,
        target: torch.Tensor,
        texts: torch.Tensor,
        *,
        measure_kl: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The module's two terms, the second without beta: what these rows add to the batch's means."""
        predicted, size = self._predict(noisy, times, texts), self.settings.batch_size
        fit = (weights * (predicted - target).square().mean(dim=(1, 2, 3))).sum() / size
        if not measure_kl:
            return fit, torch.zeros_like(fit)
        with torch.no_grad(), base_only(self.unet):
            base = self._predict(noisy, times, texts)
        return fit, (predicted - base).square().mean(dim=(1, 2, 3)).sum() / size

    def _predict(self, noisy: torch.Tensor, times: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        with autocast(self.device.type, self.settings.dtype):
            return self.unet(noisy, times, texts).sample.float()

    def _batch(self, step: int) -> tuple[torch.Tensor, ...]:
        """This process's share of what step ``step`` draws: weights, noisy latents, times, targets, texts."""
        examples, scheduler = self.examples, self.scheduler
        chosen, times, noise, emptied = self._draw(torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step))
        clean = examples.latents[chosen]
        velocity = scheduler.config.prediction_type == "v_prediction"
        batch = (
            examples.weights[chosen],
            scheduler.add_noise(clean, noise, times),
            times,
            scheduler.get_velocity(clean, noise, times) if velocity else noise,
            torch.where(emptied, examples.empty_text, examples.texts[examples.prompt[chosen]]),
        )
        return tuple(self.processes.own(part).to(self.device) for part in batch)

    def _draw(self, generator: torch.Generator) -> list[torch.Tensor]:
        """Which examples, their times and noises, and whether a caption is emptied; with centred weights in pairs.

        The best with the worst of its prompt, the second with the last but one, at one noise and time: what both have
        in common, most of what a single example says, cancels.
        """
        settings, latents = self.settings, self.examples.latents
        paired = settings.weighting == "centred"
        size = settings.batch_size // 2 if paired else settings.batch_size
        chosen = torch.randint(len(latents), (size,), generator=generator)
        times = torch.randint(self.scheduler.config.num_train_timesteps, (size,), generator=generator)
        noise = torch.randn((size, *latents.shape[1:]), generator=generator)
        emptied = torch.rand((size, 1, 1), generator=generator) < settings.caption_dropout
        if not paired:
            return [chosen, times, noise, emptied]
        kept = 2 * settings.best  # of each prompt, best first
        mirrored = chosen + kept - 1 - 2 * (chosen % kept)
        return [torch.cat([chosen, mirrored]), *(torch.cat([part, part]) for part in (times, noise, emptied))]
