"""Scenes spoilt as generators spoil them: what annotators must not be thrown by, and what quality judges must notice.

*Annotators* learn from versions of a scene. Two show what the scene shows, worse: *restored*, through the autoencoder
with the latent disturbed, and *half-finished*, noised and denoised by the generator in a few steps. One shows less: in
*broken* scenes some objects are cut to pieces, and what nobody would recognise counts as no object. ``stretch`` and
``degrade`` work on any of these, drawn anew in each training step.

*Quality judges* learn from versions of a scene whose order is known: ``spoilt`` by degrees, or ``generated`` in more
and in fewer steps. Severity 0 is the scene through the autoencoder (and, where the generator mends, what it makes of
that); at 1 its objects are hard to make out. Of two versions of one kind the more severe one continues what the other
began (the same noise, the same pieces), so that it is worse and not just different. Kinds in the latent are made once
and kept on disk, kinds in pixels are drawn anew in each training step. Of generated images the order of severity alone
is known, not the severity.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from textnorm_lib.mini.generator import IMAGE_SIZE, LATENT_SHAPE, as_tensor
from textnorm_lib.mini.training.scenes import Scenes
from textnorm_lib.study.progress import progress

CELL = 4  # pixels of a latent's cell
BATCH = 64  # images that are spoilt at a time; what is drawn for them follows from it

LATENT_NOISE = 0.3  # the most that a latent is disturbed by, in units of its own spread
LATEST_TIME = 450  # half-finished images start from here at most: what is noised further may change its content
SLIGHT_TIME = 160  # the same for broken scenes: from later times the generator mends what was broken
STRETCH = 0.15  # the most that ``stretch`` moves a pixel, in units of half the image

MOST_NOISE = 0.7  # on the latent at severity 1, in units of its own spread
MOST_SWAPS = 12  # pieces of an object that change places
MOST_MIXED = 0.5  # share of the image that another scene takes
LATEST_START = 800  # of 1,000, from which unfinished versions are denoised in one step
MENDING_TIMES, MENDING_STEPS = (100, 350), 3  # what is broken or mixed is smoothed by the generator
MOST_BLUR = 2.0  # pixels, the standard deviation
MOST_WARP = 0.12  # in units of half the image
MOST_GRAIN = 0.2  # the standard deviation, of pixels in [-1, 1]
STEPS = (8, 5, 3, 2)  # in which images are generated, from the best to the worst
GUIDANCE = (1.0, 4.0)  # between these


# What is made once, and kept as an array of images.


@torch.no_grad()
def _written_once(images: np.ndarray, change, path: Path, *, seed: int) -> np.ndarray:
    """``change`` (batch, which, generator) applied to all images, written once and memory-mapped."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        changed = np.lib.format.open_memmap(partial, "w+", dtype=np.uint8, shape=images.shape)
        for start in progress(range(0, len(images), BATCH), path.stem, unit="batch"):
            generator = Generator().manual_seed(seed * 1_000_003 + start)
            which = slice(start, min(start + BATCH, len(images)))
            batch = change(images[which], which, generator).float().cpu()
            changed[which] = as_pixels(batch.clamp(-1, 1))
        changed.flush()
        partial.replace(path)
    return np.load(path, mmap_mode="r")


def as_pixels(images: Tensor) -> np.ndarray:
    """(n, 3, h, w) in [-1, 1] -> uint8 (n, h, w, 3)."""
    return ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def _through_latents(images: np.ndarray, autoencoder, change, path: Path, *, seed: int) -> np.ndarray:
    """``_written_once`` with ``change`` (latents, which, generator) on the images' latents, which are not scaled."""

    def through(batch: np.ndarray, which: slice, generator: Generator) -> Tensor:
        latents = autoencoder.encode(as_tensor(batch).to(autoencoder.device)).latent_dist.mean
        return autoencoder.decode(change(latents, which, generator)).sample

    return _written_once(images, through, path, seed=seed)


def restored(scenes: Scenes, autoencoder, path: Path, *, count: int, seed: int) -> np.ndarray:
    """The first ``count`` scenes through the autoencoder, the latent disturbed at random: uint8, at ``path``."""
    scale = autoencoder.config.scaling_factor

    def disturb(latents: Tensor, which: slice, generator: Generator) -> Tensor:
        strength = torch.rand(len(latents), 1, 1, 1, generator=generator) * LATENT_NOISE / scale
        disturbance = strength * torch.randn(latents.shape, generator=generator)
        return latents + disturbance.to(latents.device)

    return _through_latents(scenes.images[:count], autoencoder, disturb, path, seed=seed)


