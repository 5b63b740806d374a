"""The mini world's reward models: the architectures of CLIP, PickScore, BLIP-2 and ImageReward at toy size.

Image (3, 64, 64) in [-1, 1], 8 x 8 patches of 8 x 8 pixels; prompts of up to 24 tokens; width 128 everywhere. As their
namesakes, the other three start from CLIP: PickScore is CLIP, and BLIP-2 and ImageReward take its image tower and its
word embeddings. ``save_rewards.py`` writes them.
"""

import copy

import torch
from torch import nn

from textnorm_lib.compat import prepare_torchvision
from textnorm_lib.mini.generator import IMAGE_SIZE, MAX_TOKENS
from textnorm_lib.rewards.imagereward import ImageRewardModel

PATCH_SIZE = 8
WIDTH = 128
HEADS = 4
VISION_LAYERS = 4
TEXT_LAYERS = 3  # CLIP's
FUSION_LAYERS = 3  # of the Q-Former and of ImageReward's text encoder
QUERY_TOKENS = 8
_TRANSFORMER = {
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "num_attention_heads": HEADS,
    "hidden_act": "gelu",
}
_VISION = {**_TRANSFORMER, "num_hidden_layers": VISION_LAYERS, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE}
_FUSION_TEXT = {
    "num_hidden_layers": FUSION_LAYERS,
    "max_position_embeddings": MAX_TOKENS,
    # Padding is masked; the token used for it is also the end token, whose embedding a padding index would freeze.
    "pad_token_id": None,
    # BERT's .02 is meant for a width of 768. Here it would leave what depends on image and text together at 6e-5 of the
    # state that the head reads (root mean square, untrained); with this it is .05 to .1.
    "initializer_range": WIDTH**-0.5,
}
# Parts of a layer of CLIP's, and their names in other implementations, which stack query, key and value as well.
_LAYER = ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2", "self_attn.out_proj")
_BLIP_LAYER = ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2", "self_attn.projection", "self_attn.qkv.")


def build_clip(tokenizer):
    """A CLIPModel with random weights; a prompt's feature is read at its first end token."""
    prepare_torchvision()
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    text = CLIPTextConfig(
        **_TRANSFORMER,
        vocab_size=len(tokenizer),
        num_hidden_layers=TEXT_LAYERS,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(**_VISION, projection_dim=WIDTH)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def pickscore_from_clip(clip):
    """A copy of ``clip``: PickScore is a CLIP that went on learning."""
    return copy.deepcopy(clip)


def blip2_from_clip(clip, tokenizer, *, images: torch.Tensor):
    """A Blip2ForImageTextRetrieval with CLIP's image tower and word embeddings, its Q-Former untrained.

    ``images`` (n, 3, 64, 64) in [-1, 1]: typical ones, see ``_blip_vision_weights``.
    """
    prepare_torchvision()
    from transformers import Blip2Config, Blip2ForImageTextRetrieval, Blip2QFormerConfig, Blip2VisionConfig

    qformer = Blip2QFormerConfig(
        **_TRANSFORMER,
        **_FUSION_TEXT,
        vocab_size=len(tokenizer),
        cross_attention_frequency=2,  # layers 0 and 2
        encoder_hidden_size=WIDTH,
        use_qformer_text_input=True,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    vision = Blip2VisionConfig(**_VISION, layer_norm_eps=clip.config.vision_config.layer_norm_eps)
    model = Blip2ForImageTextRetrieval(
        Blip2Config(
            vision_config=vision,
            qformer_config=qformer,
            num_query_tokens=QUERY_TOKENS,
            image_text_hidden_size=WIDTH,
        )
    )
    # transformers leaves the queries at zero, where all of them would stay alike.
    nn.init.normal_(model.query_tokens, std=qformer.initializer_range)
    model.vision_model.load_state_dict(_blip_vision_weights(clip.vision_model, images))
    _copy_embeddings(clip, model.embeddings)
    return model


def imagereward_from_clip(clip, tokenizer, *, images: torch.Tensor) -> ImageRewardModel:
    """An ImageRewardModel with CLIP's image tower and word embeddings; ``images`` as in ``blip2_from_clip``."""
    prepare_torchvision()
    from transformers import BlipTextConfig, BlipVisionConfig

    text = BlipTextConfig(
        **_TRANSFORMER,
        **_FUSION_TEXT,
        vocab_size=len(tokenizer),
        encoder_hidden_size=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        sep_token_id=tokenizer.eos_token_id,
        is_decoder=True,  # transformers' name for having cross-attention; attention to the text is not causal
    )
    vision = BlipVisionConfig(**_VISION, layer_norm_eps=clip.config.vision_config.layer_norm_eps)
    model = ImageRewardModel(vision, text, head_widths=(64, 32), head_dropout=(0.2, 0.1))
    model.vision_model.load_state_dict(_blip_vision_weights(clip.vision_model, images))
    _copy_embeddings(clip, model.text_model.embeddings)
    return model


@torch.no_grad()
def _copy_embeddings(clip, embeddings: nn.Module) -> None:
    words = clip.text_model.embeddings
    embeddings.word_embeddings.weight.copy_(words.token_embedding.weight)
    embeddings.position_embeddings.weight.copy_(words.position_embedding.weight)


@torch.no_grad()
def _blip_vision_weights(vision, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """CLIP's image tower as a BLIP image tower, which has no layer norm before its first layer.

    That norm maps a token x to g (x - mean x) / spread x + b, where x = W patch + position. Taking the mean is linear
    and is folded into W and the positions. The spread is a constant for the class token; for the patches it becomes
    the one that fits the tokens of ``images`` best: 1 / spread is replaced by sum(spread) / sum(spread^2), the least
    squares solution.
    """
    embeddings, norm = vision.embeddings, vision.pre_layrnorm
    tokens = embeddings(images)
    spread = (tokens.var(dim=-1, unbiased=False) + norm.eps).sqrt()
    patches = norm.weight * spread[:, 1:].sum() / spread[:, 1:].square().sum()
    whole = norm.weight / spread[0, 0]
    kernel, start = embeddings.patch_embedding.weight, embeddings.class_embedding
    place = embeddings.position_embedding.weight
    place = place - place.mean(dim=-1, keepdim=True)
    return {
        "embeddings.class_embedding": (whole * (start - start.mean()))[None, None],
        "embeddings.patch_embedding.weight": patches[:, None, None, None] * (kernel - kernel.mean(dim=0)),
        "embeddings.patch_embedding.bias": torch.zeros_like(norm.bias),
        "embeddings.position_embedding": (torch.cat([whole * place[:1], patches * place[1:]]) + norm.bias)[None],
        **layer_weights(vision.encoder, "encoder.layers", _BLIP_LAYER),
        **prefixed("post_layernorm", vision.post_layernorm),
    }


def layer_weights(encoder: nn.Module, prefix: str, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The weights of a CLIP encoder's layers under other names; query, key and value are stacked in this order."""
    weights = {}
    for index, layer in enumerate(encoder.layers):
        for part, name in zip(_LAYER, names[:-1], strict=True):
            weights |= prefixed(f"{prefix}.{index}.{name}", layer.get_submodule(part))
        parts = (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
        for kind in ("weight", "bias"):
            weights[f"{prefix}.{index}.{names[-1]}{kind}"] = torch.cat([getattr(part, kind) for part in parts])
    return weights


def prefixed(prefix: str, module: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a part under a name of its own."""
    return {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
