"""The checkpoints that the authors of ImageReward and of BLIP-2 published, written as folders for ``load_reward``.

    convert_imagereward(Path("ImageReward.pt"), folder, tokenizer=bert)
    convert_blip2(Path("blip2_pretrained.pth"), Path("eva_vit_g.pth"), folder, tokenizer=bert)

Nothing is fetched: ``tokenizer`` is a folder with the ``vocab.txt`` of bert-base-uncased. Values keep their precision.
A weight that is neither used nor on the lists of those that scoring does not need is an error, as is one that is
missing or of another shape than the others and ``Towers`` imply.
"""

import argparse
import os
import pickle
import shutil
import sys
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from textnorm_lib.rewards.imagereward import ImageRewardModel
from textnorm_lib.study.errors import DataError, StudyError, check_regular


@dataclass(frozen=True)
class Towers:
    """Image size, layers and attention heads of the image and of the text transformer; widths are read off the weights.

    Layers are given and not counted, so that a checkpoint without its last ones is noticed.
    """

    image_size: int  # pixels a side
    vision_layers: int
    vision_heads: int
    text_layers: int
    text_heads: int


IMAGEREWARD = Towers(image_size=224, vision_layers=24, vision_heads=16, text_layers=12, text_heads=12)
BLIP2 = Towers(image_size=224, vision_layers=39, vision_heads=16, text_layers=12, text_heads=12)

PIXEL_MEAN, PIXEL_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's, for both
# ImageReward's package subtracts and divides by these after the head; here they become part of its last layer.
REWARD_MEAN, REWARD_STD = 0.16717362830052426, 1.0333394966054072
HEAD_DROPOUT = (0.2, 0.2, 0.1, 0.0)
IMAGEREWARD_TOKENS, BLIP2_TOKENS = 35, 32  # of a prompt; the rest is cut off
BLIP2_BLANKS = r'[.!"()*#:;~]'  # LAVIS' caption processor, which "pretrain" names, puts a space for each

_IMAGEREWARD_UNUSED = (
    "blip.text_encoder.embeddings.position_ids",  # 0, 1, 2, ...
    # projections for BLIP's contrastive loss
    *("blip.vision_proj.weight", "blip.vision_proj.bias", "blip.text_proj.weight", "blip.text_proj.bias"),
)
_BLIP2_UNUSED = (
    "Qformer.bert.embeddings.position_ids",  # 0, 1, 2, ...
    "temp",  # the temperature of the contrastive loss; the score is the cosine itself
    # the head that writes captions
    *("Qformer.cls.predictions.bias", "Qformer.cls.predictions.decoder.weight", "Qformer.cls.predictions.decoder.bias"),
    *("Qformer.cls.predictions.transform.dense.weight", "Qformer.cls.predictions.transform.dense.bias"),
    *("Qformer.cls.predictions.transform.LayerNorm.weight", "Qformer.cls.predictions.transform.LayerNorm.bias"),
)
# LAVIS reads EVA before its last layer: that layer, the norm after it and the projection into CLIP's space are unused.
_EVA_UNUSED = ("norm.weight", "norm.bias", "head.weight", "head.bias")
_EVA_LAYER = (
    *("norm1.weight", "norm1.bias", "attn.q_bias", "attn.v_bias", "attn.qkv.weight", "attn.proj.weight"),
    *("attn.proj.bias", "norm2.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight"),
    "mlp.fc2.bias",
)
# Parts of names: in transformers' classes, in the original.
_VISION_NAMES = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embedding": "pos_embed",
    "embeddings.patch_embedding": "patch_embed.proj",
    "encoder.layers": "blocks",
    "layer_norm": "norm",
    "self_attn.qkv": "attn.qkv",
    "self_attn.projection": "attn.proj",
    "post_layernorm": "norm",
}
_BLIP2_NAMES = {
    "vision_model.post_layernorm": "ln_vision",
    "vision_projection": "vision_proj",
    "text_projection": "text_proj",
    "qformer.layernorm": "Qformer.bert.embeddings.LayerNorm",
    "qformer.encoder": "Qformer.bert.encoder",
    "embeddings.word": "Qformer.bert.embeddings.word",
    "embeddings.position": "Qformer.bert.embeddings.position",
    "attention.attention": "attention.self",  # and crossattention
}


