"""Contrastive prompts by rule: each means something else, changes one kind of thing; the released are among them."""

import os
from collections import Counter

import numpy as np
import pytest

from textnorm_lib.prompts import rule_based
from textnorm_lib.prompts.grammar import Spec, parse, write
from textnorm_lib.prompts.linter import content_words, meaning
from textnorm_lib.prompts.rules import KINDS, MOST, canonical, rule_contrasts
from textnorm_lib.prompts.sets import SETS, mini_prompts, sample_spec
from textnorm_lib.prompts.templates import CLASSES
from textnorm_lib.study.errors import DataError
from textnorm_lib.tia2 import load_official

needs_release = pytest.mark.skipif(
    not os.environ.get("TEXTNORM_TIA2_DIR"),
    reason="compares with the released prompts: set TEXTNORM_TIA2_DIR to a folder that holds them",
)
THREE_DEER, PAIR = "a realistic photo of three deer", "a realistic photo of a cat and a dog"


def _sampled(number: int) -> list[Spec]:
    generator = np.random.default_rng(0)
    return [sample_spec(generator) for _ in range(number)]


ALL = [
    *(prompt for name, step in zip(SETS, (1, 1, 6), strict=True) for prompt in mini_prompts(name)[::step]),
    *map(write, _sampled(150)),
]


@pytest.fixture(scope="module")
def contrasts() -> dict[str, list]:
    return {prompt: rule_contrasts(prompt) for prompt in ALL}


def _of(prompt: str, kind: str) -> list[str]:
    return [contrast.prompt for contrast in rule_contrasts(prompt) if contrast.kind == kind]


def test_every_contrast_parses_and_asks_for_something_else(contrasts):
    for prompt, found in contrasts.items():
        for contrast in found:
            spec = parse(contrast.prompt)
            assert canonical(spec) != canonical(parse(prompt)), (prompt, contrast)
            assert write(spec) == contrast.prompt != prompt


def test_no_two_contrasts_of_a_prompt_mean_the_same(contrasts):
    for prompt, found in contrasts.items():
        assert len({meaning(contrast.prompt) for contrast in found}) == len(found), prompt


def test_a_set_has_thirty_two_or_nearly_and_is_the_same_every_time(contrasts):
    for prompt, found in contrasts.items():
        assert 20 <= len(found) <= MOST == 32, prompt
    for prompt in ALL[::20]:
        assert rule_contrasts(prompt) == contrasts[prompt]
        assert rule_based(prompt) == [contrast.prompt for contrast in contrasts[prompt]]


def _form(spec: Spec) -> tuple:
    """What a prompt asks for but for the names of classes, colours, locations and styles."""
    objects = tuple((asked.count, asked.colour is not None) for asked in spec.objects)
    return objects, spec.relation, spec.location is not None, spec.style != "photo"


def test_contrasts_keep_to_forms_that_the_mini_worlds_models_were_trained_on(contrasts):
    trained = {_form(spec) for spec in _sampled(12_000)}
    for prompt, found in contrasts.items():
        for contrast in found:
            assert _form(parse(contrast.prompt)) in trained, (prompt, contrast)


def _differences(before: Spec, after: Spec) -> set[str]:
    fields = {"name", "count", "colour"} if len(before.objects) == len(after.objects) else set()
    found = {f for f in fields if [getattr(o, f) for o in before.objects] != [getattr(o, f) for o in after.objects]}
    return found | {f for f in ("relation", "location", "style") if getattr(before, f) != getattr(after, f)}


@pytest.mark.parametrize(
    ("kind", "field"),
    [("count", "count"), ("swap", "name"), ("colour", "colour"), ("location", "location"), ("style", "style")],
)
def test_a_contrast_changes_what_its_kind_says_and_nothing_else(kind, field, contrasts):
    pairs = [(p, c.prompt) for p, found in contrasts.items() for c in found if c.kind == kind]
    assert len(pairs) > 20
    for prompt, changed in pairs:
        assert _differences(parse(prompt), parse(changed)) == {field}, (prompt, changed)


