"""The networks of the profile ``paper`` with random weights: built, and written in the files that loaders read.

    build_clip(prompts, toy=True)           the network; on torch's meta device it takes no memory
    write_clip(folder, prompts, toy=True)   builds it and fills a folder

So do ``..._pickscore``, ``..._imagereward``, ``..._blip2``, and ``..._diffusion``: Stable Diffusion v2.1 at 768 pixels
or, with ``base``, at 512, in diffusers' format:

    image (3, 768, 768) <-> latent (4, 96, 96)      an autoencoder, 8 times smaller on each side
    prompt -> (77, 1024)                            the text encoder, OpenCLIP's ViT-H without its last layer
    latent, time, prompt -> velocity (base: noise)  the U-Net

Architectures and sizes are the published ones; a toy differs in sizes alone. Weights come from torch's own generator:
seed it first. The tokenizers know each word of ``prompts`` as one token, other words fall into pieces; at full size a
model has as many embeddings as the published one, whatever its tokenizer knows.
"""

import itertools
import json
import string
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from textnorm_lib.mini.generator import build_pipeline, build_tokenizer
from textnorm_lib.rewards.convert import (
    BLIP2,
    BLIP2_BLANKS,
    BLIP2_TOKENS,
    HEAD_DROPOUT,
    IMAGEREWARD,
    IMAGEREWARD_TOKENS,
    PIXEL_MEAN,
    PIXEL_STD,
    Towers,
    bert_tokenizer,
)
from textnorm_lib.rewards.imagereward import ImageRewardModel
from textnorm_lib.rewards.pretrained import no_bars

CLIP_TOKENS = 77  # of a prompt
CLIP_WORDS, BERT_WORDS = 49408, 30522
IMAGEREWARD_ADDED, BLIP2_ADDED = ("[DEC]", "[ENC]"), ("[DEC]",)  # to BERT's words

TOY_CLIP = {"width": 32, "layers": 2}
TOY_TRANSFORMER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TOY_PICTURE = {"image_size": 56, "patch_size": 14}
TOY_TOWERS = Towers(image_size=56, vision_layers=2, vision_heads=2, text_layers=3, text_heads=3)
TOY_VISION = {"hidden_size": 32, "intermediate_size": 64, "patch_size": 14}
TOY_TEXT = {"hidden_size": 24, "intermediate_size": 40}