class Checkpoint:
    """The weights in a ``.pt`` or ``.pth`` file, under ``entry`` if given; each is taken once and none is left over.

    ``model`` names what the file should hold, for messages. Raises ``DataError`` where the file holds something else
    than tensors by name, or cannot be read without running what is in it.
    """

    def __init__(self, path: Path, model: str, *, entry: str | None = None) -> None:
        self.path, self.model = path, model
        try:
            check_regular(path)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{path} cannot be read as a checkpoint of {model} ({reason}); fetch it again") from error
        if entry is not None:
            if not isinstance(content, dict) or entry not in content:
                raise DataError(f"{path} holds no {entry!r}; is it the checkpoint of {model}?")
            content = content[entry]
        if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
            raise DataError(f"{path} holds no weights by name; is it the checkpoint of {model}?")
        self._weights: dict[str, torch.Tensor] = dict(content)

    def shape(self, name: str, axes: int) -> torch.Size:
        """The shape of a weight with so many ``axes``."""
        shape = self._weight(name).shape
        if len(shape) != axes:
            raise DataError(f"{self.path}: {name} has shape {list(shape)}; {self.model} has {axes} axes there")
        return shape

    def take(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        """A weight, which must have this shape."""
        weight = self._weight(name)
        if weight.shape != torch.Size(shape):
            raise DataError(
                f"{self.path}: {name} has shape {list(weight.shape)} and not {list(shape)}; "
                f"is it the checkpoint of {self.model}?"
            )
        return self._weights.pop(name)

    def finish(self, unused: Collection[str]) -> None:
        """Raise if anything was neither taken nor is ``unused``."""
        if left := [name for name in self._weights if name not in unused]:
            raise DataError(
                f"{self.path} holds {left[0]}, which {self.model} does not have ({len(left)} such weights); "
                f"is it the checkpoint of {self.model}?"
            )

    def _weight(self, name: str) -> torch.Tensor:
        if name not in self._weights:
            raise DataError(f"{self.path} holds no {name}; is it the whole checkpoint of {self.model}?")
        return self._weights[name]


def convert_imagereward(checkpoint: Path, folder: Path, *, tokenizer: Path, towers: Towers = IMAGEREWARD) -> None:
    """``ImageReward.pt`` (Xu et al. 2023), which image-reward 1.5 reads -> a new ``folder``.

    Its scores are those of the package's ``model.score``, images and prompts are prepared as there. Raises
    ``DataError`` naming the file and the weight, and where ``folder`` exists.
    """
    with written(folder) as partial:
        source = Checkpoint(checkpoint, "ImageReward")
        model = _imagereward_model(source, towers)
        words = model.text_model.config.vocab_size
        bert = bert_tokenizer(tokenizer, added=("[DEC]", "[ENC]"), words=words, tokens=IMAGEREWARD_TOKENS)
        weights = {name: source.take(_imagereward_name(name), like.shape) for name, like in model.state_dict().items()}
        source.finish(_IMAGEREWARD_UNUSED)
        weight, bias = (f"head.{len(model.head) - 1}.{kind}" for kind in ("weight", "bias"))
        weights[weight], weights[bias] = weights[weight] / REWARD_STD, (weights[bias] - REWARD_MEAN) / REWARD_STD
        (partial / "config.json").write_text(model.config_json())
        _save(weights, bert, model.vision_model.config.image_size, partial)


def convert_blip2(checkpoint: Path, vision: Path, folder: Path, *, tokenizer: Path, towers: Towers = BLIP2) -> None:
    """LAVIS' BLIP-2 "pretrain": ``blip2_pretrained.pth`` and the image encoder ``eva_vit_g.pth`` -> a new ``folder``.

    LAVIS squeezes an image into a square where ``load_reward`` cuts one out: for square images this is the same. On
    a GPU it computes the image encoder in half precision. Raises ``DataError`` as ``convert_imagereward``.
    """
    with written(folder) as partial:
        source, eva = Checkpoint(checkpoint, "BLIP-2", entry="model"), Checkpoint(vision, "EVA-CLIP's ViT-g")
        model = _blip2_model(source, eva, towers)
        words = model.config.qformer_config.vocab_size
        bert = bert_tokenizer(tokenizer, added=("[DEC]",), words=words, tokens=BLIP2_TOKENS, blanks=BLIP2_BLANKS)
        weights = {name: _blip2_weight(name, like.shape, source, eva) for name, like in model.state_dict().items()}
        source.finish(_BLIP2_UNUSED)
        eva.finish((*_EVA_UNUSED, *(f"blocks.{towers.vision_layers}.{name}" for name in _EVA_LAYER)))
        model.config.save_pretrained(partial)
        _save(weights, bert, model.config.vision_config.image_size, partial)


def _imagereward_model(source: Checkpoint, towers: Towers) -> ImageRewardModel:
    """The model that fits the checkpoint, its weights without memory."""
    from transformers import BlipTextConfig, BlipVisionConfig

    vision = _vision_sizes(source, "blip.visual_encoder.", towers)
    # is_decoder is transformers' name for having cross-attention.
    text = BlipTextConfig(
        **_text_sizes(source, "blip.text_encoder.", towers), encoder_hidden_size=vision["hidden_size"], is_decoder=True
    )
    widths = [source.shape(f"mlp.layers.{place}.weight", 2)[0] for place in (0, 2, 4, 6)]  # 1, 3 and 5 are dropout
    with torch.device("meta"):
        return ImageRewardModel(BlipVisionConfig(**vision), text, widths, HEAD_DROPOUT)


def _blip2_model(source: Checkpoint, eva: Checkpoint, towers: Towers):
    """As ``_imagereward_model``, a Blip2ForImageTextRetrieval."""
    from transformers import Blip2Config, Blip2ForImageTextRetrieval, Blip2QFormerConfig, Blip2VisionConfig

    vision = _vision_sizes(eva, "", towers)
    qformer = Blip2QFormerConfig(
        **_text_sizes(source, "Qformer.bert.", towers),
        encoder_hidden_size=vision["hidden_size"],
        cross_attention_frequency=2,
        use_qformer_text_input=True,
    )
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**vision, post_layernorm_eps=1e-5),
        qformer_config=qformer,
        num_query_tokens=source.shape("query_tokens", 3)[1],
        image_text_hidden_size=source.shape("vision_proj.weight", 2)[0],
    )
    with torch.device("meta"):
        return Blip2ForImageTextRetrieval(config)


