"""The mini world's annotators: the voting rule on made-up detections, targets by hand, a toy detector that learns."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from textnorm_lib.mini import annotators
from textnorm_lib.mini.annotators import Detection, Seen, vote
from textnorm_lib.mini.training import judges, spoil
from textnorm_lib.mini.training import scenes as train
from textnorm_lib.mini.training.fit import curves
from textnorm_lib.mini.training.plan import Recipe
from textnorm_lib.prompts.grammar import parse


def _seen(*objects, location=None, style="photo") -> Seen:
    """Objects as (class, x, y[, score[, colour]])."""
    found = [
        Detection(name, score, (x, y), colour)
        for name, x, y, score, colour in ((*one, 0.9, None)[:5] if len(one) == 3 else one for one in objects)
    ]
    return Seen(tuple(found), location, style)


CATS = (("cat", 10, 10), ("cat", 40, 10))


@pytest.mark.parametrize(
    ("seen", "prompt", "expected"),
    [
        (_seen(*CATS), "a realistic photo of two cats", 1),
        (_seen(*CATS), "a realistic photo of three cats", 0),
        (_seen(*CATS), "a realistic photo of a cat", 0),
        (_seen(*CATS, ("dog", 30, 40)), "a realistic photo of two cats", 0),  # an object that nobody asked for
        (_seen(*CATS, ("dog", 30, 40)), "a realistic photo of two cats and a dog", 1),
        (_seen(), "a realistic photo of a cat", 0),
        (_seen(("cat", 10, 10, 0.5, None)), "a realistic photo of a cat", -1),  # between the two thresholds
        (_seen(*CATS, ("cat", 30, 40, 0.5, None)), "a realistic photo of two cats", -1),
        (_seen(*CATS, ("cat", 30, 40, 0.3, None)), "a realistic photo of two cats", 1),  # too faint to count
        (_seen(("dog", 9, 9, 0.9, "red")), "a red colored dog", 1),
        (_seen(("dog", 9, 9, 0.9, "blue")), "a red colored dog", 0),
        (_seen(("dog", 9, 9, 0.9, "blue")), "a realistic photo of a dog", 1),  # no colour was asked for
        (_seen(("cat", 10, 30), ("dog", 50, 30)), "a cat on the left of a dog", 1),
        (_seen(("cat", 50, 30), ("dog", 10, 30)), "a cat on the left of a dog", 0),
        (_seen(("cat", 50, 30), ("dog", 10, 30)), "a cat on the right of a dog", 1),
        (_seen(("cat", 30, 10), ("dog", 32, 50)), "a cat on the left of a dog", 0),  # above rather than left
        (_seen(("cat", 30, 10), ("dog", 32, 50)), "a cat on top of a dog", 1),
        (_seen(("cat", 30, 50), ("dog", 32, 10)), "a cat on top of a dog", 0),
        (_seen(("dog", 30, 30), location="street"), "a dog on the street", 1),
        (_seen(("dog", 30, 30), location="desert"), "a dog on the street", 0),
        (_seen(("dog", 30, 30), style="pencil sketch"), "a pencil sketch of a dog", 1),
        (_seen(("dog", 30, 30), style="photo"), "a pencil sketch of a dog", 0),
    ],
)
def test_the_rule(seen, prompt, expected):
    assert vote(seen, parse(prompt)) == expected


def test_targets_put_a_bump_on_each_centre():
    objects = np.full((1, 8, 6), -1, dtype=np.float32)
    objects[0, 0] = (annotators.CLASSES.index("cat"), 8, 16, 24, 32, 3)  # centre (16, 24): column 4, row 6
    maps, colours, centres = annotators.targets(objects, 16)
    assert maps[0, annotators.CLASSES.index("cat"), 6, 4] == 1.0 and centres.sum() == 1
    assert colours[0, 6, 4] == 3 and maps.sum(dim=(0, 2, 3)).count_nonzero() == 1
    assert 0 < maps[0, annotators.CLASSES.index("cat"), 6, 5] < 1


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> train.Scenes:
    return train.training_scenes(tmp_path_factory.mktemp("scenes"), count=96, seed=5, workers=1)


def test_the_truth_votes_good_on_its_own_scenes(scenes):
    """What is stored beside a scene, read as a perfect detector would see it, satisfies the scene's caption."""
    for caption, objects, (location, style) in zip(scenes.captions, scenes.objects, scenes.places, strict=True):
        found = tuple(
            Detection(
                annotators.CLASSES[int(name)], 1.0, ((x0 + x1) / 2, (y0 + y1) / 2), annotators.COLOUR_NAMES[int(colour)]
            )
            for name, x0, y0, x1, y1, colour in objects[objects[:, 0] >= 0]
        )
        seen = Seen(found, annotators.LOCATION_NAMES[location], annotators.STYLE_NAMES[style])
        assert vote(seen, parse(caption)) == 1, caption


