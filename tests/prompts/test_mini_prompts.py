"""The grammar is read back as it is written, bad prompts get one clear line, and the sets are what the study says."""

from collections import Counter

import numpy as np
import pytest

from textnorm_lib.mini.drawings import COLOURS
from textnorm_lib.mini.styles import LOCATIONS, STYLES
from textnorm_lib.prompts import grammar
from textnorm_lib.prompts import sets as prompts
from textnorm_lib.prompts.grammar import write
from textnorm_lib.prompts.sets import Asked, Spec, parse
from textnorm_lib.prompts.templates import CLASSES, categorise
from textnorm_lib.study.errors import DataError

DOG, CAT = Asked("dog"), Asked("cat")
WORDINGS = {
    "a realistic photo of three deer": Spec((Asked("deer", 3),)),
    "a realistic photo of a cat and a dog": Spec((CAT, DOG)),
    "a realistic photo of two airplanes and an apple": Spec((Asked("airplane", 2), Asked("apple"))),
    "a realistic photo of eight teddy bears": Spec((Asked("teddy bear", 8),)),
    "a realistic photo of an orange": Spec((Asked("orange"),)),
    "a red colored dog": Spec((Asked("dog", 1, "red"),)),
    "two pink colored oranges": Spec((Asked("orange", 2, "pink"),)),
    "a red book and a yellow vase": Spec((Asked("book", 1, "red"), Asked("vase", 1, "yellow"))),
    "a cat on the left of a dog": Spec((CAT, DOG), relation="left"),
    "an umbrella on top of a chair": Spec((Asked("umbrella"), Asked("chair")), relation="top"),
    "two dogs on the street": Spec((Asked("dog", 2),), location="street"),
    "a frog in the middle of the ocean": Spec((Asked("frog"),), location="ocean"),
    "a cat and two dogs on the grass": Spec((CAT, Asked("dog", 2)), location="grass"),
    "a pencil sketch of a cat": Spec((CAT,), style="pencil sketch"),
    "an oil painting of a cup and three cakes": Spec((Asked("cup"), Asked("cake", 3)), style="oil painting"),
}
# Also read, though written otherwise: the paper's own lines, and what people type.
READ_AS = {
    "One cat and two dogs sitting on the grass.": "a cat and two dogs on the grass",
    "Two dogs on the street.": "two dogs on the street",
    "a horse running in a field": "a horse on the grass",
    "A red colored dog.": "a red colored dog",
    "A dog to the right of a cat.": "a dog on the right of a cat",
    "two cats and a dog": "a realistic photo of two cats and a dog",
    "  eight   frogs ": "a realistic photo of eight frogs",
    "a red dog": "a red colored dog",
}
FAULTS = {
    "": "empty",
    " . ": "empty",
    "a realistic photo of a unicorn": "unknown class 'unicorn'; known: airplane",
    "a realistic photo of a hors": "unknown class 'hors'; did you mean 'horse'",
    "a cat and a doge": "unknown class 'doge'; did you mean 'dog",
    "a red colored unicorn": "unknown class 'unicorn'",
    "toastr": "did you mean 'toaster'",
    "dog and horse": "does not say how many",
    "a": "does not say how many",
    "a realistic photo of nine dogs": "count 'nine'",
    "twenty dogs": "count 'twenty'",
    "12 dogs": "count '12'",
    "a cat and five dogs": "5 of 'dog'",
    "three dog": "write 'dogs'",
    "a dogs": "write 'dog'",
    "a purple colored dog": "unknown colour 'purple'; known: red",
    "a purple dog": "unknown colour 'purple'",
    "a dog on the moon": "unknown location or relation 'on the moon'",
    "two dogs sitting under a tree": "unknown location or relation 'under a tree'",
    "a cat behind a dog": "unknown location or relation 'behind a dog'",
    "a watercolor of a dog": "unknown style 'watercolor'; known: photo",
    "a dog and two dogs": "asked for twice",
    "a dog and a cat and a cup": "3 kinds of objects",
    "two cats on the left of a dog": "two single objects",
    "a red colored dog on the street": "only one of",
    "a pencil sketch of a red dog": "only one of",
}


