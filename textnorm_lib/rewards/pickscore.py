"""PickScore (Kirstain et al. 2023): a CLIP that learnt which of two images people pick; through transformers.

``image_features`` and ``text_features`` serve any transformers CLIPModel and can be trained through.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from textnorm_lib.rewards import pretrained
from textnorm_lib.rewards.base import DualReward


def image_features(clip, pixel_values: torch.Tensor) -> torch.Tensor:
    """(n, 3, h, w), normalised -> unit vectors (n, d)."""
    return F.normalize(clip.get_image_features(pixel_values=pixel_values).pooler_output, dim=-1)


def text_features(clip, input_ids: torch.Tensor) -> torch.Tensor:
    """(n, l) -> unit vectors (n, d), read at the first end token; causal, so that padding after it changes nothing."""
    return F.normalize(clip.get_text_features(input_ids=input_ids).pooler_output, dim=-1)


class PickScoreReward(DualReward):
    """The cosine of image and prompt features, times the logit scale."""

    name = "pickscore"

    def __init__(self, folder: Path, *, batch_size: int | None) -> None:
        super().__init__(folder, batch_size=batch_size)
        self.model = pretrained.load_model("CLIPModel", folder)
        self.tokenizer = pretrained.load_tokenizer(folder)
        self.mean, self.std = pretrained.pixel_statistics(folder)
        vision = self.model.config.vision_config
        self.image_size, self.tokens_size = vision.image_size, pretrained.tokens_size(vision)
        self.scale = self.model.logit_scale.exp().item()

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return image_features(self.model, pixels)[:, None]

    def _text_features(self, prompts: list[str]) -> torch.Tensor:
        return text_features(self.model, self._padded(self._token_ids(prompts))[0])
