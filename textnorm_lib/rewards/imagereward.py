"""ImageReward (Xu et al. 2023): a cross-encoder that was trained to rank images as people did."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from textnorm_lib.rewards import pretrained
from textnorm_lib.rewards.base import CrossReward, spare


class ImageRewardModel(nn.Module):
    """The published architecture in transformers' BLIP classes; every size comes from the configurations.

    BLIP's image encoder turns an image into tokens; BLIP's text encoder reads the prompt and looks at them in every
    layer; a small head turns the first text token into a reward, a real number without a scale of its own.
    ``head_widths`` and ``head_dropout`` are the hidden layers of the head, (1024, 128, 64, 16) and (.2, .2, .1, 0) in
    the published model. As there, the head has no activation functions.
    """

    def __init__(self, vision_config, text_config, head_widths: Sequence[int], head_dropout: Sequence[float]) -> None:
        super().__init__()
        from transformers import BlipTextModel, BlipVisionModel

        self.head_widths, self.head_dropout = tuple(head_widths), tuple(head_dropout)
        self.vision_model = BlipVisionModel(vision_config)
        self.text_model = BlipTextModel(text_config, add_pooling_layer=False)
        layers: list[nn.Module] = []
        width = text_config.hidden_size
        for next_width, dropout in zip(self.head_widths, self.head_dropout, strict=True):
            layers += [nn.Linear(width, next_width), *([nn.Dropout(dropout)] if dropout else [])]
            width = next_width
        self.head = nn.Sequential(*layers, nn.Linear(width, 1))

    @classmethod
    def from_folder(cls, folder: Path) -> "ImageRewardModel":
        """The model that ``config.json`` describes with the weights of ``model.safetensors``, in single precision.

        Raises ``ValueError`` for a weight that is missing, unknown or of another shape.
        """
        from transformers import BlipTextConfig, BlipVisionConfig

        configuration = json.loads((folder / "config.json").read_text())
        vision = BlipVisionConfig(**configuration["vision_config"])
        text = BlipTextConfig(**configuration["text_config"])
        model = cls(vision, text, configuration["head_widths"], configuration["head_dropout"])
        _read_weights(model, folder / "model.safetensors")
        return model.eval()

    def image_tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w), normalised -> (n, 1 + patches, vision width)."""
        return self.vision_model(pixel_values).last_hidden_state

    def reward(self, image_tokens: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Image tokens (n, t, d) with prompts (n, l) -> (n,)."""
        text = self.text_model(
            input_ids, attention_mask=attention_mask, encoder_hidden_states=image_tokens, is_decoder=False
        )
        return self.head(text.last_hidden_state[:, 0])[:, 0]

    def forward(
        self, pixel_values: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Image i with prompt i -> (n,)."""
        return self.reward(self.image_tokens(pixel_values), input_ids, attention_mask)

    def config_json(self) -> str:
        """What ``from_folder`` needs to build the model again."""
        configuration = {
            "vision_config": self.vision_model.config.to_diff_dict(),
            "text_config": self.text_model.config.to_diff_dict(),
            "head_widths": self.head_widths,
            "head_dropout": self.head_dropout,
        }
        return json.dumps(configuration, indent=2) + "\n"


@torch.no_grad()
def _read_weights(model: nn.Module, path: Path) -> None:
    """Weight by weight, the file opened anew for each: as long as it is open, what was read of it stays in memory."""
    weights = model.state_dict()
    with safe_open(path, framework="pt") as file:
        stored = set(file.keys())
    if odd := sorted(weights.keys() ^ stored):
        raise ValueError(f"{len(odd)} weights are missing or unknown, such as {odd[0]}")
    for name, weight in weights.items():
        with safe_open(path, framework="pt") as file:
            value = file.get_tensor(name)
        if value.shape != weight.shape:
            raise ValueError(f"{name} has shape {list(value.shape)}, not {list(weight.shape)}")
        weight.copy_(value)


class ImageRewardReward(CrossReward):
    """ImageReward's number for an image with a prompt."""

    name = "imagereward"

    def __init__(self, folder: Path, *, batch_size: int | None) -> None:
        super().__init__(folder, batch_size=batch_size)
        model = ImageRewardModel.from_folder(folder)
        pretrained.read_folder(self, model, model.vision_model.config)
        spare(model.text_model.encoder.layer, states_read=1)

    def _image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.image_tokens(pixels)

    def _pair_scores(self, image_tokens: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model.reward(image_tokens, ids, mask)