def test_objects_missing_swapped_or_added_are_the_ones_meant(contrasts):
    for prompt, found in contrasts.items():
        before = parse(prompt)
        names = [asked.name for asked in before.objects]
        for contrast in found:
            changed = parse(contrast.prompt)
            after = [asked.name for asked in changed.objects]
            assert contrast.kind in {"location", "style"} or changed.location == before.location, (prompt, contrast)
            assert contrast.kind in {"location", "style"} or changed.style == before.style, (prompt, contrast)
            if contrast.kind == "missing object":
                assert len(names) == 2 and len(after) == 1 and after[0] in names
            elif contrast.kind == "extra object":
                assert changed.objects[:-1] == before.objects
            elif contrast.kind == "swap":
                assert len(set(names) & set(after)) == len(names) - 1 and len(after) == len(names)
            else:
                assert sorted(after) == sorted(names)


def test_every_kind_occurs_and_comes_in_turn_from_the_front(contrasts):
    assert {contrast.kind for found in contrasts.values() for contrast in found} == set(KINDS)
    for prompt, found in contrasts.items():
        kinds = [contrast.kind for contrast in found]
        for length in range(1, len(kinds) + 1):
            taken, left = Counter(kinds[:length]), set(kinds[length:])
            fewest = min((taken[kind] for kind in left), default=0)
            assert all(n <= fewest + 1 for n in taken.values()) or not left, prompt


def test_the_nearest_counts_come_first():
    assert _of(THREE_DEER, "count") == [
        f"a realistic photo of {many}"
        for many in ("two deer", "four deer", "a deer", "five deer", "six deer", "seven deer", "eight deer")
    ]
    assert [sum(o.count for o in parse(p).objects) for p in _of(PAIR, "count")] == [3, 3, 4, 4, 4, 5, 5, 6]
    assert _of("a realistic photo of eight teddy bears", "count")[0] == "a realistic photo of seven teddy bears"


def test_like_classes_are_swapped_in_first():
    swaps = [parse(prompt).objects[0].name for prompt in _of(THREE_DEER, "swap")]
    assert sorted(swaps[:5]) == ["bird", "cat", "dog", "frog", "horse"]
    six = [parse(prompt).objects[0].name for prompt in _of("a realistic photo of six ships", "swap")]
    assert sorted(six[:3]) == ["airplane", "automobile", "truck"]
    assert sorted([*six, "ship"]) == sorted(CLASSES)


@pytest.mark.parametrize(
    ("prompt", "kind", "expected"),
    [
        (PAIR, "missing object", ["a cat", "a dog", "two cats", "two dogs"]),
        ("a realistic photo of two umbrellas", "extra object", ["two umbrellas and a vase"]),
        ("a red book and a yellow vase", "colour", ["a yellow book and a red vase", "a red book and a red vase"]),
        ("a red book and a yellow vase", "missing object", ["a red colored book", "a yellow colored vase"]),
        ("a red colored apple", "colour", ["a blue colored apple"]),
        ("a cat on the left of a dog", "relation", ["a dog on the left of a cat", "a cat on top of a dog"]),
        ("a cat on top of a dog", "relation", ["a dog on top of a cat"]),
        ("two deer in the desert", "location", ["two deer in the middle of the ocean"]),
        ("a neon sign of an apple", "style", ["a realistic photo of an apple", "a pencil sketch of an apple"]),
    ],
)
def test_what_a_kind_offers_first(prompt, kind, expected):
    found = [text.removeprefix("a realistic photo of ") for text in _of(prompt, kind)]
    assert found[: len(expected)] == [text.removeprefix("a realistic photo of ") for text in expected]


def test_a_reversed_relation_is_offered_once():
    assert len(_of("a cat on the left of a dog", "relation")) == 3
    assert "a dog on the right of a cat" not in rule_based("a cat on the left of a dog")  # the same thing


