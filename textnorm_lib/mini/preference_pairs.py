"""Preferences in batches, as PickScore and ImageReward learn from them (the Bradley-Terry model)."""

import numpy as np
import torch
import torch.nn.functional as F

from textnorm_lib.errors import DataError
from textnorm_lib.mini.generator import as_tensor
from textnorm_lib.mini.preferences import Preferences
from textnorm_lib.mini.spoil import degrade


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
        for start in range(0, len(self.held_out), 128):
            chosen = self.held_out[start : start + 128]
            margin = self._margin(reward, chosen, None).cpu().numpy()
            right.append((margin > 0) == (self.preferences.shares[chosen] > 0.5))
        return float(np.concatenate(right).mean())

    def _margin(self, reward, chosen: np.ndarray, generator: torch.Generator | None) -> torch.Tensor:
        first, second = self.preferences.pairs[chosen].T
        both = as_tensor(self.preferences.images[np.concatenate([first, second])]).to(self.device)
        images = both if generator is None else degrade(both, generator)
        rewards = reward(images, self.tokens[first].repeat(2, 1), self.mask[first].repeat(2, 1)).float()
        return rewards[: len(chosen)] - rewards[len(chosen) :]
