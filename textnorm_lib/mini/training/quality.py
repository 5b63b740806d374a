"""How the quality judges are trained: to put versions of one scene in order, and to say how severely each is spoilt.

A step sees groups of three versions of one scene: clean (through the autoencoder), worse, and worse still
(``spoil.py``). The loss is the cross-entropy of the Bradley-Terry model for the three pairs of each group, and,
where the severity is known, that of the quality with 1 - severity: it makes the qualities of different scenes
comparable. Colours say nothing about quality: each version is recoloured on its own.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from textnorm_lib.images.sampling import autocast
from textnorm_lib.mini.generator import as_tensor
from textnorm_lib.mini.quality import QualityNet
from textnorm_lib.mini.training import spoil
from textnorm_lib.mini.training.fit import Recipe, fit
from textnorm_lib.mini.training.scenes import Scenes

QUALITY = Recipe(steps=4_000, learning_rate=1e-3, batch_size=63)
LEAST_SEVERITY, LEAST_GAP = 0.05, 0.2  # of the milder of two versions, and between the two
SHARES = {  # of the groups
    "generated": 0.4,
    "broken": 0.12,
    "mixed": 0.12,
    "unfinished": 0.08,
    "noise": 0.06,
    "warp": 0.1,
    "blur": 0.06,
    "grain": 0.06,
}
SPOILT_GENERATED = 0.5  # of the groups that are spoilt in pixels: they begin with a generated image, not a scene


@dataclass(frozen=True)
class Versions:
    """Versions of n scenes, uint8 (n, 64, 64, 3); the same places belong to the same scene.

    ``spoilt`` and ``severities`` have, by kind, the milder and the more severe version. ``generated``: images of the
    first scenes' captions, in ``spoil.STEPS`` steps.
    """

    clean: np.ndarray
    spoilt: dict[str, tuple[np.ndarray, np.ndarray]]
    severities: dict[str, np.ndarray]
    generated: tuple[np.ndarray, ...]


def make_versions(scenes: Scenes, pipeline, folder: Path, *, generated: int, seed: int) -> Versions:
    """Make all versions of ``scenes`` in ``folder``, or read them back; of ``generated`` captions images as well."""
    count, spoilt, severities = len(scenes.images), {}, {}
    options = {"pipeline": pipeline, "seed": seed}
    clean = spoil.spoilt("noise", scenes, np.zeros(count), path=folder / "clean.npy", **options)
    for number, kind in enumerate(spoil.LATENT_KINDS):
        severities[kind] = draw_severities(count, np.random.default_rng([seed, number]))
        spoilt[kind] = tuple(
            spoil.spoilt(kind, scenes, one, path=folder / f"{kind}_{place}.npy", **options)
            for place, one in enumerate(severities[kind], start=1)
        )
    captions = scenes.captions[:generated]
    made = (
        spoil.generated(captions, path=folder / f"steps_{steps}.npy", steps=steps, **options) for steps in spoil.STEPS
    )
    return Versions(clean, spoilt, severities, tuple(made))


def draw_severities(count: int, generator: np.random.Generator) -> np.ndarray:
    """A milder and a more severe one for each of ``count`` scenes: (2, count) in [0, 1]."""
    mild, gap = generator.random((2, count))
    mild = LEAST_SEVERITY + mild * (0.8 - LEAST_GAP - LEAST_SEVERITY)
    return np.stack([mild, mild + LEAST_GAP + gap * (1 - mild - LEAST_GAP)])


def train_quality(versions: Versions, recipe: Recipe, *, folder: Path, device: str = "cpu") -> QualityNet:
    """Train one judge on groups of three versions: a third as many groups a step as the recipe's batch has images."""
    torch.manual_seed(recipe.seed)
    net = QualityNet().to(device)
    kinds, shares = list(SHARES), torch.tensor(list(SHARES.values()))

    def loss_function(step: int, generator: torch.Generator) -> torch.Tensor:
        drawn = torch.multinomial(shares, recipe.batch_size // 3, replacement=True, generator=generator)
        groups, qualities = zip(*(_group(versions, kinds[one], generator) for one in drawn), strict=True)
        images = _recoloured(torch.cat(groups), generator).to(device)
        with autocast(images.device.type, "bfloat16"):
            logits = net(images)
        return quality_loss(logits.float().view(-1, 3), torch.stack(qualities).to(device))

    fit(net, loss_function, recipe, folder=folder, description=folder.name)
    return net


def quality_loss(logits: torch.Tensor, qualities: torch.Tensor) -> torch.Tensor:
    """The loss of groups (n, 3), the best version first; ``qualities`` are nan where the order alone is known."""
    best, worse, worst = logits.T
    pairs = F.softplus(torch.cat([worse - best, worst - worse, worst - best])).mean()
    known = ~qualities.isnan()
    apart = F.binary_cross_entropy_with_logits(logits[known], qualities[known], reduction="sum")
    return pairs + apart / known.sum().clamp(min=1)  # a small batch may hold no known quality


def _group(versions: Versions, kind: str, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Three versions of a scene, the best first, (3, 3, 64, 64) in [-1, 1], and their qualities (3,) or nan."""

    def one_of(versions: np.ndarray) -> int:
        return int(torch.randint(len(versions), (), generator=generator))

    if kind == "generated":
        place = one_of(versions.generated[0])
        more, fewer = sorted(torch.randperm(len(versions.generated), generator=generator)[:2].tolist())
        steps = (versions.generated[more][place], versions.generated[fewer][place])
        return as_tensor(np.stack([versions.clean[place], *steps])), torch.tensor([1.0, torch.nan, torch.nan])
    if kind in versions.spoilt:
        place = one_of(versions.clean)
        worse = (one[place] for one in versions.spoilt[kind])
        severities = torch.from_numpy(versions.severities[kind][:, place]).float()
        return as_tensor(np.stack([versions.clean[place], *worse])), torch.cat([torch.ones(1), 1 - severities])
    known = torch.rand((), generator=generator) >= SPOILT_GENERATED
    begin = versions.clean if known else versions.generated[0]
    images = as_tensor(begin[one_of(begin)][None]).expand(3, -1, -1, -1)
    seed = int(torch.randint(2**62, (), generator=generator))
    severities = torch.from_numpy(np.append(0.0, draw_severities(1, np.random.default_rng(seed)))).float()
    qualities = 1 - severities if known else torch.full((3,), torch.nan)
    return spoil.spoil_pixels(kind, images, severities, seed=seed), qualities


def _recoloured(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images with other contrast, saturation and tint, half of them mirrored."""

    def draw(*shape: int, low: float, high: float) -> torch.Tensor:
        return torch.rand(len(images), *shape, generator=generator) * (high - low) + low

    images = torch.where(draw(1, 1, 1, low=-1, high=1) < 0, images.flip(-1), images)
    grey = images.mean(dim=1, keepdim=True)
    toned = torch.lerp(images, grey, draw(1, 1, 1, low=-0.4, high=0.4)) * draw(1, 1, 1, low=0.7, high=1.2)
    return (toned * draw(3, 1, 1, low=0.85, high=1.15) + draw(3, 1, 1, low=-0.1, high=0.1)).clamp(-1, 1)
