"""Stable Diffusion v2.1 with random weights, at 768 pixels or (``base``) at 512, in diffusers' format.

    image (3, 768, 768) <-> latent (4, 96, 96)      an autoencoder, 8 times smaller on each side
    prompt -> (77, 1024)                            the text encoder, OpenCLIP's ViT-H without its last layer
    latent, time, prompt -> velocity (base: noise)  the U-Net

The sizes are those of the published configurations; a toy differs in them alone.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from textnorm_lib.compat import prepare_torchvision
from textnorm_lib.mini.generator import build_pipeline
from textnorm_lib.rewards.pretrained import no_bars
from textnorm_lib.stand_in_rewards import CLIP_WORDS, TOY_TRANSFORMER, clip_tokenizer

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
    prepare_torchvision()
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
