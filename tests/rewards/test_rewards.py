"""The reward models at toy size with random weights: formats, scores, batches, and what they refuse."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from textnorm_lib.mini import generator, reward_models
from textnorm_lib.mini import reward_models as save_rewards
from textnorm_lib.rewards import blip2, load_reward
from textnorm_lib.rewards import clip as pickscore
from textnorm_lib.rewards.base import SharedImageTokens
from textnorm_lib.study.errors import ConfigError, DataError

PROMPTS = [
    "a realistic photo of three deer",
    "two dogs",
    "a cat and a dog",
    "two dogs",
    "an oil painting of a red truck on the left of a blue vase",
]
SPECS = [("clip", {}), ("pickscore", {}), ("blip2", {}), ("blip2", {"head": "itc"}), ("imagereward", {})]
IDS = ["clip", "pickscore", "blip2-itm", "blip2-itc", "imagereward"]
FP16 = 2e-3  # relative error that rounding the weights to half precision may leave


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Seven random images (uint8) with large blobs, the first of them again at the end."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    resized = [np.asarray(Image.fromarray(one).resize((64, 64), Image.Resampling.BICUBIC)) for one in coarse]
    return np.stack([*resized, resized[0]])


@pytest.fixture(scope="module")
def pixels(images) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.fixture(scope="module")
def tokenizer():
    return generator.build_tokenizer(sorted(set(PROMPTS)))


@pytest.fixture(scope="module")
def models(tokenizer, pixels) -> dict[str, torch.nn.Module]:
    """All four, with weights spread out so that scores differ from each other visibly."""
    torch.manual_seed(0)
    clip = reward_models.build_clip(tokenizer)
    built = {
        "clip": clip,
        "pickscore": copy.deepcopy(clip),
        "blip2": reward_models.blip2_from_clip(clip, tokenizer, images=pixels),
        "imagereward": reward_models.imagereward_from_clip(clip, tokenizer, images=pixels),
    }
    with torch.no_grad():
        for model in built.values():
            for value in model.parameters():
                value.add_(0.03 * torch.randn_like(value))
    return {name: model.eval() for name, model in built.items()}


@pytest.fixture(scope="module")
def folder(models, tokenizer, tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("rewards")
    for name, model in models.items():
        save_rewards.save_reward(name, model, tokenizer, where / name)
    return where


@pytest.fixture(scope="module")
def loaded(folder):
    """Every reward once, with batches that divide neither seven images nor four distinct prompts."""
    return {
        label: load_reward(name, folder=folder / name, batch_size=3, **options)
        for label, (name, options) in zip(IDS, SPECS, strict=True)
    }


@torch.no_grad()
def _own_scores(label: str, model, tokenizer, pixels: torch.Tensor, prompts: list[str]) -> np.ndarray:
    """The score of image i with prompt i as the model's own forward pass gives it."""
    batch = tokenizer(prompts, padding=True, return_tensors="pt")
    if label in ("clip", "pickscore"):
        return model(pixel_values=pixels, **batch).logits_per_image.diagonal().numpy()
    if label == "blip2-itm":
        logits = model(pixel_values=pixels, **batch, use_image_text_matching_head=True).logits_per_image
        return logits.softmax(dim=-1)[:, 1].numpy()
    if label == "blip2-itc":
        return model(pixel_values=pixels, **batch).logits_per_image.diagonal().numpy()
    return model(pixels, batch.input_ids, batch.attention_mask).numpy()


@pytest.mark.parametrize("label", IDS)
def test_saving_and_loading_keeps_the_models_own_scores(label, models, tokenizer, loaded, images, pixels):
    own = _own_scores(label, models[loaded[label].name], tokenizer, pixels[:5], PROMPTS)
    found = loaded[label].scores(images[:5], PROMPTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, own, rtol=FP16, atol=FP16 * np.abs(own).max())
    assert np.ptp(own) > 0.01 * np.abs(own).max()  # or else the comparison says nothing