def _vision_sizes(source: Checkpoint, prefix: str, towers: Towers) -> dict:
    width, _, patch, _ = source.shape(f"{prefix}patch_embed.proj.weight", 4)
    return {
        "hidden_size": width,
        "intermediate_size": source.shape(f"{prefix}blocks.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": towers.vision_layers,
        "num_attention_heads": towers.vision_heads,
        "image_size": towers.image_size,
        "patch_size": patch,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
    }


def _text_sizes(source: Checkpoint, prefix: str, towers: Towers) -> dict:
    words, width = source.shape(f"{prefix}embeddings.word_embeddings.weight", 2)
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": source.shape(f"{prefix}encoder.layer.0.intermediate.dense.weight", 2)[0],
        "num_hidden_layers": towers.text_layers,
        "num_attention_heads": towers.text_heads,
        "max_position_embeddings": source.shape(f"{prefix}embeddings.position_embeddings.weight", 2)[0],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }


def _imagereward_name(name: str) -> str:
    part, rest = name.split(".", maxsplit=1)
    if part == "vision_model":
        return f"blip.visual_encoder.{_renamed(rest, _VISION_NAMES)}"
    return f"blip.text_encoder.{rest}" if part == "text_model" else f"mlp.layers.{rest}"


def _blip2_weight(name: str, shape: torch.Size, source: Checkpoint, eva: Checkpoint) -> torch.Tensor:
    part, _, rest = name.partition(".")
    if part != "vision_model" or rest.startswith("post_layernorm"):
        return source.take(_renamed(name, _BLIP2_NAMES), shape)
    original = _renamed(rest, _VISION_NAMES)
    if not original.endswith("qkv.bias"):
        return eva.take(original, shape)
    attention, third = original.removesuffix("qkv.bias"), (shape[0] // 3,)
    query, value = (eva.take(f"{attention}{kind}_bias", third) for kind in "qv")
    return torch.cat([query, torch.zeros_like(query), value])  # keys have no bias


def _renamed(name: str, parts: dict[str, str]) -> str:
    for ours, original in parts.items():
        name = name.replace(ours, original)
    return name


def _save(weights: dict[str, torch.Tensor], tokenizer, image_size: int, folder: Path) -> None:
    from safetensors.torch import save_file
    from transformers import BlipImageProcessor

    tokenizer.save_pretrained(folder)
    size = {"height": image_size, "width": image_size}
    BlipImageProcessor(size=size, image_mean=PIXEL_MEAN, image_std=PIXEL_STD).save_pretrained(folder)
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")


def bert_tokenizer(folder: Path, *, added: Sequence[str], words: int, tokens: int, blanks: str | None = None):
    """bert-base-uncased's tokenizer from ``folder / "vocab.txt"``, with further special tokens ``added`` at its end.

    ``words``: how many tokens the model knows; ``tokens``: how many of a prompt it reads. What matches the regular
    expression ``blanks`` becomes a space first. Raises ``DataError`` where the vocabulary is missing or does not fit.
    """
    from tokenizers import AddedToken, Regex, normalizers
    from tokenizers.models import WordPiece
    from transformers import BertTokenizer, PreTrainedTokenizerFast

    path = folder / "vocab.txt"
    if not path.is_file():
        raise DataError(f"{path} is missing; put bert-base-uncased's vocabulary there")
    vocabulary = WordPiece.read_file(str(path))
    backend = BertTokenizer(vocab=vocabulary).backend_tokenizer
    backend.add_special_tokens([AddedToken(token, special=True) for token in added])
    if blanks is not None:
        backend.normalizer = normalizers.Sequence([normalizers.Replace(Regex(blanks), " "), backend.normalizer])
    if backend.get_vocab_size() != words:
        raise DataError(
            f"{path} makes {backend.get_vocab_size()} tokens with {', '.join(added)}, the checkpoint knows {words}; "
            "give bert-base-uncased's vocabulary"
        )
    # Not a BertTokenizer: read back, that would make its rules anew and forget the blanks.
    special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=tokens, **special)


