"""How the mini world's models are trained: one function a stage, on scenes that are drawn once.

    scenes = training_scenes(folder, count=60_000, seed=0)
    autoencoder = train_autoencoder(scenes, AUTOENCODER, folder=folder / "autoencoder")
    ...

Every stage goes on where it was stopped (``fit.py``); its result is a pure function of the scenes, the recipe and the
machine's arithmetic. All stages run on one device, in bf16 autocast.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from textnorm_lib.mini import annotators
from textnorm_lib.mini import generator as model
from textnorm_lib.mini.fit import Recipe, fit
from textnorm_lib.mini.grammar import write
from textnorm_lib.mini.prompts import sample_spec
from textnorm_lib.mini.scenes import render_many
from textnorm_lib.progress import progress
from textnorm_lib.tia2.prompts import CLASSES

WEIGHTS = Path(__file__).parent / "weights"  # what is bundled, in half precision
AUTOENCODER = Recipe(steps=14_000, learning_rate=1.5e-3)
GENERATOR = Recipe(steps=12_000, learning_rate=8e-4, warmup=500)
DETECTOR = Recipe(steps=4_000, learning_rate=1e-3)
WHOLE_FROM = 0.85  # share of the autoencoder's steps that see quarters of images, before the rest sees whole ones
CAPTION_DROPOUT = 0.1  # share of captions that are emptied, for classifier-free guidance
SNR_CAP = 5.0  # Hang et al. 2023: noise levels that are easy do not drown the others


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


def training_scenes(folder: Path, *, count: int, seed: int, workers: int = 2) -> Scenes:
    """Draw ``count`` scenes of the training mix once, or read them back."""
    images, truth = folder / "scenes.npy", folder / "truth.npz"
    if not truth.exists():
        folder.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(seed)
        specs = [sample_spec(generator) for _ in range(count)]
        size = model.IMAGE_SIZE
        pixels = np.lib.format.open_memmap(images, "w+", dtype=np.uint8, shape=(count, size, size, 3))
        objects = np.full((count, 8, 6), -1, dtype=np.float32)
        for index, scene in enumerate(render_many(specs, seed, workers=workers)):
            pixels[index] = scene.image
            for slot, one in enumerate(scene.objects):
                colour = annotators.COLOUR_NAMES.index(one.colour)
                objects[index, slot] = (CLASSES.index(one.name), *one.box, colour)
        pixels.flush()
        places = [
            (annotators.LOCATION_NAMES.index(spec.location), annotators.STYLE_NAMES.index(spec.style)) for spec in specs
        ]
        partial = folder / "truth.partial.npz"
        np.savez(partial, objects=objects, places=np.array(places), captions=np.array([write(spec) for spec in specs]))
        partial.replace(truth)
    arrays = np.load(truth)
    return Scenes(np.load(images, mmap_mode="r"), arrays["captions"].tolist(), arrays["objects"], arrays["places"])


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def train_autoencoder(scenes: Scenes, recipe: Recipe, *, folder: Path, batch_size: int = 8, device: str = "cpu"):
    """An autoencoder that keeps colours (L1), outlines (L1 of differences between neighbours) and a tame latent (KL).

    Its ``scaling_factor`` is set so that latents have unit variance, as Stable Diffusion's.
    """
    autoencoder = model.build_autoencoder().to(device)

    def loss_function(step: int, generator: torch.Generator) -> torch.Tensor:
        images = _pieces(scenes.images, batch_size, whole=step > WHOLE_FROM * recipe.steps, generator=generator)
        images = as_tensor(images).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            posterior = autoencoder.encode(images).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            restored = autoencoder.decode(posterior.mean + posterior.std * noise).sample
        error = restored.float() - images
        outlines = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        return error.abs().mean() + 0.5 * outlines + 1e-7 * posterior.kl().mean()

    fit(autoencoder, loss_function, recipe, folder=folder, description="autoencoder")
    sample = encode(autoencoder, scenes.images[:2048], device=device)
    autoencoder.register_to_config(scaling_factor=round(1 / sample.std().item(), 5))
    return autoencoder


def _pieces(images: np.ndarray, count: int, *, whole: bool, generator: torch.Generator) -> np.ndarray:
    """``count`` random images, or for the same work four times as many random quarters: more scenes a step."""
    size = images.shape[1]
    side = size if whole else size // 2
    chosen = torch.randint(len(images), (count * (size // side) ** 2,), generator=generator).tolist()
    corners = torch.randint(size - side + 1, (len(chosen), 2), generator=generator).tolist()
    return np.stack([images[i, y : y + side, x : x + side] for i, (y, x) in zip(chosen, corners, strict=True)])


@torch.no_grad()
def encode(autoencoder, images: np.ndarray, *, batch_size: int = 64, device: str = "cpu") -> torch.Tensor:
    """Mean latents, unscaled, in half precision: (n, 4, 16, 16)."""
    autoencoder.eval()
    latents = []
    for start in progress(range(0, len(images), batch_size), "latents", unit="batch"):
        batch = as_tensor(images[start : start + batch_size]).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
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
    recipe: Recipe,
    *,
    folder: Path,
    batch_size: int = 32,
    device: str = "cpu",
) -> tuple[Denoiser, object]:
    """Text encoder and U-Net on scaled ``latents`` (n, 4, 16, 16): velocity, weighted by min(SNR, 5) / (SNR + 1)."""
    tokenizer = model.build_tokenizer(sorted(set(captions)))
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    empty = tokenizer("", padding="max_length", return_tensors="pt").input_ids[0]
    denoiser = Denoiser(model.build_text_encoder(len(tokenizer)), model.build_unet()).to(device)
    scheduler = model.build_scheduler()
    alphas = scheduler.alphas_cumprod
    signal_to_noise = alphas / (1 - alphas)
    weights = signal_to_noise.clamp(max=SNR_CAP) / (signal_to_noise + 1)

    def loss_function(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(latents), (batch_size,), generator=generator)
        clean = latents[chosen].float()
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(len(alphas), (batch_size,), generator=generator)
        dropped = torch.rand(batch_size, 1, generator=generator) < CAPTION_DROPOUT
        given = torch.where(dropped, empty, tokens[chosen])
        noisy = scheduler.add_noise(clean, noise, times).to(device)
        velocity = scheduler.get_velocity(clean, noise, times).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            predicted = denoiser(noisy, times.to(device), given.to(device))
        errors = (predicted.float() - velocity).square().mean(dim=(1, 2, 3))
        return (weights[times].to(device) * errors).mean() / weights.mean()

    fit(denoiser, loss_function, recipe, folder=folder, description="generator")
    return denoiser, tokenizer


def train_detector(
    scenes: Scenes, recipe: Recipe, *, folder: Path, autoencoder=None, batch_size: int = 32, device: str = "cpu"
) -> annotators.Detector:
    """One annotator, on scenes that ``degrade`` has spoilt as generators spoil them."""
    detector = annotators.Detector().to(device)

    def loss_function(step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(scenes.images), (batch_size,), generator=generator).numpy()
        images = degrade(as_tensor(scenes.images[chosen]).to(device), generator, autoencoder=autoencoder)
        locations, styles = torch.from_numpy(scenes.places[chosen]).to(device).T
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            predicted = detector(images)
        return annotators.detection_loss(predicted, scenes.objects[chosen], locations, styles)

    fit(detector, loss_function, recipe, folder=folder, description="detector")
    return detector


def degrade(images: torch.Tensor, generator: torch.Generator, *, autoencoder=None) -> torch.Tensor:
    """Spoil images (n, 3, h, w) in [-1, 1] as generators do: blur, warp, tint, noise, a trip through the autoencoder.

    A quarter of the images stays clean; each other one meets each fault with even odds and a strength of its own.
    """
    n = len(images)

    def draw(*shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return (torch.rand(shape, generator=generator) * (high - low) + low).to(images.device)

    clean = draw(n, 1, 1, 1) < 0.25
    faulty = _warped(images, draw(n, 2, 5, 5, low=-1, high=1) * draw(n, 1, 1, 1) * 0.06)
    if autoencoder is not None:
        faulty = _pick(_through(autoencoder, faulty, draw(n, 1, 1, 1) * 0.3, generator), faulty, draw(n, 1, 1, 1))
    blurred = F.avg_pool2d(F.pad(faulty, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    faulty = _pick(torch.lerp(faulty, blurred, draw(n, 1, 1, 1)), faulty, draw(n, 1, 1, 1))
    tinted = faulty * draw(n, 3, 1, 1, low=0.85, high=1.15) + draw(n, 3, 1, 1, low=-0.1, high=0.1)
    faulty = _pick(tinted, faulty, draw(n, 1, 1, 1))
    noise = torch.randn(images.shape, generator=generator).to(images.device) * draw(n, 1, 1, 1) * 0.12
    faulty = _pick(faulty + noise, faulty, draw(n, 1, 1, 1))
    return torch.where(clean, images, faulty).clamp(-1, 1)


def _pick(changed: torch.Tensor, unchanged: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
    return torch.where(chance < 0.5, changed, unchanged)


def _warped(images: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Move pixels by a smooth field, ``offsets`` (n, 2, k, k) in units of half the image."""
    field = F.interpolate(offsets, size=images.shape[-2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    identity = torch.eye(2, 3, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(identity, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid + field, padding_mode="reflection", align_corners=False)


@torch.no_grad()
def _through(autoencoder, images: torch.Tensor, noise: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Encode, disturb the latent by ``noise`` (n, 1, 1, 1) of its own spread, decode."""
    latents = autoencoder.encode(images).latent_dist.mean
    disturbance = torch.randn(latents.shape, generator=generator).to(images.device)
    return autoencoder.decode(latents + noise / autoencoder.config.scaling_factor * disturbance).sample
