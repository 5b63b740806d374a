"""What all rewards share: reading images, batches, each image and each distinct prompt computed once, checks.

There are two kinds. A *dual encoder* (CLIP, PickScore) turns images and prompts into features and multiplies these; a
*cross-encoder* (BLIP-2's matching head, ImageReward) turns an image into tokens and reads every prompt against them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from PIL import Image
from torch import nn

from textnorm_lib.errors import DataError
from textnorm_lib.progress import progress

Images = Sequence[Image.Image | str | Path] | np.ndarray  # an array is uint8 (n, h, w, 3)


class Reward(ABC):
    """Scores how well images show what prompts ask for; higher is better, the scale is the model's own.

    A subclass reads its model from ``folder`` and sets the attributes below; ``load_reward`` is the way to make one.
    """

    name: ClassVar[str]
    model: nn.Module
    tokenizer: Callable
    image_size: int  # pixels a side
    mean: Sequence[float]  # of a channel in [0, 1], as std
    std: Sequence[float]

    def __init__(self, folder: Path, *, batch_size: int) -> None:
        self.folder, self.batch_size, self.device = folder, batch_size, "cpu"

    def to(self, device: str) -> Self:
        """Move the model to ``device``."""
        self.model.to(device)
        self.device = device
        return self

    def score_matrix(self, images: Images, prompts: Sequence[str]) -> np.ndarray:
        """Every image with every prompt: (n images, n prompts) float32."""
        self._check(images, prompts)
        distinct = list(dict.fromkeys(prompts))
        columns = {prompt: column for column, prompt in enumerate(distinct)}
        with torch.no_grad():
            matrix = self._matrix(images, distinct).numpy()[:, [columns[prompt] for prompt in prompts]]
        return self._numbers(matrix, prompts)

    def scores(self, images: Images, prompts: Sequence[str]) -> np.ndarray:
        """Image i with prompt i: (n,) float32."""
        self._check(images, prompts)
        if len(images) != len(prompts):
            raise DataError(f"{self.name}: {len(images)} images and {len(prompts)} prompts; give one prompt an image")
        with torch.no_grad():
            scores = self._pairs(images, list(prompts)).numpy()
        return self._numbers(scores, prompts)

    @abstractmethod
    def _matrix(self, images: Images, prompts: list[str]) -> torch.Tensor:
        """Scores (n images, n prompts) on the CPU; ``prompts`` differ from each other."""

    @abstractmethod
    def _pairs(self, images: Images, prompts: list[str]) -> torch.Tensor:
        """Scores (n,) on the CPU."""

    def _check(self, images: Images, prompts: Sequence[str]) -> None:
        if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
            raise DataError(f"{self.name}: prompts are {prompts!r:.80}; give a list of strings")
        if isinstance(images, str | Path | Image.Image):
            raise DataError(f"{self.name}: images are a single {type(images).__name__}; give a list of images")
        if isinstance(images, np.ndarray) and (images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3):
            raise DataError(f"{self.name}: images are {images.dtype} {images.shape}; give uint8 (n, height, width, 3)")
        for what, given in (("images", images), ("prompts", prompts)):
            if len(given) == 0:
                raise DataError(f"{self.name}: the list of {what} is empty; give at least one")

    def _numbers(self, scores: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """``scores`` (n,) or (n, n prompts), if each is a number."""
        for place in np.argwhere(~np.isfinite(scores)):
            raise DataError(
                f"{self.name}: image {place[0]} with prompt {prompts[place[-1]]!r} scores {scores[tuple(place)]}; "
                f"check that image, and restore the weights in {self.folder}"
            )
        return scores

    def _image_batches(self, images: Images) -> Iterator[tuple[slice, torch.Tensor]]:
        """(which images, their normalised pixels (b, 3, size, size)), with a progress bar."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        for start in progress(range(0, len(images), self.batch_size), f"{self.name}: images", unit="batch"):
            where = slice(start, min(start + self.batch_size, len(images)))
            squares = [self._square(images[index], index) for index in range(where.start, where.stop)]
            pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
            yield where, ((pixels - mean) / std).to(self.device)

    def _square(self, image: Image.Image | str | Path | np.ndarray, index: int) -> np.ndarray:
        """uint8 (size, size, 3): scaled so that the shorter side fits (bicubic), the middle of the longer one kept."""
        if isinstance(image, str | Path):
            try:
                with Image.open(image) as opened:
                    image = opened.convert("RGB")
            except OSError as error:
                raise DataError(
                    f"{self.name}: image {index} ({image}) cannot be read ({error}); make it again"
                ) from error
        elif isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        elif not isinstance(image, Image.Image):
            raise DataError(f"{self.name}: image {index} is a {type(image).__name__}; give a PIL image or a path")
        size, shorter = self.image_size, min(image.size)
        image = image.convert("RGB")
        if shorter != size:
            image = image.resize([size * side // shorter for side in image.size], Image.Resampling.BICUBIC)
        left, top = (round((side - size) / 2) for side in image.size)
        return np.asarray(image.crop((left, top, left + size, top + size)))

    def _tokenize(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask (n, longest of these prompts); what exceeds the tokenizer's limit is cut off."""
        batch = self.tokenizer(prompts, padding=True, truncation=True, return_tensors="pt")
        return batch.input_ids.to(self.device), batch.attention_mask.to(self.device)


class DualReward(Reward):
    """scale * max over an image's features of (image feature . prompt feature); CLIP has one feature an image."""

    scale: float

    @abstractmethod
    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) -> unit vectors (n, features an image, d)."""

    @abstractmethod
    def _text_features(self, prompts: list[str]) -> torch.Tensor:
        """n prompts -> unit vectors (n, d)."""

    def _matrix(self, images: Images, prompts: list[str]) -> torch.Tensor:
        texts = self._all_text_features(prompts)
        rows = [(self._image_features(pixels) @ texts.T).amax(dim=1) for _, pixels in self._image_batches(images)]
        return self.scale * torch.cat(rows).cpu()

    def _pairs(self, images: Images, prompts: list[str]) -> torch.Tensor:
        distinct = list(dict.fromkeys(prompts))
        places = {prompt: place for place, prompt in enumerate(distinct)}
        texts = self._all_text_features(distinct)[[places[prompt] for prompt in prompts]]
        scores = [
            (self._image_features(pixels) * texts[where, None]).sum(dim=-1).amax(dim=1)
            for where, pixels in self._image_batches(images)
        ]
        return self.scale * torch.cat(scores).cpu()

    def _all_text_features(self, prompts: list[str]) -> torch.Tensor:
        starts = range(0, len(prompts), self.batch_size)
        return torch.cat([self._text_features(prompts[start : start + self.batch_size]) for start in starts])


class CrossReward(Reward):
    """Reads prompts against an image's tokens, which are computed once an image and not kept."""

    @abstractmethod
    def _image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) -> (n, t, d)."""

    @abstractmethod
    def _pair_scores(self, image_tokens: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Tokens (n or 1, t, d) with prompts (n, l) -> (n,); a single image is shared by all prompts."""

    def _matrix(self, images: Images, prompts: list[str]) -> torch.Tensor:
        # Prompts of like length share a chunk, so that little is padded; a chunk meets one image at a time, so that
        # what the cross-attention derives from the image's tokens is computed once a chunk and not once a pair.
        lengths = [len(ids) for ids in self.tokenizer(prompts, truncation=True).input_ids]
        order = sorted(range(len(prompts)), key=lengths.__getitem__)
        chunks = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        texts = [self._tokenize([prompts[column] for column in chunk]) for chunk in chunks]
        matrix = torch.empty(len(images), len(prompts))
        for where, pixels in self._image_batches(images):
            for row, tokens in enumerate(self._image_tokens(pixels), start=where.start):
                for chunk, (ids, mask) in zip(chunks, texts, strict=True):
                    matrix[row, chunk] = self._pair_scores(tokens[None], ids, mask).cpu()
        return matrix

    def _pairs(self, images: Images, prompts: list[str]) -> torch.Tensor:
        scores = [
            self._pair_scores(self._image_tokens(pixels), *self._tokenize(prompts[where]))
            for where, pixels in self._image_batches(images)
        ]
        return torch.cat(scores).cpu()
