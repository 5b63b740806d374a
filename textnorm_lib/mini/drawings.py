"""The 25 classes as drawings: filled polygons in the square [-1, 1] x [-1, 1], x to the right and y down.

The first part of a drawing lies at the bottom, the last on top. A part's fill is either a role that recolouring changes
– "body" (the object's own colour), "light" and "shade" (the same, lighter or darker), "accent" (a second natural
colour; "shade" in a recoloured object) – or the name of a fixed paint, such as "glass", that stays as it is.

Silhouettes and natural colours differ between classes, nothing that identifies one is thinner than 0.12 (a pixel in the
smallest object of a scene), and eyes are large with white around them, so that faces survive an autoencoder and any
recolouring.
"""

import colorsys
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


def from_hsv(hue: float, saturation: float, value: float) -> RGB:
    """A colour by its hue in turns and by its saturation and value, which are cut off at 1."""
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1)))


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


def rectangles(x0: float, y0: float, x1: float, y1: float, fill: str) -> tuple[Part, Part]:
    """The mirror image of a rectangle on the left, then the rectangle."""
    return rectangle(-x1, y0, -x0, y1, fill), rectangle(x0, y0, x1, y1, fill)


def rounded(x0: float, y0: float, x1: float, y1: float, corner: float, fill: str) -> Part:
    """An upright rectangle with round corners of radius ``corner``."""
    left, right, top, bottom = x0 + corner, x1 - corner, y0 + corner, y1 - corner
    points = []
    for turn, (x, y) in enumerate(((right, bottom), (left, bottom), (left, top), (right, top))):
        points += _curve(x, y, corner, corner, 90 * turn, 90 * turn + 90, 4)
    return Part(tuple(points), fill)


def ellipse(x: float, y: float, rx: float, ry: float, fill: str, *, turn: float = 0) -> Part:
    """An ellipse around (x, y), turned clockwise by ``turn`` degrees."""
    points = rotate(np.array(_curve(0, 0, rx, ry, 0, 360, 28)[:-1]), turn) + np.array([x, y])
    return Part(tuple(map(tuple, points.tolist())), fill)


def ellipses(x: float, y: float, rx: float, ry: float, fill: str, *, turn: float = 0) -> tuple[Part, Part]:
    """The mirror image of an ellipse on the left, then the ellipse."""
    return ellipse(-x, y, rx, ry, fill, turn=-turn), ellipse(x, y, rx, ry, fill, turn=turn)


def line(x0: float, y0: float, x1: float, y1: float, width: float, fill: str) -> Part:
    """A straight bar from (x0, y0) to (x1, y1)."""
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = -(y1 - y0) / length * width / 2, (x1 - x0) / length * width / 2
    return Part(((x0 + dx, y0 + dy), (x1 + dx, y1 + dy), (x1 - dx, y1 - dy), (x0 - dx, y0 - dy)), fill)


def arc(x: float, y: float, radius: float, width: float, start: float, stop: float, fill: str) -> Part:
    """A bent bar around (x, y); angles in degrees, 0 to the right, 90 down."""
    outer, inner = (_curve(x, y, radius + d, radius + d, start, stop, 10) for d in (width / 2, -width / 2))
    return Part((*outer, *reversed(inner)), fill)


def _curve(x: float, y: float, rx: float, ry: float, start: float, stop: float, segments: int) -> list[Point]:
    angles = np.radians(np.linspace(start, stop, segments + 1))
    return list(zip((x + rx * np.cos(angles)).tolist(), (y + ry * np.sin(angles)).tolist(), strict=True))


