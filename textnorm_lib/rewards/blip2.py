"""BLIP-2 (Li et al. 2023), first stage: a Q-Former that says whether a text matches an image; through transformers.

Two heads, named as in LAVIS. ``itm`` (image-text matching) reads image and prompt together, ``itc`` (image-text
contrast) multiplies features. The study's reward is ``itm``. Its probabilities close to one keep few digits: where the
logits differ by more than 16, prompts tie in single precision. The functions take a transformers
``Blip2ForImageTextRetrieval`` and can be trained through.
"""

from pathlib import Path

import torch
import torch.nn.functional as F

from textnorm_lib.rewards import pretrained
from textnorm_lib.rewards.base import CrossReward, DualReward, Reward, spare
from textnorm_lib.study.errors import ConfigError


def image_tokens(model, pixel_values: torch.Tensor) -> torch.Tensor:
    """(n, 3, h, w), normalised -> (n, 1 + patches, vision width)."""
    return model.vision_model(pixel_values=pixel_values).last_hidden_state


def itm_logits(model, tokens: torch.Tensor, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
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


def query_features(model, tokens: torch.Tensor) -> torch.Tensor:
    """(n, t, d) -> unit vectors (n, queries, d')."""
    queries = model.query_tokens.expand(len(tokens), -1, -1)
    states = model.qformer(query_embeds=queries, encoder_hidden_states=tokens).last_hidden_state
    return F.normalize(model.vision_projection(states), dim=-1)


def text_features(model, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """(n, l) -> unit vectors (n, d'), read at the first token."""
    embeddings = model.embeddings(input_ids=input_ids)
    states = model.qformer(query_embeds=embeddings, query_length=0, attention_mask=attention_mask).last_hidden_state
    return F.normalize(model.text_projection(states[:, 0]), dim=-1)


class _Blip2(Reward):
    name = "blip2"

    def __init__(self, folder: Path, *, batch_size: int | None) -> None:
        super().__init__(folder, batch_size=batch_size)
        model = pretrained.load_model("Blip2ForImageTextRetrieval", folder)
        vision = model.config.vision_config
        pretrained.read_folder(self, model, vision)
        # LAVIS' norm after the image encoder has an epsilon of its own; transformers' class takes the encoder's.
        model.vision_model.post_layernorm.eps = getattr(vision, "post_layernorm_eps", vision.layer_norm_eps)


class Blip2MatchingReward(_Blip2, CrossReward):
    """The probability that prompt and image match, in [0, 1]: the softmax over the matching head's two logits."""

    def __init__(self, folder: Path, *, batch_size: int | None) -> None:
        super().__init__(folder, batch_size=batch_size)
        spare(self.model.qformer.encoder.layer, states_read=self.model.config.num_query_tokens)

    def _image_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        return image_tokens(self.model, pixels)

    def _pair_scores(self, image_tokens: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return itm_logits(self.model, image_tokens, ids, mask).softmax(dim=-1)[:, 1]


class Blip2ContrastReward(_Blip2, DualReward):
    """The cosine of the prompt's feature and the image's best one (it has one per query token), in [-1, 1]."""

    scale = 1.0

    def _image_features(self, pixels: torch.Tensor) -> torch.Tensor:
        return query_features(self.model, image_tokens(self.model, pixels))

    def _text_features(self, prompts: list[str]) -> torch.Tensor:
        return text_features(self.model, *self._padded(self._token_ids(prompts)))


_HEADS: dict[str, type[Reward]] = {"itm": Blip2MatchingReward, "itc": Blip2ContrastReward}


def load_blip2(folder: Path, *, batch_size: int | None, head: str = "itm") -> Reward:
    """BLIP-2 with one of its two heads, "itm" or "itc"."""
    if head not in _HEADS:
        raise ConfigError(f"blip2: head is {head!r}; known: {', '.join(_HEADS)}")
    return _HEADS[head](folder, batch_size=batch_size)
