"""Scenes: a prompt's specification becomes an image of 64 x 64 pixels and the objects' true boxes.

A scene is drawn ``SUPERSAMPLING`` times as large and reduced, because Pillow does not smooth what it draws. Objects
vary in place, size, rotation and tint, lie wholly inside the frame and hardly cover each other. The same specification
and generator give the same scene, bit for bit.
"""

import colorsys
import io
import itertools
import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from textnorm_lib.mini.drawings import COLOURS, DRAWINGS, PAINTS, RGB, from_hsv, rotate
from textnorm_lib.mini.styles import GROUND_TOP, STYLES, Pens, location_ground
from textnorm_lib.prompts.grammar import Asked, Spec, write
from textnorm_lib.prompts.sets import sample_spec
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import step

SIZE = 64
SUPERSAMPLING = 4
OVERLAP = 0.02  # of the smaller of two boxes: their corners may, the objects inside them hardly ever touch
MARGIN = 0.5  # pixels between any object and the frame
SMALLEST_RADIUS = 6.6  # pixels: below it detectors, and people, begin to miss objects
# Radii in pixels by the number of objects, from the smallest to the largest tried first.
RADII = {1: (11, 19), 2: (10, 15), 3: (9, 13), 4: (8.5, 11.5), 5: (8, 10.5), 6: (7.5, 9.5), 7: (7, 9), 8: (6.8, 8.5)}
ATTEMPTS_PER_OBJECT = 40
SHRINK = 0.97  # of all radii, each time the objects do not fit
GAP = (0.5, 7.0)  # pixels between two objects beside each other; between stacked ones up to STACKED_GAP
STACKED_GAP = 2.0
EDGE = 0.09  # of a sprite, in radii: half a pixel at the smallest radius of a scene

Point = tuple[float, float]
Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Pose:
    """``centre`` and ``radius`` in pixels, ``rotation`` in degrees, clockwise.

    A sprite of radius r fills the square [-r, r] x [-r, r] around its centre, and a dark edge of ``EDGE`` r beyond it.
    """

    centre: Point
    radius: float
    rotation: float = 0.0
    mirrored: bool = False


class Tint(NamedTuple):
    """A variation of a sprite's colours: shift of the hue in turns, factors of saturation and brightness."""

    hue: float = 0.0
    saturation: float = 1.0
    brightness: float = 1.0


@dataclass(frozen=True)
class Placed:
    """One object: its class, its box in pixels, the one of ``COLOURS`` that it shows (None: none of them), its pose."""

    name: str
    box: Box
    colour: str | None
    pose: Pose


@dataclass(frozen=True)
class Scene:
    """``image`` is uint8 (64, 64, 3)."""

    image: np.ndarray = field(repr=False)
    objects: tuple[Placed, ...]
    spec: Spec

    @property
    def caption(self) -> str:
        """What the scene shows, in words."""
        return write(self.spec)


def render(spec: Spec, generator: np.random.Generator) -> Scene:
    """One scene that shows exactly what ``spec`` asks for."""
    style, width = STYLES[spec.style], SIZE * SUPERSAMPLING
    asked = [Asked(one.name, 1, one.colour) for one in spec.objects for _ in range(one.count)]
    poses = _arrange(spec, asked, generator)
    canvas = location_ground(spec.location, generator, width) if spec.location else style.ground(generator, width)
    placed = []
    for one, pose in zip(asked, poses, strict=True):
        colour = shown_colour(one.name, one.colour)
        reach = 0.008 if colour else 0.03  # a colour that has a name keeps its hue
        tint = Tint(generator.uniform(-reach, reach), generator.uniform(0.88, 1.08), generator.uniform(0.92, 1.06))
        draw(one.name, canvas=canvas, pose=pose, pens=style.pens, colour=one.colour, tint=tint)
        placed.append(Placed(one.name, extent(one.name, pose), colour, pose))
    image = style.finish(canvas.reduce(SUPERSAMPLING), generator)
    return Scene(np.asarray(image), tuple(placed), spec)


def render_many(specs: Sequence[Spec], seed: int, *, workers: int = 1) -> Iterator[Scene]:
    """Render ``specs`` in order, with a progress bar; scene i depends on ``seed`` and i alone, not on ``workers``."""
    render_one = partial(_render_one, seed=seed)
    bar = partial(progress, description="rendering scenes", total=len(specs), unit="scenes")
    if workers == 1:
        yield from bar(map(render_one, enumerate(specs)))
        return
    with multiprocessing.Pool(workers) as pool:
        yield from bar(pool.imap(render_one, enumerate(specs), chunksize=64))


def _render_one(numbered: tuple[int, Spec], *, seed: int) -> Scene:
    index, spec = numbered
    return render(spec, np.random.default_rng([seed, index]))


