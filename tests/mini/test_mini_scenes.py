"""Scenes show what was asked for, where they say; drawings and colours can be told apart; one seed gives one scene."""

import itertools
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from textnorm_lib.mini import scenes
from textnorm_lib.mini.drawings import COLOURS, DRAWINGS, PAINTS, ROLES, ellipse
from textnorm_lib.mini.scenes import SIZE, covered, grow, render, render_many
from textnorm_lib.mini.styles import LOCATIONS, STYLES
from textnorm_lib.prompts.sets import Asked, Spec, mini_prompts, parse, sample_spec
from textnorm_lib.prompts.templates import CLASSES

GREY = (190, 196, 204)


def sprite(name, *, size=16, colour=None, style="photo"):
    """One sprite that fills ``size`` pixels, float (size, size, 3)."""
    canvas = Image.new("RGB", (4 * size, 4 * size), GREY)
    pose = scenes.Pose((size / 2, size / 2), 0.44 * size)
    scenes.draw(name, canvas=canvas, pose=pose, pens=STYLES[style].pens, colour=colour, tint=scenes.Tint())
    return np.asarray(canvas.reduce(4), dtype=float)


@pytest.fixture(scope="module")
def sampled():
    generator = np.random.default_rng(3)
    return list(render_many([sample_spec(generator) for _ in range(400)], seed=4))


def test_every_class_is_drawn_with_known_fills_and_no_part_too_thin():
    assert set(DRAWINGS) == set(CLASSES)
    for name, drawing in DRAWINGS.items():
        corners = np.concatenate([part.points for part in drawing.parts])
        assert np.abs(corners).max() <= 1.1, name
        assert {part.fill for part in drawing.parts} <= {*ROLES, *PAINTS}, name
        thin = [part for part in drawing.parts if np.ptp(np.array(part.points), axis=0).min() < 0.12]
        assert not thin, name


@pytest.mark.parametrize("style", STYLES)
def test_classes_differ_at_16_pixels(style):
    drawn = {name: sprite(name, style=style) for name in CLASSES}
    for a, b in itertools.combinations(CLASSES, 2):
        difference = min(np.abs(drawn[a] - other).mean() for other in (drawn[b], drawn[b][:, ::-1]))
        assert difference > 12, (a, b)


def test_classes_differ_at_16_pixels_in_the_same_colour():
    drawn = {name: sprite(name, colour="blue") for name in CLASSES}
    for a, b in itertools.combinations(CLASSES, 2):
        assert np.abs(drawn[a] - drawn[b]).mean() > 12, (a, b)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("name", CLASSES)
def test_a_colour_dominates_what_recolouring_changes(name, colour):
    natural, other, drawn = (
        sprite(name, size=48, colour=c) for c in (None, "green" if colour != "green" else "red", colour)
    )
    body = np.abs(drawn - other).sum(axis=-1) > 60
    assert body.mean() > 0.08 and np.isfinite(natural).all()
    distances = {c: np.linalg.norm(drawn[body] - rgb, axis=-1) for c, rgb in COLOURS.items()}
    nearest = np.array(list(distances))[np.argmin(list(distances.values()), axis=0)]
    assert Counter(nearest.tolist()).most_common(1)[0][0] == colour
    assert (nearest == colour).mean() > 0.5


def test_natural_colours_carry_their_names():
    assert scenes.shown_colour("apple", None) == "red" and scenes.shown_colour("apple", "blue") == "blue"
    assert scenes.shown_colour("cat", None) is None
    for name, drawing in DRAWINGS.items():
        nearest = min(np.linalg.norm(np.subtract(drawing.body, rgb)) for rgb in COLOURS.values())
        assert (nearest == 0) == (drawing.colour is not None), name
        assert drawing.colour or nearest > 40, name  # a nameless natural colour is not taken for a named one


def test_grow_moves_edges_outwards():
    circle = np.array(ellipse(0, 0, 0.5, 0.5, "body").points)
    assert np.linalg.norm(grow(circle, 0.1), axis=1) == pytest.approx(0.6, abs=0.01)
    assert grow(circle[::-1], 0.1) == pytest.approx(grow(circle, 0.1)[::-1])  # either way round