@pytest.mark.parametrize("label", IDS)
def test_a_matrix_holds_what_pairs_give(label, loaded, images):
    matrix = loaded[label].score_matrix(images, PROMPTS)
    assert matrix.shape == (7, 5) and matrix.dtype == np.float32
    rows, columns = np.indices(matrix.shape).reshape(2, -1)
    pairs = loaded[label].scores(images[rows], [PROMPTS[column] for column in columns])
    np.testing.assert_allclose(matrix.reshape(-1), pairs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("label", IDS)
def test_gradients_pass_and_scores_are_the_same(label, loaded, images):
    shown = (torch.from_numpy(images[:5].copy()).permute(0, 3, 1, 2) / 255).requires_grad_()
    scores = loaded[label].differentiable(shown, PROMPTS)
    np.testing.assert_allclose(scores.detach(), loaded[label].scores(images[:5], PROMPTS), rtol=1e-4, atol=1e-6)
    scores.sum().backward()
    assert (shown.grad.abs().amax(dim=(1, 2, 3)) > 0).all()
    step = 1e-3 * shown.grad / shown.grad.norm()  # a small step up the gradient raises the sum as the slope says
    with torch.no_grad():
        risen = loaded[label].differentiable((shown + step).double().float(), PROMPTS).sum() - scores.sum()
    assert risen == pytest.approx(1e-3 * shown.grad.norm().item(), rel=0.2)


def test_larger_images_are_scaled_and_no_prompt_is_refused(loaded, images):
    large = torch.from_numpy(images[:2].copy()).permute(0, 3, 1, 2).float().div(255).repeat_interleave(2, -1)
    large = large.repeat_interleave(2, -2)
    found = loaded["clip"].differentiable(large, PROMPTS[:2]).detach()
    np.testing.assert_allclose(found, loaded["clip"].scores(images[:2], PROMPTS[:2]), rtol=0.2)
    with pytest.raises(DataError, match="clip: prompt 0 is ' '; give words to compare the image with"):
        loaded["clip"].differentiable(large, [" ", "a cat"])


@pytest.mark.parametrize("label", IDS)
def test_neither_order_nor_repetition_changes_a_score(label, loaded, images):
    matrix = loaded[label].score_matrix(images, PROMPTS)
    np.testing.assert_array_equal(matrix[:, 1], matrix[:, 3])
    np.testing.assert_allclose(matrix[0], matrix[6], rtol=1e-5, atol=1e-6)
    reversed_ = loaded[label].score_matrix(images[::-1], PROMPTS[::-1])
    np.testing.assert_allclose(reversed_[::-1, ::-1], matrix, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("label", IDS)
def test_every_image_and_every_distinct_prompt_is_computed_once(label, loaded, images, monkeypatch):
    reward, seen = loaded[label], {"images": 0, "prompts": 0}
    part, text = (
        ("_image_tokens", "_pair_scores")
        if hasattr(reward, "_pair_scores")
        else (
            "_image_features",
            "_text_features",
        )
    )
    encode_images, read_texts = getattr(reward, part), getattr(reward, text)

    def count_images(pixels):
        seen["images"] += len(pixels)
        return encode_images(pixels)

    def count_prompts(*inputs):
        seen["prompts"] += len(inputs[-1])
        return read_texts(*inputs)

    monkeypatch.setattr(reward, part, count_images)
    monkeypatch.setattr(reward, text, count_prompts)
    reward.score_matrix(images, PROMPTS)
    assert seen == {"images": 7, "prompts": 4 * (7 if text == "_pair_scores" else 1)}
    seen.update(images=0, prompts=0)
    reward.scores(images[:5], PROMPTS)
    assert seen == {"images": 5, "prompts": 5 if text == "_pair_scores" else 4}


@pytest.mark.parametrize("batch_size", [1, 4, 11, 64])  # a prompt, an image, two images and all images at a time
@pytest.mark.parametrize("label", ["blip2-itm", "imagereward"])
def test_an_images_keys_are_computed_once_for_all_prompts_of_a_batch(label, batch_size, folder, images, loaded):
    name, options = SPECS[IDS.index(label)]
    reward = load_reward(name, folder=folder / name, batch_size=batch_size, **options)
    looking = [module for module in reward.model.modules() if isinstance(module, SharedImageTokens)]
    seen = []
    for module in looking:
        attention = module.crossattention
        keys = (attention.self if name == "imagereward" else attention.attention).key
        keys.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    matrix = reward.score_matrix(images, PROMPTS)
    batches = 4 if batch_size == 1 else 1
    assert looking and sum(seen) == len(looking) * len(images) * batches
    np.testing.assert_allclose(matrix, loaded[label].score_matrix(images, PROMPTS), rtol=1e-4, atol=1e-6)


def test_images_may_be_arrays_pictures_or_paths(loaded, images, tmp_path):
    pictures = [Image.fromarray(image) for image in images[:2]]
    paths = [tmp_path / f"{index}.png" for index in range(2)]
    for picture, path in zip(pictures, paths, strict=True):
        picture.resize((128, 128), Image.Resampling.NEAREST).resize((64, 64), Image.Resampling.NEAREST).save(path)
    matrices = [loaded["clip"].score_matrix(given, PROMPTS) for given in (images[:2], pictures, paths)]
    np.testing.assert_array_equal(matrices[0], matrices[1])
    np.testing.assert_array_equal(matrices[0], matrices[2])
    wide = Image.new("RGB", (97, 64))
    wide.paste(pictures[0], (16, 0))
    large = wide.resize((194, 128), Image.Resampling.NEAREST)
    cut, scaled = (loaded["clip"].score_matrix([one], PROMPTS) for one in (wide, large))
    np.testing.assert_allclose(cut, matrices[0][:1], rtol=1e-4, atol=1e-6)
    assert np.abs(scaled - cut).max() < 0.1 * np.ptp(matrices[0])


@torch.no_grad()
def test_open_clip_gives_the_features_of_transformers(models, folder, tokenizer, pixels):
    import open_clip

    clip = models["clip"]
    sizes = json.loads((folder / "clip" / "open_clip_config.json").read_text())["model_cfg"]
    twin = open_clip.model.CLIP(**sizes).eval()
    twin.load_state_dict(save_rewards.open_clip_weights(clip))
    ids = tokenizer(PROMPTS, padding="max_length", return_tensors="pt").input_ids
    short = tokenizer(PROMPTS, padding=True, return_tensors="pt").input_ids  # the first end token counts, not the last
    images, texts = twin.encode_image(pixels, normalize=True), twin.encode_text(ids, normalize=True)
    torch.testing.assert_close(images, pickscore.image_features(clip, pixels), rtol=0, atol=1e-5)
    torch.testing.assert_close(texts, pickscore.text_features(clip, short), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("disturbance", [0.0, 0.3])
def test_folding_the_first_norm_keeps_what_the_image_tower_says(disturbance, tokenizer, pixels):
    torch.manual_seed(1)
    clip = reward_models.build_clip(tokenizer).eval()
    for name, value in clip.vision_model.named_parameters():
        if "norm" in name or "layrnorm" in name:
            value.add_(disturbance * torch.randn_like(value))
    tower = clip.vision_model
    tokens = tower.post_layernorm(tower(pixels).last_hidden_state)
    fitted = {"images": pixels[:3]}
    matcher = reward_models.blip2_from_clip(clip, tokenizer, **fitted).eval()
    ranker = reward_models.imagereward_from_clip(clip, tokenizer, **fitted).eval()
    for folded in (blip2.image_tokens(matcher, pixels), ranker.image_tokens(pixels)):
        assert torch.corrcoef(torch.stack([tokens.flatten(), folded.flatten()]))[0, 1] > 0.9
        assert torch.corrcoef(torch.stack([tokens[:, 0].flatten(), folded[:, 0].flatten()]))[0, 1] > 0.9


def test_every_trainable_weight_that_scores_has_a_gradient(models, tokenizer, pixels):
    batch = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    clip, matcher, ranker = models["clip"], models["blip2"], models["imagereward"]
    tokens = blip2.image_tokens(matcher, pixels[:5])
    matching = blip2.itm_logits(matcher, tokens, batch.input_ids, batch.attention_mask)
    contrast = blip2.query_features(matcher, tokens) @ blip2.text_features(matcher, **batch).T
    products = pickscore.image_features(clip, pixels[:5]) @ pickscore.text_features(clip, batch.input_ids).T
    for model, loss in (
        (matcher, matching.square().sum() + contrast.square().sum()),
        (clip, (clip.logit_scale.exp() * products).square().sum()),
        (ranker, ranker(pixels[:5], batch.input_ids, batch.attention_mask).square().sum()),
    ):
        names, values = zip(*model.named_parameters(), strict=True)
        gradients = torch.autograd.grad(loss, values, allow_unused=True)
        untouched = [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]
        assert untouched == []


def _one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_unknown_names_and_heads_are_refused_by_name(folder):
    with pytest.raises(ConfigError) as caught:
        load_reward("blip3", folder=folder / "blip2")
    assert "'blip3'" in _one_line(caught) and "clip, blip2, imagereward, pickscore" in str(caught.value)
    with pytest.raises(ConfigError, match=r"'vqa'.*itm, itc"):
        load_reward("blip2", folder=folder / "blip2", head="vqa")


@pytest.mark.parametrize("name", ["clip", "pickscore", "blip2", "imagereward"])
def test_what_is_missing_or_damaged_is_named(name, folder, models, tokenizer, tmp_path):
    with pytest.raises(DataError, match=r"nowhere/.*config\.json is missing; restore"):
        load_reward(name, folder=tmp_path / "nowhere")
    save_rewards.save_reward(name, models[name], tokenizer, tmp_path / name)
    (weights,) = (tmp_path / name).glob("*.safetensors")
    few = dict(list(load_file(weights).items())[3:])
    save_file(few, weights, metadata={"format": "pt"})
    with pytest.raises(DataError, match="cannot be read") as caught:
        load_reward(name, folder=tmp_path / name)
    assert str(tmp_path / name) in _one_line(caught)
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be read") as caught:
        load_reward(name, folder=tmp_path / name)
    _one_line(caught)
    weights.unlink()
    with pytest.raises(DataError, match=rf"{weights.name} is missing"):
        load_reward(name, folder=tmp_path / name)


@pytest.mark.parametrize("name", ["clip", "pickscore", "blip2", "imagereward"])
def test_a_score_that_is_no_number_is_refused_with_image_and_prompt(name, models, tokenizer, images, tmp_path):
    save_rewards.save_reward(name, models[name], tokenizer, tmp_path / name)
    (file,) = (tmp_path / name).glob("*.safetensors")
    weights = load_file(file)
    key = next(key for key in weights if "token_embedding" in key or "word_embeddings" in key)
    weights[key][tokenizer("cat").input_ids[1]] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    reward = load_reward(name, folder=tmp_path / name)
    assert np.isfinite(reward.score_matrix(images, PROMPTS[:2])).all()
    for score in (reward.score_matrix, reward.scores):
        with pytest.raises(DataError, match=r"with prompt 'a cat and a dog' scores nan") as caught:
            score(images[:3], PROMPTS[:3])
        assert str(tmp_path / name) in _one_line(caught)
    assert "image 2" in str(caught.value)  # of the pairs, the third


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([], ["a dog"]), "the list of images is empty"),
        ((np.zeros((0, 64, 64, 3), dtype=np.uint8), ["a dog"]), "the list of images is empty"),
        ((np.zeros((1, 64, 64, 3), dtype=np.uint8), []), "the list of prompts is empty"),
        ((np.zeros((1, 64, 64, 3)), ["a dog"]), "images are float64"),
        ((np.zeros((1, 64, 64, 3), dtype=np.uint8), "a dog"), "give a list of strings"),
        ((Image.new("RGB", (64, 64)), ["a dog"]), "a single Image"),
        ((["nowhere.png"], ["a dog"]), r"image 0 \(nowhere.png\) cannot be read"),
        (([torch.zeros(3, 64, 64)], ["a dog"]), "image 0 is a Tensor"),
    ],
)
def test_unusable_images_and_prompts_are_refused(given, message, loaded):
    for score in (loaded["clip"].score_matrix, loaded["imagereward"].scores):
        with pytest.raises(DataError, match=message) as caught:
            score(*given)
        _one_line(caught)


