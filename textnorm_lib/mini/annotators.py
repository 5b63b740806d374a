"""The mini world's annotators: object detectors with a frozen rule for votes, and judges of how well an image is drawn.

A detector (after Zhou et al. 2019, "Objects as Points") sees an image (3, 64, 64) and gives, on 16 x 16 cells, how
likely an object of each of the 25 classes has its centre there, and the colour that it shows; and for the whole
image the location and the style. An object is a local maximum of the class map.

**The rule** (frozen before any image was generated; the data card repeats it). At a threshold t, an image shows what a
prompt asks for if the objects with a score of at least t are exactly those asked for: every class as often as asked, no
other class, each in the colour, the relation, the location and the style that the prompt names. The vote is good if
that holds at both t = .45 and t = .55, bad if at neither, and a skip if they differ.

A quality judge does not know what was asked for. It has learnt to put versions of one scene in order
(``training/judges.py``).

    judge = load_quality_judge(bundled("annotators/quality_1.safetensors"))
    judge.quality(paths)                    # (n,) float32 in [0, 1]: 1 cleanly drawn, 0 hard to make out
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from textnorm_lib.images.pixels import Images, check, square
from textnorm_lib.mini.drawings import COLOURS
from textnorm_lib.mini.generator import IMAGE_SIZE, as_tensor
from textnorm_lib.mini.styles import LOCATIONS, STYLES
from textnorm_lib.optimise.pool import QUALITY
from textnorm_lib.prompts.grammar import Spec, parse
from textnorm_lib.prompts.templates import CLASSES
from textnorm_lib.study.errors import LONGEST_PATH, DataError, check_regular, shown
from textnorm_lib.study.processes import in_workers
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import step
from textnorm_lib.study.weights import Weights
from textnorm_lib.tia2.labels import ANNOTATORS, INDEX

STRIDE = 4
THRESHOLDS = (0.45, 0.55)
LOWEST_SCORE = 0.2  # detections below it are never looked at
COLOUR_NAMES = (None, *COLOURS)
LOCATION_NAMES = (None, *LOCATIONS)
STYLE_NAMES = tuple(STYLES)
VOTED_AT_ONCE = 64  # images; fixed, as a network's arithmetic may depend on it in the last bits
_SEEN_AT_ONCE = 512  # images of a task in which several processes judge quality


@dataclass(frozen=True)
class Detection:
    """One object: its class, the score in [0, 1], the centre (x, y) in pixels and the colour it shows."""

    name: str
    score: float
    centre: tuple[float, float]
    colour: str | None


@dataclass(frozen=True)
class Seen:
    """What a detector sees in an image: objects, best score first, the location and the style."""

    objects: tuple[Detection, ...]
    location: str | None
    style: str


class Block(nn.Module):
    """Two convolutions around a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(2))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        change = self.first(F.silu(self.norms[0](features)))
        return features + self.second(F.silu(self.norms[1](change)))


