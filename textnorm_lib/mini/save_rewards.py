"""The mini world's reward models as files, each in the format in which its namesake is published.

So the same classes (``textnorm_lib.rewards``) score with the miniature and with the real one.
"""

import copy
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from textnorm_lib.errors import ConfigError
from textnorm_lib.mini.generator import IMAGE_SIZE
from textnorm_lib.mini.reward_models import layer_weights, prefixed
from textnorm_lib.rewards.convert import follow_umask
from textnorm_lib.rewards.imagereward import ImageRewardModel
from textnorm_lib.rewards.pretrained import no_bars

PIXEL_MEAN = PIXEL_STD = 0.5  # for every channel: pixels in [-1, 1]
# Parts of a layer in open_clip, in the order of ``reward_models._LAYER``.
_OPEN_CLIP_LAYER = ("ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj", "attn.out_proj", "attn.in_proj_")


@torch.no_grad()
def open_clip_weights(clip) -> dict[str, torch.Tensor]:
    """The weights of a transformers CLIPModel under open_clip's names."""
    vision, text = clip.vision_model, clip.text_model
    return {
        "visual.class_embedding": vision.embeddings.class_embedding,
        "visual.conv1.weight": vision.embeddings.patch_embedding.weight,
        "visual.positional_embedding": vision.embeddings.position_embedding.weight,
        **prefixed("visual.ln_pre", vision.pre_layrnorm),
        **layer_weights(vision.encoder, "visual.transformer.resblocks", _OPEN_CLIP_LAYER),
        **prefixed("visual.ln_post", vision.post_layernorm),
        "visual.proj": clip.visual_projection.weight.T,
        "token_embedding.weight": text.embeddings.token_embedding.weight,
        "positional_embedding": text.embeddings.position_embedding.weight,
        **layer_weights(text.encoder, "transformer.resblocks", _OPEN_CLIP_LAYER),
        **prefixed("ln_final", text.final_layer_norm),
        "text_projection": clip.text_projection.weight.T,
        "logit_scale": clip.logit_scale,
    }


def save_reward(name: str, model: nn.Module, tokenizer, folder: Path) -> None:
    """Write a reward model and its tokenizer in its namesake's format, weights in half precision (safetensors)."""
    if name not in _WRITERS:
        raise ConfigError(f"save_reward: {name!r} is no reward; known: {', '.join(_WRITERS)}")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tokenizer.save_pretrained(partial)
    _WRITERS[name](copy.deepcopy(model).half(), partial)
    follow_umask(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


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
    # transformers loads a model in the type that its configuration names; ours is loaded in single precision.
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n")
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
