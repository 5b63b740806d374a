"""What all rewards share: batches that fit, each image and each distinct prompt computed once, checks.

There are two kinds. A *dual encoder* (CLIP, PickScore) turns images and prompts into features and multiplies these; a
*cross-encoder* (BLIP-2's matching head, ImageReward) turns an image into tokens and reads every prompt against them.
With n images and m prompts the first costs n + m passes, the second n passes and n m short ones.
"""

import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd
import psutil
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from textnorm_lib.images.pixels import Images, check, square
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.progress import progress

MOST_AT_ONCE = 128  # images, or pairs of an image and a prompt: more make no device faster
LIVE_COPIES = 24  # of an image's tokens: what a layer (attention, feed-forward) has in memory at once
SHARE = 0.25  # of the free memory: what a batch may take


class CutPrompt(UserWarning):
    """A prompt is longer than a reward reads."""


class Reward(ABC):
    """Scores how well images show what prompts ask for; higher is better, the scale is the model's own.

    A subclass reads its model from ``folder`` and sets the attributes below; ``load_reward`` makes one.
    """

    name: ClassVar[str]
    model: nn.Module
    tokenizer: Callable
    image_size: int  # pixels per side
    mean: Sequence[float]  # by which a channel in [0, 1] is normalised
    std: Sequence[float]
    tokens_size: int  # numbers in the tokens of an image: how many tokens times how wide

    def __init__(self, folder: Path, *, batch_size: int | None) -> None:
        self.folder, self.batch_size = folder, batch_size
        self.device, self.dtype = "cpu", torch.float32

    def to(self, device: str, dtype: torch.dtype = torch.float32) -> Self:
        """Move the model to ``device``; its arithmetic is in ``dtype``, scores are float32 all the same."""
        self.model.to(device, dtype).requires_grad_(False)
        self.device, self.dtype = device, dtype
        if self.batch_size is None:
            cuda = torch.device(device).type == "cuda"
            free = torch.cuda.mem_get_info(device)[0] if cuda else psutil.virtual_memory().available
            fitting = free * SHARE / (LIVE_COPIES * self.tokens_size * dtype.itemsize)
            self.batch_size = int(min(max(fitting, 1), MOST_AT_ONCE))
        return self

    def score_matrix(self, images: Images, prompts: Sequence[str]) -> np.ndarray:
        """Every image with every prompt: (n images, n prompts) float32."""
        check(images, prompts, self.name)
        columns, distinct = pd.factorize(np.array(prompts, object))
        with torch.no_grad():
            matrix = self._matrix(images, distinct.tolist()).numpy()[:, columns]
        return self._numbers(matrix, prompts)

    def scores(self, images: Images, prompts: Sequence[str]) -> np.ndarray:
        """Image i with prompt i: (n,) float32."""
        check(images, prompts, self.name)
        if len(images) != len(prompts):
            raise DataError(f"{self.name}: {len(images)} images and {len(prompts)} prompts; give one prompt an image")
        with torch.no_grad():
            scores = self._pairs(images, list(prompts)).numpy()
        return self._numbers(scores, prompts)

    def differentiable(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Image i with prompt i, (n,) float32 on the reward's device; gradients pass to ``images``.

        ``images``: float (n, 3, h, h) in [0, 1], all in one batch, scaled to the model's size (bicubic). Scores are
        those of ``scores`` but for the rounding of pixels to 256 levels.
        """
        distinct = {prompt: [i for i, other in enumerate(prompts) if other == prompt] for prompt in prompts}
        scores = {}
        for prompt, places in distinct.items():
            scores |= dict(zip(places, self.differentiable_matrix(images[places], [prompt])[:, 0], strict=True))
        return torch.stack([scores[place] for place in range(len(prompts))])

    def differentiable_matrix(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """Every image with every prompt, (n images, n prompts); else as ``differentiable``."""
        check(["images, which are a tensor"], prompts, self.name)
        size = (self.image_size, self.image_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (self.mean, self.std))
        return self._of_pixels(((images - mean) / std).to(self.device, self.dtype), list(prompts)).float()

    def _of_pixels(self, pixels: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Scores (n, n prompts) of normalised pixels (n, 3, size, size), with their gradients."""
        raise DataError(f"{self.name} passes no gradients; take a reward that does")

    @abstractmethod
    def _matrix(self, images: Images, prompts: list[str]) -> torch.Tensor:
        """Scores (n images, n prompts), float32 on the CPU; ``prompts`` differ from each other."""

    @abstractmethod
    def _pairs(self, images: Images, prompts: list[str]) -> torch.Tensor:
        """Scores (n,), float32 on the CPU."""

    def _numbers(self, scores: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
        """``scores`` (n,) or (n, n prompts), if each is a number."""
        for place in np.argwhere(~np.isfinite(scores)):
            raise DataError(
                f"{self.name}: image {place[0]} with prompt {prompts[place[-1]]!r} scores {scores[tuple(place)]}; "
                f"check that image, and restore the weights in {self.folder}"
            )
        return scores

    def _over_images(self, images: Images, compute: Callable[[slice, torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """``compute`` (which images, their normalised pixels (b, 3, size, size)) -> (b, ...), with a progress bar."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        with progress(None, f"{self.name}: images", total=len(images), unit="images") as bar:

            def on_batch(where: slice) -> torch.Tensor:
                numbers = range(where.start, where.stop)
                squares = [square(images[i], self.image_size, f"{self.name}: image {i}") for i in numbers]
                pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
                result = compute(where, ((pixels - mean) / std).to(self.device, self.dtype))
                bar.update(len(numbers))
                return result

            return self._in_batches(len(images), on_batch)

    def _in_batches(self, count: int, compute: Callable[[slice], torch.Tensor]) -> torch.Tensor:
        """``compute`` on ``count`` things in batches that the memory holds, its results (b, ...) float32 on the CPU."""
        results, start = [], 0
        while start < count:
            where = slice(start, min(start + self.batch_size, count))
            try:
                results.append(compute(where).float().cpu())
            except torch.OutOfMemoryError as error:
                self._halve(error)
            else:
                start = where.stop
        return torch.cat(results)

    def _halve(self, error: torch.OutOfMemoryError) -> None:
        if self.batch_size == 1:
            raise DataError(f"{self.name}: {self.device} has no room for a single image; use another device") from error
        self.batch_size //= 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(f"{self.name}: {self.device} is out of memory, going on with {self.batch_size} at once", file=sys.stderr)

    def _token_ids(self, prompts: list[str]) -> list[torch.Tensor]:
        """The tokens of each prompt; what exceeds the tokenizer's limit is cut off, with a warning."""
        ids = self.tokenizer(prompts, truncation=True).input_ids
        limit = self.tokenizer.model_max_length
        if any(len(one) >= limit for one in ids):
            whole = self.tokenizer(prompts, truncation=False, verbose=False).input_ids
            for prompt, all_of_it in zip(prompts, whole, strict=True):
                if len(all_of_it) > limit:
                    self._warn_of_cut(prompt, limit)
        return [torch.tensor(one) for one in ids]

    def _warn_of_cut(self, prompt: str, limit: int) -> None:
        words = f"{self.name} reads {limit} tokens; the end of a longer prompt is cut off: {prompt[:60]!r}..."
        warnings.warn(words, CutPrompt, stacklevel=2)

    def _padded(self, ids: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask (n, longest of these prompts)."""
        padded = pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        mask = pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
        return padded.to(self.device), mask.to(self.device)


class DualReward(Reward):
    """scale * max over an image's features of (image feature . prompt feature); CLIP has one feature per image."""

    scale: float

    @abstractmethod
    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) -> unit vectors (n, features per image, d)."""

    @abstractmethod
    def _text_features(self, prompts: list[str]) -> torch.Tensor:
        """n prompts -> unit vectors (n, d)."""

    @torch.no_grad()
    def image_features(self, images: Images) -> torch.Tensor:
        """Unit vectors (n, features per image, d), float32 on the CPU."""
        return self._over_images(images, lambda _, pixels: self._image_features(pixels))

    @torch.no_grad()
    def text_features(self, prompts: list[str]) -> torch.Tensor:
        """Unit vectors (n, d), float32 on the CPU."""
        return self._in_batches(len(prompts), lambda where: self._text_features(prompts[where]))

    def _of_pixels(self, pixels: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        with torch.no_grad():
            texts = self._text_features(prompts)
        return self.scale * torch.einsum("nkd,md->nkm", self._image_features(pixels), texts).amax(dim=1)

    def _matrix(self, images: Images, prompts: list[str]) -> torch.Tensor:
        texts = self.text_features(prompts)
        return self.scale * torch.einsum("nkd,md->nkm", self.image_features(images), texts).amax(dim=1)

    def _pairs(self, images: Images, prompts: list[str]) -> torch.Tensor:
        places, distinct = pd.factorize(np.array(prompts, object))
        texts = self.text_features(distinct.tolist())[places]
        return self.scale * torch.einsum("nkd,nd->nk", self.image_features(images), texts).amax(dim=1)


class CrossReward(Reward):
    """Reads prompts against an image's tokens, which are computed once per image and not kept."""

    @abstractmethod
    def _image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) -> (n, t, d)."""

    @abstractmethod
    def _pair_scores(self, image_tokens: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Tokens (b, t, d) with prompts (b m, l) -> (b m,); the first m prompts belong to the first image."""

    def _of_pixels(self, pixels: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return self._block(self._image_tokens(pixels), self._token_ids(prompts))

    def _matrix(self, images: Images, prompts: list[str]) -> torch.Tensor:
        # Prompts of like length share a batch, so that little is padded.
        ids = self._token_ids(prompts)
        order = sorted(range(len(prompts)), key=lambda column: len(ids[column]))
        ids = [ids[column] for column in order]

        def rows(_: slice, pixels: torch.Tensor) -> torch.Tensor:
            few = max(self.batch_size // len(ids), 1)
            return torch.cat([self._block(some, ids) for some in self._image_tokens(pixels).split(few)])

        return self._over_images(images, rows)[:, np.argsort(order)]

    def _block(self, tokens: torch.Tensor, ids: list[torch.Tensor]) -> torch.Tensor:
        """The tokens of b images with each of m prompts -> (b, m)."""
        columns = []
        for start in range(0, len(ids), self.batch_size):
            padded, mask = self._padded(ids[start : start + self.batch_size])
            scores = self._pair_scores(tokens, padded.repeat(len(tokens), 1), mask.repeat(len(tokens), 1))
            columns.append(scores.view(len(tokens), -1))
        return torch.cat(columns, dim=1)

    def _pairs(self, images: Images, prompts: list[str]) -> torch.Tensor:
        ids = self._token_ids(prompts)
        return self._over_images(
            images, lambda where, pixels: self._pair_scores(self._image_tokens(pixels), *self._padded(ids[where]))
        )


# ---- what a cross-encoder need not compute: the same scores with less work


class SharedImageTokens(nn.Module):
    """A cross-attention of transformers for prompts (b m, l, d) and the image tokens (b, t, d') that they look at.

    The first m prompts look at the first image, and so on. transformers wants a row of image tokens for each prompt and
    derives keys and values from each row: m prompts on one image do so m times. But the words that look at an image
    have no order and do not see each other there, so the words of all m prompts may stand in one row.
    """

    def __init__(self, crossattention: nn.Module) -> None:
        super().__init__()
        self.crossattention = crossattention

    def forward(self, hidden_states: torch.Tensor, *, encoder_hidden_states: torch.Tensor, **named):
        """As the wrapped module: a tensor (b m, l, d), or a tuple that begins with it."""
        rows = hidden_states.reshape(len(encoder_hidden_states), -1, hidden_states.shape[-1])
        result = self.crossattention(rows, encoder_hidden_states=encoder_hidden_states, **named)
        if isinstance(result, tuple):
            return result[0].reshape(hidden_states.shape), *result[1:]
        return result.reshape(hidden_states.shape)


class FirstStates(nn.Module):
    """A self-attention of transformers that returns its first ``count`` states only.

    A head reads the text's first token, or the queries. Behind the last layer's self-attention the states do not meet
    again, and the others may be dropped there.
    """

    def __init__(self, attention: nn.Module, count: int) -> None:
        super().__init__()
        self.attention, self.count = attention, count

    def forward(self, *arguments, **named):
        """As the wrapped module, with (n, count, d) in place of (n, l, d)."""
        result = self.attention(*arguments, **named)
        return (result[0][:, : self.count], *result[1:]) if isinstance(result, tuple) else result[:, : self.count]


def spare(layers: nn.ModuleList, *, states_read: int) -> None:
    """Wrap the attentions in a text encoder's ``layers``, whose head reads the first ``states_read`` states."""
    for layer in layers:
        if hasattr(layer, "crossattention"):
            layer.crossattention = SharedImageTokens(layer.crossattention)
    layers[-1].attention = FirstStates(layers[-1].attention, states_read)