@pytest.mark.parametrize("label", IDS)
def test_a_long_prompt_is_cut_with_a_warning_and_an_empty_one_refused(label, loaded, images):
    long = "a cat and a dog " * 100
    with pytest.warns(UserWarning, match=r"the end of a longer prompt is cut off: 'a cat and"):
        cut = loaded[label].score_matrix(images[:2], [long, "a cat"])
    assert np.isfinite(cut).all()
    for prompt in ("", "  "):
        with pytest.raises(DataError, match=rf"prompt 1 is {prompt!r}"):
            loaded[label].score_matrix(images[:2], ["a cat", prompt])


@pytest.mark.parametrize("label", IDS)
def test_every_mode_of_image_is_read_as_rgb(label, loaded, images):
    picture = Image.fromarray(images[0]).quantize(16)
    modes = [picture, picture.convert("RGB"), picture.convert("RGBA")]
    matrix = loaded[label].score_matrix(modes, PROMPTS[:2])
    np.testing.assert_allclose(matrix[1:], matrix[:1].repeat(2, axis=0), rtol=1e-5, atol=1e-6)
    grey = picture.convert("L")
    both = loaded[label].score_matrix([grey, grey.convert("RGB")], PROMPTS[:2])
    np.testing.assert_allclose(both[0], both[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("label", IDS)
def test_short_memory_halves_the_batch_says_so_and_changes_no_score(label, folder, images, loaded, monkeypatch, capsys):
    name, options = SPECS[IDS.index(label)]
    reward = load_reward(name, folder=folder / name, batch_size=8, **options)
    part = "_image_tokens" if hasattr(reward, "_image_tokens") else "_image_features"
    encode = getattr(reward, part)

    def scarce(pixels):
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("no memory left")
        return encode(pixels)

    monkeypatch.setattr(reward, part, scarce)
    matrix = reward.score_matrix(images, PROMPTS)
    np.testing.assert_allclose(matrix, loaded[label].score_matrix(images, PROMPTS), rtol=1e-4, atol=1e-6)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("going on with ")[1] for line in lines if "out of memory" in line] == ["4 at once", "2 at once"]
    monkeypatch.setattr(reward, part, lambda pixels: scarce(pixels.repeat(3, 1, 1, 1)))
    with pytest.raises(DataError, match="no room for a single image"):
        reward.score_matrix(images, PROMPTS)


@pytest.mark.parametrize("label", IDS)
def test_half_precision_gives_nearly_the_same_scores_as_float32(label, folder, images, loaded):
    name, options = SPECS[IDS.index(label)]
    half = load_reward(name, folder=folder / name, dtype=torch.bfloat16, **options).score_matrix(images, PROMPTS)
    full = loaded[label].score_matrix(images, PROMPTS)
    assert half.dtype == np.float32 and np.abs(half - full).max() < 0.1 * np.ptp(full) + 0.02 * np.abs(full).max()


def test_an_automatic_batch_is_smaller_where_less_memory_is_free(folder, monkeypatch):
    from types import SimpleNamespace

    from textnorm_lib.rewards import base

    sizes = []
    for free in (1, 32 * 1024**2, 2**40):
        monkeypatch.setattr(base.psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free))
        sizes.append(load_reward("clip", folder=folder / "clip").batch_size)
    assert sizes[0] == 1 < sizes[1] < sizes[2] == 128


def test_pairs_need_as_many_prompts_as_images(loaded, images):
    with pytest.raises(DataError, match="7 images and 5 prompts"):
        loaded["blip2-itm"].scores(images, PROMPTS)
