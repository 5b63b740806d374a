"""The mini world's reward models: the architectures of CLIP, PickScore, BLIP-2 and ImageReward at toy size.

Image (3, 64, 64) in [-1, 1], 8 x 8 patches of 8 x 8 pixels; prompts of up to 24 tokens; width 128 everywhere. As their
namesakes, the other three start from CLIP: PickScore is CLIP that went on learning, and BLIP-2 and ImageReward take its
image tower and its word embeddings. ``save_reward`` writes each in the format in which its namesake is published, so
that the same classes (``textnorm_lib.rewards``) score with the miniature and with the real one.
"""

import copy
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from textnorm_lib.mini.generator import IMAGE_SIZE, MAX_TOKENS, load_in_single, replaced
from textnorm_lib.rewards.convert import follow_umask
from textnorm_lib.rewards.imagereward import ImageRewardModel
from textnorm_lib.rewards.pretrained import no_bars

PATCH_SIZE = 8
WIDTH, HEADS = 128, 4  # of every tower
QUERY_TOKENS = 8
_TRANSFORMER = {
    "hidden_size": WIDTH,
    "intermediate_size": 4 * WIDTH,
    "num_attention_heads": HEADS,
    "hidden_act": "gelu",
}
_VISION = {**_TRANSFORMER, "num_hidden_layers": 4, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE}
_FUSION_TEXT = {  # of the Q-Former and of ImageReward's text encoder
    "num_hidden_layers": 3,
    "max_position_embeddings": MAX_TOKENS,
    # Padding is masked; the token used for it is also the end token, whose embedding a padding index would freeze.
    "pad_token_id": None,
    # BERT's .02 is meant for a width of 768. Here it would leave what depends on image and text together at 6e-5 of the
    # state that the head reads (root mean square, untrained); with this it is .05 to .1.
    "initializer_range": WIDTH**-0.5,
}
PIXEL_MEAN = PIXEL_STD = 0.5  # for every channel: pixels in [-1, 1]
# Parts of a layer of CLIP's, and their names in other implementations, which stack query, key and value as well.
_LAYER = ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2", "self_attn.out_proj")
_BLIP_LAYER = ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2", "self_attn.projection", "self_attn.qkv.")
_OPEN_CLIP_LAYER = ("ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj", "attn.out_proj", "attn.in_proj_")


def build_clip(tokenizer):
    """A CLIPModel with random weights; a prompt's feature is read at its first end token."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    text = CLIPTextConfig(
        **_TRANSFORMER,
        vocab_size=len(tokenizer),
        num_hidden_layers=3,
        max_position_embeddings=MAX_TOKENS,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(**_VISION, projection_dim=WIDTH)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def blip2_from_clip(clip, tokenizer, *, images: torch.Tensor):
    """A Blip2ForImageTextRetrieval with CLIP's image tower and word embeddings, its Q-Former untrained.

    ``images`` (n, 3, 64, 64) in [-1, 1]: typical ones, see ``_blip_vision_weights``.
    """
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
    sizes = {"num_query_tokens": QUERY_TOKENS, "image_text_hidden_size": WIDTH}
    model = Blip2ForImageTextRetrieval(Blip2Config(vision_config=vision, qformer_config=qformer, **sizes))
    # transformers leaves the queries at zero, where all of them would stay alike.
    nn.init.normal_(model.query_tokens, std=qformer.initializer_range)
    model.vision_model.load_state_dict(_blip_vision_weights(clip.vision_model, images))
    _copy_embeddings(clip, model.embeddings)
    return model


def imagereward_from_clip(clip, tokenizer, *, images: torch.Tensor) -> ImageRewardModel:
    """An ImageRewardModel with CLIP's image tower and word embeddings; ``images`` as in ``blip2_from_clip``."""
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
        **_layer_weights(vision.encoder, "encoder.layers", _BLIP_LAYER),
        **_prefixed("post_layernorm", vision.post_layernorm),
    }


