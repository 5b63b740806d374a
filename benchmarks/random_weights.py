"""The published reward models with random weights, at full size or small, in the files that their originals read."""

from pathlib import Path

import torch

from benchmarks.originals import PACKAGES, ReferenceReward
from textnorm_lib.rewards.convert import BLIP2, IMAGEREWARD, convert_blip2, convert_imagereward
from textnorm_lib.stand_in_rewards import TOY_TOWERS, bert_words, write_clip, write_pickscore

SMALL_REFERENCE = {  # as reference_worker.py names the parts
    "image_size": TOY_TOWERS.image_size,
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
    (folder / "ours").mkdir()
    (write_clip if name == "clip" else write_pickscore)(folder / "ours", prompts, toy=toy)
    (folder / "original").symlink_to(folder / "ours")


def _make_published(name: str, folder: Path, prompts: list[str], toy: bool) -> None:
    """ImageReward or BLIP-2 from its own package, then converted."""
    tokenizer = folder / "bert-base-uncased"
    tokenizer.mkdir()
    (tokenizer / "vocab.txt").write_text("\n".join(bert_words(prompts, toy=toy)) + "\n")
    heads = {"model": {"num_query_token": 5, "embed_dim": 8}} if name == "blip2" else {}
    with ReferenceReward(name, folder, random={**SMALL_REFERENCE, **heads} if toy else {}) as original:
        original.save(folder / "original")
    convert, towers = (convert_imagereward, IMAGEREWARD) if name == "imagereward" else (convert_blip2, BLIP2)
    files = sorted((folder / "original").glob("*.pt*"))  # of BLIP-2 two, in the order that the converter takes them
    convert(*files, folder / "ours", tokenizer=tokenizer, towers=TOY_TOWERS if toy else towers)
