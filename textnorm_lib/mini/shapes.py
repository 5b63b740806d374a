"""What drawings are made of: filled polygons in the square [-1, 1] x [-1, 1], x to the right and y down.

A part's fill is either a role that recolouring changes – "body" (the object's own colour), "light" and "shade" (the
same, lighter or darker), "accent" (a second natural colour; "shade" in a recoloured object) – or the name of a fixed
paint, such as "glass", that stays as it is.
"""

import math
from dataclasses import dataclass

import numpy as np

Point = tuple[float, float]
RGB = tuple[int, int, int]

# The colours that the paper's comprehensive prompts name; also the ones its categories are read by
# (prompts/templates.py).
COLOURS: dict[str, RGB] = {
    "red": (218, 30, 38),
    "blue": (38, 88, 222),
    "green": (40, 158, 62),
    "yellow": (252, 214, 38),
    "black": (44, 43, 50),
    "white": (250, 250, 248),
    "pink": (252, 138, 190),
    "brown": (126, 74, 38),
}
PAINTS: dict[str, RGB] = {
    "ink": (34, 30, 38),
    "paper": (252, 250, 242),
    "cream": (252, 232, 196),
    "glass": (186, 228, 250),
    "steel": (176, 182, 194),
    "beak": (246, 140, 28),
    "rose": (240, 130, 150),
    "ruby": (226, 48, 66),
    "leaf": (64, 168, 62),
    "bark": (98, 62, 36),
    "toast": (222, 158, 84),
    "coffee": (88, 50, 30),
    "butter": (255, 214, 92),
    "sky": (64, 172, 250),
    "mint": (90, 226, 150),
    "lime": (206, 232, 82),
}
ROLES = ("body", "light", "shade", "accent")

_SEGMENTS = 28  # corners of a full ellipse


@dataclass(frozen=True)
class Part:
    """One filled polygon."""

    points: tuple[Point, ...]
    fill: str


@dataclass(frozen=True)
class Drawing:
    """One class: ``body`` is its natural colour, ``colour`` that colour's name if it is one of ``COLOURS``.

    ``accent`` is the natural second colour, ``tilt`` the largest rotation in degrees at which it still looks natural.
    """

    body: RGB
    colour: str | None
    accent: RGB
    tilt: float
    parts: tuple[Part, ...]


def drawing(body: str | RGB, *parts: Part, accent: RGB = (0, 0, 0), tilt: float = 12) -> Drawing:
    """A drawing whose natural colour is one of ``COLOURS``, by name, or any other, by value."""
    named = isinstance(body, str)
    return Drawing(COLOURS[body] if named else body, body if named else None, accent, tilt, parts)


def polygon(*points: Point, fill: str) -> Part:
    """A polygon by its corners."""
    return Part(points, fill)


def rectangle(x0: float, y0: float, x1: float, y1: float, fill: str) -> Part:
    """An upright rectangle."""
    return Part(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), fill)


def rounded(x0: float, y0: float, x1: float, y1: float, corner: float, fill: str) -> Part:
    """An upright rectangle with round corners of radius ``corner``."""
    centres = (
        (x1 - corner, y1 - corner),
        (x0 + corner, y1 - corner),
        (x0 + corner, y0 + corner),
        (x1 - corner, y0 + corner),
    )
    points = [
        point for i, (x, y) in enumerate(centres) for point in _curve(x, y, corner, corner, 90 * i, 90 * i + 90, 4)
    ]
    return Part(tuple(points), fill)


def ellipse(x: float, y: float, rx: float, ry: float, fill: str, *, turn: float = 0) -> Part:
    """An ellipse around (x, y), turned clockwise by ``turn`` degrees."""
    points = rotate(np.array(_curve(0, 0, rx, ry, 0, 360, _SEGMENTS)[:-1]), turn) + np.array([x, y])
    return Part(tuple(map(tuple, points.tolist())), fill)


def line(x0: float, y0: float, x1: float, y1: float, width: float, fill: str) -> Part:
    """A straight bar from (x0, y0) to (x1, y1)."""
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = -(y1 - y0) / length * width / 2, (x1 - x0) / length * width / 2
    return Part(((x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)), fill)


def arc(x: float, y: float, radius: float, width: float, start: float, stop: float, fill: str) -> Part:
    """A bent bar around (x, y); angles in degrees, 0 to the right, 90 down."""
    outer, inner = (_curve(x, y, radius + d, radius + d, start, stop, 10) for d in (width / 2, -width / 2))
    return Part((*outer, *reversed(inner)), fill)


def rotate(points: np.ndarray, degrees: float) -> np.ndarray:
    """Turn points (n, 2) clockwise around the origin."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return points @ np.array([[cosine, sine], [-sine, cosine]])


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


def _curve(x: float, y: float, rx: float, ry: float, start: float, stop: float, segments: int) -> list[Point]:
    angles = np.radians(np.linspace(start, stop, segments + 1))
    return list(zip((x + rx * np.cos(angles)).tolist(), (y + ry * np.sin(angles)).tolist(), strict=True))