@pytest.mark.parametrize(("prompt", "spec"), WORDINGS.items())
def test_wording(prompt, spec):
    assert write(spec) == prompt
    assert parse(prompt) == spec


@pytest.mark.parametrize(("prompt", "meant"), READ_AS.items())
def test_other_wordings_are_read(prompt, meant):
    assert write(parse(prompt)) == meant


@pytest.mark.parametrize(("prompt", "fault"), FAULTS.items())
def test_a_bad_prompt_gets_one_clear_line(prompt, fault):
    with pytest.raises(DataError) as caught:
        parse(prompt)
    message = str(caught.value)
    assert fault in message and "\n" not in message
    assert not prompt.strip(" .") or repr(prompt) in message


@pytest.mark.parametrize(
    "wrong",
    [
        {"objects": ()},
        {"objects": (("dog", 0, None),)},
        {"objects": (("dog", 9, None),)},
        {"objects": (DOG,), "relation": "left"},
        {"objects": (DOG, CAT), "relation": "behind"},
        {"objects": (DOG,), "location": "moon"},
        {"objects": (DOG,), "style": "cubism"},
        {"objects": (("dog", 1, "mauve"),)},
    ],
)
def test_a_bad_spec_is_refused(wrong):
    with pytest.raises(DataError):
        Spec(**wrong)


def test_sampled_captions_are_read_back_and_cover_the_grammar():
    generator = np.random.default_rng(0)
    specs = [prompts.sample_spec(generator) for _ in range(8000)]
    for spec in specs:
        assert parse(write(spec)) == spec
    single = {(o.name, o.count) for s in specs if len(s.objects) == 1 for o in s.objects}
    assert single == {(name, count) for name in CLASSES for count in range(1, 9)}
    pairs = {tuple(o.count for o in s.objects) for s in specs if len(s.objects) == 2}
    assert pairs == {(a, b) for a in (1, 2, 3) for b in (1, 2, 3)}
    assert {s.relation for s in specs} == {None, *grammar.RELATION_WORDING}
    assert {s.location for s in specs} == {None, *LOCATIONS}
    assert {s.style for s in specs} == set(STYLES)
    assert {o.colour for s in specs for o in s.objects} == {None, *COLOURS}
    plain = [s for s in specs if write(s).startswith(grammar.PREFIX)]
    assert sum(len(s.objects) == 1 for s in plain) / len(specs) == pytest.approx(prompts.FORMS["counting"], abs=0.03)
    assert sum(len(s.objects) == 2 for s in plain) / len(specs) == pytest.approx(prompts.FORMS["pair"], abs=0.03)