@contextmanager
def written(folder: Path) -> Iterator[Path]:
    """A folder to write to, which becomes ``folder`` at the end, and nothing if anything fails.

    Raises ``DataError`` where there is already something in ``folder``, or no room for it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists already; remove it to convert again, or choose another folder")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        follow_umask(partial)
        partial.replace(folder)
    except SafetensorError as error:
        raise DataError(f"{partial} cannot be written ({error}); make room there, or choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def follow_umask(folder: Path) -> None:
    """Give the files in ``folder`` the mode of any new file: safetensors lets nobody but their owner read them."""
    mask = os.umask(0o077)  # there is no other way to ask for it
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)


_CONVERTERS = {  # and the files that each takes
    "imagereward": (convert_imagereward, ("ImageReward.pt",)),
    "blip2": (convert_blip2, ("blip2_pretrained.pth", "eva_vit_g.pth")),
}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m textnorm_lib rewards", description="Reward models.")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("convert", help="write a published checkpoint as a folder for load_reward")
    models = command.add_subparsers(dest="model", required=True)
    for name, (_, files) in _CONVERTERS.items():
        model = models.add_parser(name, help=f"takes {' and '.join(files)}")
        for file in files:
            model.add_argument(file, type=Path)
        model.add_argument("--tokenizer", required=True, type=Path, help="a folder with bert-base-uncased's vocab.txt")
        model.add_argument("--to", required=True, type=Path, help="the new folder")
    options = parser.parse_args(arguments)
    convert, files = _CONVERTERS[options.model]
    try:
        convert(*(getattr(options, file) for file in files), options.to, tokenizer=options.tokenizer)
    except (StudyError, OSError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 2
    print(f"convert: {options.to} is complete")
    return 0
