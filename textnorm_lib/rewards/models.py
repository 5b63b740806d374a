"""The four reward models: CLIP, PickScore, BLIP-2 and ImageReward, each read from a folder.

CLIP's folder is in open_clip's own format, the others are in transformers'. ImageReward has an architecture of its own,
built of transformers' parts, and so has its class here.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from textnorm_lib.rewards.base import CrossReward, DualReward, Reward, spare
from textnorm_lib.study.errors import ConfigError

CLIP_FILES = ("open_clip_config.json", "open_clip_model.safetensors", "tokenizer.json", "tokenizer_config.json")
FILES = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")


# ---- folders in transformers' format


@contextmanager
def no_bars() -> Iterator[None]:
    """Keep transformers from drawing a progress bar over reading or writing a few tensors."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_model(class_name: str, folder: Path):
    """The transformers model in ``folder`` in single precision; weights that are missing there raise ``ValueError``.

    transformers itself would draw missing weights at random and only warn.
    """
    import transformers

    with no_bars():
        model, found = getattr(transformers, class_name).from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, local_files_only=True
        )
    absent = sorted([*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])])
    if absent:
        raise ValueError(f"{len(absent)} weights are missing or of another shape, such as {absent[0]}")
    return model.eval()


def load_tokenizer(folder: Path):
    """The tokenizer in ``folder``, of the class that it names."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _read_folder(reward: Reward, model: nn.Module, vision_config) -> None:
    """Set what ``reward`` needs beside its ``model``: the tokenizer, and how pixels become a vision transformer's."""
    reward.model, reward.tokenizer = model, load_tokenizer(reward.folder)
    preprocessing = json.loads((reward.folder / "preprocessor_config.json").read_text())
    reward.mean, reward.std = preprocessing["image_mean"], preprocessing["image_std"]
    reward.image_size = vision_config.image_size
    patches = (vision_config.image_size // vision_config.patch_size) ** 2
    reward.tokens_size = (1 + patches) * vision_config.hidden_size


# ---- CLIP and PickScore: the cosine of image and prompt features, times the logit scale


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


def clip_image_features(clip, pixel_values: torch.Tensor) -> torch.Tensor:
    """A transformers CLIPModel, pixels (n, 3, h, w), normalised -> unit vectors (n, d)."""
    return F.normalize(clip.get_image_features(pixel_values=pixel_values).pooler_output, dim=-1)


def clip_text_features(clip, input_ids: torch.Tensor) -> torch.Tensor:
    """(n, l) -> unit vectors (n, d), read at the first end token; causal, so that padding after it changes nothing."""
    return F.normalize(clip.get_text_features(input_ids=input_ids).pooler_output, dim=-1)


class PickScoreReward(DualReward):
    """PickScore (Kirstain et al. 2023): a CLIP that learnt which of two images people pick; through transformers."""

    name = "pickscore"

    def __init__(self, folder: Path, *, batch_size: int | None) -> None:
        super().__init__(folder, batch_size=batch_size)
        model = load_model("CLIPModel", folder)
        _read_folder(self, model, model.config.vision_config)
        self.scale = model.logit_scale.exp().item()

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return clip_image_features(self.model, pixels)[:, None]

    def _text_features(self, prompts: list[str]) -> torch.Tensor:
        return clip_text_features(self.model, self._padded(self._token_ids(prompts))[0])


# ---- BLIP-2 (Li et al. 2023), first stage: a Q-Former that says whether a text matches an image
#
# Two heads, named as in LAVIS. ``itm`` (image-text matching) reads image and prompt together, ``itc`` (image-text
# contrast) multiplies features. The study's reward is ``itm``. Its probabilities close to one keep few digits: where
# the logits differ by more than 16, prompts tie in single precision. The functions take a transformers
# ``Blip2ForImageTextRetrieval`` and can be trained through.


def blip2_image_tokens(model, pixel_values: torch.Tensor) -> torch.Tensor:
    """(n, 3, h, w), normalised -> (n, 1 + patches, vision width)."""
    return model.vision_model(pixel_values=pixel_values).last_hidden_state


def blip2_itm_logits(model, tokens: torch.Tensor, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Image tokens (n, t, d) with prompts (n, l) -> (n, 2): no match, match."""
    queries = model.query_tokens.expand(len(input_ids), -1, -1)
    count = queries.shape[1]
    states = model.qformer(
        query_embeds=model.embeddings(input_ids=input_ids, query_embeds=queries),
        query_length=count,
        attention_mask=torch.cat([mask.new_ones(len(input_ids), count), mask], dim=1),
        encoder_hidden_states=tokens,
    ).last_hidden_state
    return model.itm_head(states[:, :count]).mean(dim=1)


def blip2_query_features(model, tokens: torch.Tensor) -> torch.Tensor:
    """(n, t, d) -> unit vectors (n, queries, d')."""
    queries = model.query_tokens.expand(len(tokens), -1, -1)
    states = model.qformer(query_embeds=queries, encoder_hidden_states=tokens).last_hidden_state
    return F.normalize(model.vision_projection(states), dim=-1)


def blip2_text_features(model, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """(n, l) -> unit vectors (n, d'), read at the first token."""
    embeddings = model.embeddings(input_ids=input_ids)
    states = model.qformer(query_embeds=embeddings, query_length=0, attention_mask=attention_mask).last_hidden_state
    return F.normalize(model.text_projection(states[:, 0]), dim=-1)


class _Blip2(Reward):
    name = "blip2"

    def __init__(self, folder: Path, *, batch_size: int | None) -> None:
        super().__init__(folder, batch_size=batch_size)
        model = load_model("Blip2ForImageTextRetrieval", folder)
        vision = model.config.vision_config
        _read_folder(self, model, vision)
        # LAVIS' norm after the image encoder has an epsilon of its own; transformers' class takes the encoder's.
        model.vision_model.post_layernorm.eps = getattr(vision, "post_layernorm_eps", vision.layer_norm_eps)


class Blip2MatchingReward(_Blip2, CrossReward):
    """The probability that prompt and image match, in [0, 1]: the softmax over the matching head's two logits."""

    def __init__(self, folder: Path, *, batch_size: int | None) -> None:
        super().__init__(folder, batch_size=batch_size)
        spare(self.model.qformer.encoder.layer, states_read=self.model.config.num_query_tokens)

    def _image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        return blip2_image_tokens(self.model, pixels)

    def _pair_scores(self, image_tokens: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return blip2_itm_logits(self.model, image_tokens, ids, mask).softmax(dim=-1)[:, 1]


class Blip2ContrastReward(_Blip2, DualReward):
    """The cosine of the prompt's feature and the image's best one (it has one per query token), in [-1, 1]."""

    scale = 1.0

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return blip2_query_features(self.model, blip2_image_tokens(self.model, pixels))

    def _text_features(self, prompts: list[str]) -> torch.Tensor:
        return blip2_text_features(self.model, *self._padded(self._token_ids(prompts)))


_HEADS: dict[str, type[Reward]] = {"itm": Blip2MatchingReward, "itc": Blip2ContrastReward}


def load_blip2(folder: Path, *, batch_size: int | None, head: str = "itm") -> Reward:
    """BLIP-2 with one of its two heads, "itm" or "itc"."""
    if head not in _HEADS:
        raise ConfigError(f"blip2: head is {head!r}; known: {', '.join(_HEADS)}")
    return _HEADS[head](folder, batch_size=batch_size)


# ---- ImageReward (Xu et al. 2023): a cross-encoder that was trained to rank images as people did


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
        _read_folder(self, model, model.vision_model.config)
        spare(model.text_model.encoder.layer, states_read=1)

    def _image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.image_tokens(pixels)

    def _pair_scores(self, image_tokens: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model.reward(image_tokens, ids, mask)
