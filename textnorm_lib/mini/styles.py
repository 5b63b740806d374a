"""The styles that a prompt can ask for: pens for the sprites, a ground behind them, a last pass over the image."""

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from textnorm_lib.mini.backgrounds import background, gradient
from textnorm_lib.mini.shapes import RGB
from textnorm_lib.mini.sprites import PHOTO, Pens
from textnorm_lib.study.errors import DataError


@dataclass(frozen=True)
class Style:
    """``ground``: what is drawn on if no location is asked for; ``finish``: the last pass over the reduced image."""

    pens: Pens
    ground: Callable[[np.random.Generator, int], Image.Image]
    finish: Callable[[Image.Image, np.random.Generator], Image.Image]


def find_style(name: str) -> Style:
    """One of ``STYLES``."""
    if name not in STYLES:
        raise DataError(f"unknown style {name!r}; known: {', '.join(STYLES)}")
    return STYLES[name]


def _plain_ground(generator: np.random.Generator, width: int) -> Image.Image:
    return background(None, generator, width=width)


def _unchanged(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    return image


def _graphite(colour: RGB) -> RGB:
    """The grey of the colour's brightness, pale as pencil shading is; what is nearly black stays dark."""
    brightness = (0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]) / 255
    grey = round(255 * brightness**0.5) if max(colour) > 60 else 62
    return grey, grey, grey


def _paper(generator: np.random.Generator, width: int) -> Image.Image:
    grey = int(generator.integers(236, 250))
    return gradient((grey, grey, grey - 6), (grey - 10, grey - 10, grey - 16), generator.uniform(0, 6.3), width=width)


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
    return _hsv(hue, saturation, 1.0)


def _unlit(colour: RGB) -> RGB:
    return tuple(round(0.1 * c) + 8 for c in colour)


def _night(generator: np.random.Generator, width: int) -> Image.Image:
    low, high = generator.integers(6, 16), generator.integers(18, 34)
    return gradient((low, low, high), (low, low // 2, high // 2), generator.uniform(0, 6.3), width=width)


def _glow(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    halo = image.filter(ImageFilter.GaussianBlur(image.width / 28))
    return ImageChops.add(image, halo.point(lambda value: min(255, round(1.1 * value))))


def _dabs(generator: np.random.Generator, width: int) -> Image.Image:
    """Broad dabs of the brush in neighbouring strong colours, all swept one way."""
    hue, value, sweep = generator.random(), generator.uniform(0.5, 0.8), generator.uniform(0, np.pi)
    image = Image.new("RGB", (width, width), _hsv(hue, 0.5, value))
    pen = ImageDraw.Draw(image)
    for x, y, turn, dh, ds, dv in generator.uniform(-1, 1, (100, 6)).tolist():
        angle = sweep + 0.6 * turn + 1.2 * x
        dx, dy = 0.09 * width * np.cos(angle), 0.09 * width * np.sin(angle)
        x, y = (x + 1) / 2 * width, (y + 1) / 2 * width
        pen.line(
            (x - dx, y - dy, x + dx, y + dy),
            fill=_hsv(hue + 0.07 * dh, 0.5 + 0.2 * ds, value + 0.15 * dv),
            width=width // 14,
        )
    return image


def _hsv(hue: float, saturation: float, value: float) -> RGB:
    return tuple(round(255 * c) for c in colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1)))


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
    "photo": Style(PHOTO, _plain_ground, _unchanged),
    "pencil sketch": Style(Pens(lambda colour: (66, 66, 72), _graphite), _paper, _hatch),
    "oil painting": Style(Pens(lambda colour: tuple(c // 3 for c in colour), lambda colour: colour), _dabs, _smear),
    "neon sign": Style(Pens(_tube, _unlit, every_part=True), _night, _glow),
}