def test_degrading_spoils_most_images_mildly_and_the_same_way_from_one_seed(scenes):
    images = train.as_tensor(scenes.images[:64])
    spoilt, again = (spoil.degrade(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(spoilt, again) and spoilt.shape == images.shape and spoilt.abs().max() <= 1
    change = (spoilt - images).abs().mean(dim=(1, 2, 3))
    assert 5 <= (change == 0).sum() <= 30 and change.max() < 0.35


def test_stretching_moves_the_boxes_with_what_is_in_them():
    """A bright square on black: the middle of the box follows the square's centre of mass."""
    images, objects = torch.full((64, 3, 64, 64), -1.0), np.full((64, 8, 6), -1, dtype=np.float32)
    images[:, :, 20:32, 36:48] = 1.0
    objects[:, 0] = (0, 36, 20, 48, 32, 3)
    stretched, moved = spoil.stretch(images, objects, torch.Generator().manual_seed(0))
    light = (stretched.mean(dim=1) + 1) / 2
    axis = torch.arange(64) + 0.5
    mass = light.sum(dim=(1, 2))
    centres = torch.stack([(light.sum(dim=1) * axis).sum(dim=1), (light.sum(dim=2) * axis).sum(dim=1)]) / mass
    boxes = moved[:, 0, 1:5]
    middles = np.stack([boxes[:, [0, 2]].mean(axis=1), boxes[:, [1, 3]].mean(axis=1)])
    shift = np.abs(middles - [[42], [26]]).max(axis=0)
    assert shift.max() > 2 and 10 <= (shift < 0.01).sum() <= 54  # some go far, about half stay
    error = np.abs(middles - centres.numpy()).max(axis=0)[shift > 1]
    assert np.median(error) < 1 and error.max() < 3  # a square that is squeezed on one side has its mass elsewhere
    assert (moved[:, 1:, 0] == -1).all()
    assert (objects[:, 0, 1:5] == [36, 20, 48, 32]).all()  # what was given is not changed


class Blocks(torch.nn.Module):
    """Stands in for an autoencoder: a latent is the mean of 4 x 4 pixels."""

    device = torch.device("cpu")

    def encode(self, images):
        mean = torch.nn.functional.avg_pool2d(images, 4)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=mean))

    def decode(self, latents):
        return SimpleNamespace(sample=torch.nn.functional.interpolate(latents, scale_factor=4))


def test_breaking_changes_what_is_cut_and_nothing_else(scenes, tmp_path):
    autoencoder = Blocks()
    images, left = spoil.broken(scenes, autoencoder, tmp_path / "broken.npy", count=48, seed=0)
    whole = autoencoder.decode(autoencoder.encode(train.as_tensor(scenes.images[:48])).latent_dist.mean).sample
    whole = ((whole + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy().astype(int)
    there, stays = scenes.objects[:48, :, 0] >= 0, left[..., 0] >= 0
    assert 10 < (there & ~stays).sum() < there.sum() / 2 + 20 and not (stays & ~there).any()
    for image, before, objects, kept in zip(images, whole, scenes.objects[:48], stays, strict=True):
        changed = np.abs(image.astype(int) - before).max(axis=-1) > 3
        for slot in np.flatnonzero(objects[:, 0] >= 0):
            x0, y0, x1, y1 = (int(side) for side in objects[slot, 1:5])
            inside = changed[max(0, y0) : y1, max(0, x0) : x1]
            assert not inside.any() if kept[slot] else inside.mean() > 0.1


def test_a_toy_detector_learns_and_sees_what_it_was_shown(scenes, tmp_path):
    torch.manual_seed(0)
    few = train.Scenes(scenes.images[:8], scenes.captions[:8], scenes.objects[:8], scenes.places[:8])
    recipe = Recipe(steps=25, learning_rate=2e-3, batch_size=8, warmup=2)
    version = (few.images, few.objects)
    detector = judges.train_detector(few, [version], recipe, folder=tmp_path / "detector")
    curve = curves(tmp_path)["loss"]
    assert np.mean(curve[-3:]) < 0.5 * np.mean(curve[:3])
    seen = annotators.detect(detector, train.as_tensor(few.images))
    assert len(seen) == 8 and all(0 <= one.score <= 1 for image in seen for one in image.objects)
