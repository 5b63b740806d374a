"""What lies behind the objects: a soft gradient, or one of the locations that a prompt can name.

A background is drawn on a canvas of ``width`` x ``width`` pixels; the functions think in shares of that width. Ground
starts at about ``HORIZON``, and objects keep below ``GROUND_TOP`` so that they stand on it.
"""

import colorsys
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from textnorm_lib.mini.shapes import RGB
from textnorm_lib.study.errors import DataError

HORIZON = 0.3
GROUND_TOP = 0.16  # an object's box begins below this, so its foot is on the ground

Draw = Callable[["_Brush", np.random.Generator], None]


def background(location: str | None, generator: np.random.Generator, *, width: int) -> Image.Image:
    """A new background: a gradient for None, else one of ``LOCATIONS``."""
    if location is None:
        return gradient(*_pastels(generator), generator.uniform(0, 2 * math.pi), width=width)
    if location not in LOCATIONS:
        raise DataError(f"unknown location {location!r}; known: {', '.join(LOCATIONS)}")
    brush = _Brush(width, sky=_SKIES[location])
    LOCATIONS[location](brush, generator)
    return brush.image


def gradient(first: RGB, second: RGB, angle: float, *, width: int) -> Image.Image:
    """From ``first`` to ``second`` along ``angle`` (radians, 0 to the right)."""
    y, x = np.mgrid[0:8, 0:8] / 7 - 0.5
    share = np.clip(x * math.cos(angle) + y * math.sin(angle) + 0.5, 0, 1)[..., None]
    pixels = np.array(first) * (1 - share) + np.array(second) * share
    coarse = Image.fromarray(pixels.astype(np.uint8)).resize((width // 4, width // 4), Image.Resampling.BILINEAR)
    return coarse.resize((width, width), Image.Resampling.NEAREST)  # many times faster, and as smooth once reduced


def _pastels(generator: np.random.Generator) -> tuple[RGB, RGB]:
    """Two neighbouring pale colours, neither so bright as a white object nor so strong as a coloured one."""
    hue, saturation, value = generator.random(), generator.uniform(0.04, 0.28), generator.uniform(0.66, 0.88)
    turn, more, brighter = generator.uniform(-0.1, 0.1), generator.uniform(0.6, 1.5), generator.uniform(0.9, 1.06)
    pair = ((hue, saturation, value), ((hue + turn) % 1, saturation * more, min(0.9, value * brighter)))
    return tuple(tuple(round(255 * c) for c in colorsys.hsv_to_rgb(*colour)) for colour in pair)


class _Brush:
    """Draws on its image in shares of the width, with every colour varied a little in brightness by ``vary``."""

    def __init__(self, width: int, *, sky: tuple[RGB, RGB]):
        self.image = gradient(*sky, math.pi / 2, width=width)
        self.width = width
        self._pen = ImageDraw.Draw(self.image)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: RGB) -> None:
        self._pen.rectangle([c * self.width for c in (x0, y0, x1, y1)], fill=fill)

    def disc(self, x: float, y: float, radius: float, fill: RGB) -> None:
        self._pen.ellipse([c * self.width for c in (x - radius, y - radius, x + radius, y + radius)], fill=fill)

    def polygon(self, points: list[tuple[float, float]], fill: RGB) -> None:
        self._pen.polygon([(x * self.width, y * self.width) for x, y in points], fill=fill)

    def hills(self, level: float, height: float, phase: float, fill: RGB, *, waves: float = 1.0) -> None:
        """Fill everything below a wavy line."""
        line = [(x / 16, level + height * math.sin(2 * math.pi * (waves * x / 16 + phase))) for x in range(17)]
        self.polygon([*line, (1, 1), (0, 1)], fill)


def _vary(colour: RGB, generator: np.random.Generator) -> RGB:
    factor = generator.uniform(0.92, 1.06)
    return tuple(min(255, round(c * factor)) for c in colour)


def _street(brush: _Brush, generator: np.random.Generator) -> None:
    """Houses with windows above a grey road with a dashed line."""
    left = -generator.uniform(0, 0.15)
    while left < 1:
        right, top = left + generator.uniform(0.2, 0.3), generator.uniform(0.02, 0.14)
        brush.box(left, top, right, 0.34, _vary(_HOUSES[generator.integers(len(_HOUSES))], generator))
        for x in np.arange(left + 0.04, right - 0.07, 0.09).tolist():
            brush.box(x, top + 0.05, x + 0.045, top + 0.1, (250, 232, 160))
        left = right
    brush.box(0, 0.32, 1, 0.4, _vary((196, 192, 186), generator))
    brush.box(0, 0.4, 1, 1, _vary((112, 114, 122), generator))
    start = -generator.uniform(0, 0.3)
    for i in range(5):
        brush.box(start + 0.3 * i, 0.67, start + 0.3 * i + 0.17, 0.72, (244, 240, 226))


def _grass(brush: _Brush, generator: np.random.Generator) -> None:
    """A meadow with tufts under a blue sky with a cloud."""
    x, phase = generator.uniform(0.15, 0.85), generator.random()
    for dx, radius in ((-0.1, 0.05), (0, 0.07), (0.1, 0.05)):
        brush.disc(x + dx, 0.12, radius, (250, 252, 255))
    brush.hills(HORIZON, 0.025, phase, _vary((150, 208, 92), generator))
    brush.hills(0.6, 0.03, phase + 0.4, _vary((132, 194, 78), generator))
    for x, y in generator.uniform((0.02, 0.38), (0.94, 0.96), (16, 2)).tolist():
        brush.polygon(
            [(x, y), (x + 0.012, y - 0.06), (x + 0.025, y), (x + 0.045, y - 0.05), (x + 0.05, y)], (88, 156, 52)
        )


def _desert(brush: _Brush, generator: np.random.Generator) -> None:
    """Dunes, a low sun and cactuses."""
    brush.disc(generator.uniform(0.2, 0.8), 0.15, 0.09, (255, 244, 196))
    phase = generator.random()
    for level, colour in ((0.3, (226, 176, 104)), (0.48, (236, 192, 122)), (0.72, (244, 206, 140))):
        brush.hills(level, 0.045, phase + 2.3 * level, _vary(colour, generator))
    for x in (generator.uniform(0.04, 0.3), generator.uniform(0.7, 0.92)):
        y = generator.uniform(0.36, 0.44)
        for part in (
            (0, -0.2, 0.05, 0),
            (-0.06, -0.13, -0.02, -0.05),
            (-0.06, -0.09, 0, -0.05),
            (0.07, -0.16, 0.11, -0.08),
        ):
            brush.box(x + part[0], y + part[1], x + part[2], y + part[3], (70, 136, 76))
        brush.box(x + 0.05, y - 0.11, x + 0.11, y - 0.08, (70, 136, 76))


def _ocean(brush: _Brush, generator: np.random.Generator) -> None:
    """Rows of waves with white crests up to the horizon."""
    brush.box(0, 0.2, 1, 1, (24, 96, 168))
    for i, level in enumerate((0.24, 0.37, 0.52, 0.68, 0.85)):
        phase, blue = generator.random(), (28 + 8 * i, 106 + 12 * i, 176 + 10 * i)
        brush.hills(level, 0.022, phase, (214, 238, 250), waves=3)
        brush.hills(level + 0.022, 0.022, phase, _vary(blue, generator), waves=3)


def _forest(brush: _Brush, generator: np.random.Generator) -> None:
    """Two rows of dark fir trees over mossy ground."""
    brush.box(0, 0.4, 1, 1, _vary((78, 104, 58), generator))
    for row, (foot, count, colour) in enumerate(((0.42, 8, (52, 108, 74)), (0.5, 6, (30, 80, 50)))):
        start = generator.uniform(-0.1, 0.0)
        for x in (start + (np.arange(count) + generator.uniform(-0.1, 0.1, count)) * 1.16 / (count - 1)).tolist():
            brush.box(x - 0.016, foot - 0.08, x + 0.016, foot, (84, 58, 38))
            fill = _vary(colour, generator)
            for top, half in ((0.0, 0.06), (0.1, 0.08), (0.2, 0.1)):
                y = foot - 0.46 - 0.05 * row + top
                brush.polygon([(x, y), (x + half, y + 0.2), (x - half, y + 0.2)], fill)
    for x, y in generator.uniform((0.0, 0.56), (1.0, 0.98), (8, 2)).tolist():
        brush.disc(x, y, 0.018, (104, 134, 70))


def _table(brush: _Brush, generator: np.random.Generator) -> None:
    """A wooden table top with planks, its front edge and legs, before a wall with a picture."""
    x, wood = generator.uniform(0.12, 0.7), _vary((196, 142, 88), generator)
    dark = tuple(round(0.78 * c) for c in wood)
    brush.box(x, 0.03, x + 0.2, 0.2, (250, 246, 236))
    brush.box(x + 0.025, 0.055, x + 0.175, 0.175, _vary((150, 190, 206), generator))
    brush.box(0.06, 0.9, 0.14, 1, dark)
    brush.box(0.86, 0.9, 0.94, 1, dark)
    brush.polygon([(0.1, 0.32), (0.9, 0.32), (1.0, 0.86), (0.0, 0.86)], wood)
    for i in range(1, 4):
        y = 0.32 + 0.54 * (i / 4) ** 1.25
        brush.box(0.1 - 0.1 * (y - 0.32) / 0.54, y, 0.9 + 0.1 * (y - 0.32) / 0.54, y + 0.012, dark)
    brush.box(0.0, 0.86, 1.0, 0.92, dark)


LOCATIONS: dict[str, Draw] = {
    "street": _street,
    "grass": _grass,
    "desert": _desert,
    "ocean": _ocean,
    "forest": _forest,
    "table": _table,
}
_SKIES: dict[str, tuple[RGB, RGB]] = {
    "street": ((170, 206, 236), (226, 226, 220)),
    "grass": ((112, 184, 244), (214, 236, 250)),
    "desert": ((250, 190, 120), (255, 226, 170)),
    "ocean": ((126, 194, 240), (226, 242, 250)),
    "forest": ((160, 196, 172), (196, 214, 176)),
    "table": ((206, 212, 214), (222, 226, 226)),
}
_HOUSES: tuple[RGB, ...] = ((188, 112, 92), (150, 130, 150), (206, 176, 130), (120, 140, 166))
