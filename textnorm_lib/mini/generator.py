"""The mini world's text-to-image model: a latent diffusion model in the shape and the format of Stable Diffusion.

Image (3, 64, 64) in [-1, 1] -> autoencoder -> latent (4, 16, 16), scaled to unit variance; a U-Net predicts the
velocity of a latent at a noise level, given the caption's token embeddings (24, 128). Every part is the diffusers or
transformers class that Stable Diffusion v2.1 uses, so that ``StableDiffusionPipeline``, its schedulers, LoRA through
peft and everything that is trained on top run on it unchanged.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

IMAGE_SIZE = 64
LATENT_SHAPE = (4, 16, 16)
MAX_TOKENS = 24
TEXT_WIDTH = 128


def as_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def build_tokenizer(captions: Iterable[str]):
    """A CLIPTokenizer in which every word of ``captions`` is one token; other words fall into pieces."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = [chr(code) for code in range(33, 127)]
    alphabet = [*letters, *(f"{letter}</w>" for letter in letters)]
    options = {"vocab_size": 4096, "min_frequency": 1, "initial_alphabet": letters, "show_progress": False}
    learner.train_from_iterator(captions, trainers.BpeTrainer(end_of_word_suffix="</w>", **options))
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    special = ["<|startoftext|>", "<|endoftext|>"]
    tokens = dict.fromkeys([*alphabet, *("".join(pair) for pair in merges), *special])
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS, pad_token="<|endoftext|>")


def build_text_encoder(vocabulary_size: int):
    """CLIP's text transformer: 4 layers, width 128."""
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=vocabulary_size,
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=vocabulary_size - 2,
        eos_token_id=vocabulary_size - 1,
        pad_token_id=vocabulary_size - 1,
    )
    return CLIPTextModel(config)


def build_autoencoder(channels: tuple[int, ...] = (16, 32, 64)):
    """An AutoencoderKL that makes an image four times smaller on each side."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=LATENT_SHAPE[0],
        norm_num_groups=8,
        sample_size=IMAGE_SIZE,
    )


def build_unet(channels: tuple[int, int] = (64, 128)):
    """A U-Net: convolutions at 16 x 16, and at 8 x 8 attention as well, within the image and on the caption."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT_SHAPE[1],
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,  # diffusers' name for the number of heads
        norm_num_groups=16,
        use_linear_projection=True,
    )


def build_scheduler():
    """DDIM with Stable Diffusion's noise levels; the model predicts velocity, as v2.1 does."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def build_pipeline(autoencoder, text_encoder, tokenizer, unet):
    """The parts as a StableDiffusionPipeline, without a safety checker."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_pipeline(pipeline, folder: Path) -> None:
    """Write the pipeline in diffusers' format with weights in half precision (safetensors), to be loaded in single."""
    parts = (pipeline.vae, pipeline.text_encoder, pipeline.unet)
    with replaced(folder) as partial:
        for part in parts:
            part.half()
        pipeline.save_pretrained(partial, safe_serialization=True)
        for part in parts:
            part.float()
        load_in_single(partial / "text_encoder" / "config.json")


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of ``folder`` once all is written."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def load_in_single(config: Path) -> None:
    """Let transformers, which loads a model in the type that its configuration names, load this one in single."""
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n")
