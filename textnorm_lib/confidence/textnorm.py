"""TextNorm: how much a reward prefers an image's own prompt to contrastive prompts (sections 4.1 and 4.2).

For an image y, its prompt x_0, contrastive prompts X = {x_1, ..., x_m}, a temperature tau and rewards r_1, ..., r_k,

    (1)  r^X(x_0, y) = exp(r(x_0, y) / tau) / sum over j = 0, ..., m of exp(r(x_j, y) / tau)
    (2)  mean = 1/k * sum over i of r_i^X(x_0, y)
    (3)  mean - lambda * 1/k * sum over i of (r_i^X(x_0, y) - mean)^2

The temperature divides the reward; the released ``scale`` is read as 1 / tau, and ``lambda`` is the penalty here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from textnorm_lib.images.pixels import from_tensor
from textnorm_lib.rewards.base import Images, Reward
from textnorm_lib.study.errors import ConfigError, DataError, is_number, shown
from textnorm_lib.study.progress import progress

Array = TypeVar("Array", np.ndarray, torch.Tensor)
ENSEMBLES = ("mean", "uncertainty")


def textnorm(scores: Array, temperature: float, *, mask: np.ndarray | torch.Tensor | None = None) -> Array:
    """Equation 1: the prompt's own share of the softmax over it and its contrastive prompts.

    ``scores`` (..., 1 + m) holds one reward's scores of one image per row, column 0 with the image's own prompt.
    Returns (...) in [0, 1], 1 where m = 0, numpy or torch as given, of the same type (computed in single precision at
    least); gradients pass. ``mask``, booleans that broadcast to ``scores``, is True where there is a prompt: sets of
    different sizes fit one array. Raises ``ConfigError`` unless ``temperature`` is positive and finite, ``DataError``
    for scores that are no finite floats, naming the first, and for a mask that does not fit or leaves out column 0.
    """
    _check_temperature(temperature)
    tensor = _tensor("scores", scores)
    if tensor.ndim == 0 or tensor.shape[-1] == 0:
        raise DataError(f"scores has shape {tuple(tensor.shape)}: (..., 1 + m), column 0 for the prompt, is needed")
    present = _present(mask, tensor)
    _check_finite("scores", tensor, present)
    exact = tensor.to(torch.promote_types(tensor.dtype, torch.float32)).masked_fill(~present, -torch.inf)
    exact = exact - exact.detach().amax(dim=-1, keepdim=True)  # the shares stay what they are, and nothing overflows
    shares = (exact / temperature).softmax(dim=-1)[..., 0].to(tensor.dtype)
    return shares if isinstance(scores, torch.Tensor) else shares.numpy()


def mean_ensemble(rewards: Array) -> Array:
    """Equation 2: the mean over the k rewards, (k, ...) -> (...), numpy or torch as given.

    Raises ``DataError`` where there is no reward (k = 0), a value is no finite float, or their sum is too large for it.
    """
    values = _tensor("rewards", rewards)
    if values.ndim == 0 or len(values) == 0:
        raise DataError(f"rewards has shape {tuple(values.shape)}: (k, ...) with one reward or more is needed")
    _check_finite("rewards", values, torch.tensor(True, device=values.device))
    return _added_up(rewards, rewards.mean(0))


def uncertainty_ensemble(rewards: Array, penalty: float) -> Array:
    """Equation 3: the mean over the k rewards, minus ``penalty`` times their population variance.

    (k, ...) -> (...), numpy or torch as given. Raises as ``mean_ensemble``, and ``ConfigError`` for a ``penalty`` that
    is negative or not finite.
    """
    _check_penalty(penalty)
    mean = mean_ensemble(rewards)
    with np.errstate(over="ignore"):
        return _added_up(rewards, mean - float(penalty) * ((rewards - mean) ** 2).mean(0))


class TextNormReward:
    """An ensemble of rewards under TextNorm: scores images, and is the reward function that DDPO trainers call.

    ``contrastive`` gives a prompt's contrastive prompts: a mapping, or a function that is called once for each distinct
    prompt of a call. They form a *set* of prompts that differ from x_0 (section 4.1): the prompt itself and repetitions
    are dropped (compared letter for letter), because each would count once more in the denominator. ``temperature`` is
    one number for all rewards, as in the released scores (these should then have like scales), or one per reward.

    Cost: each distinct prompt of a call takes one ``score_matrix`` per reward, in which its images meet its own set
    alone. A reward encodes each image once and reads, if a cross-encoder, n (1 + m) pairs; it encodes a text anew for
    each set that the text is in and in each call. Many prompts with few images each make small batches.
    """

    def __init__(
        self,
        rewards: Sequence[Reward],
        contrastive: Mapping[str, Sequence[str]] | Callable[[str], Sequence[str]],
        temperature: float | Sequence[float],
        ensemble: Literal["mean", "uncertainty"] = "mean",
        penalty: float = 0.0,
    ) -> None:
        """Raises ``ConfigError`` for no rewards, an unknown ensemble, or temperatures or a penalty that do not fit."""
        _check_penalty(penalty)
        if ensemble not in ENSEMBLES:
            raise ConfigError(f"ensemble is {ensemble!r}; known: {', '.join(ENSEMBLES)}")
        if ensemble == "mean" and penalty > 0:
            raise ConfigError(f"penalty is {penalty}, but the mean ensemble has none; take ensemble='uncertainty'")
        if not rewards:
            raise ConfigError("rewards is empty: give one or more")
        self.temperatures = tuple(temperature) if isinstance(temperature, Sequence) else (temperature,) * len(rewards)
        if (given := len(self.temperatures)) != len(rewards):
            raise ConfigError(f"temperature has {given} values for {len(rewards)} rewards; give each one")
        for one in self.temperatures:
            _check_temperature(one)
        self.rewards, self.contrastive = tuple(rewards), contrastive
        self.ensemble, self.penalty = ensemble, penalty
        names = [reward.name for reward in rewards]
        self.names = [f"{name}_{i}" if names.count(name) > 1 else name for i, name in enumerate(names)]

    def score(self, images: Images, prompts: Sequence[str]) -> np.ndarray:
        """Image i with its own prompt i, (n,) float32, in [0, 1] for the mean ensemble.

        Raises ``DataError`` for a prompt without contrastive prompts, and as ``Reward.score_matrix`` does.
        """
        return self._combine(self._normalised(images, prompts))

    def __call__(
        self, images: torch.Tensor | Images, prompts: Sequence[str], metadata: Any = None
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """What trl's ``DDPOTrainer`` and ddpo-pytorch call: rewards (n,) float32 on the CPU, and what they are made of.

        ``images`` may be a tensor (n, 3, h, w) in [0, 1], as these trainers give it; nobody looks at ``metadata``. The
        second value has each reward's own TextNorm values (n,) by its name (numbered where a name occurs twice) and,
        as ``spread``, their population standard deviation. Raises as ``score``, and ``DataError`` for other tensors.
        """
        pixels = from_tensor(images) if isinstance(images, torch.Tensor) else images
        values = self._normalised(pixels, prompts)
        info = dict(zip(self.names, torch.from_numpy(values), strict=True))
        return torch.from_numpy(self._combine(values)), info | {"spread": torch.from_numpy(values.std(axis=0))}

    def differentiable(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """As ``score``, (n,) on the rewards' device; gradients pass to ``images``, float (n, 3, h, w) in [0, 1]."""
        values = torch.stack([images.new_zeros(len(prompts)) for _ in self.rewards])
        for prompt in dict.fromkeys(prompts):
            places = torch.tensor([i for i, other in enumerate(prompts) if other == prompt], device=images.device)
            texts = self._with_contrastive(prompt)
            pairs = zip(self.rewards, self.temperatures, strict=True)
            own = [textnorm(one.differentiable_matrix(images[places], texts), by) for one, by in pairs]
            values = values.index_add(1, places, torch.stack(own))
        return self._combine(values)

    def _combine(self, values: Array) -> Array:
        return mean_ensemble(values) if self.ensemble == "mean" else uncertainty_ensemble(values, self.penalty)

    def _normalised(self, images: Images, prompts: Sequence[str]) -> np.ndarray:
        """Equation 1 for each reward and image: (k, n) float32."""
        if isinstance(prompts, str) or len(images) != len(prompts) or len(images) == 0:
            raise DataError(f"{len(images)} images and prompts {prompts!r:.80}; give a list, one prompt an image")
        groups: dict[str, list[int]] = {}
        for place, prompt in enumerate(prompts):
            groups.setdefault(prompt, []).append(place)
        sets = {prompt: self._with_contrastive(prompt) for prompt in groups}  # all, before any work is done
        values = np.empty((len(self.rewards), len(images)), dtype=np.float32)
        for prompt, places in progress(groups.items(), "TextNorm", unit="prompt"):
            shown = images[places] if isinstance(images, np.ndarray) else [images[place] for place in places]
            for row, reward, temperature in zip(values, self.rewards, self.temperatures, strict=True):
                try:
                    matrix = reward.score_matrix(shown, sets[prompt])
                except DataError as error:  # its image numbers count this prompt's images
                    raise DataError(f"among the images of prompt {prompt!r}: {error}") from error
                row[places] = textnorm(matrix, temperature)
        return values

    def _with_contrastive(self, prompt: str) -> list[str]:
        """The prompt, then its contrastive prompts."""
        given = self.contrastive(prompt) if callable(self.contrastive) else self.contrastive.get(prompt, ())
        if isinstance(given, str):
            raise DataError(f"prompt {prompt!r}: its contrastive prompts are a single text, {given!r}; give a list")
        distinct = list(dict.fromkeys([prompt, *given]))
        if len(distinct) == 1:  # every image would get a reward of 1
            raise DataError(f"prompt {prompt!r} has no contrastive prompts; give it a set in contrastive")
        return distinct


