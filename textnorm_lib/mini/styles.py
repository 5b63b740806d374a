"""What a prompt can ask of the whole picture: where it is (``LOCATIONS``) and how it is made (``STYLES``).

A ground is drawn on a canvas of ``width`` x ``width`` pixels; what draws one thinks in shares of that width. In a
location the ground starts at about ``HORIZON``, and objects keep below ``GROUND_TOP`` so that they stand on it. A style
is a pair of pens for the sprites, a ground behind them and a last pass over the image.
"""

import colorsys
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from textnorm_lib.mini.drawings import PAINTS, RGB, from_hsv

HORIZON = 0.3
GROUND_TOP = 0.16  # an object's box begins below this, so its foot is on the ground


def location_ground(location: str, generator: np.random.Generator, width: int) -> Image.Image:
    """A new ground of one of ``LOCATIONS``."""
    sky, draw = LOCATIONS[location]
    brush = _Brush(width, sky)
    draw(brush, generator)
    return brush.image


def _gradient(first: RGB, second: RGB, angle: float, width: int) -> Image.Image:
    """From ``first`` to ``second`` along ``angle`` (radians, 0 to the right)."""
    y, x = np.mgrid[0:8, 0:8] / 7 - 0.5
    share = np.clip(x * math.cos(angle) + y * math.sin(angle) + 0.5, 0, 1)[..., None]
    pixels = np.array(first) * (1 - share) + np.array(second) * share
    coarse = Image.fromarray(pixels.astype(np.uint8)).resize((width // 4, width // 4), Image.Resampling.BILINEAR)
    return coarse.resize((width, width), Image.Resampling.NEAREST)  # many times faster, and as smooth once reduced


class _Brush:
    """Draws on its image in shares of the width."""

    def __init__(self, width: int, sky: tuple[RGB, RGB]):
        self.image = _gradient(*sky, math.pi / 2, width)
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
    """The colour, a little darker or brighter."""
    factor = generator.uniform(0.92, 1.06)
    return tuple(min(255, round(c * factor)) for c in colour)


def _street(brush: _Brush, generator: np.random.Generator) -> None:
    """Houses with windows above a grey road with a dashed line."""
    houses = ((188, 112, 92), (150, 130, 150), (206, 176, 130), (120, 140, 166))
    left = -generator.uniform(0, 0.15)
    while left < 1:
        right, top = left + generator.uniform(0.2, 0.3), generator.uniform(0.02, 0.14)
        brush.box(left, top, right, 0.34, _vary(houses[generator.integers(len(houses))], generator))
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
        tuft = [(x, y), (x + 0.012, y - 0.06), (x + 0.025, y), (x + 0.045, y - 0.05), (x + 0.05, y)]
        brush.polygon(tuft, (88, 156, 52))


def _desert(brush: _Brush, generator: np.random.Generator) -> None:
    """Dunes, a low sun and cactuses."""
    brush.disc(generator.uniform(0.2, 0.8), 0.15, 0.09, (255, 244, 196))
    phase = generator.random()
    for level, colour in ((0.3, (226, 176, 104)), (0.48, (236, 192, 122)), (0.72, (244, 206, 140))):
        brush.hills(level, 0.045, phase + 2.3 * level, _vary(colour, generator))
    stem, arms = (0, -0.2, 0.05, 0), ((-0.06, -0.13, -0.02, -0.05), (0.07, -0.16, 0.11, -0.08))
    elbows = ((-0.06, -0.09, 0, -0.05), (0.05, -0.11, 0.11, -0.08))
    for x in (generator.uniform(0.04, 0.3), generator.uniform(0.7, 0.92)):
        y = generator.uniform(0.36, 0.44)
        for x0, y0, x1, y1 in (stem, *arms, *elbows):
            brush.box(x + x0, y + y0, x + x1, y + y1, (70, 136, 76))


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


class Location(NamedTuple):
    """The sky's colours from the top down, and what draws the rest."""

    sky: tuple[RGB, RGB]
    draw: Callable[[_Brush, np.random.Generator], None]


LOCATIONS: dict[str, Location] = {
    "street": Location(((170, 206, 236), (226, 226, 220)), _street),
    "grass": Location(((112, 184, 244), (214, 236, 250)), _grass),
    "desert": Location(((250, 190, 120), (255, 226, 170)), _desert),
    "ocean": Location(((126, 194, 240), (226, 242, 250)), _ocean),
    "forest": Location(((160, 196, 172), (196, 214, 176)), _forest),
    "table": Location(((206, 212, 214), (222, 226, 226)), _table),
}


@dataclass(frozen=True)
class Pens:
    """What a part's colour becomes on its edge and inside; with ``every_part`` edges show within the sprite too."""

    edge: Callable[[RGB], RGB]
    inside: Callable[[RGB], RGB]
    every_part: bool = False


@dataclass(frozen=True)
class Style:
    """``ground``: what is drawn on if no location is asked for; ``finish``: the last pass over the reduced image."""

    pens: Pens
    ground: Callable[[np.random.Generator, int], Image.Image]
    finish: Callable[[Image.Image, np.random.Generator], Image.Image]


def _pastels(generator: np.random.Generator, width: int) -> Image.Image:
    """Two neighbouring pale colours, neither so bright as a white object nor so strong as a coloured one."""
    hue, saturation, value = generator.random(), generator.uniform(0.04, 0.28), generator.uniform(0.66, 0.88)
    turn, more, brighter = generator.uniform(-0.1, 0.1), generator.uniform(0.6, 1.5), generator.uniform(0.9, 1.06)
    first = from_hsv(hue, saturation, value)
    second = from_hsv(hue + turn, saturation * more, min(0.9, value * brighter))
    return _gradient(first, second, generator.uniform(0, 2 * math.pi), width)


def _graphite(colour: RGB) -> RGB:
    """The grey of the colour's brightness, pale as pencil shading is; what is nearly black stays dark."""
    brightness = (0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]) / 255
    grey = round(255 * brightness**0.5) if max(colour) > 60 else 62
    return grey, grey, grey


def _paper(generator: np.random.Generator, width: int) -> Image.Image:
    grey = int(generator.integers(236, 250))
    return _gradient((grey, grey, grey - 6), (grey - 10, grey - 10, grey - 16), generator.uniform(0, 6.3), width)


def _hatch(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Slanted strokes where the shading is, and the grain of the paper."""
    pixels = np.asarray(image, dtype=np.float32)
    y, x = np.mgrid[0 : pixels.shape[0], 0 : pixels.shape[1]]
    strokes = np.sin((x + y) * (2 * np.pi / 4.0) + generator.uniform(0, 6.3))
    grey = pixels[..., 0]
    change = 26 * strokes * ((grey > 80) & (grey < 222)) + generator.normal(0, 2.5, grey.shape)
    return Image.fromarray(np.clip(pixels + change[..., None], 0, 255).astype(np.uint8))


def _tube(colour: RGB) -> RGB:
    """The colour as a neon tube would give it: bright; greys and blacks become a pale violet."""
    hue, saturation, _ = colorsys.rgb_to_hsv(*(c / 255 for c in colour))
    hue, saturation = (hue, max(0.55, saturation)) if saturation > 0.2 else (0.75, 0.25)
    return from_hsv(hue, saturation, 1.0)


def _unlit(colour: RGB) -> RGB:
    return tuple(round(0.1 * c) + 8 for c in colour)


def _night(generator: np.random.Generator, width: int) -> Image.Image:
    low, high = generator.integers(6, 16), generator.integers(18, 34)
    return _gradient((low, low, high), (low, low // 2, high // 2), generator.uniform(0, 6.3), width)


def _glow(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    halo = image.filter(ImageFilter.GaussianBlur(image.width / 28))
    return ImageChops.add(image, halo.point(lambda value: min(255, round(1.1 * value))))


def _dabs(generator: np.random.Generator, width: int) -> Image.Image:
    """Broad dabs of the brush in neighbouring strong colours, all swept one way."""
    hue, value, sweep = generator.random(), generator.uniform(0.5, 0.8), generator.uniform(0, np.pi)
    image = Image.new("RGB", (width, width), from_hsv(hue, 0.5, value))
    pen = ImageDraw.Draw(image)
    for x, y, turn, dh, ds, dv in generator.uniform(-1, 1, (100, 6)).tolist():
        angle = sweep + 0.6 * turn + 1.2 * x
        dx, dy = 0.09 * width * np.cos(angle), 0.09 * width * np.sin(angle)
        x, y = (x + 1) / 2 * width, (y + 1) / 2 * width
        paint = from_hsv(hue + 0.07 * dh, 0.5 + 0.2 * ds, value + 0.15 * dv)
        pen.line((x - dx, y - dy, x + dx, y + dy), fill=paint, width=width // 14)
    return image


def _smear(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Drag the paint along a swirling field and leave the relief of the bristles."""
    pixels = np.asarray(image, dtype=np.float32)
    size = pixels.shape[0]
    angle = _smooth_noise(generator, cells=5, size=size) * np.pi
    noise = _smooth_noise(generator, cells=size // 2, size=size)
    y, x = np.mgrid[0:size, 0:size]
    paint, relief = np.zeros_like(pixels), np.zeros_like(noise)
    for step in (-2, -1, 0, 1, 2):
        rows = np.clip(np.rint(y + step * np.sin(angle)), 0, size - 1).astype(int)
        columns = np.clip(np.rint(x + step * np.cos(angle)), 0, size - 1).astype(int)
        paint += pixels[rows, columns] / 5
        relief += noise[rows, columns] / 5
    mixed = 0.4 * paint + 0.6 * pixels + 45 * relief[..., None]
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def _smooth_noise(generator: np.random.Generator, *, cells: int, size: int) -> np.ndarray:
    """(size, size) in [-1, 1], changing over ``size / cells`` pixels."""
    coarse = Image.fromarray(generator.integers(0, 256, (cells, cells), dtype=np.uint8))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32) / 127.5 - 1


STYLES: dict[str, Style] = {
    "photo": Style(Pens(lambda colour: PAINTS["ink"], lambda colour: colour), _pastels, lambda image, generator: image),
    "pencil sketch": Style(Pens(lambda colour: (66, 66, 72), _graphite), _paper, _hatch),
    "oil painting": Style(Pens(lambda colour: tuple(c // 3 for c in colour), lambda colour: colour), _dabs, _smear),
    "neon sign": Style(Pens(_tube, _unlit, every_part=True), _night, _glow),
}