# Where objects lie.


def _arrange(spec: Spec, asked: list[Asked], generator: np.random.Generator) -> list[Pose]:
    """Poses that keep inside the frame (below the horizon's top in a location), apart, and in the relation."""
    frame = (MARGIN, GROUND_TOP * SIZE if spec.location else MARGIN, SIZE - MARGIN, SIZE - MARGIN)
    low, high = RADII[len(asked)]
    while True:
        turned = [_turned(one.name, generator.uniform(low, high), generator) for one in asked]
        boxes = [extent(one.name, pose) for one, pose in zip(asked, turned, strict=True)]
        if spec.relation:
            centres = _related(spec.relation, boxes, frame, generator)
        else:
            centres = _scattered(boxes, frame, generator)
        if centres is not None:
            return [replace(pose, centre=centre) for centre, pose in zip(centres, turned, strict=True)]
        low, high = max(SMALLEST_RADIUS, low * SHRINK), max(SMALLEST_RADIUS, high * SHRINK)


def _turned(name: str, radius: float, generator: np.random.Generator) -> Pose:
    """At the origin, randomly turned and mirrored."""
    rotation = generator.uniform(-1, 1) * DRAWINGS[name].tilt
    return Pose((0.0, 0.0), radius, rotation, bool(generator.random() < 0.5))


def _scattered(boxes: list[Box], frame: Box, generator: np.random.Generator) -> list[Point] | None:
    """A centre for each box (given around the origin), the largest first; None if one finds no place."""
    placed: dict[int, tuple[Point, Box]] = {}
    for i in sorted(range(len(boxes)), key=lambda i: -_area(boxes[i])):
        x0, y0, x1, y1 = boxes[i]
        lows, highs = (frame[0] - x0, frame[1] - y0), (frame[2] - x1, frame[3] - y1)
        for x, y in generator.uniform(lows, highs, (ATTEMPTS_PER_OBJECT, 2)).tolist():
            box = (x + x0, y + y0, x + x1, y + y1)
            if all(covered(box, other) <= OVERLAP for _, other in placed.values()):
                placed[i] = (x, y), box
                break
        else:
            return None
    return [placed[i][0] for i in range(len(boxes))]


def _related(relation: str, boxes: list[Box], frame: Box, generator: np.random.Generator) -> list[Point] | None:
    """Centres of two boxes: one after the other along one axis with a gap, nearly level along the other."""
    along = 1 if relation == "top" else 0
    across = 1 - along
    order = (1, 0) if relation == "right" else (0, 1)
    first, second = (boxes[i] for i in order)
    lengths = [box[along + 2] - box[along] for box in (first, second)]
    slack = frame[along + 2] - frame[along] - sum(lengths)
    widest = max(box[across + 2] - box[across] for box in boxes)
    if slack < GAP[0] or widest > frame[across + 2] - frame[across]:
        return None
    gap = generator.uniform(GAP[0], min(slack, STACKED_GAP if along else GAP[1]))
    start = frame[along] + generator.uniform(0, slack - gap)
    places = (start - first[along], start + lengths[0] + gap - second[along])
    low = max(frame[across] - box[across] for box in boxes)
    high = min(frame[across + 2] - box[across + 2] for box in boxes)
    level = generator.uniform(low, high)
    shifts = np.clip(level + generator.uniform(-4, 4, 2), low, high).tolist()
    centres = [(place, shift) if along == 0 else (shift, place) for place, shift in zip(places, shifts, strict=True)]
    return [centres[i] for i in order]


