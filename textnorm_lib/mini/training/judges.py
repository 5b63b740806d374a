"""How the annotators and the quality judges are trained: on scenes spoilt as generators spoil them (``spoil.py``).

An annotator must keep its footing when a generator is optimised and its style drifts; an early one's did not. So each
scene exists in up to four versions: as drawn, through the autoencoder, half-finished, broken. On top come
stretching, warps, blur, tints and noise, drawn anew in each step.

A quality judge learns to put versions of one scene in order, and to say how severely each is spoilt. A step sees groups
of three versions of one scene: clean (through the autoencoder), worse, and worse still. The loss is the cross-entropy
of the Bradley-Terry model for the three pairs of each group, and, where the severity is known, that of the quality with
1 - severity: it makes the qualities of different scenes comparable. Colours say nothing about quality: each version is
recoloured on its own.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from textnorm_lib.mini import annotators
from textnorm_lib.mini.generator import as_tensor
from textnorm_lib.mini.training import spoil
from textnorm_lib.mini.training.fit import fit
from textnorm_lib.mini.training.plan import Recipe
from textnorm_lib.mini.training.scenes import Scenes
from textnorm_lib.prompts.templates import CLASSES

Version = tuple[np.ndarray, np.ndarray]  # images uint8 (m, 64, 64, 3) and the objects in them (m, 8, 6)

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


def train_detector(
    scenes: Scenes,
    versions: Sequence[Version],
    recipe: Recipe,
    *,
    folder: Path,
    detector: annotators.Detector | None = None,
    device: str = "cpu",
) -> annotators.Detector:
    """Train one annotator, or go on with ``detector``.

    The same places in all ``versions`` belong to the same scene; a version may hold the first ones only.
    """
    if detector is None:
        torch.manual_seed(recipe.seed)
        detector = annotators.Detector()
    detector.to(device)

    def loss_function(step: int, generator: torch.Generator) -> torch.Tensor:
        kinds = torch.randint(len(versions), (recipe.batch_size,), generator=generator).tolist()
        chosen = np.array([_one_of(versions[kind][0], generator) for kind in kinds])
        drawn, objects = (
            np.stack([versions[kind][part][index] for kind, index in zip(kinds, chosen, strict=True)])
            for part in range(2)
        )
        images, objects = spoil.stretch(as_tensor(drawn), objects, generator)
        images = spoil.degrade(images.to(device), generator)
        locations, styles = torch.from_numpy(scenes.places[chosen]).to(device).T
        predicted = detector(images)
        return annotators.detection_loss(predicted, objects, locations, styles)

    fit(detector, loss_function, recipe, folder=folder)
    return detector


def _one_of(images: np.ndarray, generator: torch.Generator) -> int:
    return int(torch.randint(len(images), (), generator=generator))


def look(detector: annotators.Detector, images: torch.Tensor) -> list[annotators.Seen]:
    """What ``detector`` sees in ``images`` (n, 3, 64, 64) in [-1, 1], a hundred at a time."""
    return [seen for batch in images.split(100) for seen in annotators.detect(detector, batch)]


def are_exact(seen: Sequence[annotators.Seen], scenes: Scenes, threshold: float) -> np.ndarray:
    """Whether the objects seen in each scene, with at least this score, are exactly those in it: bool (n,)."""
    exact = []
    for one, objects in zip(seen, scenes.objects, strict=True):
        wanted = Counter(CLASSES[int(name)] for name in objects[objects[:, 0] >= 0, 0])
        exact.append(Counter(found.name for found in one.objects if found.score >= threshold) == wanted)
    return np.array(exact)


@torch.no_grad()
def calibrate(detector: annotators.Detector, scenes: Scenes) -> None:
    """Shift the scores so that .5 is where the detector is most often exact on ``scenes``, which it never saw.

    The focal loss leaves them too low: most cells are empty. Half of the weight is on degraded versions. The voting
    rule stays as it is.
    """
    drawn = as_tensor(scenes.images)
    versions = [look(detector, one) for one in (drawn, spoil.degrade(drawn, torch.Generator().manual_seed(0)))]
    thresholds = np.arange(0.2, 0.61, 0.02)
    exact = [np.mean([are_exact(seen, scenes, threshold).mean() for seen in versions]) for threshold in thresholds]
    best = float(thresholds[np.argmax(exact)])
    detector.classes.bias -= float(np.log(best / (1 - best)))


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
    count, options = len(scenes.images), {"pipeline": pipeline, "seed": seed}
    clean = spoil.spoilt("noise", scenes, np.zeros(count), path=folder / "clean.npy", **options)
    severities = {
        kind: draw_severities(count, np.random.default_rng([seed, number]))
        for number, kind in enumerate(spoil.LATENT_KINDS)
    }
    spoilt = {kind: spoilt_twice(kind, scenes, both, folder, **options) for kind, both in severities.items()}
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


def spoilt_twice(
    kind: str, scenes: Scenes, severities: np.ndarray, folder: Path, *, pipeline, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """``spoil.spoilt`` in two ``severities`` (2, n), kept in ``folder``."""
    first, second = (
        spoil.spoilt(kind, scenes, one, pipeline, folder / f"{kind}_{place}.npy", seed=seed)
        for place, one in enumerate(severities, start=1)
    )
    return first, second


def train_quality(versions: Versions, recipe: Recipe, *, folder: Path, device: str = "cpu") -> annotators.QualityNet:
    """Train one judge on groups of three versions: a third as many groups per step as the recipe's batch has images."""
    torch.manual_seed(recipe.seed)
    net = annotators.QualityNet().to(device)
    kinds, shares = list(SHARES), torch.tensor(list(SHARES.values()))

    def loss_function(step: int, generator: torch.Generator) -> torch.Tensor:
        drawn = torch.multinomial(shares, recipe.batch_size // 3, replacement=True, generator=generator)
        groups, qualities = zip(*(_group(versions, kinds[one], generator) for one in drawn), strict=True)
        images = _recoloured(torch.cat(groups), generator).to(device)
        logits = net(images)
        return quality_loss(logits.float().view(-1, 3), torch.stack(qualities).to(device))

    fit(net, loss_function, recipe, folder=folder)
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
    if kind == "generated":
        place = _one_of(versions.generated[0], generator)
        more, fewer = sorted(torch.randperm(len(versions.generated), generator=generator)[:2].tolist())
        steps = (versions.generated[more][place], versions.generated[fewer][place])
        return as_tensor(np.stack([versions.clean[place], *steps])), torch.tensor([1.0, torch.nan, torch.nan])
    if kind in versions.spoilt:
        place = _one_of(versions.clean, generator)
        worse = (one[place] for one in versions.spoilt[kind])
        severities = torch.from_numpy(versions.severities[kind][:, place]).float()
        return as_tensor(np.stack([versions.clean[place], *worse])), torch.cat([torch.ones(1), 1 - severities])
    known = torch.rand((), generator=generator) >= SPOILT_GENERATED
    begin = versions.clean if known else versions.generated[0]
    images = as_tensor(begin[_one_of(begin, generator)][None]).expand(3, -1, -1, -1)
    seed = int(torch.randint(2**62, (), generator=generator))
    severities = torch.from_numpy(np.append(0.0, draw_severities(1, np.random.default_rng(seed)))).float()
    qualities = 1 - severities if known else torch.full((3,), torch.nan)
    return spoil.spoil_pixels(kind, images, severities, seed=seed), qualities


def _recoloured(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Images with other contrast, saturation and tint, half of them mirrored."""
    turned = spoil.uniform(images, generator, low=-1, high=1) < 0
    images = torch.where(turned, images.flip(-1), images)
    return spoil.tinted(spoil.toned(images, generator), generator).clamp(-1, 1)