UNET = {
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),  # diffusers' name for the number of heads
    "cross_attention_dim": 1024,
    "norm_num_groups": 32,
    "layers_per_block": 2,
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "use_linear_projection": True,
}
AUTOENCODER = {
    "block_out_channels": (128, 256, 512, 512),
    "norm_num_groups": 32,
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
TEXT_ENCODER = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    # As published; an end token of 2 lets transformers take the greatest number for the end, which it is.
    **{"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1},
}
LATENT_SIDES = {"full": (96, 64), "toy": (8, 4)}  # of v2.1 and of v2.1-base

TOY_UNET = {
    "block_out_channels": (16, 32, 32, 32),
    "attention_head_dim": (1, 2, 2, 2),
    "cross_attention_dim": TOY_TRANSFORMER["hidden_size"],
    "norm_num_groups": 8,
}
TOY_AUTOENCODER = {"block_out_channels": (8, 16, 16, 16), "norm_num_groups": 8}


def build_diffusion(prompts: Sequence[str], *, toy: bool, base: bool = False) -> nn.ModuleDict:
    """``unet``, ``text_encoder`` and ``vae``, weights from torch's own generator; without memory on its meta device."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    side = LATENT_SIDES["toy" if toy else "full"][base]
    words = len(clip_tokenizer(prompts)) if toy else CLIP_WORDS
    unet, autoencoder, text = (
        (UNET | TOY_UNET, AUTOENCODER | TOY_AUTOENCODER, TEXT_ENCODER | TOY_TRANSFORMER)
        if toy
        else (UNET, AUTOENCODER, TEXT_ENCODER)
    )
    return nn.ModuleDict(
        {
            "unet": UNet2DConditionModel(**unet, sample_size=side, upcast_attention=not base),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**text, vocab_size=words)),
            "vae": AutoencoderKL(**autoencoder, sample_size=8 * side),
        }
    )


def write_diffusion(folder: Path, prompts: Sequence[str], *, toy: bool, base: bool = False) -> None:
    """A StableDiffusionPipeline as published: DDIM and velocity, base: PNDM and noise; no safety checker.

    Its tokenizer knows each word of ``prompts`` as one token, other words fall into pieces.
    """
    parts, tokenizer = build_diffusion(prompts, toy=toy, base=base), clip_tokenizer(prompts)
    from diffusers import PNDMScheduler
    from transformers import CLIPImageProcessor

    tokenizer.pad_token = "!"
    pipeline = build_pipeline(parts["vae"], parts["text_encoder"], tokenizer, parts["unet"])
    pipeline.register_modules(feature_extractor=CLIPImageProcessor())  # published, though nothing here uses it
    if base:
        sampler = {**pipeline.scheduler.config, "prediction_type": "epsilon", "skip_prk_steps": True}
        pipeline.register_modules(scheduler=PNDMScheduler.from_config(sampler))
    with no_bars():
        pipeline.save_pretrained(folder)


def build_clip(prompts: Sequence[str], *, toy: bool) -> nn.Module:
    """ViT-B/32, a CLIP of open_clip."""
    config = _clip_config(prompts, toy)
    import open_clip

    return open_clip.CLIP(**config)


def write_clip(folder: Path, prompts: Sequence[str], *, toy: bool) -> None:
    """CLIP as open_clip stores it."""
    model = build_clip(prompts, toy=toy)
    from safetensors.torch import save_file

    clip_tokenizer(prompts).save_pretrained(folder)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    preprocessing = {"mean": PIXEL_MEAN, "std": PIXEL_STD}
    whole = {"model_cfg": _clip_config(prompts, toy), "preprocess_cfg": preprocessing}
    (folder / "open_clip_config.json").write_text(json.dumps(whole, indent=2) + "\n")


def build_pickscore(prompts: Sequence[str], *, toy: bool) -> nn.Module:
    """ViT-H/14, a CLIPModel of transformers."""
    tokenizer = clip_tokenizer(prompts)
    from transformers import CLIPConfig, CLIPModel

    text = {
        **{"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
        **{"hidden_act": "gelu", "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id},
        "vocab_size": len(tokenizer) if toy else CLIP_WORDS,
    }
    vision = {
        **{"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16},
        **{"hidden_act": "gelu", "image_size": 224, "patch_size": 14},
    }
    if toy:
        text, vision = text | TOY_TRANSFORMER, vision | TOY_TRANSFORMER | TOY_PICTURE
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16 if toy else 1024))


def write_pickscore(folder: Path, prompts: Sequence[str], *, toy: bool) -> None:
    """PickScore as transformers stores it."""
    model = build_pickscore(prompts, toy=toy)
    from transformers import CLIPImageProcessor

    with no_bars():
        model.save_pretrained(folder)
    side = model.config.vision_config.image_size
    crop = {"height": side, "width": side}
    CLIPImageProcessor(size={"shortest_edge": side}, crop_size=crop).save_pretrained(folder)
    clip_tokenizer(prompts).save_pretrained(folder)


def build_imagereward(prompts: Sequence[str], *, toy: bool) -> ImageRewardModel:
    """BLIP's ViT-L/16, BERT base with cross-attention in every layer, the head."""
    from transformers import BlipTextConfig, BlipVisionConfig

    towers = TOY_TOWERS if toy else IMAGEREWARD
    vision = _vision_sizes(towers, toy, hidden_size=1024, intermediate_size=4096, patch_size=16)
    words = len(bert_words(prompts, toy=toy))
    text = _text_sizes(
        towers, toy, vocab_size=words + len(IMAGEREWARD_ADDED), encoder_hidden_size=vision["hidden_size"]
    )
    # is_decoder is transformers' name for having cross-attention; a text would begin with [DEC] if one were written.
    text |= {"is_decoder": True, "bos_token_id": words}
    head = (16, 8, 8, 4) if toy else (1024, 128, 64, 16)
    return _spread(ImageRewardModel(BlipVisionConfig(**vision), BlipTextConfig(**text), head, HEAD_DROPOUT))


def write_imagereward(folder: Path, prompts: Sequence[str], *, toy: bool) -> None:
    """ImageReward as ``rewards.convert`` stores it."""
    model, vocabulary = build_imagereward(prompts, toy=toy), bert_words(prompts, toy=toy)
    (folder / "config.json").write_text(model.config_json())
    tokenizer = _bert_tokenizer(vocabulary, added=IMAGEREWARD_ADDED, tokens=IMAGEREWARD_TOKENS)
    _write_converted(folder, model, tokenizer, model.vision_model.config.image_size)


def build_blip2(prompts: Sequence[str], *, toy: bool) -> nn.Module:
    """EVA's ViT-g/14 but for its last layer, in half precision as published, and the Q-Former with its heads."""
    from transformers import Blip2Config, Blip2ForImageTextRetrieval, Blip2QFormerConfig, Blip2VisionConfig

    towers = TOY_TOWERS if toy else BLIP2
    vision = _vision_sizes(towers, toy, hidden_size=1408, intermediate_size=6144, patch_size=14)
    words = len(bert_words(prompts, toy=toy)) + len(BLIP2_ADDED)
    former = _text_sizes(towers, toy, vocab_size=words, encoder_hidden_size=vision["hidden_size"])
    former |= {"cross_attention_frequency": 2, "use_qformer_text_input": True}
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**vision, post_layernorm_eps=1e-5),
        qformer_config=Blip2QFormerConfig(**former),
        num_query_tokens=5 if toy else 32,
        image_text_hidden_size=8 if toy else 256,
    )
    model = _spread(Blip2ForImageTextRetrieval(config))
    model.vision_model.half().post_layernorm.float()
    return model