def test_the_same_seed_gives_the_same_captions():
    drawn = [[prompts.sample_spec(np.random.default_rng(seed)) for _ in range(3)] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_weights_add_up():
    assert sum(prompts.FORMS.values()) == pytest.approx(1)
    assert sum(prompts.COUNT_WEIGHTS) == pytest.approx(1) and len(prompts.COUNT_WEIGHTS) == grammar.MOST_OF_ONE


@pytest.mark.parametrize(("set_name", "size"), [("counting", 150), ("composition", 300), ("comprehensive", 72)])
def test_sets_are_read_back(set_name, size):
    found = prompts.mini_prompts(set_name)
    assert len(found) == len(set(found)) == size
    for prompt in found:
        assert write(parse(prompt)) == prompt


def test_an_unknown_set_is_refused():
    with pytest.raises(DataError, match="known: comprehensive, counting, composition"):
        prompts.mini_prompts("colours")


def test_the_comprehensive_set_has_twelve_of_each_category_half_of_them_sealed():
    found = Counter((_category(p), prompts.split(p)) for p in prompts.comprehensive_prompts())
    assert found == {(c, side): 6 for c in prompts.CATEGORIES for side in ("development", "sealed")}
    assert set(prompts.CATEGORIES) == {"colors", "spatial", "location", "counting", "composition", "style"}


def test_the_comprehensive_set_uses_every_colour_relation_location_and_style():
    specs = [parse(p) for p in prompts.comprehensive_prompts()]
    assert {o.colour for s in specs for o in s.objects} == {None, *COLOURS}
    assert {s.relation for s in specs} == {None, *grammar.RELATION_WORDING}
    assert {s.location for s in specs} == {None, *LOCATIONS}
    assert {s.style for s in specs} == set(STYLES)
    assert {o.name for s in specs for o in s.objects} == set(CLASSES)


def test_classes_are_split_once():
    # Written out, so that nobody moves a class to the other side by changing the rule.
    assert sorted(prompts.DEVELOPMENT_CLASSES) == [
        *("airplane", "apple", "bird", "cake", "chair", "deer", "fork", "frog", "microwave", "ship", "suitcase"),
        *("toaster", "vase"),
    ]
    assert sorted((*prompts.DEVELOPMENT_CLASSES, *prompts.SEALED_CLASSES)) == sorted(CLASSES)
    assert prompts.split("a realistic photo of three deer") == "development"
    assert prompts.split("a realistic photo of a cat and a dog") == "sealed"
    assert prompts.split("a realistic photo of a cat and a deer") == "mixed"
    counts = {name: Counter(map(prompts.split, prompts.mini_prompts(name))) for name in ("counting", "composition")}
    assert counts["counting"] == {"development": 78, "sealed": 72}
    assert counts["composition"] == {"development": 78, "sealed": 66, "mixed": 156}


def _asked(chosen):
    return [asked for prompt in chosen for asked in parse(prompt).objects]


def _category(prompt):
    return categorise(prompt)[0]


def test_chosen_prompts_are_half_sealed_and_cover_classes_counts_and_categories_evenly():
    counting, composition = (prompts.choose_prompts(name, 42) for name in ("counting", "composition"))
    for chosen in (counting, composition):
        assert Counter(map(prompts.split, chosen)) == {"development": 21, "sealed": 21}
        by_class = Counter(asked.name for asked in _asked(chosen))
        assert set(by_class) == set(CLASSES) and max(by_class.values()) - min(by_class.values()) == 1
    assert set(Counter(asked.count for asked in _asked(counting)).values()) == {7}
    comprehensive = prompts.choose_prompts("comprehensive", 36)
    assert set(Counter(map(_category, comprehensive)).values()) == {6}


@pytest.mark.parametrize("set_name", prompts.SETS)
def test_fewer_chosen_prompts_are_among_more_in_the_sets_order(set_name):
    every = prompts.mini_prompts(set_name)
    few, more = prompts.choose_prompts(set_name, 5), prompts.choose_prompts(set_name, 30)
    assert len(few) == 5 and set(few) < set(more)
    assert list(more) == sorted(more, key=every.index)
    assert prompts.choose_prompts(set_name, len(every)) == every


@pytest.mark.parametrize("set_name", prompts.SETS)
def test_prompts_of_one_side_are_chosen_as_evenly(set_name):
    chosen = prompts.choose_prompts(set_name, 30, only="sealed")
    assert {prompts.split(prompt) for prompt in chosen} == {"sealed"}
    assert set(prompts.choose_prompts(set_name, 8, only="sealed")) < set(chosen)
    by_category = Counter(map(_category, chosen))
    assert max(by_category.values()) - min(by_category.values()) <= 1
    if set_name == "counting":
        assert set(Counter(asked.count for asked in _asked(chosen)).values()) == {5}


def test_more_prompts_than_a_set_has_are_refused():
    with pytest.raises(DataError, match="37 prompts of the comprehensive set; take 1 to 36 of sealed classes"):
        prompts.choose_prompts("comprehensive", 37, only="sealed")
    with pytest.raises(DataError, match="133 prompts of the composition set; take at most 132, or all 300"):
        prompts.choose_prompts("composition", 133)
    with pytest.raises(DataError, match="0 prompts of the counting set"):
        prompts.choose_prompts("counting", 0)
