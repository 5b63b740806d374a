"""The mini world's quality judges: how good an image looks, whatever it shows.

    judge = load_quality_judge(bundled("annotators/quality_1.safetensors"))
    judge.quality(paths)                    # (n,) float32 in [0, 1]: 1 cleanly drawn, 0 hard to make out

A judge does not know what was asked for. It has learnt to put versions of one scene in order (``training/quality.py``).
"""

from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from textnorm_lib.images.pixels import Images, check, square
from textnorm_lib.mini.annotators import Block, load_weights
from textnorm_lib.mini.generator import IMAGE_SIZE, as_tensor
from textnorm_lib.optimise.pool import QUALITY
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.processes import in_workers
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import step
from textnorm_lib.study.weights import Weights
from textnorm_lib.tia2.labels import INDEX

BATCH_SIZE = 64  # fixed: the last bits may depend on it
_SEEN_AT_ONCE = 512  # images of a task of several processes


class QualityNet(nn.Module):
    """Image (n, 3, 64, 64) in [-1, 1] -> logit of its quality (n,)."""

    def __init__(self, widths: tuple[int, int, int] = (24, 48, 64)) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.features = nn.Sequential(
            nn.Conv2d(3, fine, 4, stride=2, padding=1),
            Block(fine),
            nn.Conv2d(fine, middle, 4, stride=2, padding=1),
            Block(middle),
            nn.Conv2d(middle, coarse, 4, stride=2, padding=1),
            Block(coarse),
            Block(coarse),
            nn.GroupNorm(8, coarse),
            nn.SiLU(),
        )
        self.quality = nn.Linear(2 * coarse, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.features(images)  # (n, coarse, 8, 8)
        whole_and_worst = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        return self.quality(whole_and_worst)[:, 0]


@dataclass(frozen=True)
class QualityJudge:
    """``name`` says in messages who judges; ``load_quality_judge`` is the way to make one."""

    name: str
    net: QualityNet

    @torch.no_grad()
    def quality(self, images: Images) -> np.ndarray:
        """How good each image looks: (n,) float32 in [0, 1].

        ``images`` as rewards take them: uint8 (n, h, w, 3), or a list of PIL images or paths; each is scaled to 64
        pixels. Raises ``DataError`` for anything else, an empty list and a file that is no image.
        """
        check(images, ["whatever it shows"], self.name)
        logits = []
        for start in progress(range(0, len(images), BATCH_SIZE), f"{self.name}: images", unit="batch"):
            numbers = range(start, min(start + BATCH_SIZE, len(images)))
            pixels = [square(images[number], IMAGE_SIZE, f"{self.name}: image {number}") for number in numbers]
            logits.append(self.net(as_tensor(np.stack(pixels))))
        return torch.cat(logits).sigmoid().numpy()


def load_quality_judge(path: Path | str) -> QualityJudge:
    """The judge whose weights are the safetensors file ``path``, in single precision, named as the file.

    Raises ``DataError`` for a file that is missing, not a quality judge's, or has weights that are not finite.
    """
    path, net = Path(path), QualityNet()
    load_weights(net, path, "a quality judge", "annotators/quality_1.safetensors")
    return QualityJudge(path.stem, net.eval())


@step(1, unkeyed=("workers",))
def rate_quality(made: Path, *judges: Weights, workers: int) -> pd.DataFrame:
    """How well each image in the folder ``made`` is drawn, by three judges in [0, 1]: image, quality_1 .. quality_3.

    Raises ``DataError`` for other than three judges.
    """
    if len(judges) != len(QUALITY):
        raise DataError(f"{len(judges)} quality judges; give three (in a profile: quality_judges)")
    names = pd.read_parquet(made / INDEX)["image"]
    tasks = [
        [made / name for name in names[start : start + _SEEN_AT_ONCE]] for start in range(0, len(names), _SEEN_AT_ONCE)
    ]
    rated = in_workers(partial(_rate, files=tuple(judge.path for judge in judges)), tasks, workers=workers)
    values = np.concatenate(list(progress(rated, "quality", total=len(tasks), unit="batches")))
    return pd.DataFrame(values, columns=list(QUALITY)).assign(image=names)


def _rate(images: list[Path], *, files: tuple[Path, ...]) -> np.ndarray:
    """The judges' numbers for each image: (n, 3)."""
    return np.stack([_quality_judge(file, file.stat().st_mtime_ns).quality(images) for file in files], axis=1)


@cache
def _quality_judge(file: Path, modified: int):
    """A process loads each judge once, and again only when it was written again."""
    return load_quality_judge(file)
