"""How the annotators are trained: on scenes with known positions, spoilt as generators spoil them.

A judge must keep its footing when a generator is optimised and its style drifts (DESIGN: a prototype's did not). So
each scene exists in up to three versions: as drawn; through the autoencoder, its latent disturbed; and *half-finished*,
noised and denoised by the generator in one to three steps. On top come warps, blur, tints and noise, drawn anew a step.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from textnorm_lib.mini import annotators
from textnorm_lib.mini.fit import Recipe, fit
from textnorm_lib.mini.train import Scenes, as_tensor
from textnorm_lib.progress import progress
from textnorm_lib.tia2.prompts import CLASSES

DETECTOR = Recipe(steps=2_000, learning_rate=1e-3)  # as drawn and through the autoencoder
TUNING = Recipe(steps=800, learning_rate=5e-4, warmup=50)  # half-finished images as well
LATENT_NOISE = 0.3  # the most that a latent is disturbed by, in units of its own spread
LATEST_TIME = 450  # half-finished images start from here at most: what is noised further may change its content


def train_detector(
    scenes: Scenes,
    versions: Sequence[np.ndarray],
    recipe: Recipe,
    *,
    folder: Path,
    detector: annotators.Detector | None = None,
    batch_size: int = 32,
    device: str = "cpu",
) -> annotators.Detector:
    """Train one annotator, or go on with ``detector``.

    ``versions``: uint8 (m, 64, 64, 3), m at most the number of scenes, version i of scene j at [i][j].
    """
    if detector is None:
        torch.manual_seed(recipe.seed)
        detector = annotators.Detector()
    detector.to(device)

    def loss_function(step: int, generator: torch.Generator) -> torch.Tensor:
        kinds = torch.randint(len(versions), (batch_size,), generator=generator).tolist()
        chosen = np.array([torch.randint(len(versions[kind]), (), generator=generator).item() for kind in kinds])
        drawn = np.stack([versions[kind][index] for kind, index in zip(kinds, chosen, strict=True)])
        images = degrade(as_tensor(drawn).to(device), generator)
        locations, styles = torch.from_numpy(scenes.places[chosen]).to(device).T
        with torch.autocast(images.device.type, torch.bfloat16):
            predicted = detector(images)
        return annotators.detection_loss(predicted, scenes.objects[chosen], locations, styles)

    fit(detector, loss_function, recipe, folder=folder, description=folder.name)
    return detector


@torch.no_grad()
def share_exact(
    detector: annotators.Detector, scenes: Scenes, images: torch.Tensor, *, thresholds: Sequence[float] = (0.5,)
) -> np.ndarray:
    """Whether ``detector`` sees exactly the objects of each scene: bool (n, thresholds); ``images`` in [-1, 1]."""
    exact = []
    for start in range(0, len(images), 100):
        for index, seen in enumerate(annotators.detect(detector, images[start : start + 100]), start):
            names = scenes.objects[index][:, 0]
            wanted = Counter(CLASSES[int(name)] for name in names[names >= 0])
            exact.append([Counter(one.name for one in seen.objects if one.score >= t) == wanted for t in thresholds])
    return np.array(exact)


@torch.no_grad()
def calibrate(detector: annotators.Detector, scenes: Scenes) -> float:
    """Shift the scores so that .5 is where the detector is most often exact on ``scenes``, which it never saw.

    The focal loss leaves them too low: most cells are empty. Half of the weight is on degraded versions. Returns the
    threshold that becomes .5; the voting rule stays as it is.
    """
    drawn = as_tensor(scenes.images)
    thresholds = np.arange(0.2, 0.61, 0.02)
    exact = [
        share_exact(detector, scenes, images, thresholds=thresholds).mean(axis=0)
        for images in (drawn, degrade(drawn, torch.Generator().manual_seed(0)))
    ]
    best = float(thresholds[np.mean(exact, axis=0).argmax()])
    detector.classes.bias -= float(np.log(best / (1 - best)))
    return best


@torch.no_grad()
def restored(scenes: Scenes, autoencoder, path: Path, *, count: int, seed: int, batch_size: int = 64) -> np.ndarray:
    """The first ``count`` scenes through the autoencoder, the latent disturbed at random: uint8, at ``path``."""
    scale = autoencoder.config.scaling_factor

    def restore(batch: np.ndarray, start: int, generator: torch.Generator) -> torch.Tensor:
        latents = autoencoder.encode(as_tensor(batch).to(autoencoder.device)).latent_dist.mean
        strength = torch.rand(len(batch), 1, 1, 1, generator=generator) * LATENT_NOISE / scale
        disturbance = strength * torch.randn(latents.shape, generator=generator)
        return autoencoder.decode(latents + disturbance.to(latents.device)).sample

    return _versions(
        scenes.images[:count], restore, path, device=autoencoder.device.type, seed=seed, batch_size=batch_size
    )


@torch.no_grad()
def half_finished(scenes: Scenes, pipeline, path: Path, *, count: int, seed: int, batch_size: int = 64) -> np.ndarray:
    """The first ``count`` scenes, noised and denoised by the generator in one to three steps: uint8, at ``path``."""
    autoencoder, scheduler = pipeline.vae, pipeline.scheduler
    scale = autoencoder.config.scaling_factor

    def finish(batch: np.ndarray, start: int, generator: torch.Generator) -> torch.Tensor:
        latents = autoencoder.encode(as_tensor(batch).to(autoencoder.device)).latent_dist.mean * scale
        captions = scenes.captions[start : start + len(batch)]
        tokens = pipeline.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        text = pipeline.text_encoder(tokens.to(latents.device)).last_hidden_state
        steps = int(torch.randint(1, 4, (), generator=generator))
        latest = torch.randint(LATEST_TIME // 4, LATEST_TIME, (), generator=generator).item()
        times = torch.linspace(latest, 0, steps + 1).long()
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        noisy = scheduler.add_noise(latents, noise, times[:1].expand(len(batch)))
        for now, later in itertools.pairwise(times):
            velocity = pipeline.unet(noisy, now, text).sample
            before, after = scheduler.alphas_cumprod[now], scheduler.alphas_cumprod[later]
            clean = before.sqrt() * noisy - (1 - before).sqrt() * velocity
            noise = before.sqrt() * velocity + (1 - before).sqrt() * noisy
            noisy = after.sqrt() * clean + (1 - after).sqrt() * noise
        return autoencoder.decode(clean / scale).sample

    return _versions(
        scenes.images[:count], finish, path, device=autoencoder.device.type, seed=seed, batch_size=batch_size
    )


def _versions(images: np.ndarray, change, path: Path, *, device: str, seed: int, batch_size: int) -> np.ndarray:
    """``change`` (batch, start, generator) applied to all images, written once and memory-mapped."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        changed = np.lib.format.open_memmap(partial, "w+", dtype=np.uint8, shape=images.shape)
        for start in progress(range(0, len(images), batch_size), path.stem, unit="batch"):
            generator = torch.Generator().manual_seed(seed * 1_000_003 + start)
            with torch.autocast(device, torch.bfloat16):
                batch = change(images[start : start + batch_size], start, generator).float().cpu()
            pixels = ((batch.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
            changed[start : start + len(batch)] = pixels.permute(0, 2, 3, 1).numpy()
        changed.flush()
        partial.replace(path)
    return np.load(path, mmap_mode="r")


def degrade(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Warp, blur, recolour and disturb images (n, 3, h, w) in [-1, 1].

    A quarter of the images stays as it is; each other one meets each fault with even odds and a strength of its own.
    """
    n = len(images)

    def draw(*shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return (torch.rand(shape, generator=generator) * (high - low) + low).to(images.device)

    kept = draw(n, 1, 1, 1) < 0.25
    faulty = _warped(images, draw(n, 2, 5, 5, low=-1, high=1) * draw(n, 1, 1, 1) * 0.06)
    blurred = F.avg_pool2d(F.pad(faulty, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    faulty = _pick(torch.lerp(faulty, blurred, draw(n, 1, 1, 1)), faulty, draw(n, 1, 1, 1))
    grey = faulty.mean(dim=1, keepdim=True)
    toned = torch.lerp(faulty, grey, draw(n, 1, 1, 1, low=-0.4, high=0.4)) * draw(n, 1, 1, 1, low=0.7, high=1.2)
    faulty = _pick(toned, faulty, draw(n, 1, 1, 1))
    tinted = faulty * draw(n, 3, 1, 1, low=0.85, high=1.15) + draw(n, 3, 1, 1, low=-0.1, high=0.1)
    faulty = _pick(tinted, faulty, draw(n, 1, 1, 1))
    noise = torch.randn(images.shape, generator=generator).to(images.device) * draw(n, 1, 1, 1) * 0.12
    faulty = _pick(faulty + noise, faulty, draw(n, 1, 1, 1))
    return torch.where(kept, images, faulty).clamp(-1, 1)


def _pick(changed: torch.Tensor, unchanged: torch.Tensor, chance: torch.Tensor) -> torch.Tensor:
    return torch.where(chance < 0.5, changed, unchanged)


def _warped(images: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Move pixels by a smooth field, ``offsets`` (n, 2, k, k) in units of half the image."""
    field = F.interpolate(offsets, size=images.shape[-2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    identity = torch.eye(2, 3, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(identity, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid + field, padding_mode="reflection", align_corners=False)
