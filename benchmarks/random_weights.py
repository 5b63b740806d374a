"""The published reward models with random weights, at full size or small, in the files that their originals read."""

import json
from pathlib import Path

import torch

from textnorm_lib.compat import prepare_torchvision
from textnorm_lib.mini.generator import build_tokenizer
from textnorm_lib.rewards.convert import (
    BLIP2,
    IMAGEREWARD,
    PIXEL_MEAN,
    PIXEL_STD,
    Towers,
    convert_blip2,
    convert_imagereward,
)
from textnorm_lib.rewards.isolated import PACKAGES, ReferenceReward
from textnorm_lib.rewards.pretrained import no_bars

CLIP_TOKENS = 77  # of a prompt
BERT_WORDS = 30522

SMALL_CLIP = {"width": 32, "layers": 2}
SMALL_TRANSFORMER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SMALL_TOWERS = Towers(image_size=56, vision_layers=2, vision_heads=2, text_layers=3, text_heads=3)
SMALL_REFERENCE = {  # as reference_worker.py names the parts
    "image_size": SMALL_TOWERS.image_size,
    "vision": {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 14},
    "text": {
        **{"hidden_size": 24, "intermediate_size": 40, "max_position_embeddings": 48},
        **{"num_hidden_layers": 3, "num_attention_heads": 3},
    },
}


def make(name: str, folder: Path, prompts: list[str], toy: bool) -> None:
    """Write ``folder / "original"``, which the original reads, and ``folder / "ours"``, which ``load_reward`` reads.

    The tokenizers know the words of ``prompts``, each as one token.
    """
    torch.manual_seed(0)
    if name in PACKAGES:
        _make_published(name, folder, prompts, toy)
        return
    (_make_clip if name == "clip" else _make_pickscore)(folder / "ours", prompts, toy)
    (folder / "original").symlink_to(folder / "ours")


def _make_clip(folder: Path, prompts: list[str], toy: bool) -> None:
    """ViT-B/32 as open_clip stores it."""
    prepare_torchvision()
    import open_clip
    from safetensors.torch import save_file

    config = open_clip.get_model_config("ViT-B-32-quickgelu")
    config["text_cfg"]["hf_tokenizer_name"] = "local"  # open_clip takes the one in the folder, whatever the name
    if toy:
        config["vision_cfg"] |= {**SMALL_CLIP, "head_width": 16}
        config["text_cfg"] |= {**SMALL_CLIP, "heads": 2}
    _clip_tokenizer(prompts).save_pretrained(folder)
    save_file(open_clip.CLIP(**config).state_dict(), folder / "open_clip_model.safetensors")
    whole = {"model_cfg": config, "preprocess_cfg": {"mean": PIXEL_MEAN, "std": PIXEL_STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(whole))


def _make_pickscore(folder: Path, prompts: list[str], toy: bool) -> None:
    """CLIP ViT-H/14 as transformers stores it."""
    tokenizer = _clip_tokenizer(prompts)
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    small = SMALL_TRANSFORMER if toy else {}
    text = {
        **{"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
        **{"hidden_act": "gelu", "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id},
        **small,
    }
    vision = {
        **{"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16},
        **{"hidden_act": "gelu", "patch_size": 14},
        **small,
    }
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=1024))
    with no_bars():
        model.save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _clip_tokenizer(prompts: list[str]):
    tokenizer = build_tokenizer(prompts)
    tokenizer.model_max_length = CLIP_TOKENS
    return tokenizer


def _make_published(name: str, folder: Path, prompts: list[str], toy: bool) -> None:
    """ImageReward or BLIP-2 from its own package, then converted."""
    tokenizer = folder / "bert-base-uncased"
    tokenizer.mkdir()
    words = sorted({word for prompt in prompts for word in prompt.split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    vocabulary += [] if toy else [f"[unused{place}]" for place in range(BERT_WORDS - len(vocabulary))]
    (tokenizer / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    heads = {"model": {"num_query_token": 5, "embed_dim": 8}} if name == "blip2" else {}
    with ReferenceReward(name, folder, random={**SMALL_REFERENCE, **heads} if toy else {}) as original:
        original.save(folder / "original")
    convert, towers = (convert_imagereward, IMAGEREWARD) if name == "imagereward" else (convert_blip2, BLIP2)
    files = sorted((folder / "original").glob("*.pt*"))  # of BLIP-2 two, in the order that the converter takes them
    convert(*files, folder / "ours", tokenizer=tokenizer, towers=SMALL_TOWERS if toy else towers)
