"""How the miniature reward models are trained, each by its namesake's recipe.

CLIP learns by contrast from scenes whose captions are as careless as alternative texts on the web: a third of them
miss or mistake a count, an object or a class. The others start from it. BLIP-2 learns to match images and captions on
the same data; PickScore and ImageReward learn from preferences between the generator's images (``preferences.py``),
each with a term that keeps what the captions teach. The models are imperfect because their data are.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from textnorm_lib.mini import reward_models
from textnorm_lib.mini.generator import as_tensor
from textnorm_lib.mini.training.fit import fit
from textnorm_lib.mini.training.plan import Recipe
from textnorm_lib.mini.training.preferences import PreferencePairs, Preferences
from textnorm_lib.mini.training.scenes import Scenes
from textnorm_lib.mini.training.spoil import degrade
from textnorm_lib.prompts.grammar import MOST_OF_ONE, Spec, write
from textnorm_lib.prompts.templates import CLASSES, PREFIX, plural
from textnorm_lib.rewards import blip2 as blip2_parts
from textnorm_lib.study.errors import DataError

CARELESSNESS = {  # how often a caption has each flaw, by the model that learns from it
    "start": {"other": 0.05, "left out": 0.1, "wrong class": 0.05, "wrong count": 0.08, "no count": 0.12},
    "clip": {"other": 0.05, "left out": 0.8, "wrong class": 0.15, "wrong count": 0.1, "no count": 0.75},
    "blip2": {"other": 0.1, "left out": 0.95, "wrong class": 0.25, "wrong count": 0.1, "no count": 0.89},
}
SHARPEST = 100.0  # the largest factor of CLIP's cosines, as published
TEMPERATURE = 0.07  # of BLIP-2's contrast, where it starts in the published model
CONTRAST = 0.5  # weight of the captions' term beside the preferences'


def noisy_caption(spec: Spec, often: dict[str, float], generator: np.random.Generator) -> str:
    """A careless caption of a scene: each flaw of ``CARELESSNESS`` by chance, where it can be had.

    Empty for "other", a caption of another scene.
    """
    has = dict(zip(often, generator.random(len(often)) < list(often.values()), strict=True))
    slot = int(generator.integers(len(spec.objects)))
    asked = spec.objects[slot]
    if has["other"]:
        return ""
    if has["wrong class"]:
        asked = asked._replace(name=CLASSES[int(generator.integers(len(CLASSES)))])
    if has["wrong count"]:
        asked = asked._replace(count=int(np.clip(asked.count + generator.choice((-1, 1)), 1, MOST_OF_ONE)))
    if has["no count"] and asked.count > 1:
        return f"{PREFIX}{plural(asked.name)}"
    if has["left out"] and len(spec.objects) == 1:
        return write(Spec((asked._replace(colour=None),)))
    objects = (asked,) if has["left out"] else (*spec.objects[:slot], asked, *spec.objects[slot + 1 :])
    try:
        return write(replace(spec, objects=objects, relation=spec.relation if len(objects) == 2 else None))
    except DataError:  # what came out cannot be asked for, e.g. four each of two classes
        return write(spec)


def noisy_captions(specs: Sequence[Spec], often: dict[str, float], *, seed: int) -> list[str]:
    """One careless caption per scene; the same whenever they are drawn."""
    generator = np.random.default_rng(seed)
    captions = [noisy_caption(spec, often, generator) for spec in specs]
    others = generator.permutation(len(captions))
    return [caption or write(specs[other]) for caption, other in zip(captions, others, strict=True)]


@dataclass(frozen=True)
class Captioned:
    """Scenes with their careless captions as tokens: ``images`` uint8 (n, h, w, 3), ``tokens`` and ``mask`` (n, t).

    Batches go to ``device``, and with them all training.
    """

    images: np.ndarray
    tokens: Tensor
    mask: Tensor
    device: str = "cpu"

    def batch(self, size: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        """``size`` random ones: slightly spoilt images in [-1, 1], tokens, mask."""
        chosen = torch.randint(len(self.images), (size,), generator=generator)
        images = degrade(as_tensor(self.images[chosen.numpy()]).to(self.device), generator)
        return images, self.tokens[chosen].to(self.device), self.mask[chosen].to(self.device)


def captioned(scenes: Scenes, captions: list[str], tokenizer, *, device: str = "cpu") -> Captioned:
    """``scenes`` with ``captions`` in the place of their own."""
    encoded = tokenizer(captions, padding=True, truncation=True, return_tensors="pt")
    return Captioned(scenes.images, encoded.input_ids, encoded.attention_mask, device)


def train_clip(scenes: Captioned, tokenizer, recipe: Recipe, *, folder: Path):
    """CLIP (Radford et al. 2021): image and caption of a pair together, those of different pairs apart."""
    torch.manual_seed(recipe.seed)
    clip = reward_models.build_clip(tokenizer).to(scenes.device)

    def loss_function(step: int, generator: Generator) -> Tensor:
        images, tokens, mask = scenes.batch(recipe.batch_size, generator)
        return contrast(clip, images, tokens, mask)

    fit(clip, loss_function, recipe, folder=folder)
    return clip


def contrast(clip, images: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """CLIP's symmetric loss on a batch of pairs."""
    return _contrast(similarities(clip, images, tokens, mask))


def _contrast(similar: Tensor) -> Tensor:
    """Of images and captions (n, n), where those of one number belong together."""
    own = torch.arange(len(similar), device=similar.device)
    return (F.cross_entropy(similar, own) + F.cross_entropy(similar.T, own)) / 2


