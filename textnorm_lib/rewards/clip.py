"""CLIP and PickScore: the cosine of image and prompt features, times the logit scale.

``image_features`` and ``text_features`` take any transformers CLIPModel and can be trained through.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from textnorm_lib.rewards import pretrained
from textnorm_lib.rewards.base import DualReward

FILES = ("open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json", "tokenizer_config.json")


class ClipReward(DualReward):
    """CLIP (Radford et al. 2021), through open_clip."""

    name = "clip"

    def __init__(self, folder: Path, *, batch_size: int | None) -> None:
        super().__init__(folder, batch_size=batch_size)
        import open_clip

        self.model = open_clip.create_model(f"local-dir:{folder}").eval()
        self.tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        preprocessing = self.model.visual.preprocess_cfg
        self.mean, self.std = preprocessing["mean"], preprocessing["std"]
        self.image_size = self.model.visual.image_size[0]
        patches = self.model.visual.conv1
        self.tokens_size = (1 + (self.image_size // patches.kernel_size[0]) ** 2) * patches.out_channels
        self.scale = self.model.logit_scale.exp().item()

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.encode_image(pixels, normalize=True)[:, None]

    def _text_features(self, prompts: list[str]) -> torch.Tensor:
        ids = self.tokenizer(prompts)
        padding = self.tokenizer([""])[0, -1]
        for place in torch.nonzero(ids[:, -2] != padding).flatten().tolist():  # the last one is the end in any case
            self._warn_of_cut(prompts[place], ids.shape[1])
        return self.model.encode_text(ids.to(self.device), normalize=True)


def image_features(clip, pixel_values: torch.Tensor) -> torch.Tensor:
    """(n, 3, h, w), normalised -> unit vectors (n, d)."""
    return F.normalize(clip.get_image_features(pixel_values=pixel_values).pooler_output, dim=-1)


def text_features(clip, input_ids: torch.Tensor) -> torch.Tensor:
    """(n, l) -> unit vectors (n, d), read at the first end token; causal, so that padding after it changes nothing."""
    return F.normalize(clip.get_text_features(input_ids=input_ids).pooler_output, dim=-1)


class PickScoreReward(DualReward):
    """PickScore (Kirstain et al. 2023): a CLIP that learnt which of two images people pick; through transformers."""

    name = "pickscore"

    def __init__(self, folder: Path, *, batch_size: int | None) -> None:
        super().__init__(folder, batch_size=batch_size)
        model = pretrained.load_model("CLIPModel", folder)
        pretrained.read_folder(self, model, model.config.vision_config)
        self.scale = model.logit_scale.exp().item()

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return image_features(self.model, pixels)[:, None]

    def _text_features(self, prompts: list[str]) -> torch.Tensor:
        return text_features(self.model, self._padded(self._token_ids(prompts))[0])