def _layer_weights(encoder: nn.Module, prefix: str, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """The weights of a CLIP encoder's layers under other names; query, key and value are stacked in this order."""
    weights = {}
    for index, layer in enumerate(encoder.layers):
        for part, name in zip(_LAYER, names[:-1], strict=True):
            weights |= _prefixed(f"{prefix}.{index}.{name}", layer.get_submodule(part))
        parts = (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj)
        for kind in ("weight", "bias"):
            weights[f"{prefix}.{index}.{names[-1]}{kind}"] = torch.cat([getattr(part, kind) for part in parts])
    return weights


def _prefixed(prefix: str, module: nn.Module) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": value for name, value in module.state_dict().items()}


@torch.no_grad()
def open_clip_weights(clip) -> dict[str, torch.Tensor]:
    """The weights of a transformers CLIPModel under open_clip's names."""
    vision, text = clip.vision_model, clip.text_model
    return {
        "visual.class_embedding": vision.embeddings.class_embedding,
        "visual.conv1.weight": vision.embeddings.patch_embedding.weight,
        "visual.positional_embedding": vision.embeddings.position_embedding.weight,
        **_prefixed("visual.ln_pre", vision.pre_layrnorm),
        **_layer_weights(vision.encoder, "visual.transformer.resblocks", _OPEN_CLIP_LAYER),
        **_prefixed("visual.ln_post", vision.post_layernorm),
        "visual.proj": clip.visual_projection.weight.T,
        "token_embedding.weight": text.embeddings.token_embedding.weight,
        "positional_embedding": text.embeddings.position_embedding.weight,
        **_layer_weights(text.encoder, "transformer.resblocks", _OPEN_CLIP_LAYER),
        **_prefixed("ln_final", text.final_layer_norm),
        "text_projection": clip.text_projection.weight.T,
        "logit_scale": clip.logit_scale,
    }


def save_reward(name: str, model: nn.Module, tokenizer, folder: Path) -> None:
    """Write a reward model and its tokenizer in its namesake's format, weights in half precision (safetensors)."""
    with replaced(folder) as partial:
        tokenizer.save_pretrained(partial)
        _WRITERS[name](copy.deepcopy(model).half(), partial)
        follow_umask(partial)


def _write_open_clip(clip, folder: Path) -> None:
    text, vision = clip.config.text_config, clip.config.vision_config
    configuration = {
        "model_cfg": {
            "embed_dim": clip.config.projection_dim,
            "quick_gelu": False,
            "vision_cfg": {
                "image_size": vision.image_size,
                "patch_size": vision.patch_size,
                "width": vision.hidden_size,
                "head_width": vision.hidden_size // vision.num_attention_heads,
                "layers": vision.num_hidden_layers,
            },
            "text_cfg": {
                "context_length": text.max_position_embeddings,
                "vocab_size": text.vocab_size,
                "hf_tokenizer_name": "local",  # open_clip takes the one in the folder, whatever the name
                "width": text.hidden_size,
                "heads": text.num_attention_heads,
                "layers": text.num_hidden_layers,
            },
        },
        "preprocess_cfg": {"mean": [PIXEL_MEAN] * 3, "std": [PIXEL_STD] * 3},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(configuration, indent=2) + "\n")
    weights = {name: value.contiguous() for name, value in open_clip_weights(clip).items()}
    save_file(weights, folder / "open_clip_model.safetensors")


def _write_transformers(model, folder: Path) -> None:
    with no_bars():
        model.save_pretrained(folder)
    load_in_single(folder / "config.json")
    _write_preprocessing(folder)


def _write_imagereward(model: ImageRewardModel, folder: Path) -> None:
    (folder / "config.json").write_text(model.config_json())
    save_file(model.state_dict(), folder / "model.safetensors")
    _write_preprocessing(folder)


def _write_preprocessing(folder: Path) -> None:
    """transformers' own file of how an image becomes pixel values."""
    from transformers import BlipImageProcessor

    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    BlipImageProcessor(size=size, image_mean=[PIXEL_MEAN] * 3, image_std=[PIXEL_STD] * 3).save_pretrained(folder)


_WRITERS = {
    "clip": _write_open_clip,
    "pickscore": _write_transformers,
    "blip2": _write_transformers,
    "imagereward": _write_imagereward,
}