def write_blip2(folder: Path, prompts: Sequence[str], *, toy: bool) -> None:
    """BLIP-2 as ``rewards.convert`` stores it."""
    model, vocabulary = build_blip2(prompts, toy=toy), bert_words(prompts, toy=toy)
    model.config.save_pretrained(folder)
    tokenizer = _bert_tokenizer(vocabulary, added=BLIP2_ADDED, tokens=BLIP2_TOKENS, blanks=BLIP2_BLANKS)
    _write_converted(folder, model, tokenizer, model.config.vision_config.image_size)


def clip_tokenizer(prompts: Sequence[str]):
    """A CLIPTokenizer that reads as many tokens as the published ones."""
    tokenizer = build_tokenizer(prompts)
    tokenizer.model_max_length = CLIP_TOKENS
    return tokenizer


def bert_words(prompts: Sequence[str], *, toy: bool) -> list[str]:
    """A vocabulary for BERT, in ``vocab.txt``'s order; at full size it is as long as the published one.

    Other words fall into pairs of letters: into single ones, long prompts would be cut that the published one reads.
    """
    pairs = map("".join, itertools.product(string.ascii_lowercase, repeat=2))
    pieces = [*map(chr, range(33, 127)), *pairs]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *(f"##{piece}" for piece in pieces)]
    words += sorted({word for prompt in prompts for word in prompt.split()} - set(words))
    return words if toy else words + [f"[unused{place}]" for place in range(BERT_WORDS - len(words))]


def _clip_config(prompts: Sequence[str], toy: bool) -> dict:
    """What open_clip builds a model from."""
    import open_clip

    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    config["vision_cfg"] |= {"head_width": 64}  # open_clip's own, said aloud
    config["text_cfg"] |= {"hf_tokenizer_name": "local"}  # it takes the one in the folder, whatever the name
    if toy:
        config["embed_dim"] = 16
        config["vision_cfg"] |= {**TOY_CLIP, **TOY_PICTURE, "head_width": 16}
        config["text_cfg"] |= {**TOY_CLIP, "heads": 2, "vocab_size": len(clip_tokenizer(prompts))}
    return config


def _vision_sizes(towers: Towers, toy: bool, **sizes) -> dict:
    return {
        **{"num_hidden_layers": towers.vision_layers, "num_attention_heads": towers.vision_heads},
        **{"image_size": towers.image_size, "hidden_act": "gelu", "layer_norm_eps": 1e-6},
        **sizes,
        **(TOY_VISION if toy else {}),
    }


def _text_sizes(towers: Towers, toy: bool, **sizes) -> dict:
    """BERT base, or a toy."""
    return {
        **{"num_hidden_layers": towers.text_layers, "num_attention_heads": towers.text_heads},
        **{"hidden_size": 768, "intermediate_size": 3072, "max_position_embeddings": 512},
        **{"hidden_act": "gelu", "layer_norm_eps": 1e-12},
        **sizes,
        **(TOY_TEXT if toy else {}),
    }


@torch.no_grad()
def _spread(model: nn.Module) -> nn.Module:
    """With matrices that keep the variance: transformers begins with ones so small that all images score the same."""
    for weights in model.parameters():
        if weights.ndim > 1:
            fan_in = weights.shape[-1] if weights.ndim == 3 else weights[0].numel()  # 3: positions and queries
            weights.normal_(std=fan_in**-0.5)
    return model


def _bert_tokenizer(vocabulary: list[str], *, added: Sequence[str], **options):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.txt").write_text("\n".join(vocabulary) + "\n")
        return bert_tokenizer(Path(folder), added=added, words=len(vocabulary) + len(added), **options)


def _write_converted(folder: Path, model: nn.Module, tokenizer, image_size: int) -> None:
    from safetensors.torch import save_file
    from transformers import BlipImageProcessor

    tokenizer.save_pretrained(folder)
    size = {"height": image_size, "width": image_size}
    BlipImageProcessor(size=size, image_mean=PIXEL_MEAN, image_std=PIXEL_STD).save_pretrained(folder)
    save_file(model.state_dict(), folder / "model.safetensors")