def half_finished(
    scenes: Scenes, pipeline, path: Path, *, count: int, seed: int, latest_time: int = LATEST_TIME
) -> np.ndarray:
    """The first ``count`` scenes, noised and denoised by the generator in one to three steps: uint8, at ``path``."""
    scale = pipeline.vae.config.scaling_factor

    def finish(latents: Tensor, which: slice, generator: Generator) -> Tensor:
        latents = latents * scale
        steps = int(torch.randint(1, 4, (), generator=generator))
        latest = torch.randint(latest_time // 4, latest_time, (), generator=generator).item()
        times = torch.linspace(latest, 0, steps + 1).long()
        noise = torch.randn(latents.shape, generator=generator).to(latents.device)
        noisy = pipeline.scheduler.add_noise(latents, noise, times[:1].expand(len(latents)))
        return _denoised(pipeline, noisy, times, scenes.captions[which]) / scale

    return _through_latents(scenes.images[:count], pipeline.vae, finish, path, seed=seed)


def broken(scenes: Scenes, autoencoder, path: Path, *, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The first ``count`` scenes, about half of the objects in them cut to pieces: uint8, at ``path``; objects left.

    Objects as in ``Scenes``, without those that were cut. Only what stands apart from all others is cut.
    """
    objects = scenes.objects[:count].copy()
    cut = _apart(objects) & (np.random.default_rng(seed).random(objects.shape[:2]) < 0.5)

    def shuffle(latents: Tensor, which: slice, generator: Generator) -> Tensor:
        for offset, slot in np.argwhere(cut[which]):
            _shuffle_pieces(latents[offset], objects[which.start + offset, slot, 1:5], generator)
        return latents

    images = _through_latents(scenes.images[:count], autoencoder, shuffle, path, seed=seed)
    return images, np.where(cut[..., None], np.float32(-1), objects)


def _apart(objects: np.ndarray) -> np.ndarray:
    """Which objects (n, 8, 6) are further than a cell from every other one: bool (n, 8)."""
    there = objects[..., 0] >= 0
    low, high = objects[:, :, None, 1:3], objects[:, :, None, 3:5]
    other_low, other_high = objects[:, None, :, 1:3], objects[:, None, :, 3:5]
    near = ((low < other_high + CELL) & (other_low < high + CELL)).all(axis=-1)
    near &= there[:, None, :] & ~np.eye(objects.shape[1], dtype=bool)
    return there & ~near.any(axis=-1)


def _shuffle_pieces(latent: Tensor, box: np.ndarray, generator: Generator) -> None:
    """Permute square pieces of ``latent`` (4, h, w) within ``box``, about three pieces per side, in place."""
    grid = latent.shape[-1]
    x0, y0 = np.clip(box[:2] // CELL, 0, grid).astype(int)
    x1, y1 = np.clip(-(-box[2:] // CELL), 0, grid).astype(int)
    side = max(1, min(x1 - x0, y1 - y0) // 3)
    places = list(itertools.product(range(y0, y1 - side + 1, side), range(x0, x1 - side + 1, side)))
    pieces = [latent[:, y : y + side, x : x + side].clone() for y, x in places]
    for (y, x), piece in zip(places, torch.randperm(len(places), generator=generator).tolist(), strict=True):
        latent[:, y : y + side, x : x + side] = pieces[piece].flip(-1)


def spoilt(kind: str, scenes: Scenes, severities: np.ndarray, pipeline, path: Path, *, seed: int) -> np.ndarray:
    """Scenes spoilt in the latent, scene i with ``severities[i]``: uint8 (n, 64, 64, 3), kept at ``path``."""
    device, scale = pipeline.vae.device, pipeline.vae.config.scaling_factor

    def spoil(latents: Tensor, which: slice, generator: Generator) -> Tensor:
        severity = torch.from_numpy(severities[which]).float()
        latents = LATENT_KINDS[kind](latents.float().cpu() * scale, severity, scenes.objects[which], generator)
        times = _times(kind, severity, generator)
        if times is not None:
            noisy = pipeline.scheduler.add_noise(latents, torch.randn(latents.shape, generator=generator), times[0])
            latents = _denoised(pipeline, noisy.to(device), times, scenes.captions[which])
        return latents.to(device) / scale

    return _through_latents(scenes.images, pipeline.vae, spoil, path, seed=seed)


def _times(kind: str, severity: Tensor, generator: Generator) -> Tensor | None:
    """Between which times the generator denoises: (steps + 1, n, 1, 1, 1)."""
    if kind == "noise":
        return None
    if kind == "unfinished":
        latest, steps = severity.sqrt() * LATEST_START, 1
    else:
        low, high = MENDING_TIMES
        latest, steps = (low + (high - low) * torch.rand((), generator=generator)).expand(len(severity)), MENDING_STEPS
    shares = torch.linspace(1, 0, steps + 1)[:, None]
    return (shares * latest).long()[..., None, None, None]


def _denoised(pipeline, noisy: Tensor, times: Tensor, captions: list[str]) -> Tensor:
    """Latents ``noisy`` (n, 4, h, w) after the generator's steps from each of ``times`` to the next, without guidance.

    ``times`` (steps + 1,), or (steps + 1, n, 1, 1, 1) where every image has its own.
    """
    tokens = pipeline.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    text = pipeline.text_encoder(tokens.to(noisy.device)).last_hidden_state
    for now, later in itertools.pairwise(times):
        velocity = pipeline.unet(noisy, now.flatten().to(noisy.device), text).sample
        before, after = (pipeline.scheduler.alphas_cumprod[time].to(noisy.device) for time in (now, later))
        clean = before.sqrt() * noisy - (1 - before).sqrt() * velocity
        noise = before.sqrt() * velocity + (1 - before).sqrt() * noisy
        noisy = after.sqrt() * clean + (1 - after).sqrt() * noise
    return clean


def _noise(latents: Tensor, severity: Tensor, objects: np.ndarray, generator: Generator) -> Tensor:
    """White noise."""
    return latents + MOST_NOISE * severity.view(-1, 1, 1, 1) * torch.randn(latents.shape, generator=generator)


def _broken(latents: Tensor, severity: Tensor, objects: np.ndarray, generator: Generator) -> Tensor:
    """Square pieces of objects change places, one pair after the other."""
    latents = latents.clone()
    grid = latents.shape[-1]
    for latent, swaps, own in zip(latents, (severity * MOST_SWAPS).round().int().tolist(), objects, strict=True):
        own = own[own[:, 0] >= 0]
        drawn = torch.rand(MOST_SWAPS, 6, generator=generator).tolist()
        for which, size, *corners in drawn[:swaps]:
            box = own[int(which * len(own)), 1:5] / CELL
            side = 2 + int(size * 2)
            low, high = np.floor(box[:2]), np.maximum(np.ceil(box[2:]) - side, np.floor(box[:2]))
            places = (low + np.array(corners).reshape(2, 2) * (high - low)).round().clip(0, grid - side).astype(int)
            (x0, y0), (x1, y1) = places.tolist()
            first, second = (latent[:, y : y + side, x : x + side].clone() for x, y in places.tolist())
            latent[:, y0 : y0 + side, x0 : x0 + side] = second.flip(-1)
            latent[:, y1 : y1 + side, x1 : x1 + side] = first.flip(-1)
    return latents


def _mixed(latents: Tensor, severity: Tensor, objects: np.ndarray, generator: Generator) -> Tensor:
    """Parts of the scene before it in the batch, their outlines soft: halves of objects, and blends of two."""
    field = torch.rand(len(latents), 1, 6, 6, generator=generator)
    field = F.interpolate(field, size=latents.shape[-2:], mode="bicubic", align_corners=True)
    ranks = field.flatten(1).argsort(dim=1).argsort(dim=1).view_as(field) / field[0].numel()
    share = MOST_MIXED * severity.view(-1, 1, 1, 1)
    return torch.lerp(latents, latents.roll(1, dims=0), ((share - ranks) * 20).sigmoid() * (share > 0))


LATENT_KINDS: dict[str, Callable[..., Tensor]] = {
    "noise": _noise,
    "broken": _broken,
    "mixed": _mixed,
    "unfinished": lambda latents, *_: latents,  # it is noised to a later time before it is denoised
}


def generated(captions: list[str], pipeline, path: Path, *, steps: int, seed: int) -> np.ndarray:
    """An image of each caption in so many steps: uint8 (n, 64, 64, 3), kept at ``path``.

    First noise and guidance depend on ``seed`` and the caption's place, not on ``steps``.
    """
    pipeline.set_progress_bar_config(disable=True)

    def make(batch: np.ndarray, which: slice, generator: Generator) -> Tensor:
        low, high = GUIDANCE
        guidance = low + (high - low) * torch.rand((), generator=generator).item()
        noise = torch.randn(len(batch), *LATENT_SHAPE, generator=generator)
        options = {"num_inference_steps": steps, "guidance_scale": guidance, "output_type": "pt"}
        return pipeline(captions[which], latents=noise, **options).images * 2 - 1

    images = np.zeros((len(captions), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    return _written_once(images, make, path, seed=seed)


# What is drawn anew in each training step, in pixels: images (n, 3, h, w) in [-1, 1].


def stretch(images: Tensor, objects: np.ndarray, generator: Generator) -> tuple[Tensor, np.ndarray]:
    """Stretch and squeeze half of the images (n, 3, 64, 64) smoothly, the borders staying where they are.

    Objects (n, 8, 6) as in ``Scenes`` come back with their boxes moved along.
    """
    n = len(images)
    strength = STRETCH * (torch.rand(n, 1, 1, 1, generator=generator) * 2 - 1).clamp(min=0)  # half of them zero
    offsets = F.pad((torch.rand(n, 2, 3, 3, generator=generator) * 2 - 1) * strength, (1, 1, 1, 1))
    field = F.interpolate(offsets, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", align_corners=True)
    middles = torch.from_numpy((objects[..., 1:3] + objects[..., 3:5]) / IMAGE_SIZE - 1)[:, :, None]
    moved = middles
    for _ in range(10):  # a pixel shows what lay at its place plus the field there: solved for the place
        moved = middles - F.grid_sample(field, moved, padding_mode="border", align_corners=False).permute(0, 2, 3, 1)
    shift = (moved - middles)[:, :, 0].numpy() * (IMAGE_SIZE / 2)
    objects = objects.copy()
    objects[..., 1:5] += np.tile(shift, 2)
    return _warped(images, offsets.to(images.device)), objects


def degrade(images: Tensor, generator: Generator) -> Tensor:
    """Warp, blur, recolour and disturb images.

    A quarter of the images stays as it is; each other one meets each fault with even odds and a strength of its own.
    """
    kept = uniform(images, generator) < 0.25
    offsets = uniform(images, generator, 2, 5, 5, low=-1, high=1) * uniform(images, generator) * 0.06
    faulty = _warped(images, offsets)
    for change in (_blurred, toned, tinted, _noisy):
        changed = change(faulty, generator)
        faulty = torch.where(uniform(images, generator) < 0.5, changed, faulty)
    return torch.where(kept, images, faulty).clamp(-1, 1)


def uniform(images: Tensor, generator: Generator, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Random numbers of ``shape``, by default one, for each image, where the images are."""
    drawn = torch.rand(len(images), *(shape or (1, 1, 1)), generator=generator)
    return (drawn * (high - low) + low).to(images.device)


def _blurred(images: Tensor, generator: Generator) -> Tensor:
    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.lerp(images, blurred, uniform(images, generator))


def toned(images: Tensor, generator: Generator) -> Tensor:
    """Images with other saturation and contrast."""
    saturation = uniform(images, generator, low=-0.4, high=0.4)
    grey = images.mean(dim=1, keepdim=True)
    return torch.lerp(images, grey, saturation) * uniform(images, generator, low=0.7, high=1.2)


def tinted(images: Tensor, generator: Generator) -> Tensor:
    """Images with each channel stronger or weaker, lighter or darker."""
    strength = uniform(images, generator, 3, 1, 1, low=0.85, high=1.15)
    return images * strength + uniform(images, generator, 3, 1, 1, low=-0.1, high=0.1)


def _noisy(images: Tensor, generator: Generator) -> Tensor:
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return images + noise * uniform(images, generator) * 0.12


def spoil_pixels(kind: str, images: Tensor, severities: Tensor, *, seed: int) -> Tensor:
    """Versions of images, image i with ``severities[i]``; with the same noise."""
    generator = Generator().manual_seed(seed)
    return PIXEL_KINDS[kind](images, severities.view(-1, 1, 1, 1), generator).clamp(-1, 1)


def _blur(images: Tensor, severity: Tensor, generator: Generator) -> Tensor:
    reach = torch.arange(-5, 6)
    kernel = torch.exp(-reach.square() / (2 * (MOST_BLUR * severity).clamp(min=1e-3).square()))
    kernel = (kernel / kernel.sum(dim=-1, keepdim=True)).repeat_interleave(3, dim=0)  # (3 n, 1, 1, 11)
    flat = F.pad(images, (5, 5, 5, 5), mode="replicate").flatten(0, 1)[None]
    flat = F.conv2d(F.conv2d(flat, kernel, groups=len(kernel)), kernel.transpose(2, 3), groups=len(kernel))
    return flat[0].view_as(images)


def _warp(images: Tensor, severity: Tensor, generator: Generator) -> Tensor:
    offsets = (torch.rand(1, 2, 12, 12, generator=generator) * 2 - 1) * severity * MOST_WARP
    return _warped(images, offsets)


def _grain(images: Tensor, severity: Tensor, generator: Generator) -> Tensor:
    return images + MOST_GRAIN * severity * torch.randn(1, *images.shape[1:], generator=generator)


PIXEL_KINDS: dict[str, Callable[..., Tensor]] = {"blur": _blur, "warp": _warp, "grain": _grain}


def _warped(images: Tensor, offsets: Tensor) -> Tensor:
    """Move pixels by a smooth field, ``offsets`` (n, 2, k, k) in units of half the image."""
    field = F.interpolate(offsets, size=images.shape[-2:], mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    identity = torch.eye(2, 3, device=images.device).expand(len(images), 2, 3)
    grid = F.affine_grid(identity, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid + field, padding_mode="reflection", align_corners=False)