def test_scenes_show_what_was_asked_for(sampled):
    for scene in sampled:
        assert scene.image.shape == (SIZE, SIZE, 3) and scene.image.dtype == np.uint8
        asked = Counter({(o.name, scenes.shown_colour(o.name, o.colour)): o.count for o in scene.spec.objects})
        assert Counter((placed.name, placed.colour) for placed in scene.objects) == asked
        assert parse(scene.caption) == scene.spec


def test_objects_lie_inside_the_frame_and_hardly_overlap(sampled):
    for scene in sampled:
        for placed in scene.objects:
            x0, y0, x1, y1 = placed.box
            assert x0 >= 0 and y0 >= 0 and x1 <= SIZE and y1 <= SIZE
            assert min(x1 - x0, y1 - y0) > 6 and placed.pose.radius >= scenes.SMALLEST_RADIUS
        for a, b in itertools.combinations(scene.objects, 2):
            assert covered(a.box, b.box) <= scenes.OVERLAP


@pytest.mark.parametrize("relation", ["left", "right", "top"])
def test_relations_hold(relation):
    for seed in range(40):
        first, second = CLASSES[seed % 25], CLASSES[(seed + 7) % 25]
        scene = render(Spec((Asked(first), Asked(second)), relation=relation), np.random.default_rng(seed))
        a, b = (placed.box for placed in scene.objects)
        assert scene.objects[0].name == first
        if relation == "top":
            assert 0 < b[1] - a[3] <= scenes.STACKED_GAP and min(a[2], b[2]) > max(a[0], b[0])
        else:
            a, b = (a, b) if relation == "left" else (b, a)
            assert scenes.GAP[0] <= b[0] - a[2] <= scenes.GAP[1] and min(a[3], b[3]) > max(a[1], b[1])


def test_the_pixels_of_an_object_lie_in_its_box():
    blank, generator = Image.new("RGB", (4 * SIZE, 4 * SIZE), GREY), np.random.default_rng(5)
    for name in CLASSES:
        canvas = blank.copy()
        pose = scenes.Pose((30.0, 34.0), 14.0, generator.uniform(-25, 25), bool(generator.integers(2)))
        scenes.draw(name, canvas=canvas, pose=pose, pens=STYLES["photo"].pens, colour=None, tint=scenes.Tint())
        rows, columns = np.nonzero((np.asarray(canvas) != GREY).any(axis=-1))
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 4
        assert found == pytest.approx(np.array(scenes.extent(name, pose)), abs=0.5), name


@pytest.mark.parametrize("location", LOCATIONS)
def test_objects_of_a_location_stand_on_its_ground(location):
    for seed in range(5):
        scene = render(Spec((Asked("frog", 4),), location=location), np.random.default_rng(seed))
        assert all(placed.box[3] > 0.36 * SIZE for placed in scene.objects)


def test_locations_and_styles_can_be_told_apart():
    looks = [{"location": location} for location in LOCATIONS] + [
        {"style": style} for style in STYLES if style != "photo"
    ]
    mean = [
        np.mean([render(Spec((Asked("fork"),), **look), np.random.default_rng(s)).image for s in range(12)], axis=0)
        for look in looks
    ]
    for a, b in itertools.combinations(range(len(looks)), 2):
        assert np.abs(mean[a] - mean[b]).mean() > 15, (looks[a], looks[b])


def test_scenes_do_not_depend_on_the_number_of_workers():
    specs = [parse(p) for p in mini_prompts("comprehensive")]
    one, two = (list(render_many(specs, seed=9, workers=workers)) for workers in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.image, b.image) and a.objects == b.objects and a.spec == b.spec
    again = list(render_many(specs[:5], seed=9))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(again, one, strict=False))
    assert not np.array_equal(next(render_many(specs, seed=10)).image, one[0].image)


def test_a_contact_sheet_holds_its_images():
    images = [np.full((8, 8, 3), value, dtype=np.uint8) for value in (0, 100, 200)]
    sheet = np.asarray(scenes.contact_sheet(images, columns=2, pad=1))
    assert sheet.shape == (2 * 17 + 1, 2 * 17 + 1, 3)
    assert (sheet[5, 5] == 0).all() and (sheet[5, 25] == 100).all() and (sheet[25, 5] == 200).all()
    captioned = scenes.contact_sheet(images, columns=3, captions=["a realistic photo of three deer"] * 3)
    assert captioned.height > captioned.width // 3
