"""The synthetic prompts equal the released ones; the categories equal a reading by eye."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from textnorm_lib.prompts import templates as prompts
from textnorm_lib.study.errors import DataError

RELEASE = os.environ.get("TEXTNORM_TIA2_DIR")
needs_release = pytest.mark.skipif(
    not RELEASE, reason="compares with the released prompts: set TEXTNORM_TIA2_DIR to a folder that holds them"
)

# Typed from reading the prompts (and table 3 of the paper), not produced by the rule: the primary category, others.
READ_BY_EYE = {
    "A sign that says 'Text to Image'.": ("text",),
    "A storefront with 'Hello World' written on it.": ("text",),
    "Greek statue of a man tripping over a cat.": ("style", "composition"),
    "A 1960s yearbook photo with animals dressed as humans.": ("style", "creative"),
    "A 1960s poster warning against climate change.": ("style",),
    "Illustration of a mouse using a mushroom as an umbrella.": ("style", "creative"),
    "minnie mouse and baby shark cartoon": ("style", "composition"),
    "mighty swordsman in anime style": ("style",),
    "a painting of a fox in the style of starry night": ("style",),
    "The Oriental Pearl in oil painting": ("style",),
    "A red car and a white sheep.": ("composition", "colors"),
    "35mm macro shot a kitten licking a baby duck, studio lighting.": ("composition", "style"),
    "One cat and two dogs sitting on the grass.": ("composition", "counting", "location"),
    "dog and horse": ("composition",),
    "a boy and a tiger": ("composition",),
    "Four cars on the street.": ("counting", "location"),
    "A heart made of chocolate": ("creative",),
    "flower made of pizza": ("creative",),
    "Lego Arnold Schwarzenegger.": ("creative",),
    "A pyramid made of falafel with a partial solar eclipse in the background.": ("creative", "location"),
    "Photo of a cat singing in a barbershop quartet.": ("creative",),
    "A glowing mushroom in the forest": ("location",),
    "a roast turkey on the table": ("location",),
    "a frog in the middle of the ocean": ("location",),
    "A black colored car.": ("colors", "counting"),
    "A green colored banana.": ("colors", "counting"),
    "A yellow and black bus cruising through the rainforest.": ("colors", "location"),
    "An umbrella on top of a spoon.": ("spatial",),
    "A zebra to the right of a fire hydrant.": ("spatial",),
    "A cat on the left of a dog.": ("spatial",),
}


def test_classes_are_the_papers_twenty_five():
    assert len(prompts.CLASSES) == len(set(prompts.CLASSES)) == 25
    assert prompts.CLASSES[:10] == prompts.CIFAR10_CLASSES
    assert prompts.CLASSES[0] == "airplane" and prompts.CLASSES[10] == "apple" and prompts.CLASSES[-1] == "vase"
    assert prompts.NUMBER_WORDS[0] == "one" and prompts.NUMBER_WORDS[-1] == "nine" and len(prompts.NUMBER_WORDS) == 9


@pytest.mark.parametrize(
    ("name", "article", "plural"),
    [
        ("deer", "a deer", "deer"),
        ("teddy bear", "a teddy bear", "teddy bears"),
        ("umbrella", "an umbrella", "umbrellas"),
        ("orange", "an orange", "oranges"),
        ("vase", "a vase", "vases"),
    ],
)
def test_article_and_plural(name, article, plural):
    assert prompts.with_article(name) == article
    assert prompts.plural(name) == plural


def test_counting_prompts():
    made = prompts.counting_prompts()
    assert len(made) == len(set(made)) == 150
    assert made[0] == "a realistic photo of an airplane"
    assert made[25] == "a realistic photo of two airplanes"
    assert made[-1] == "a realistic photo of six vases"
    assert "a realistic photo of three deer" in made


def test_composition_prompts():
    made = prompts.composition_prompts()
    assert len(made) == len(set(made)) == 300
    assert made[0] == "a realistic photo of an airplane and an apple"
    assert made[-1] == "a realistic photo of an umbrella and a vase"
    assert "a realistic photo of a cat and a dog" in made


@needs_release
@pytest.mark.parametrize(
    ("name", "made"), [("counting", prompts.counting_prompts()), ("composition", prompts.composition_prompts())]
)
def test_synthetic_prompts_are_the_released_ones_in_order(name, made):
    released = json.loads((Path(RELEASE) / f"prompts/prompt_set_{name}.json").read_text(encoding="utf-8"))
    assert tuple(released) == made


def test_parsing_inverts_writing():
    for prompt in prompts.counting_prompts():
        assert prompts.counting_prompt(*prompts.parse_counting(prompt)) == prompt
    for prompt in prompts.composition_prompts():
        assert prompts.composition_prompt(*prompts.parse_composition(prompt)) == prompt
    assert prompts.parse_counting("a realistic photo of nine teddy bears") == ("teddy bear", 9)
    assert prompts.parse_composition("a realistic photo of a dog and a cat") == ("dog", "cat")


NOT_COUNTING = (
    "a realistic photo of three deers",
    "a realistic photo of ten dogs",
    "a realistic photo of a umbrella",
    "a realistic photo of two zebras",
    "a realistic photo of a cat and a dog",
    "three deer",
    "",
)
NOT_COMPOSITION = (
    "a realistic photo of a cat and a cat",
    "a realistic photo of a cat and two dogs",
    "a realistic photo of three deer",
    "a cat and a dog",
)


@pytest.mark.parametrize(
    ("parse", "prompt"),
    [
        *((prompts.parse_counting, prompt) for prompt in NOT_COUNTING),
        *((prompts.parse_composition, prompt) for prompt in NOT_COMPOSITION),
    ],
)
def test_a_prompt_of_another_form_is_named(parse, prompt):
    with pytest.raises(DataError) as caught:
        parse(prompt)
    assert repr(prompt) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [0, 10])
def test_counts_without_a_word_are_refused(count):
    with pytest.raises(DataError, match=f"the count {count} has no word"):
        prompts.counting_prompt("dog", count)


@pytest.mark.parametrize(("prompt", "expected"), READ_BY_EYE.items())
def test_categories_as_read_by_eye(prompt, expected):
    assert prompts.categorise(prompt) == expected


def test_synthetic_prompts_have_their_sets_category():
    assert {prompts.categorise(p)[0] for p in prompts.counting_prompts()} == {"counting"}
    assert {prompts.categorise(p)[0] for p in prompts.composition_prompts()} == {"composition"}


def test_a_prompt_that_fits_nothing_has_no_category():
    assert prompts.categorise("a lighthouse at dusk") == ()


def test_every_rule_names_a_known_category():
    assert {category for category, _ in prompts._RULES} == set(prompts.CATEGORIES)


@needs_release
def test_every_comprehensive_prompt_has_a_category_and_blocks_of_ten_agree():
    labels = json.loads((Path(RELEASE) / "human_annotations/human_labels_comprehensive.json").read_text("utf-8"))
    released = list(dict.fromkeys(entry["caption"] for entry in labels.values()))
    found = [prompts.categorise(prompt) for prompt in released]
    assert len(found) == 100 and all(found)
    blocks = ("creative", "spatial", "text", "style", "counting", "colors", "composition", "location")
    for start, category in zip(range(20, 100, 10), blocks, strict=True):
        assert {c[0] for c in found[start : start + 10]} == {category}
    assert Counter(c[0] for c in found) == {
        "text": 10,
        "style": 17,
        "composition": 11,
        "counting": 10,
        "creative": 19,
        "location": 12,
        "colors": 11,
        "spatial": 10,
    }