def covered(first: Box, second: Box) -> float:
    """The share of the smaller box that lies under the other."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(0.0, width) * max(0.0, height) / min(_area(first), _area(second))


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


# How one object is drawn.


def draw(name: str, *, canvas: Image.Image, pose: Pose, pens: Pens, colour: str | None, tint: Tint) -> None:
    """Draw one ``name`` in one of ``COLOURS`` or, with None, in its natural colour.

    ``canvas`` (RGB) has ``SUPERSAMPLING`` pixels per pixel of the pose.
    """
    corners, spans = _corners(name)
    corners = (_place(corners, pose) * SUPERSAMPLING + 0.5).astype(np.float32)  # Pillow cuts decimals off
    polygons = [corners[span].ravel() for span in spans]
    paints = [tinted(paint, tint) for paint in palette(name, colour)]
    edges = list(zip(polygons[: len(paints)], map(pens.edge, paints), strict=True))
    insides = list(zip(polygons[len(paints) :], map(pens.inside, paints), strict=True))
    layers = zip(edges, insides, strict=True) if pens.every_part else (edges, insides)
    brush = ImageDraw.Draw(canvas)
    for polygon, paint in itertools.chain.from_iterable(layers):
        brush.polygon(polygon, fill=paint)


def extent(name: str, pose: Pose) -> Box:
    """The box of the sprite with its edge, in pixels."""
    points = _place(_corners(name)[0], pose)
    return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


@cache
def _corners(name: str) -> tuple[np.ndarray, list[slice]]:
    """The corners (n, 2) of the edges of all parts, then of their insides; and where each polygon lies in them."""
    insides = [np.array(part.points) for part in DRAWINGS[name].parts]
    polygons = [grow(points, EDGE) for points in insides] + insides
    stops = np.cumsum([len(points) for points in polygons]).tolist()
    return np.concatenate(polygons), [slice(*span) for span in itertools.pairwise([0, *stops])]


def _place(points: np.ndarray, pose: Pose) -> np.ndarray:
    mirrored = points * (-1, 1) if pose.mirrored else points
    return rotate(mirrored, pose.rotation) * pose.radius + pose.centre


def grow(points: np.ndarray, width: float) -> np.ndarray:
    """Move every edge of a polygon (n, 2) outwards by ``width``; corners sharper than about 50 degrees are blunted."""
    ahead, behind = np.roll(points, -1, axis=0) - points, points - np.roll(points, 1, axis=0)
    area = np.sum(points[:, 0] * ahead[:, 1] - points[:, 1] * ahead[:, 0])
    normals = [np.sign(area) * _unit(np.stack([edge[:, 1], -edge[:, 0]], axis=1)) for edge in (behind, ahead)]
    middle = _unit(normals[0] + normals[1])
    reach = width / np.maximum(np.sum(middle * normals[0], axis=1, keepdims=True), 0.45)
    return points + middle * reach


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def shown_colour(name: str, colour: str | None) -> str | None:
    """The one of ``COLOURS`` that a ``name`` drawn in ``colour`` shows; None if it shows none of them."""
    return colour or DRAWINGS[name].colour


@cache
def palette(name: str, colour: str | None) -> tuple[RGB, ...]:
    """The colour of each part of a ``name`` drawn in ``colour``."""
    drawing = DRAWINGS[name]
    body = drawing.body if colour is None else COLOURS[colour]
    roles = {"body": body, "light": _light(body), "shade": _shade(body)}
    roles["accent"] = drawing.accent if colour is None else roles["shade"]
    return tuple((roles | PAINTS)[part.fill] for part in drawing.parts)


def tinted(colour: RGB, tint: Tint) -> RGB:
    """``colour`` varied by ``tint``."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    return from_hsv(hue + tint.hue, saturation * tint.saturation, value * tint.brightness)


def _light(colour: RGB) -> RGB:
    """Two fifths of the way to white; white itself, which has no lighter, a little darker."""
    return tuple((3 * c + 2 * 255) // 5 if min(colour) < 200 else int(0.88 * c) for c in colour)


def _shade(colour: RGB) -> RGB:
    """A fifth darker, white less so; black, which has no darker, lighter."""
    if max(colour) < 80:
        return tuple(c + 30 for c in colour)
    return tuple(int((0.78 if min(colour) < 200 else 0.86) * c) for c in colour)


# Scenes to be looked at.


def contact_sheet(
    images: Sequence[np.ndarray], *, columns: int, captions: Sequence[str] = (), pad: int = 4
) -> Image.Image:
    """Images side by side, ``columns`` per row, each twice as large, with its caption in small print below."""
    height, width = (2 * side for side in images[0].shape[:2])
    text_height = 24 if captions else 0
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * (width + pad) + pad, rows * (height + text_height + pad) + pad), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (image, caption) in enumerate(itertools.zip_longest(images, captions, fillvalue="")):
        x, y = pad + i % columns * (width + pad), pad + i // columns * (height + text_height + pad)
        sheet.paste(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST), (x, y))
        pen.multiline_text((x, y + height), _wrapped(caption, width, pen), fill="black", font_size=9, spacing=1)
    return sheet


def _wrapped(text: str, width: int, pen: ImageDraw.ImageDraw) -> str:
    """Break ``text`` so that its lines are at most ``width`` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if pen.textlength(longer, font_size=9) <= width else [*lines, word]
    return "\n".join(lines)


@step(1)
def sample_scenes(*, number: int, seed: int) -> pd.DataFrame:
    """Scenes of the training mix with their captions: prompt, png."""
    generator = np.random.default_rng(seed)
    specs = [sample_spec(generator) for _ in range(number)]
    images = [_png(scene.image) for scene in render_many(specs, seed)]
    return pd.DataFrame({"prompt": [write(spec) for spec in specs], "png": images})


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