def _check_temperature(temperature: float) -> None:
    single = torch.finfo(torch.float32)  # a smaller number would be 0 in single precision
    value = temperature.item() if getattr(temperature, "ndim", None) == 0 else temperature
    if not is_number(value, single.tiny, single.max):
        raise ConfigError(f"temperature is {shown(temperature)}: a finite number above 0 is needed")


def _check_penalty(penalty: float) -> None:
    if not is_number(penalty, 0, np.finfo(float).max):
        raise ConfigError(f"penalty is {shown(penalty)}: a finite number of 0 or more is needed")


def _tensor(name: str, values: Array) -> torch.Tensor:
    """A tensor of floats as it is, a numpy array of floats as a tensor of its own."""
    if isinstance(values, np.ndarray) and values.dtype in (np.float16, np.float32, np.float64):
        return torch.from_numpy(np.array(values))
    # There is little arithmetic of float8, which has one byte, and of sparse tensors.
    if (
        isinstance(values, torch.Tensor)
        and values.is_floating_point()
        and values.itemsize > 1
        and values.layout is torch.strided
    ):
        return values
    kind = getattr(values, "dtype", type(values).__name__)
    raise DataError(f"{name} is {kind}: floats in a numpy array or a torch tensor are needed")


def _added_up(rewards: Array, combined: Array) -> Array:
    """``combined``, if nothing has become infinite in it."""
    if not torch.as_tensor(combined).isfinite().all():
        raise DataError(f"rewards of {rewards.dtype} are too large to be added up; give smaller ones or another type")
    return combined


def _present(mask: np.ndarray | torch.Tensor | None, scores: torch.Tensor) -> torch.Tensor:
    """``mask`` in the shape of ``scores``; True everywhere without one."""
    try:
        given = mask if isinstance(mask, torch.Tensor) else torch.from_numpy(np.array(True if mask is None else mask))
    except (TypeError, ValueError):  # no type of torch's, ragged
        raise DataError(f"mask is {getattr(mask, 'dtype', type(mask).__name__)}: booleans are needed") from None
    try:
        present = given.to(scores.device).broadcast_to(scores.shape)
    except RuntimeError:
        present = None
    if present is None or present.dtype != torch.bool:
        raise DataError(
            f"mask is {given.dtype} {tuple(given.shape)}: booleans that fit scores {tuple(scores.shape)} are needed"
        )
    if not present[..., 0].all():
        raise DataError("mask leaves out column 0 of a row: the prompt itself is always there")
    return present


def _check_finite(name: str, values: torch.Tensor, wanted: torch.Tensor) -> None:
    for place in (wanted & ~values.isfinite()).nonzero():
        index = ", ".join(map(str, place.tolist()))
        raise DataError(f"{name}[{index}] is {values[tuple(place)].item()}: a finite number is needed")
