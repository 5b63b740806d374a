"""From whatever an image is given as to the square of pixels that a reward's image encoder reads."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from textnorm_lib.study.errors import LONGEST_PATH, DataError, check_regular, shown

MOST_PIXELS = 50_000_000  # of an image that is read: 150 MB
Images = Sequence[Image.Image | str | Path] | np.ndarray  # an array is uint8 (n, h, w, 3)


def square(image: Image.Image | str | Path | np.ndarray, size: int, what: str) -> np.ndarray:
    """uint8 (size, size, 3): scaled so that the shorter side fits (bicubic), the middle of the longer one kept.

    Any mode is converted to RGB; what is transparent shows the colour that is stored beneath. ``what`` names the image
    in the ``DataError`` for one that cannot be read.
    """
    image = _opened(image, what).convert("RGB")
    shorter = min(image.size)
    if shorter != size:
        image = image.resize([size * side // shorter for side in image.size], Image.Resampling.BICUBIC)
    left, top = (round((side - size) / 2) for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _opened(image: Image.Image | str | Path | np.ndarray, what: str) -> Image.Image:
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, str | Path):
        raise DataError(f"{what} is a {type(image).__name__}; give a PIL image or a path")
    try:
        check_regular(image)
        with Image.open(image) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise ValueError(f"{opened.width} x {opened.height} pixels, more than {MOST_PIXELS:,}")
            return opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, NotImplementedError, Image.DecompressionBombError) as error:
        where, reason = shown(image, LONGEST_PATH), shown(error, LONGEST_PATH)
        raise DataError(f"{what} ({where}) cannot be read ({reason}); make it again") from error


def check(images: Images, prompts: Sequence[str], name: str) -> None:
    """Raise ``DataError`` unless there are images and prompts, and the latter are strings that say something."""
    if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
        raise DataError(f"{name}: prompts are {prompts!r:.80}; give a list of strings")
    if isinstance(images, str | Path | Image.Image):
        raise DataError(f"{name}: images are a single {type(images).__name__}; give a list of images")
    if isinstance(images, np.ndarray) and (images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3):
        raise DataError(f"{name}: images are {images.dtype} {images.shape}; give uint8 (n, height, width, 3)")
    for what, given in (("images", images), ("prompts", prompts)):
        if len(given) == 0:
            raise DataError(f"{name}: the list of {what} is empty; give at least one")
    for place, prompt in enumerate(prompts):
        if not prompt.strip():
            raise DataError(f"{name}: prompt {place} is {prompt!r}; give words to compare the image with")
        if re.search("[\ud800-\udfff]", prompt):
            raise DataError(f"{name}: prompt {place} is {prompt!r:.80}, half of a character's code; give whole ones")


def from_tensor(images: torch.Tensor) -> np.ndarray:
    """(n, 3, h, w) in [0, 1] -> uint8 (n, h, w, 3), rounded as an image that is written to a file.

    Raises ``DataError`` for other tensors and other values.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise DataError(f"images are {images.dtype} {tuple(images.shape)}; a tensor has to be floats (n, 3, h, w)")
    images = images.detach().float().cpu()
    for index in (~((images >= 0) & (images <= 1)).flatten(1).all(dim=1)).nonzero():
        low, high = images[index].aminmax()
        raise DataError(f"image {index.item()} has values from {low:g} to {high:g}; 0 to 1 are needed")
    return (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