def test_nothing_is_offered_that_the_prompts_own_image_fits():
    assert "a realistic photo of a cat and a dog" not in rule_based("a cat on the left of a dog")
    assert "a realistic photo of a dog" not in rule_based("a red colored dog")
    assert "a realistic photo of a dog" not in rule_based("a dog on the street")


def test_contrasts_are_spelt_as_the_prompt_is():
    assert rule_based("A red colored dog.")[0] == "A blue colored dog."
    assert rule_based("a cat and a dog.")[0] == "a realistic photo of a cat."
    assert len(rule_based("One cat and two dogs sitting on the grass.")) == MOST


@needs_release
def test_released_counting_contrasts_are_among_ours_and_the_nearest():
    released = load_official("counting").contrastive.groupby("prompt", sort=False)["contrastive_prompt"].agg(list)
    assert len(released) == 150
    for prompt, theirs in released.items():
        assert set(theirs) <= set(_of(prompt, "count")), prompt
        count = parse(prompt).objects[0].count
        assert [parse(text).objects[0].count for text in theirs] == [
            near for near in range(count - 2, count + 3) if near > 0 and near != count
        ]


@needs_release
def test_released_composition_contrasts_that_the_grammar_reads_are_offered_too():
    released = load_official("composition").contrastive.query("position < 10")
    assert released["prompt"].nunique() == 300
    for prompt, theirs in released.groupby("prompt", sort=False)["contrastive_prompt"]:
        ours = set(rule_based(prompt))
        assert {text for text in theirs if " and " in text or len(text.split()) < 7} <= ours, prompt


@needs_release
def test_a_released_prompt_that_no_rule_fits_is_refused_in_one_line_with_a_way_out():
    refused = []
    for prompt in load_official("comprehensive").contrastive["prompt"].unique():
        try:
            assert rule_based(prompt)
        except DataError as error:
            assert repr(prompt) in str(error) and "\n" not in str(error)
            assert "LLMWriter" in str(error) and "load_official" in str(error)
            refused.append(prompt)
    assert len(refused) == 83
    assert "A sign that says 'Diffusion'." in refused


@pytest.mark.parametrize("prompt", ["", "nine dogs", "a unicorn", "dogs"])
def test_what_the_grammar_does_not_read_is_refused(prompt):
    with pytest.raises(DataError, match="no rule fits"):
        rule_based(prompt)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a cat and a dog", "A realistic photo of a dog and a cat."),
        ("a cat on the left of a dog", "a dog on the right of a cat"),
        ("One dog on the street.", "a dog on the street"),
        ("a realistic photo of a lion and a zebra", "A photo of one zebra, and the lion"),
        ("An image showing a dog-like horse.", "a realistic photo of a dog like horse"),
    ],
)
def test_rewordings_mean_the_same(one, other):
    assert meaning(one) == meaning(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a cat on the left of a dog", "a dog on the left of a cat"),
        ("a cat on top of a dog", "a dog on top of a cat"),
        ("a cat and two dogs", "two cats and a dog"),
        ("a red book and a yellow vase", "a yellow book and a red vase"),
        ("a cartoon of a lion", "a realistic photo of a lion"),
        ("A sign that says 'Diffusion'.", "A sign that says 'Confusion'."),
        ("two lions", "a lion"),
    ],
)
def test_other_requests_do_not_mean_the_same(one, other):
    assert meaning(one) != meaning(other)


@pytest.mark.parametrize(
    ("singular", "plural"),
    [("horse", "horses"), ("glass", "glasses"), ("bus", "buses"), ("cherry", "cherries"), ("cookie", "cookies")],
)
def test_singular_and_plural_are_one_content_word(singular, plural):
    assert content_words(f"a photo of a {singular}") == content_words(f"two {plural}") != content_words("a vase")


def test_content_words_leave_out_what_is_not_to_be_seen():
    assert content_words("a realistic photo of three dogs on the left of it") == content_words("dog")