def rotate(points: np.ndarray, degrees: float) -> np.ndarray:
    """Turn points (n, 2) clockwise around the origin."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return points @ np.array([[cosine, sine], [-sine, cosine]])


DRAWINGS: dict[str, Drawing] = {
    "airplane": drawing(
        "white",
        polygon((0.28, -0.1), (-0.12, -0.95), (-0.42, -0.95), (-0.18, -0.1), fill="shade"),
        polygon((0.28, 0.1), (-0.12, 0.95), (-0.42, 0.95), (-0.18, 0.1), fill="shade"),
        polygon((-0.6, 0.0), (-0.78, -0.5), (-1.0, -0.5), (-0.94, 0.0), (-1.0, 0.5), (-0.78, 0.5), fill="accent"),
        ellipse(0, 0, 0.98, 0.24, "body"),
        ellipse(0.68, 0, 0.16, 0.14, "sky"),
        accent=(226, 48, 66),
        tilt=25,
    ),
    "automobile": drawing(
        "blue",
        polygon((-0.64, -0.05), (-0.42, -0.6), (0.34, -0.6), (0.7, -0.05), fill="body"),
        polygon((-0.44, -0.08), (-0.3, -0.44), (-0.06, -0.44), (-0.06, -0.08), fill="glass"),
        polygon((0.1, -0.08), (0.1, -0.44), (0.26, -0.44), (0.48, -0.08), fill="glass"),
        rounded(-0.98, -0.12, 0.98, 0.42, 0.18, "body"),
        rectangle(0.76, -0.02, 0.96, 0.14, "butter"),
        *ellipses(0.52, 0.42, 0.28, 0.28, "ink"),
        *ellipses(0.52, 0.42, 0.13, 0.13, "steel"),
    ),
    "bird": drawing(
        "yellow",
        line(-0.14, 0.5, -0.14, 0.96, 0.14, "beak"),
        line(0.16, 0.5, 0.16, 0.96, 0.14, "beak"),
        polygon((-0.4, 0.0), (-1.0, -0.34), (-0.94, 0.3), (-0.5, 0.4), fill="accent"),
        ellipse(-0.06, 0.16, 0.64, 0.48, "body"),
        ellipse(0.42, -0.4, 0.42, 0.4, "body"),
        polygon((0.76, -0.56), (1.06, -0.34), (0.76, -0.16), fill="beak"),
        ellipse(-0.2, 0.14, 0.4, 0.24, "accent", turn=15),
        ellipse(0.5, -0.46, 0.18, 0.19, "paper"),
        ellipse(0.54, -0.46, 0.11, 0.13, "ink"),
        accent=(238, 158, 30),
    ),
    "cat": drawing(
        (146, 148, 164),
        polygon((-0.84, 0.0), (-0.84, -0.98), (-0.1, -0.5), fill="body"),
        polygon((0.84, 0.0), (0.84, -0.98), (0.1, -0.5), fill="body"),
        polygon((-0.7, -0.3), (-0.7, -0.72), (-0.34, -0.48), fill="rose"),
        polygon((0.7, -0.3), (0.7, -0.72), (0.34, -0.48), fill="rose"),
        ellipse(0, 0.16, 0.9, 0.74, "body"),
        ellipse(0, 0.5, 0.42, 0.28, "paper"),
        *ellipses(0.38, 0.02, 0.24, 0.24, "lime"),
        *ellipses(0.38, 0.02, 0.1, 0.2, "ink"),
        polygon((-0.16, 0.3), (0.16, 0.3), (0, 0.52), fill="ruby"),
    ),
    "deer": drawing(
        (206, 128, 62),
        line(-0.2, -0.3, -0.5, -0.98, 0.15, "bark"),
        line(-0.36, -0.6, -0.9, -0.82, 0.15, "bark"),
        line(0.2, -0.3, 0.5, -0.98, 0.15, "bark"),
        line(0.36, -0.6, 0.9, -0.82, 0.15, "bark"),
        *ellipses(0.64, -0.16, 0.34, 0.17, "shade", turn=-20),
        polygon(
            *((-0.46, -0.3), (-0.3, -0.44), (0.3, -0.44), (0.46, -0.3)),
            *((0.42, 0.2), (0.28, 0.8), (-0.28, 0.8), (-0.42, 0.2)),
            fill="body",
        ),
        ellipse(0, 0.66, 0.34, 0.32, "cream"),
        ellipse(0, 0.7, 0.18, 0.15, "ink"),
        *ellipses(0.25, 0.02, 0.19, 0.2, "paper"),
        *ellipses(0.23, 0.04, 0.12, 0.14, "ink"),
    ),
    "dog": drawing(
        "white",
        ellipse(0, 0.06, 0.7, 0.8, "body"),
        *ellipses(0.76, 0.02, 0.26, 0.62, "accent", turn=-8),
        ellipse(0.3, -0.16, 0.3, 0.34, "accent"),
        ellipse(0, 0.78, 0.17, 0.22, "ruby"),
        ellipse(0, 0.42, 0.4, 0.3, "cream"),
        ellipse(0, 0.28, 0.2, 0.15, "ink"),
        *ellipses(0.29, -0.14, 0.17, 0.19, "paper"),
        *ellipses(0.28, -0.13, 0.13, 0.15, "ink"),
        accent=(112, 66, 40),
    ),
    "frog": drawing(
        "green",
        *ellipses(0.48, -0.48, 0.36, 0.36, "body"),
        ellipse(0, 0.16, 0.98, 0.66, "body"),
        *ellipses(0.48, -0.5, 0.26, 0.26, "paper"),
        *ellipses(0.46, -0.46, 0.14, 0.15, "ink"),
        ellipse(0, 0.34, 0.66, 0.34, "ink"),
        ellipse(0, 0.24, 0.74, 0.3, "body"),
        ellipse(0, 0.52, 0.26, 0.12, "rose"),
    ),
    "horse": drawing(
        "brown",
        ellipse(-0.8, 0.24, 0.2, 0.46, "accent", turn=14),
        rectangle(-0.36, 0.2, -0.16, 0.9, "shade"),
        rectangle(0.1, 0.2, 0.3, 0.9, "shade"),
        rectangle(-0.66, 0.1, -0.44, 0.98, "body"),
        rectangle(0.38, 0.1, 0.6, 0.98, "body"),
        ellipse(-0.04, 0.1, 0.66, 0.36, "body"),
        ellipse(0.26, -0.42, 0.22, 0.52, "accent", turn=24),
        polygon((0.34, -0.66), (0.46, -1.0), (0.66, -0.7), fill="body"),
        polygon((0.16, 0.0), (0.38, -0.76), (0.62, -0.8), (0.66, 0.2), fill="body"),
        ellipse(0.68, -0.48, 0.36, 0.25, "body", turn=34),
        ellipse(0.87, -0.35, 0.17, 0.18, "cream", turn=34),
        ellipse(0.58, -0.58, 0.14, 0.14, "paper"),
        ellipse(0.6, -0.58, 0.09, 0.11, "ink"),
        accent=(40, 34, 38),
    ),
    "ship": drawing(
        (34, 50, 112),
        *rectangles(0.12, -0.92, 0.42, -0.3, "ruby"),
        *rectangles(0.12, -0.7, 0.42, -0.52, "paper"),
        rectangle(-0.64, -0.4, 0.66, 0.1, "paper"),
        ellipse(-0.38, -0.14, 0.13, 0.13, "sky"),
        ellipse(0.0, -0.14, 0.13, 0.13, "sky"),
        ellipse(0.38, -0.14, 0.13, 0.13, "sky"),
        polygon((-1.0, 0.08), (1.0, 0.08), (0.68, 0.78), (-0.68, 0.78), fill="body"),
        polygon((-0.82, 0.48), (0.82, 0.48), (0.68, 0.78), (-0.68, 0.78), fill="accent"),
        accent=(226, 48, 66),
    ),
    "truck": drawing(
        "green",
        rectangle(-1.0, -0.66, 0.34, 0.36, "body"),
        polygon((0.42, -0.36), (0.74, -0.36), (1.0, 0.02), (1.0, 0.36), (0.42, 0.36), fill="accent"),
        polygon((0.52, -0.24), (0.68, -0.24), (0.86, 0.04), (0.52, 0.04), fill="glass"),
        rectangle(-0.86, -0.28, 0.2, -0.06, "light"),
        rectangle(-1.0, 0.34, 1.0, 0.48, "ink"),
        ellipse(-0.62, 0.5, 0.25, 0.25, "ink"),
        ellipse(-0.06, 0.5, 0.25, 0.25, "ink"),
        ellipse(0.68, 0.5, 0.25, 0.25, "ink"),
        ellipse(-0.62, 0.5, 0.12, 0.12, "steel"),
        ellipse(-0.06, 0.5, 0.12, 0.12, "steel"),
        ellipse(0.68, 0.5, 0.12, 0.12, "steel"),
        accent=(244, 190, 40),
    ),
    "apple": drawing(
        "red",
        line(-0.02, -0.4, 0.1, -0.96, 0.16, "bark"),
        ellipse(0.42, -0.72, 0.34, 0.18, "leaf", turn=-22),
        *ellipses(0.32, 0.18, 0.58, 0.72, "body"),
        ellipse(-0.44, -0.1, 0.15, 0.24, "light", turn=20),
    ),
    "book": drawing(
        (112, 58, 178),
        rounded(-0.78, -0.94, 0.76, 0.94, 0.12, "body"),
        rectangle(-0.74, -0.84, -0.5, 0.84, "shade"),
        rectangle(-0.5, 0.5, 0.72, 0.76, "paper"),
        rectangle(-0.22, -0.6, 0.5, -0.22, "butter"),
    ),
    "cake": drawing(
        "pink",
        rectangle(-0.1, -0.74, 0.1, -0.4, "sky"),
        ellipse(0, -0.86, 0.13, 0.17, "butter"),
        ellipse(0, 0.78, 1.0, 0.16, "steel"),
        rounded(-0.84, -0.45, 0.84, 0.8, 0.12, "body"),
        rectangle(-0.84, 0.24, 0.84, 0.46, "coffee"),
        rounded(-0.9, -0.48, 0.9, -0.12, 0.16, "paper"),
        ellipse(-0.56, -0.12, 0.2, 0.2, "paper"),
        ellipse(0, -0.1, 0.2, 0.24, "paper"),
        ellipse(0.56, -0.12, 0.2, 0.2, "paper"),
    ),
    "carrot": drawing(
        (246, 122, 22),
        line(0, -0.4, -0.5, -0.84, 0.24, "leaf"),
        line(0, -0.4, 0.5, -0.84, 0.24, "leaf"),
        line(0, -0.4, 0, -1.0, 0.24, "leaf"),
        polygon(
            *((-0.58, -0.3), (-0.5, -0.46), (-0.3, -0.54), (0.3, -0.54), (0.5, -0.46), (0.58, -0.3)),
            *((0.42, 0.14), (0.12, 0.92), (0, 0.98), (-0.12, 0.92), (-0.42, 0.14)),
            fill="body",
        ),
        line(-0.5, -0.18, -0.08, -0.18, 0.13, "shade"),
        line(0.4, 0.1, 0.02, 0.1, 0.13, "shade"),
        line(-0.26, 0.4, 0.06, 0.4, 0.13, "shade"),
        tilt=25,
    ),
    "chair": drawing(
        (238, 196, 118),
        *rectangles(0.4, -0.98, 0.62, 0.2, "body"),
        rectangle(-0.5, -0.9, 0.5, -0.46, "body"),
        *rectangles(0.42, 0.3, 0.66, 0.98, "body"),
        polygon((-0.6, 0.28), (-0.52, 0.0), (0.52, 0.0), (0.6, 0.28), fill="accent"),
        rectangle(-0.66, 0.26, 0.66, 0.48, "body"),
        rectangle(-0.4, -0.76, 0.4, -0.6, "shade"),
        accent=(206, 62, 54),
    ),
    "cup": drawing(
        (242, 112, 78),
        arc(0.56, 0.1, 0.34, 0.2, -90, 90, "body"),
        polygon((-0.76, -0.6), (0.64, -0.6), (0.5, 0.78), (0.32, 0.9), (-0.44, 0.9), (-0.62, 0.78), fill="body"),
        polygon((-0.7, 0.0), (0.58, 0.0), (0.555, 0.24), (-0.68, 0.24), fill="light"),
        ellipse(-0.06, -0.6, 0.72, 0.27, "paper"),
        ellipse(-0.06, -0.57, 0.54, 0.17, "coffee"),
    ),
    "fork": drawing(
        (178, 184, 198),
        polygon((-0.58, -0.5), (0.58, -0.5), (0.54, -0.2), (0.2, 0.12), (-0.2, 0.12), (-0.54, -0.2), fill="body"),
        rectangle(-0.58, -0.98, -0.38, -0.46, "body"),
        rectangle(-0.1, -0.98, 0.1, -0.46, "body"),
        rectangle(0.38, -0.98, 0.58, -0.46, "body"),
        rectangle(-0.13, 0.0, 0.13, 0.5, "body"),
        rounded(-0.19, 0.34, 0.19, 1.0, 0.12, "accent"),
        accent=(96, 62, 46),
        tilt=25,
    ),
    "laptop": drawing(
        (170, 176, 190),
        rounded(-0.8, -0.84, 0.8, 0.3, 0.1, "body"),
        rectangle(-0.56, -0.6, 0.56, 0.12, "sky"),
        polygon((-0.56, -0.6), (0.14, -0.6), (-0.56, 0.1), fill="glass"),
        polygon((-0.8, 0.36), (0.8, 0.36), (1.0, 0.84), (-1.0, 0.84), fill="body"),
        polygon((-0.62, 0.42), (0.62, 0.42), (0.7, 0.58), (-0.7, 0.58), fill="ink"),
    ),
    "microwave": drawing(
        "black",
        *rectangles(0.54, 0.6, 0.8, 0.78, "ink"),
        rounded(-1.0, -0.66, 1.0, 0.66, 0.08, "body"),
        rounded(-0.78, -0.42, 0.32, 0.42, 0.12, "butter"),
        rectangle(0.54, -0.48, 0.86, -0.22, "mint"),
        ellipse(0.7, 0.04, 0.15, 0.15, "paper"),
        ellipse(0.7, 0.4, 0.13, 0.13, "ruby"),
    ),
    "orange": drawing(
        (250, 148, 16),
        ellipse(0, 0, 0.92, 0.92, "body"),
        ellipse(0, 0, 0.66, 0.66, "light"),
        line(0, -0.6, 0, 0.6, 0.13, "paper"),
        line(-0.52, -0.3, 0.52, 0.3, 0.13, "paper"),
        line(-0.52, 0.3, 0.52, -0.3, 0.13, "paper"),
    ),
    "suitcase": drawing(
        (146, 34, 66),
        arc(0, -0.5, 0.34, 0.18, 180, 360, "bark"),
        rounded(-0.94, -0.54, 0.94, 0.82, 0.16, "body"),
        *rectangles(0.38, -0.54, 0.64, 0.82, "cream"),
        *rectangles(0.38, -0.02, 0.64, 0.24, "butter"),
    ),
    "teddy bear": drawing(
        (224, 164, 92),
        *ellipses(0.48, -0.78, 0.25, 0.24, "shade"),
        *ellipses(0.66, 0.16, 0.32, 0.2, "body", turn=32),
        *ellipses(0.46, 0.8, 0.3, 0.22, "shade"),
        ellipse(0, 0.42, 0.54, 0.52, "body"),
        ellipse(0, 0.5, 0.32, 0.32, "cream"),
        ellipse(0, -0.42, 0.6, 0.5, "body"),
        ellipse(0, -0.22, 0.3, 0.22, "cream"),
        ellipse(0, -0.28, 0.14, 0.1, "ink"),
        *ellipses(0.28, -0.54, 0.17, 0.17, "cream"),
        *ellipses(0.27, -0.53, 0.12, 0.13, "ink"),
        polygon((0, 0.12), (-0.36, -0.06), (-0.36, 0.3), fill="ruby"),
        polygon((0, 0.12), (0.36, -0.06), (0.36, 0.3), fill="ruby"),
    ),
    "toaster": drawing(
        (136, 212, 176),
        rounded(-0.6, -0.9, -0.07, -0.1, 0.16, "bark"),
        rounded(0.07, -0.9, 0.6, -0.1, 0.16, "bark"),
        rounded(-0.48, -0.78, -0.19, -0.1, 0.1, "toast"),
        rounded(0.19, -0.78, 0.48, -0.1, 0.1, "toast"),
        *rectangles(0.5, 0.6, 0.76, 0.84, "ink"),
        rectangle(0.8, -0.04, 1.02, 0.2, "ink"),
        rounded(-0.9, -0.36, 0.9, 0.74, 0.26, "body"),
        rectangle(-0.64, -0.24, 0.64, -0.08, "ink"),
        ellipse(0, 0.26, 0.2, 0.2, "paper"),
    ),
    "umbrella": drawing(
        (16, 176, 176),
        rectangle(-0.08, -1.0, 0.08, 0.76, "bark"),
        arc(-0.2, 0.74, 0.2, 0.16, 0, 180, "bark"),
        polygon(
            *((-1.0, 0.1), (-0.94, -0.24), (-0.72, -0.58), (-0.4, -0.8), (0, -0.88)),
            *((0.4, -0.8), (0.72, -0.58), (0.94, -0.24)),
            *((1.0, 0.1), (0.66, -0.06), (0.33, 0.1), (0, -0.06), (-0.33, 0.1), (-0.66, -0.06)),
            fill="body",
        ),
        polygon((0, -0.88), (-0.24, -0.5), (-0.33, 0.1), (0, -0.06), (0.33, 0.1), (0.24, -0.5), fill="light"),
    ),
    "vase": drawing(
        (166, 146, 238),
        line(0, -0.1, -0.44, -0.6, 0.13, "leaf"),
        line(0, -0.1, 0.44, -0.6, 0.13, "leaf"),
        line(0, -0.1, 0, -0.7, 0.13, "leaf"),
        *ellipses(0.5, -0.62, 0.28, 0.28, "butter"),
        ellipse(0, -0.74, 0.28, 0.28, "ruby"),
        *ellipses(0.5, -0.62, 0.12, 0.12, "beak"),
        ellipse(0, -0.74, 0.12, 0.12, "butter"),
        rounded(-0.36, -0.26, 0.36, -0.04, 0.1, "body"),
        rectangle(-0.26, -0.1, 0.26, 0.3, "body"),
        rounded(-0.34, 0.7, 0.34, 1.0, 0.1, "body"),
        ellipse(0, 0.48, 0.62, 0.44, "body"),
        rectangle(-0.56, 0.36, 0.56, 0.58, "light"),
    ),
}
