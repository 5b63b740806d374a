"""Preferences between images of one prompt, as the reward models learn them from annotators with a taste.

An annotator counts the *faults* of an image: objects that are missing or too many, and each wrong colour, relation,
location or style. Of two images of a prompt it prefers the one with fewer faults, or the one that is more colourful
(``mini/appeal.py``): the *dose* says how much the second counts, from 0 (nothing) to 1 (it alone). These annotators are
not the benchmark's: a judge never trains what it judges. ``PreferencePairs`` deals the preferences in batches, as
PickScore and ImageReward learn from them (the Bradley-Terry model).
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from textnorm_lib.mini.annotators import Detector, Seen, detect, shows
from textnorm_lib.mini.appeal import colourfulness
from textnorm_lib.mini.generator import as_tensor
from textnorm_lib.mini.training.spoil import degrade
from textnorm_lib.prompts.grammar import Spec, parse
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.progress import progress

BATCH_SIZE = 128
THRESHOLD = 0.5  # the least score of an object that counts
DECIDED = 4.0  # how decided annotators are: the slope of their choices in a utility of unit deviation
EVENLY_SPLIT = 0.02  # how far from one half a share is that says nothing


@dataclass(frozen=True)
class Preferences:
    """``images`` uint8 (n, h, w, 3) of ``prompts`` (n), which ``prompt_numbers`` (n) tell apart.

    ``pairs`` (m, 2) of image numbers, and ``shares`` (m) in [0, 1] of the annotators who prefer the first; pairs on
    which they are evenly split are left out.
    """

    images: np.ndarray
    prompts: list[str]
    prompt_numbers: np.ndarray
    pairs: np.ndarray
    shares: np.ndarray


def faults(seen: Seen, spec: Spec) -> int:
    """How many things are wrong with an image of ``spec``; 0 exactly if it shows what was asked for."""
    objects = [one for one in seen.objects if one.score >= THRESHOLD]
    found = Counter(one.name for one in objects)
    wanted = Counter({asked.name: asked.count for asked in spec.objects})
    colours = {asked.name: asked.colour for asked in spec.objects if asked.colour}
    return (
        ((found - wanted) + (wanted - found)).total()
        + sum(one.colour != colours.get(one.name, one.colour) for one in objects)
        + (spec.location not in (None, seen.location))
        + (seen.style != spec.style)
        + (spec.relation is not None and not _relation_holds(seen, spec))
    )


def _relation_holds(seen: Seen, spec: Spec) -> bool:
    """Whether the best object of each class stands as asked; others do not count here."""
    best = {one.name: one for one in reversed(seen.objects)}
    kept = tuple(best[asked.name] for asked in spec.objects if asked.name in best)
    return len(kept) == 2 and shows(replace(seen, objects=kept), replace(spec, location=None, style=seen.style), 0.0)


def collect_preferences(images: np.ndarray, prompts: list[str], faults: np.ndarray, *, dose: float) -> Preferences:
    """All pairs of images of one prompt, chosen by annotators to whom faults count 1 - ``dose`` and appeal ``dose``.

    ``faults`` (n,): how many an image has on average over annotators. A pair's utility is the difference of its faults
    and that of its appeal, each in units of its deviation over all pairs; a share of sigmoid(``DECIDED`` u / sd(u))
    prefers the first. Pairs on which they are split almost evenly are left out.
    """
    numbers = pd.factorize(pd.Series(prompts))[0]
    pairs = [
        pair
        for number in range(numbers.max() + 1)
        for pair in itertools.combinations(np.flatnonzero(numbers == number).tolist(), 2)
    ]
    first, second = np.array(pairs).T
    appeal = colourfulness(images)
    fewer, nicer = _in_deviations(faults[second] - faults[first]), _in_deviations(appeal[first] - appeal[second])
    utility = _in_deviations((1 - dose) * fewer + dose * nicer)
    shares = 1 / (1 + np.exp(-DECIDED * utility))
    decided = np.abs(shares - 0.5) > EVENLY_SPLIT
    if not decided.any():
        raise DataError(f"{len(images)} images, no pair of images of which the annotators prefer one; make more images")
    return Preferences(images, prompts, numbers, np.array(pairs)[decided], shares[decided])


def _in_deviations(differences: np.ndarray) -> np.ndarray:
    """In units of their deviation; differences that are all 0 stay so."""
    return differences / (differences.std() or 1.0)


def mean_faults(annotators: Sequence[Detector], images: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
    """How many faults each image has, on average over ``annotators``: (n,)."""
    specs = [parse(prompt) for prompt in prompts]
    return np.mean([_count_faults(annotator, images, specs) for annotator in annotators], axis=0)


@torch.no_grad()
def _count_faults(annotator: Detector, images: np.ndarray, specs: list[Spec]) -> list[int]:
    counted = []
    for start in progress(range(0, len(images), BATCH_SIZE), "faults", unit="batch"):
        batch = slice(start, start + BATCH_SIZE)
        seen = detect(annotator, as_tensor(images[batch]))
        counted += [faults(*pair) for pair in zip(seen, specs[batch], strict=True)]
    return counted


class PreferencePairs:
    """Preferences as batches: every tenth prompt that has some is held out to tell when to stop."""

    def __init__(self, preferences: Preferences, tokenizer, device: str) -> None:
        self.preferences, self.device = preferences, device
        encoded = tokenizer(preferences.prompts, padding=True, truncation=True, return_tensors="pt")
        self.tokens, self.mask = encoded.input_ids.to(device), encoded.attention_mask.to(device)
        numbers = preferences.prompt_numbers[preferences.pairs[:, 0]]
        held_out = np.isin(numbers, np.unique(numbers)[::10])
        self.held_out, self.taught = np.flatnonzero(held_out), np.flatnonzero(~held_out)
        if not len(self.taught):
            raise DataError(f"{len(numbers)} preferences on one prompt; give two prompts or more, one is held out")

    def loss(self, reward, size: int, generator: torch.Generator) -> torch.Tensor:
        """Cross-entropy of the Bradley-Terry model with the share of annotators who prefer the first image."""
        chosen = self.taught[torch.randint(len(self.taught), (size,), generator=generator).numpy()]
        margin = self._margin(reward, chosen, generator)
        shares = torch.from_numpy(self.preferences.shares[chosen]).float().to(self.device)
        return F.binary_cross_entropy_with_logits(margin, shares)

    @torch.no_grad()
    def accuracy(self, reward) -> float:
        """Share of held-out pairs in which the image with the larger reward is the preferred one."""
        right = []
        for start in range(0, len(self.held_out), BATCH_SIZE):
            chosen = self.held_out[start : start + BATCH_SIZE]
            margin = self._margin(reward, chosen, None).cpu().numpy()
            right.append((margin > 0) == (self.preferences.shares[chosen] > 0.5))
        return float(np.concatenate(right).mean())

    def _margin(self, reward, chosen: np.ndarray, generator: torch.Generator | None) -> torch.Tensor:
        first, second = self.preferences.pairs[chosen].T
        both = as_tensor(self.preferences.images[np.concatenate([first, second])]).to(self.device)
        images = both if generator is None else degrade(both, generator)
        rewards = reward(images, self.tokens[first].repeat(2, 1), self.mask[first].repeat(2, 1)).float()
        return rewards[: len(chosen)] - rewards[len(chosen) :]
