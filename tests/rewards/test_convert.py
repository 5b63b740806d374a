"""Converting the published checkpoints: every weight accounted for, and the scores of the original.

The state dicts are random, at toy size, under the originals' names. What the originals compute with them is written out
below from their definitions; where their packages are installed (benchmarks/originals), these themselves say so too.
"""

import dataclasses
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from benchmarks.originals import ReferenceReward, is_made
from textnorm_lib.rewards import load_reward
from textnorm_lib.rewards.convert import Towers, convert_blip2, convert_imagereward
from textnorm_lib.study.errors import DataError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "two", "dog", "##s", "cat", ".", ",", "!"]
PROMPTS = ["a photo of two dogs", "Two cats, a dog", "dogs"]
IMAGE_SIZE, PATCH, VISION, TEXT = 32, 8, 8, 12  # the last two are widths
IMAGEREWARD, BLIP2, EVA = "ImageReward.pt", "blip2_pretrained.pth", "eva_vit_g.pth"
TOWERS = Towers(image_size=IMAGE_SIZE, vision_layers=2, vision_heads=2, text_layers=3, text_heads=3)
MODELS = {IMAGEREWARD: "imagereward", BLIP2: "blip2", EVA: "blip2"}

# Names and shapes in the published files; {} stands for a layer's number.
VISION_WEIGHTS = {
    "cls_token": (1, 1, VISION),
    "pos_embed": (1, (IMAGE_SIZE // PATCH) ** 2 + 1, VISION),
    "patch_embed.proj.weight": (VISION, 3, PATCH, PATCH),
    "patch_embed.proj.bias": (VISION,),
}
VISION_LAYER = {
    "blocks.{}.norm1.weight": (VISION,),
    "blocks.{}.norm1.bias": (VISION,),
    "blocks.{}.attn.qkv.weight": (3 * VISION, VISION),
    "blocks.{}.attn.proj.weight": (VISION, VISION),
    "blocks.{}.attn.proj.bias": (VISION,),
    "blocks.{}.norm2.weight": (VISION,),
    "blocks.{}.norm2.bias": (VISION,),
    "blocks.{}.mlp.fc1.weight": (20, VISION),
    "blocks.{}.mlp.fc1.bias": (20,),
    "blocks.{}.mlp.fc2.weight": (VISION, 20),
    "blocks.{}.mlp.fc2.bias": (VISION,),
}
BLIP_BIAS = {"blocks.{}.attn.qkv.bias": (3 * VISION,)}
EVA_BIASES = {"blocks.{}.attn.q_bias": (VISION,), "blocks.{}.attn.v_bias": (VISION,)}
EVA_REST = {"norm.weight": (VISION,), "norm.bias": (VISION,), "head.weight": (6, VISION), "head.bias": (6,)}
EMBEDDINGS = {
    "embeddings.word_embeddings.weight": (0, TEXT),  # 0: as many as there are words
    "embeddings.position_embeddings.weight": (40, TEXT),
    "embeddings.LayerNorm.weight": (TEXT,),
    "embeddings.LayerNorm.bias": (TEXT,),
}


def _attention(name: str, encoder_width: int) -> dict[str, tuple[int, ...]]:
    widths = {"query": TEXT, "key": encoder_width, "value": encoder_width}
    names = {f"encoder.layer.{{}}.{name}.self.{part}.weight": (TEXT, width) for part, width in widths.items()}
    names |= {f"encoder.layer.{{}}.{name}.self.{part}.bias": (TEXT,) for part in widths}
    return names | _dense(f"{name}.output", TEXT, TEXT)


def _dense(name: str, out: int, into: int, *, norm: bool = True) -> dict[str, tuple[int, ...]]:
    names = {f"encoder.layer.{{}}.{name}.dense.weight": (out, into), f"encoder.layer.{{}}.{name}.dense.bias": (out,)}
    norms = {f"encoder.layer.{{}}.{name}.LayerNorm.{kind}": (out,) for kind in ("weight", "bias")}
    return names | (norms if norm else {})


def _feed_forward(suffix: str = "") -> dict[str, tuple[int, ...]]:
    return _dense(f"intermediate{suffix}", 16, TEXT, norm=False) | _dense(f"output{suffix}", TEXT, 16)


SELF, CROSS = _attention("attention", TEXT), _attention("crossattention", VISION)
HEAD = {0: (10, TEXT), 2: (7, 10), 4: (6, 7), 6: (5, 6), 7: (1, 5)}
IMAGEREWARD_UNUSED = {
    "blip.text_encoder.embeddings.position_ids": (1, 40),
    "blip.vision_proj.weight": (4, VISION),
    "blip.vision_proj.bias": (4,),
    "blip.text_proj.weight": (4, TEXT),
    "blip.text_proj.bias": (4,),
}
BLIP2_HEADS = {
    "query_tokens": (1, 4, TEXT),
    "ln_vision.weight": (VISION,),
    "ln_vision.bias": (VISION,),
    "vision_proj.weight": (6, TEXT),
    "vision_proj.bias": (6,),
    "text_proj.weight": (6, TEXT),
    "text_proj.bias": (6,),
    "itm_head.weight": (2, TEXT),
    "itm_head.bias": (2,),
}
BLIP2_UNUSED = {
    "temp": (),
    "Qformer.bert.embeddings.position_ids": (1, 40),
    "Qformer.cls.predictions.bias": (0,),
    "Qformer.cls.predictions.decoder.weight": (0, TEXT),
    "Qformer.cls.predictions.decoder.bias": (0,),
    "Qformer.cls.predictions.transform.dense.weight": (TEXT, TEXT),
    "Qformer.cls.predictions.transform.dense.bias": (TEXT,),
    "Qformer.cls.predictions.transform.LayerNorm.weight": (TEXT,),
    "Qformer.cls.predictions.transform.LayerNorm.bias": (TEXT,),
}


def _layers(names: dict, count: int, *, every: int = 1) -> dict:
    return {name.format(layer): shape for layer in range(0, count, every) for name, shape in names.items()}


def _under(prefix: str, names: dict) -> dict:
    return {prefix + name: shape for name, shape in names.items()}


IMAGEREWARD_NAMES = {
    **_under("blip.visual_encoder.", VISION_WEIGHTS | _layers(VISION_LAYER | BLIP_BIAS, 2)),
    **_under("blip.visual_encoder.", {"norm.weight": (VISION,), "norm.bias": (VISION,)}),
    **_under("blip.text_encoder.", EMBEDDINGS | _layers(SELF | CROSS | _feed_forward(), 3)),
    **{f"mlp.layers.{place}.weight": shape for place, shape in HEAD.items()},
    **{f"mlp.layers.{place}.bias": shape[:1] for place, shape in HEAD.items()},
}
BLIP2_NAMES = BLIP2_HEADS | _under(
    "Qformer.bert.",
    EMBEDDINGS | _layers(SELF | _feed_forward() | _feed_forward("_query"), 3) | _layers(CROSS, 3, every=2),
)
EVA_NAMES = VISION_WEIGHTS | _layers(VISION_LAYER | EVA_BIASES, 2)
EVA_UNUSED = EVA_REST | {name.format(2): shape for name, shape in (VISION_LAYER | EVA_BIASES).items()}


def _random(names: dict, words: int, *, seed: int) -> dict[str, torch.Tensor]:
    """Weights under these names, spread so that every one of them tells."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in names.items():
        shape = tuple(words if size == 0 else size for size in shape)
        weights[name] = torch.randn(shape, generator=generator) * (0.5 if len(shape) > 1 else 0.2)
        weights[name] += "norm" in name.lower() and name.endswith("weight")
        if name.endswith("position_ids"):
            weights[name] = torch.arange(shape[1])[None]
    return weights


@pytest.fixture
def published() -> dict[str, dict[str, torch.Tensor]]:
    """The weights in each published file."""
    eva = _random(EVA_NAMES | EVA_UNUSED, 0, seed=2)
    return {
        IMAGEREWARD: _random(IMAGEREWARD_NAMES | IMAGEREWARD_UNUSED, len(WORDS) + 2, seed=0),
        BLIP2: _random(BLIP2_NAMES | BLIP2_UNUSED, len(WORDS) + 1, seed=9),  # probabilities far from 0 and 1
        EVA: {name: value.half() for name, value in eva.items()},
    }


@pytest.fixture
def images() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (3, 5, 5, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(one).resize((48, 48), Image.Resampling.BICUBIC)) for one in coarse])


@pytest.fixture
def tokenizer(tmp_path) -> Path:
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path / "bert"


@pytest.fixture
def convert(tmp_path, tokenizer):
    """Write weights to the published files and convert the one or the two of a model to a folder, which it returns."""

    def convert(published: dict, model: str) -> Path:
        folder, options = tmp_path / model, {"tokenizer": tokenizer, "towers": TOWERS}
        if model == "imagereward":
            torch.save(published[IMAGEREWARD], tmp_path / IMAGEREWARD)
            convert_imagereward(tmp_path / IMAGEREWARD, folder, **options)
        else:
            torch.save({"model": published[BLIP2], "epoch": 3}, tmp_path / BLIP2)
            torch.save(published[EVA], tmp_path / EVA)
            convert_blip2(tmp_path / BLIP2, tmp_path / EVA, folder, **options)
        return folder

    return convert


@pytest.fixture
def refusal(convert, tmp_path):
    """The one line with which converting is refused; nothing may be left behind."""

    def refusal(published: dict, model: str) -> str:
        with pytest.raises(DataError) as caught:
            convert(published, model)
        assert not (tmp_path / model).exists() and not (tmp_path / f"{model}.partial").exists()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refusal


class Original:
    """What the original classes compute, from weights under their names."""

    def __init__(self, weights: dict[str, torch.Tensor], prefix: str) -> None:
        self.weights = {
            name.removeprefix(prefix): value.double() for name, value in weights.items() if name.startswith(prefix)
        }

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def norm(self, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], eps)

    def vision(self, pixels: torch.Tensor, layers: int) -> torch.Tensor:
        """(n, 3, h, w) -> (n, 1 + patches, width), before the last norm."""
        x = F.conv2d(pixels, *(self.weights[f"patch_embed.proj.{kind}"] for kind in ("weight", "bias")), stride=PATCH)
        x = torch.cat([self.weights["cls_token"].expand(len(x), -1, -1), x.flatten(2).mT], dim=1)
        x = x + self.weights["pos_embed"]
        for layer in range(layers):
            name = f"blocks.{layer}"
            if f"{name}.attn.q_bias" in self.weights:
                query, value = (self.weights[f"{name}.attn.{part}_bias"] for part in "qv")
                self.weights[f"{name}.attn.qkv.bias"] = torch.cat([query, 0 * query, value])
            parts = self.linear(f"{name}.attn.qkv", self.norm(f"{name}.norm1", x, 1e-6)).chunk(3, dim=-1)
            x = x + self.linear(f"{name}.attn.proj", _attend(*parts, TOWERS.vision_heads))
            hidden = F.gelu(self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", x, 1e-6)))
            x = x + self.linear(f"{name}.mlp.fc2", hidden)
        return x

    def embedded(self, ids: torch.Tensor) -> torch.Tensor:
        words, places = (self.weights[f"embeddings.{kind}_embeddings.weight"] for kind in ("word", "position"))
        return words[ids] + places[: len(ids)]

    def bert(
        self, x: torch.Tensor, image: torch.Tensor | None, *, cross_every: int = 1, queries: int = 0
    ) -> torch.Tensor:
        """(l, width), one text; the first ``queries`` see the image and have a feed-forward layer of their own."""
        x = self.norm("embeddings.LayerNorm", x, 1e-12)
        for layer in range(TOWERS.text_layers):
            name = f"encoder.layer.{layer}"
            x = self._mixed(f"{name}.attention", x, x)
            if cross_every > 1:  # a Q-Former
                first, rest = x[:queries], self._fed(name, "", x[queries:])
                if queries and layer % cross_every == 0:
                    first = self._mixed(f"{name}.crossattention", first, image)
                x = torch.cat([self._fed(name, "_query", first), rest])
            else:
                x = self._fed(name, "", self._mixed(f"{name}.crossattention", x, image))
        return x

    def _mixed(self, name: str, x: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            self.linear(f"{name}.self.{part}", source)
            for part, source in (("query", x), ("key", seen), ("value", seen))
        )
        mixed = self.linear(f"{name}.output.dense", _attend(query, key, value, TOWERS.text_heads))
        return self.norm(f"{name}.output.LayerNorm", mixed + x, 1e-12)

    def _fed(self, name: str, suffix: str, x: torch.Tensor) -> torch.Tensor:
        hidden = F.gelu(self.linear(f"{name}.intermediate{suffix}.dense", x))
        out = self.linear(f"{name}.output{suffix}.dense", hidden)
        return self.norm(f"{name}.output{suffix}.LayerNorm", out + x, 1e-12)


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    query, key, value = (part.unflatten(-1, (heads, -1)).transpose(-3, -2) for part in (query, key, value))
    weights = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(dim=-1)
    return (weights @ value).transpose(-3, -2).flatten(-2)


def _pixels(images: np.ndarray) -> torch.Tensor:
    small = [Image.fromarray(one).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC) for one in images]
    pixels = torch.from_numpy(np.stack([np.asarray(one) for one in small])).double() / 255
    statistics = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    mean, std = (torch.tensor(values, dtype=torch.double) for values in statistics)
    return ((pixels - mean) / std).permute(0, 3, 1, 2)


def _ids(text: str) -> torch.Tensor:
    pieces = text.lower().replace("dogs", "dog ##s").replace("cats", "cat ##s").replace(",", " ,").split()
    return torch.tensor([WORDS.index(piece) for piece in ["[CLS]", *pieces, "[SEP]"]])


def _imagereward_scores(weights: dict, images: np.ndarray, prompts: list[str]) -> np.ndarray:
    vision, text, head = (
        Original(weights, prefix) for prefix in ("blip.visual_encoder.", "blip.text_encoder.", "mlp.layers.")
    )
    seen = vision.norm("norm", vision.vision(_pixels(images), TOWERS.vision_layers), 1e-6)

    def score(image: torch.Tensor, prompt: str) -> float:
        x = text.bert(text.embedded(_ids(prompt)), image)[0]
        for place in HEAD:
            x = head.linear(str(place), x)
        return (x.item() - 0.16717362830052426) / 1.0333394966054072

    return np.array([[score(image, prompt) for prompt in prompts] for image in seen])


def _blip2_scores(weights: dict, eva: dict, images: np.ndarray, prompts: list[str], head: str) -> np.ndarray:
    whole, former = Original(weights, ""), Original(weights, "Qformer.bert.")
    seen = whole.norm("ln_vision", Original(eva, "").vision(_pixels(images), TOWERS.vision_layers), 1e-5)
    queries = whole.weights["query_tokens"][0]

    def score(image: torch.Tensor, prompt: str) -> float:
        options = {"cross_every": 2, "queries": len(queries)}
        words = former.embedded(_ids(prompt))
        if head == "itm":
            both = former.bert(torch.cat([queries, words]), image, **options)
            return whole.linear("itm_head", both[: len(queries)]).mean(dim=0).softmax(dim=0)[1].item()
        features = F.normalize(whole.linear("vision_proj", former.bert(queries, image, **options)), dim=-1)
        text = F.normalize(whole.linear("text_proj", former.bert(words, None, cross_every=2)[0]), dim=-1)
        return (features @ text).max().item()

    return np.array([[score(image, prompt) for prompt in prompts] for image in seen])


def _agree(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.ptp(expected, axis=0).min() > 0.01 and np.ptp(expected, axis=1).min() > 0.01  # images and prompts tell
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.ptp(expected))


def test_a_converted_imagereward_scores_as_the_original_defines(published, convert, images):
    reward = load_reward("imagereward", folder=convert(published, "imagereward"), batch_size=2)
    _agree(reward.score_matrix(images, PROMPTS), _imagereward_scores(published[IMAGEREWARD], images, PROMPTS))


@pytest.mark.parametrize("head", ["itm", "itc"])
def test_a_converted_blip2_scores_as_the_original_defines(head, published, convert, images):
    reward = load_reward("blip2", folder=convert(published, "blip2"), batch_size=2, head=head)
    expected = _blip2_scores(published[BLIP2], published[EVA], images, PROMPTS, head)
    _agree(reward.score_matrix(images, PROMPTS), expected)
    assert reward.model.vision_model.post_layernorm.eps == 1e-5  # too little a difference to tell by scores


def test_weights_keep_the_precision_that_they_are_stored_in(published, convert):
    weights = load_file(convert(published, "blip2") / "model.safetensors")
    halves = {name for name, value in weights.items() if value.dtype == torch.float16}
    assert halves == {name for name in weights if name.startswith("vision_model.") and "post_layernorm" not in name}
    first = weights["vision_model.encoder.layers.0.self_attn.qkv.weight"]
    torch.testing.assert_close(first, published[EVA]["blocks.0.attn.qkv.weight"], rtol=0, atol=0)


def test_prompts_are_cut_and_cleaned_as_by_each_package(published, convert):
    first, second = (load_reward(name, folder=convert(published, name)).tokenizer for name in ("imagereward", "blip2"))
    words = ["[CLS]", "a", "photo", "of", "two", "dog", "##s", ",", "a", "cat", "!", "[SEP]"]
    assert first.convert_ids_to_tokens(first("A photo of two dogs, a cat!").input_ids) == words
    words.remove("!")
    assert second.convert_ids_to_tokens(second("A photo of two dogs, a cat!").input_ids) == words
    assert second('a\n."(cat)"  #dog*~').input_ids == second("a cat dog").input_ids
    assert [len(read("cat " * 60, truncation=True).input_ids) for read in (first, second)] == [35, 32]
    assert first.convert_tokens_to_ids(["[DEC]", "[ENC]"]) == [len(WORDS), len(WORDS) + 1]
    assert second.convert_tokens_to_ids("[DEC]") == len(WORDS)


def test_weights_that_do_not_score_may_be_absent(published, convert):
    names = {IMAGEREWARD: IMAGEREWARD_NAMES, BLIP2: BLIP2_NAMES, EVA: EVA_NAMES}
    fewer = {file: {name: weights[name] for name in names[file]} for file, weights in published.items()}
    for model in ("imagereward", "blip2"):
        load_reward(model, folder=convert(fewer, model))


@pytest.mark.parametrize(
    ("file", "names", "last"),
    [
        (IMAGEREWARD, IMAGEREWARD_NAMES, r"blocks\.1|layer\.2"),
        (BLIP2, BLIP2_NAMES, r"layer\.2"),
        (EVA, EVA_NAMES, r"blocks\.1"),
    ],
    ids=[IMAGEREWARD, BLIP2, EVA],
)
def test_every_weight_that_scores_is_needed(file, names, last, published, refusal):
    for name in names:
        if not re.search(r"(blocks|layer)\.\d", name) or re.search(last, name):  # counting would miss the last layer
            fewer = {key: value for key, value in published[file].items() if key != name}
            message = refusal({**published, file: fewer}, MODELS[file])
            assert f"{file} holds no {name};" in message and "checkpoint of" in message


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (IMAGEREWARD, "blip.visual_encoder.pos_embed"),
        (IMAGEREWARD, "blip.visual_encoder.blocks.1.attn.qkv.bias"),
        (IMAGEREWARD, "blip.text_encoder.encoder.layer.2.crossattention.self.key.weight"),
        (IMAGEREWARD, "mlp.layers.7.weight"),
        (BLIP2, "query_tokens"),
        (BLIP2, "itm_head.weight"),
        (BLIP2, "Qformer.bert.encoder.layer.1.output_query.dense.bias"),
        (EVA, "patch_embed.proj.weight"),
        (EVA, "blocks.0.attn.q_bias"),
        (EVA, "blocks.0.mlp.fc2.weight"),
    ],
)
def test_a_weight_of_another_shape_is_refused(file, name, published, refusal):
    value = published[file][name]
    for wrong in (torch.cat([value, value], dim=-1), value[..., :-1], value[None]):
        message = refusal({**published, file: {**published[file], name: wrong}}, MODELS[file])
        assert f"{file}: " in message and "has shape" in message


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (IMAGEREWARD, "mlp.layers.8.weight"),
        (IMAGEREWARD, "blip.visual_encoder.blocks.2.norm1.weight"),
        (IMAGEREWARD, "blip.text_encoder.encoder.layer.3.output.dense.bias"),
        (IMAGEREWARD, "blip.text_encoder.pooler.dense.weight"),
        (BLIP2, "visual_encoder.cls_token"),  # a BLIP-2 whose image encoder was trained further
        (BLIP2, "Qformer.bert.encoder.layer.1.crossattention.self.query.weight"),
        (BLIP2, "Qformer.cls.predictions.other.weight"),
        (BLIP2, "t5_proj.weight"),  # a BLIP-2 of the second stage
        (EVA, "blocks.3.norm1.weight"),
        (EVA, "blocks.0.attn.relative_position_index"),
        (EVA, "mask_token"),
    ],
)
def test_a_weight_that_the_model_does_not_have_is_refused(file, name, published, refusal):
    more = {**published[file], name: torch.zeros(3)}
    assert f"{file} holds {name}," in refusal({**published, file: more}, MODELS[file])


def test_a_checkpoint_of_another_model_is_told(published, refusal):
    message = refusal({IMAGEREWARD: published[EVA]}, "imagereward")
    assert f"{IMAGEREWARD} holds no blip." in message and "checkpoint of ImageReward?" in message
    message = refusal({BLIP2: published[IMAGEREWARD], EVA: published[EVA]}, "blip2")
    assert f"{BLIP2} holds no Qformer." in message and "checkpoint of BLIP-2?" in message
    message = refusal({BLIP2: published[BLIP2], EVA: published[BLIP2]}, "blip2")
    assert f"{EVA} holds no patch_embed." in message and "ViT-g?" in message


class _Thing:
    """Not a tensor."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "cannot be read"),
        (b"PK\x03\x04 not all of it", "cannot be read"),
        (_Thing(), "cannot be read"),  # reading it could run code
        ([torch.zeros(2)], "holds no weights by name"),
        ({"model": {"cls_token": torch.zeros(2)}}, "holds no weights by name"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused(content, message, tokenizer, tmp_path):
    file = tmp_path / IMAGEREWARD
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(DataError, match=f"{IMAGEREWARD} {message}"):
        convert_imagereward(file, tmp_path / "made", tokenizer=tokenizer, towers=TOWERS)
    assert not list(tmp_path.glob("made*"))


def test_a_blip2_file_without_its_entry_is_refused(published, convert, tokenizer, tmp_path):
    convert(published, "blip2")
    torch.save(published[BLIP2], tmp_path / BLIP2)
    with pytest.raises(DataError, match=f"{BLIP2} holds no 'model'"):
        convert_blip2(tmp_path / BLIP2, tmp_path / EVA, tmp_path / "made", tokenizer=tokenizer, towers=TOWERS)


def test_a_half_fetched_file_is_refused_and_an_old_format_is_read(published, convert, tokenizer, tmp_path):
    expected, file = convert(published, "imagereward"), tmp_path / IMAGEREWARD
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(DataError, match="cannot be read"):
        convert_imagereward(file, tmp_path / "made", tokenizer=tokenizer, towers=TOWERS)
    torch.save(published[IMAGEREWARD], file, _use_new_zipfile_serialization=False)
    convert_imagereward(file, tmp_path / "made", tokenizer=tokenizer, towers=TOWERS)
    made, expected = ((folder / "model.safetensors").read_bytes() for folder in (tmp_path / "made", expected))
    assert made == expected


def test_a_vocabulary_that_does_not_fit_is_refused(published, refusal, tokenizer):
    (tokenizer / "vocab.txt").write_text("\n".join(WORDS[:-1]) + "\n")
    message = refusal(published, "imagereward")
    assert all(part in message for part in (str(tokenizer / "vocab.txt"), "16 tokens", "17", "bert-base-uncased"))
    (tokenizer / "vocab.txt").unlink()
    assert "vocab.txt is missing" in refusal(published, "blip2")


def test_what_is_there_already_is_left_alone(published, convert, tmp_path):
    folder = convert(published, "imagereward")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(DataError, match="exists already"):
        convert({**published, IMAGEREWARD: {}}, "imagereward")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [IMAGEREWARD, "bert", "imagereward"]


def test_converted_files_may_be_read_by_whoever_may_read_new_files(published, convert):
    before = os.umask(0o027)
    try:
        folder = convert(published, "imagereward")
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


# What makes the packages' own classes small; originals/worker.py says what the parts are.
SMALL = {
    "image_size": 56,
    "vision": {"embed_dim": 16, "depth": TOWERS.vision_layers, "num_heads": TOWERS.vision_heads, "patch_size": 14},
    "text": {
        **{"hidden_size": 24, "intermediate_size": 40, "max_position_embeddings": 48},
        **{"num_hidden_layers": TOWERS.text_layers, "num_attention_heads": TOWERS.text_heads},
    },
}
SMALL_BLIP2 = {**SMALL, "model": {"num_query_token": 5, "embed_dim": 8}}


@pytest.mark.parametrize(
    ("name", "lock", "small", "options"),
    [
        ("imagereward", "imagereward", SMALL, {}),
        ("blip2", "lavis", SMALL_BLIP2, {"head": "itm"}),
        ("blip2", "lavis", SMALL_BLIP2, {"head": "itc"}),
    ],
    ids=["imagereward", "blip2-itm", "blip2-itc"],
)
def test_a_converted_checkpoint_scores_as_the_original_package(name, lock, small, options, images, tokenizer, tmp_path):
    if not is_made(lock):
        pytest.skip(f"the environment of benchmarks/environments/{lock}.txt is not made")
    prompts = [*PROMPTS, 'A "photo" (of) dogs.', "dog " * 40]
    (tmp_path / "bert-base-uncased").symlink_to(tokenizer)
    with ReferenceReward(name, tmp_path, random=small, **options) as original:
        expected = original.score_matrix(images, prompts)
        original.save(tmp_path / "published")
    convert = convert_imagereward if name == "imagereward" else convert_blip2
    files = sorted((tmp_path / "published").glob("*.pt*"))
    towers = dataclasses.replace(TOWERS, image_size=small["image_size"])
    convert(*files, tmp_path / "made", tokenizer=tokenizer, towers=towers)
    with pytest.warns(UserWarning, match="is cut off"):
        found = load_reward(name, folder=tmp_path / "made", **options).score_matrix(images, prompts)
    _agree(found, expected)
