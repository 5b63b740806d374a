"""How the annotators are trained: on scenes with known positions, spoilt as generators spoil them (``spoil.py``).

A judge must keep its footing when a generator is optimised and its style drifts; an early one's did not. So each
scene exists in up to four versions: as drawn, through the autoencoder, half-finished, broken. On top come
stretching, warps, blur, tints and noise, drawn anew a step.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from textnorm_lib.images.sampling import autocast
from textnorm_lib.mini import annotators
from textnorm_lib.mini.generator import as_tensor
from textnorm_lib.mini.training.fit import Recipe, fit
from textnorm_lib.mini.training.scenes import Scenes
from textnorm_lib.mini.training.spoil import degrade, stretch
from textnorm_lib.prompts.templates import CLASSES

DETECTOR = Recipe(steps=2_000, learning_rate=1e-3)  # as drawn and through the autoencoder
TUNING = Recipe(steps=1_200, learning_rate=5e-4, warmup=50)  # half-finished and broken scenes as well

Version = tuple[np.ndarray, np.ndarray]  # images uint8 (m, 64, 64, 3) and the objects in them (m, 8, 6)


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
        chosen = np.array([torch.randint(len(versions[kind][0]), (), generator=generator).item() for kind in kinds])
        drawn, objects = (
            np.stack([versions[kind][part][index] for kind, index in zip(kinds, chosen, strict=True)])
            for part in range(2)
        )
        images, objects = stretch(as_tensor(drawn), objects, generator)
        images = degrade(images.to(device), generator)
        locations, styles = torch.from_numpy(scenes.places[chosen]).to(device).T
        with autocast(images.device.type, "bfloat16"):
            predicted = detector(images)
        return annotators.detection_loss(predicted, objects, locations, styles)

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