class Detector(nn.Module):
    """Image (n, 3, 64, 64) in [-1, 1] -> class map (n, 25, 16, 16), colours (n, 9, 16, 16), location, style: logits."""

    def __init__(self, width: int = 96, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 2, 4, stride=2, padding=1),
            Block(width // 2),
            nn.Conv2d(width // 2, width, 4, stride=2, padding=1),
        )
        self.fine = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.coarse = nn.Sequential(
            nn.Conv2d(width, width, 4, stride=2, padding=1), *(Block(width) for _ in range(depth))
        )
        self.merged = nn.Sequential(Block(width), nn.GroupNorm(8, width), nn.SiLU())
        self.classes = nn.Conv2d(width, len(CLASSES), 1)
        self.colours = nn.Conv2d(width, len(COLOUR_NAMES), 1)
        self.location = nn.Linear(width, len(LOCATION_NAMES))
        self.style = nn.Linear(width, len(STYLE_NAMES))
        nn.init.constant_(self.classes.bias, -4.0)  # almost every cell is empty

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        features = self.fine(self.stem(images))
        context = self.coarse(features)
        features = self.merged(features + F.interpolate(context, scale_factor=2, mode="nearest"))
        whole = features.mean(dim=(2, 3))
        return self.classes(features), self.colours(features), self.location(whole), self.style(whole)


def targets(objects: np.ndarray, grid: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Class maps (n, 25, g, g) with a bump at each centre, the colour index (n, g, g) there, and where centres are.

    ``objects`` (n, 8, 6): class index, box in pixels, colour index; class -1 is padding.
    """
    maps = torch.zeros(len(objects), len(CLASSES), grid, grid)
    colours = torch.zeros(len(objects), grid, grid, dtype=torch.long)
    centres = torch.zeros(len(objects), grid, grid, dtype=torch.bool)
    axis = torch.arange(grid)
    for index, rows in enumerate(objects):
        for name, x0, y0, x1, y1, colour in rows[rows[:, 0] >= 0]:
            column, row = (min(grid - 1, int((a + b) / 2 / STRIDE)) for a, b in ((x0, x1), (y0, y1)))
            spread = max(0.6, min(x1 - x0, y1 - y0) / STRIDE / 6)
            distance = (axis - row).square()[:, None] + (axis - column).square()[None]
            bump = torch.exp(-distance / (2 * spread**2))
            maps[index, int(name)] = torch.maximum(maps[index, int(name)], bump)
            colours[index, row, column] = int(colour)
            centres[index, row, column] = True
    return maps, colours, centres


def detection_loss(
    predicted: tuple[torch.Tensor, ...], objects: np.ndarray, locations: torch.Tensor, styles: torch.Tensor
) -> torch.Tensor:
    """Focal loss of the class map (Law and Deng 2018), and cross-entropies of colour, location and style."""
    class_logits, colour_logits, location_logits, style_logits = (part.float() for part in predicted)
    maps, colours, centres = (part.to(class_logits.device) for part in targets(objects, class_logits.shape[-1]))
    likely = class_logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    is_centre = maps == 1.0
    missed = -((1 - likely) ** 2 * likely.log())[is_centre].sum()
    invented = -((1 - maps) ** 4 * likely**2 * (1 - likely).log())[~is_centre].sum()
    focal = (missed + invented) / max(1, int(is_centre.sum()))
    colour = F.cross_entropy(colour_logits.permute(0, 2, 3, 1)[centres], colours[centres])
    whole = F.cross_entropy(location_logits, locations) + F.cross_entropy(style_logits, styles)
    return focal + 0.5 * colour + 0.3 * whole


@torch.no_grad()
def detect(detector: Detector, images: torch.Tensor) -> list[Seen]:
    """What ``detector`` sees in ``images`` (n, 3, 64, 64) in [-1, 1]."""
    class_logits, colour_logits, location_logits, style_logits = (part.float() for part in detector(images))
    scores = class_logits.sigmoid()
    best, names = scores.max(dim=1)
    peaks = (best == F.max_pool2d(best[:, None], 3, stride=1, padding=1)[:, 0]) & (best >= LOWEST_SCORE)
    colours = colour_logits.argmax(dim=1)
    seen = []
    for index in range(len(images)):
        found = [
            Detection(
                CLASSES[names[index, row, column]],
                best[index, row, column].item(),
                ((column + 0.5) * STRIDE, (row + 0.5) * STRIDE),
                COLOUR_NAMES[colours[index, row, column]],
            )
            for row, column in peaks[index].nonzero().tolist()
        ]
        found.sort(key=lambda one: -one.score)
        location, style = int(location_logits[index].argmax()), int(style_logits[index].argmax())
        seen.append(Seen(tuple(found), LOCATION_NAMES[location], STYLE_NAMES[style]))
    return seen


def vote(seen: Seen, spec: Spec) -> int:
    """1 good, 0 bad, -1 skip: the module's rule."""
    low, high = (shows(seen, spec, threshold) for threshold in THRESHOLDS)
    return int(low) if low == high else -1


def shows(seen: Seen, spec: Spec, threshold: float) -> bool:
    """Whether the objects with at least this score are exactly what ``spec`` asks for."""
    found = [one for one in seen.objects if one.score >= threshold]
    colours = {asked.name: asked.colour for asked in spec.objects if asked.colour is not None}
    return (
        Counter(one.name for one in found) == Counter({asked.name: asked.count for asked in spec.objects})
        and all(colours.get(one.name, one.colour) == one.colour for one in found)
        and spec.location in (None, seen.location)
        and seen.style == spec.style
        and (spec.relation is None or _related(found, spec))
    )


def _related(found: Sequence[Detection], spec: Spec) -> bool:
    """Whether the first asked object lies left of, right of or above the second: further that way than sideways."""
    places = {one.name: np.array(one.centre) for one in found}
    across, down = places[spec.objects[0].name] - places[spec.objects[1].name]
    if spec.relation == "top":
        return down < 0 and abs(down) > abs(across)
    return (across < 0) == (spec.relation == "left") and abs(across) > abs(down)


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
        """How good each image looks: (n,) float32 in [0, 1]; each is scaled to 64 pixels.

        ``images`` as rewards take them: uint8 (n, h, w, 3), or a list of PIL images or paths. Raises ``DataError`` for
        anything else, an empty list and a file that is no image.
        """
        check(images, ["whatever it shows"], self.name)
        logits = []
        for start in progress(range(0, len(images), VOTED_AT_ONCE), f"{self.name}: images", unit="batch"):
            numbers = range(start, min(start + VOTED_AT_ONCE, len(images)))
            pixels = [square(images[number], IMAGE_SIZE, f"{self.name}: image {number}") for number in numbers]
            logits.append(self.net(as_tensor(np.stack(pixels))))
        return torch.cat(logits).sigmoid().numpy()


def load_annotator(path: Path) -> Detector:
    """The annotator whose weights are the safetensors file ``path``, in single precision, ready to look at images.

    Raises ``DataError`` for a file that is missing, not an annotator's, or has weights that are not finite.
    """
    return _loaded(Detector(), path, "an annotator", "annotators/judge_1.safetensors")


def load_quality_judge(path: Path | str) -> QualityJudge:
    """The judge whose weights are the safetensors file ``path``, named as the file; else as ``load_annotator``."""
    path = Path(path)
    return QualityJudge(path.stem, _loaded(QualityNet(), path, "a quality judge", "annotators/quality_1.safetensors"))


def _loaded(net: nn.Module, path: Path, of: str, example: str) -> nn.Module:
    """``net`` with the weights in ``path``: weights of ``of``, such as the bundled ``example``."""
    remedy = f"give the weights of {of}, such as the bundled {example}"
    try:
        check_regular(path)
        net.load_state_dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be read ({shown(error, LONGEST_PATH)}); {remedy}") from None
    except RuntimeError:  # other names or shapes, one line each
        raise DataError(f"{path}: these are not the weights of {of}; {remedy}") from None
    for name, value in net.state_dict().items():
        if not value.isfinite().all():
            raise DataError(f"{path}: the weight {name} is not finite; {remedy}")
    return net.eval()


@step(1, unkeyed=("workers",))
def collect_votes(made: Path, *annotators: Weights, workers: int) -> pd.DataFrame:
    """The votes of three annotators on the images in the folder ``made``: set, image, prompt, annotator (1..3), vote.

    Raises ``DataError`` for an image that cannot be read, for other than three annotators, and for a prompt that these
    do not understand: an unknown class, a count beyond eight, an empty one.
    """
    if len(annotators) != len(ANNOTATORS):
        raise DataError(f"{len(annotators)} annotators; give three (in a profile: annotators)")
    index = pd.read_parquet(made / INDEX)
    tasks = [index.iloc[start : start + VOTED_AT_ONCE] for start in range(0, len(index), VOTED_AT_ONCE)]
    files = tuple(annotator.path for annotator in annotators)
    given = in_workers(partial(_vote, folder=made, files=files), tasks, workers=workers)
    votes = np.concatenate(list(progress(given, "votes", total=len(tasks), unit="batches")))
    rows = index[["set", "image", "prompt"]].loc[index.index.repeat(len(ANNOTATORS))].reset_index(drop=True)
    return rows.assign(annotator=np.tile(ANNOTATORS, len(index)), vote=votes.ravel())


def _vote(images: pd.DataFrame, *, folder: Path, files: tuple[Path, ...]) -> np.ndarray:
    """The votes of the annotators in ``files`` on rows of the index: (n, 3)."""
    pixels = as_tensor(read_images(folder / name for name in images["image"]))
    specs = [parse(prompt) for prompt in images["prompt"]]
    seen = [detect(_of_this_process(load_annotator, file), pixels) for file in files]
    return np.array([[vote(*pair) for pair in zip(by_one, specs, strict=True)] for by_one in seen]).T


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
    return np.stack([_of_this_process(load_quality_judge, file).quality(images) for file in files], axis=1)


def _of_this_process(load: Callable, file: Path):
    """A process loads each file once, and again only when it was written again."""
    return _load_once(load, file, file.stat().st_mtime_ns)


@cache
def _load_once(load: Callable, file: Path, modified: int):
    return load(file)


def read_images(paths: Iterable[Path]) -> np.ndarray:
    """Images of one size as uint8 (n, h, w, 3). Raises ``DataError`` for one that cannot be read."""
    images = []
    for path in paths:
        try:
            images.append(np.asarray(Image.open(path).convert("RGB")))
        except OSError as error:
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: cannot be read ({reason}); delete its folder and run again") from None
    return np.stack(images)
