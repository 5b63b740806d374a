"""Draw the 25 classes with Pillow: any place, size, rotation, colour, and with different pens.

A sprite of radius r fills the square [-r, r] x [-r, r] around its centre, and a dark edge of ``EDGE`` r beyond it.
Drawing is not smoothed: draw larger than needed and reduce, as ``scenes.py`` does.
"""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from textnorm_lib.mini.drawings import DRAWINGS
from textnorm_lib.mini.shapes import COLOURS, PAINTS, RGB, Drawing, grow, rotate
from textnorm_lib.study.errors import DataError

EDGE = 0.09  # in radii: half a pixel at the smallest radius of a scene

Box = tuple[float, float, float, float]  # x0, y0, x1, y1


@dataclass(frozen=True)
class Pose:
    """``centre`` and ``radius`` in pixels, ``rotation`` in degrees, clockwise."""

    centre: tuple[float, float]
    radius: float
    rotation: float = 0.0
    mirrored: bool = False


@dataclass(frozen=True)
class Tint:
    """A variation of a sprite's colours: shift of the hue in turns, factors of saturation and brightness."""

    hue: float = 0.0
    saturation: float = 1.0
    brightness: float = 1.0


@dataclass(frozen=True)
class Pens:
    """What a part's colour becomes on its edge and inside; with ``every_part`` edges show within the sprite too."""

    edge: Callable[[RGB], RGB]
    inside: Callable[[RGB], RGB]
    every_part: bool = False


PHOTO = Pens(edge=lambda colour: PAINTS["ink"], inside=lambda colour: colour)
PLAIN = Tint()


def draw(
    name: str,
    *,
    canvas: Image.Image,
    pose: Pose,
    colour: str | None = None,
    tint: Tint = PLAIN,
    pens: Pens = PHOTO,
    scale: float = 1.0,
) -> None:
    """Draw one ``name`` on ``canvas`` (RGB), in one of ``COLOURS`` or, with None, in its natural colour.

    ``scale``: pixels of the canvas per pixel of the pose.
    """
    drawn, half = _drawn(name), len(_find(name).parts)
    points = (_place(drawn.points, pose) * scale + 0.5).astype(np.float32)  # Pillow cuts decimals off
    polygons = [points[start:stop].ravel() for start, stop in drawn.spans]
    paints = palette(name, colour)
    varied = {paint: tinted(paint, tint) for paint in set(paints)}
    colours = [varied[paint] for paint in paints]
    brush = ImageDraw.Draw(canvas)
    edges = [(polygon, pens.edge(paint)) for polygon, paint in zip(polygons[:half], colours, strict=True)]
    insides = [(polygon, pens.inside(paint)) for polygon, paint in zip(polygons[half:], colours, strict=True)]
    order = [*zip(edges, insides, strict=True)] if pens.every_part else [edges, insides]
    for layer in order:
        for polygon, paint in layer:
            brush.polygon(polygon, fill=paint)


def extent(name: str, pose: Pose) -> Box:
    """The box of the sprite with its edge, in pixels."""
    points = _place(_drawn(name).points, pose)
    return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


def shown_colour(name: str, colour: str | None) -> str | None:
    """The one of ``COLOURS`` that a ``name`` drawn in ``colour`` shows; None if it shows none of them."""
    return colour or _find(name).colour


def tilt(name: str) -> float:
    """The largest rotation, in degrees, at which the class looks natural."""
    return _find(name).tilt


@cache
def palette(name: str, colour: str | None = None) -> tuple[RGB, ...]:
    """The colour of each part of a ``name`` drawn in ``colour``."""
    drawing = _find(name)
    if colour is not None and colour not in COLOURS:
        raise DataError(f"unknown colour {colour!r}; known: {', '.join(COLOURS)}")
    body = drawing.body if colour is None else COLOURS[colour]
    roles = {"body": body, "light": _light(body), "shade": _shade(body)}
    roles["accent"] = drawing.accent if colour is None else roles["shade"]
    return tuple(roles[part.fill] if part.fill in roles else PAINTS[part.fill] for part in drawing.parts)


def tinted(colour: RGB, tint: Tint) -> RGB:
    """``colour`` varied by ``tint``."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    varied = ((hue + tint.hue) % 1, min(1, saturation * tint.saturation), min(1, value * tint.brightness))
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(*varied))


def _light(colour: RGB) -> RGB:
    """Two fifths of the way to white; white itself, which has no lighter, a little darker."""
    return tuple((3 * c + 2 * 255) // 5 if min(colour) < 200 else int(0.88 * c) for c in colour)


def _shade(colour: RGB) -> RGB:
    """A fifth darker, white less so; black, which has no darker, lighter."""
    if max(colour) < 80:
        return tuple(c + 30 for c in colour)
    return tuple(int((0.78 if min(colour) < 200 else 0.86) * c) for c in colour)


@dataclass(frozen=True)
class _Drawn:
    """The corners (n, 2) of all edges, then of all insides, and where each polygon begins and ends."""

    points: np.ndarray
    spans: tuple[tuple[int, int], ...]


@cache
def _drawn(name: str) -> _Drawn:
    insides = [np.array(part.points) for part in _find(name).parts]
    polygons = [grow(points, EDGE) for points in insides] + insides
    stops = np.cumsum([len(points) for points in polygons]).tolist()
    return _Drawn(np.concatenate(polygons), tuple(zip([0, *stops[:-1]], stops, strict=True)))


def _find(name: str) -> Drawing:
    if name not in DRAWINGS:
        raise DataError(f"unknown class {name!r}; known: {', '.join(DRAWINGS)}")
    return DRAWINGS[name]


def _place(points: np.ndarray, pose: Pose) -> np.ndarray:
    mirrored = points * (-1, 1) if pose.mirrored else points
    return rotate(mirrored, pose.rotation) * pose.radius + pose.centre