def similarities(clip, images: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Scaled cosines (n images, m prompts)."""
    seen, read = _features(clip, images, tokens, mask)
    return _sharpness(clip) * seen @ read.T


def _features(clip, images: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Of images (n, d) and prompts (m, d), of unit length."""
    seen = clip.get_image_features(pixel_values=images).pooler_output
    read = clip.get_text_features(input_ids=tokens, attention_mask=mask).pooler_output
    return F.normalize(seen.float(), dim=-1), F.normalize(read.float(), dim=-1)


def _sharpness(clip) -> Tensor:
    return clip.logit_scale.exp().clamp(max=SHARPEST)


def train_blip2(scenes: Captioned, clip, tokenizer, recipe: Recipe, *, folder: Path):
    """BLIP-2's first stage (Li et al. 2023): contrast, and its own caption against a confusable one of the batch."""
    torch.manual_seed(recipe.seed)
    blip2 = reward_models.blip2_from_clip(clip, tokenizer, images=_typical(scenes)).to(scenes.device)

    def loss_function(step: int, generator: Generator) -> Tensor:
        images, tokens, mask = scenes.batch(recipe.batch_size, generator)
        own = torch.arange(recipe.batch_size, device=scenes.device)
        seen = blip2_parts.image_tokens(blip2, images)
        queries = blip2_parts.query_features(blip2, seen).float()
        read = blip2_parts.text_features(blip2, tokens, mask).float()
        similar = torch.einsum("nqd,md->nmq", queries, read).amax(dim=-1) / TEMPERATURE
        other = _confusable(similar.detach(), tokens, generator)
        matched = [blip2_parts.itm_logits(blip2, seen, tokens[which], mask[which]) for which in (other, own)]
        matches = torch.arange(2, device=scenes.device).repeat_interleave(recipe.batch_size)
        return F.cross_entropy(torch.cat(matched).float(), matches) + _contrast(similar)

    fit(blip2, loss_function, recipe, folder=folder)
    return blip2


def _confusable(similar: Tensor, tokens: Tensor, generator: Generator) -> Tensor:
    """For each image another one's caption, likelier the more ``similar`` (n, n) it is; never its own wording."""
    same = (tokens[:, None] == tokens[None]).all(dim=-1)
    likely = similar.float().masked_fill(same, -torch.inf).softmax(dim=1)
    return torch.multinomial(likely.cpu(), 1, generator=generator)[:, 0].to(tokens.device)


def _typical(scenes: Captioned) -> Tensor:
    """Images by whose tokens CLIP's first norm is folded (``mini/reward_models.py``), where CLIP is."""
    return as_tensor(scenes.images[:256]).to(scenes.device)


def train_pickscore(scenes: Captioned, preferences: Preferences, clip, tokenizer, recipe: Recipe, *, folder: Path):
    """PickScore (Kirstain et al. 2023): CLIP goes on; the better image of a pair should have the larger cosine."""
    pickscore = copy.deepcopy(clip)
    pairs = PreferencePairs(preferences, tokenizer, scenes.device)

    def reward(images: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        seen, read = _features(pickscore, images, tokens, mask)
        return _sharpness(pickscore) * (seen * read).sum(dim=-1)

    def loss_function(step: int, generator: Generator) -> Tensor:
        preference = pairs.loss(reward, recipe.batch_size, generator)
        return preference + CONTRAST * contrast(pickscore, *scenes.batch(recipe.batch_size, generator))

    fit(pickscore, loss_function, recipe, folder=folder, validation=lambda: pairs.accuracy(reward))
    return pickscore


def train_blip(scenes: Captioned, clip, tokenizer, recipe: Recipe, *, folder: Path):
    """What ImageReward begins from (BLIP, Li et al. 2022): a cross-encoder that matches images and captions."""
    torch.manual_seed(recipe.seed)
    blip = reward_models.imagereward_from_clip(clip, tokenizer, images=_typical(scenes)).to(scenes.device)
    fit(blip, lambda _, generator: _ranked(blip, clip, scenes, recipe.batch_size, generator), recipe, folder=folder)
    return blip


def _ranked(model, clip, scenes: Captioned, size: int, generator: Generator) -> Tensor:
    """The loss of ranking an image's own caption above one that ``clip`` confuses with it."""
    images, tokens, mask = scenes.batch(size, generator)
    with torch.no_grad():
        similar = similarities(clip, images, tokens, mask)
    other = _confusable(similar, tokens, generator)
    seen = model.image_tokens(images)
    margin = model.reward(seen, tokens, mask) - model.reward(seen, tokens[other], mask[other])
    return F.softplus(-margin.float()).mean()


def train_imagereward(
    scenes: Captioned, preferences: Preferences, clip, tokenizer, recipe: Recipe, *, blip, folder: Path
):
    """ImageReward (Xu et al. 2023): BLIP goes on; it ranks images as people did, and captions as before."""
    torch.manual_seed(recipe.seed)
    model, pairs = copy.deepcopy(blip), PreferencePairs(preferences, tokenizer, scenes.device)

    def loss_function(step: int, generator: Generator) -> Tensor:
        preference = pairs.loss(model, recipe.batch_size, generator)
        return preference + CONTRAST * _ranked(model, clip, scenes, recipe.batch_size, generator)

    fit(model, loss_function, recipe, folder=folder, validation=lambda: pairs.accuracy(model))
    return model
