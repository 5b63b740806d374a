"""The scenes that the mini world's models are trained on, drawn once, and how the generator is trained on them.

    scenes = training_scenes(folder, count=60_000, seed=0, workers=2)
    autoencoder = train_autoencoder(scenes, BUNDLED.autoencoder, folder=folder / "autoencoder")

Whatever is trained goes on where it was stopped (``fit.py``); it is a pure function of the scenes, the recipe and the
machine's arithmetic. All training runs on one device, in single precision.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from textnorm_lib.mini import generator as model
from textnorm_lib.mini.annotators import COLOUR_NAMES, LOCATION_NAMES, STYLE_NAMES
from textnorm_lib.mini.generator import as_tensor
from textnorm_lib.mini.scenes import render_many
from textnorm_lib.mini.training.fit import fit
from textnorm_lib.mini.training.plan import Recipe
from textnorm_lib.prompts.grammar import write
from textnorm_lib.prompts.sets import sample_spec
from textnorm_lib.prompts.templates import CLASSES
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.progress import progress

LATENTS_BATCH = 64  # images of a pass that nothing is learnt in
RARE_FORMS = 8.0  # how many times likelier the tuning draws a caption with a colour, relation, location or style
WHOLE_FROM = 0.85  # share of the autoencoder's steps that see quarters of images, before the rest sees whole ones
CAPTION_DROPOUT = 0.1  # share of captions that are emptied, for classifier-free guidance


@dataclass(frozen=True)
class Scenes:
    """Training scenes: ``images`` uint8 (n, 64, 64, 3), memory-mapped, one caption each, and what is in them.

    ``objects`` (n, 8, 6) float: class index, box x0, y0, x1, y1 in pixels, colour index; class -1 is padding.
    ``places`` (n, 2): location and style index. Indices as in ``annotators.py``.
    """

    images: np.ndarray
    captions: list[str]
    objects: np.ndarray
    places: np.ndarray


def training_scenes(folder: Path, *, count: int, seed: int, workers: int) -> Scenes:
    """Draw ``count`` scenes of the training mix once, or read them back; ``DataError`` if others lie there."""
    images, truth = folder / "scenes.npy", folder / "truth.npz"
    if not truth.exists():
        folder.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(seed)
        specs = [sample_spec(generator) for _ in range(count)]
        shape = (count, model.IMAGE_SIZE, model.IMAGE_SIZE, 3)
        pixels = np.lib.format.open_memmap(images, "w+", dtype=np.uint8, shape=shape)
        objects = np.full((count, 8, 6), -1, dtype=np.float32)
        for index, scene in enumerate(render_many(specs, seed, workers=workers)):
            pixels[index] = scene.image
            for slot, one in enumerate(scene.objects):
                objects[index, slot] = (CLASSES.index(one.name), *one.box, COLOUR_NAMES.index(one.colour))
        pixels.flush()
        places = [(LOCATION_NAMES.index(spec.location), STYLE_NAMES.index(spec.style)) for spec in specs]
        partial = folder / "truth.partial.npz"
        captions = np.array([write(spec) for spec in specs])
        np.savez(partial, objects=objects, places=np.array(places), captions=captions, seed=seed)
        partial.replace(truth)
    arrays = np.load(truth)
    if (found := (len(arrays["captions"]), int(arrays["seed"]))) != (count, seed):
        raise DataError(f"{folder} holds {found[0]} scenes of seed {found[1]}, not {count} of {seed}; delete it")
    return Scenes(np.load(images, mmap_mode="r"), arrays["captions"].tolist(), arrays["objects"], arrays["places"])


def train_autoencoder(scenes: Scenes, recipe: Recipe, *, folder: Path, device: str = "cpu"):
    """An autoencoder that keeps colours (L1), outlines (L1 of differences between neighbours) and a tame latent (KL).

    Its ``scaling_factor`` is set so that latents have unit variance, as Stable Diffusion's.
    """
    torch.manual_seed(recipe.seed)
    autoencoder = model.build_autoencoder().to(device)

    def loss_function(step: int, generator: torch.Generator) -> torch.Tensor:
        images = _pieces(scenes.images, recipe.batch_size, whole=step > WHOLE_FROM * recipe.steps, generator=generator)
        images = as_tensor(images).to(device)
        posterior = autoencoder.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        restored = autoencoder.decode(posterior.mean + posterior.std * noise).sample
        error = restored.float() - images
        outlines = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        return error.abs().mean() + 0.5 * outlines + 1e-7 * posterior.kl().mean()

    fit(autoencoder, loss_function, recipe, folder=folder)
    sample = encode(autoencoder, scenes.images[:2048], device=device)
    autoencoder.register_to_config(scaling_factor=round(1 / sample.std().item(), 5))
    return autoencoder


def _pieces(images: np.ndarray, count: int, *, whole: bool, generator: torch.Generator) -> np.ndarray:
    """``count`` random images, or for the same work four times as many random quarters: more scenes per step."""
    size = images.shape[1]
    side = size if whole else size // 2
    chosen = torch.randint(len(images), (count * (size // side) ** 2,), generator=generator).tolist()
    corners = torch.randint(size - side + 1, (len(chosen), 2), generator=generator).tolist()
    return np.stack([images[i, y : y + side, x : x + side] for i, (y, x) in zip(chosen, corners, strict=True)])


@torch.no_grad()
def encode(autoencoder, images: np.ndarray, *, device: str = "cpu") -> torch.Tensor:
    """Mean latents, unscaled, in half precision: (n, 4, 16, 16)."""
    autoencoder.eval()
    latents = []
    for start in progress(range(0, len(images), LATENTS_BATCH), "latents", unit="batch"):
        batch = as_tensor(images[start : start + LATENTS_BATCH]).to(device)
        latents.append(autoencoder.encode(batch).latent_dist.mean.half().cpu())
    return torch.cat(latents)


class Denoiser(nn.Module):
    """The text encoder and the U-Net, which learn together."""

    def __init__(self, text_encoder: nn.Module, unet: nn.Module) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    def forward(self, latents: torch.Tensor, times: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return self.unet(latents, times, self.text_encoder(tokens).last_hidden_state).sample


def train_generator(
    latents: torch.Tensor,
    captions: list[str],
    tokenizer,
    recipe: Recipe,
    *,
    folder: Path,
    denoiser: Denoiser | None = None,
    rates: torch.Tensor | None = None,
    device: str = "cpu",
) -> Denoiser:
    """Text encoder and U-Net on scaled ``latents`` (n, 4, 16, 16), by velocity (Salimans and Ho 2022).

    Goes on with ``denoiser`` if one is given. ``rates`` (n,): how likely each latent is drawn, by default all alike.
    """
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    empty = tokenizer("", padding="max_length", return_tensors="pt").input_ids[0]
    if denoiser is None:
        torch.manual_seed(recipe.seed)
        denoiser = Denoiser(model.build_text_encoder(len(tokenizer)), model.build_unet())
    denoiser.to(device)
    scheduler = model.build_scheduler()

    def loss_function(step: int, generator: torch.Generator) -> torch.Tensor:
        if rates is None:
            chosen = torch.randint(len(latents), (recipe.batch_size,), generator=generator)
        else:
            chosen = torch.multinomial(rates, recipe.batch_size, replacement=True, generator=generator)
        clean = latents[chosen].float()
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(scheduler.config.num_train_timesteps, (recipe.batch_size,), generator=generator)
        dropped = torch.rand(recipe.batch_size, 1, generator=generator) < CAPTION_DROPOUT
        given = torch.where(dropped, empty, tokens[chosen])
        noisy = scheduler.add_noise(clean, noise, times).to(device)
        velocity = scheduler.get_velocity(clean, noise, times).to(device)
        predicted = denoiser(noisy, times.to(device), given.to(device))
        return (predicted.float() - velocity).square().mean()

    fit(denoiser, loss_function, recipe, folder=folder)
    return denoiser
