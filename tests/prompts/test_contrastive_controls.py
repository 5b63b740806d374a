"""Random controls draw what they promise; the linter finds every planted fault and nothing else."""

import os

import pandas as pd
import pytest

from textnorm_lib.prompts import lint, random_prompts, rule_based
from textnorm_lib.prompts.linter import FAULTS, as_frame, lint_summary, meaning
from textnorm_lib.prompts.random import random_sets
from textnorm_lib.prompts.rules import rule_sets
from textnorm_lib.prompts.sets import mini_prompts
from textnorm_lib.study.errors import DataError
from textnorm_lib.tia2 import load_official
from textnorm_lib.tia2.describe import collect_contrastive

POOL = mini_prompts("composition")
PROMPT = "a realistic photo of a cat and a dog"
CLEAN = ["a realistic photo of a cat", "a realistic photo of two cats and a dog", "a lion and a dog"]


def test_drawn_prompts_are_distinct_and_from_the_pool():
    drawn = random_prompts(PROMPT, POOL, 32, 0)
    assert len(drawn) == len(set(drawn)) == 32 and set(drawn) < set(POOL)


@pytest.mark.parametrize("seed", range(5))
def test_neither_the_prompt_nor_what_means_the_same_is_drawn(seed):
    pool = [
        PROMPT,
        "A dog and a cat.",
        "one cat and one dog",
        "a realistic photo of a lion",
        "A photo of the lion",
        "a cup",
    ]
    drawn = random_prompts(PROMPT, pool, 2, seed)
    assert {meaning(prompt) for prompt in drawn} == {"lion", meaning("a cup")}


def test_a_draw_depends_on_prompt_and_seed_alone():
    first = random_prompts(PROMPT, POOL, 8, 3)
    other = random_prompts("a realistic photo of a cake", POOL, 8, 3)
    assert random_prompts(PROMPT, POOL[::-1], 8, 3) == first
    assert random_prompts(PROMPT, POOL, 4, 3) == first[:4]
    assert random_prompts(PROMPT, POOL, 8, 4) != first
    assert random_prompts("a realistic photo of a horse", POOL, 8, 3) != other  # neither is in the pool


def test_every_prompt_of_the_pool_comes_up_about_equally_often():
    pool = mini_prompts("counting")[:10]
    drawn = [random_prompts("a cat", pool, 3, seed) for seed in range(400)]
    times = [sum(prompt in draw for draw in drawn) for prompt in pool if meaning(prompt) != meaning("a cat")]
    assert len(times) == 9 and min(times) > 95 and max(times) < 175  # 400 x 3 / 9 = 133, standard deviation 9.4


@pytest.mark.parametrize(
    ("pool", "m", "message"),
    [
        ([PROMPT, "a dog and a cat", "a cup"], 2, r"m = 2, but of the pool's 3 prompts 1 mean .*enlarge the pool"),
        ([], 1, r"m = 1, but of the pool's 0 prompts 0"),
        (["a cup"], 0, "m = 0"),
        ("a cup", 1, "give a list"),
    ],
)
def test_a_draw_that_cannot_be_is_refused_with_its_numbers(pool, m, message):
    with pytest.raises(DataError, match=message) as caught:
        random_prompts(PROMPT, pool, m, 0)
    assert "\n" not in str(caught.value)


def _found(contrastive: list[str], prompt: str = PROMPT) -> list[tuple[str, str]]:
    faults = lint(as_frame("test", {prompt: contrastive}))
    assert faults.columns.tolist() == ["set", "prompt", "contrast", "fault"]
    return list(zip(faults["contrast"], faults["fault"], strict=True))


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        (PROMPT, "prompt itself"),
        ("A realistic photo of a cat and a dog.", "paraphrase"),
        ("a photo of a cat and a dog", "paraphrase"),
        ("a realistic photo of a dog and a cat", "paraphrase"),
        ("one cat and one dog", "paraphrase"),
        (CLEAN[0], "duplicate"),
        ("A photo of one dog and the lion", "duplicate in other words"),
        ("a photo of a cat", "duplicate in other words"),
        ("a realistic photo of two wolves and an ice cream sundae", "nothing in common"),
    ],
)
def test_a_planted_fault_is_found_and_only_it(planted, fault):
    assert _found([*CLEAN, planted]) == [(planted, fault)]


def test_faults_are_found_in_free_language_too():
    prompt = "A sphere made of kitchen tile."
    assert _found(["a sphere made of kitchen tile", "A cube made of tile.", "Two lions."], prompt) == [
        ("a sphere made of kitchen tile", "paraphrase"),
        ("Two lions.", "nothing in common"),
    ]


def test_the_same_prompt_in_two_sets_is_no_duplicate():
    assert _found(CLEAN) == []
    twice = as_frame("test", {PROMPT: CLEAN, "a realistic photo of three cats and a dog": CLEAN})
    assert lint(twice).empty


def test_sets_made_by_rule_have_no_duplicate_and_no_paraphrase():
    made = {prompt: rule_based(prompt) for prompt in [*mini_prompts("comprehensive"), *POOL[::15]]}
    assert set(lint(as_frame("rules", made))["fault"]) <= {"nothing in common"}
    composition = {prompt: rule_based(prompt) for prompt in POOL[::15]}
    assert lint(as_frame("rules", composition)).empty


def test_the_summary_counts_entries_and_sets_and_names_what_was_not_found():
    contrastive = as_frame(
        "test", {PROMPT: [*CLEAN, PROMPT, PROMPT, "two lions"], "a realistic photo of a cup": ["a cup"]}
    )
    summary = lint_summary(contrastive, lint(contrastive)).set_index("fault")
    assert tuple(summary.index) == FAULTS
    assert summary["entries"].to_dict() == {
        "prompt itself": 2,
        "paraphrase": 1,
        "duplicate": 1,
        "duplicate in other words": 0,
        "nothing in common": 1,
    }
    assert summary.loc["prompt itself", ["all_entries", "prompts", "all_prompts"]].tolist() == [7, 1, 2]


def test_a_string_where_a_list_belongs_is_refused():
    with pytest.raises(DataError, match=r"test: .*'a cup' is a single string; give a list"):
        as_frame("test", {"a cup": "two cups"})


@pytest.mark.skipif(
    not os.environ.get("TEXTNORM_TIA2_DIR"),
    reason="reads the released sets: set TEXTNORM_TIA2_DIR to a folder that holds them",
)
def test_the_released_sets_have_the_faults_that_the_study_reports():
    contrastive = collect_contrastive(*map(load_official, ("comprehensive", "counting", "composition")))
    faults = lint(contrastive)
    summary = lint_summary(contrastive, faults)
    found = summary[summary["entries"] > 0].set_index(["set", "fault"])[["entries", "prompts"]]
    assert {key: tuple(values) for key, values in zip(found.index, found.to_numpy().tolist(), strict=True)} == {
        ("comprehensive", "prompt itself"): (1, 1),
        ("comprehensive", "duplicate in other words"): (1, 1),
        ("comprehensive", "nothing in common"): (79, 7),
        ("composition", "duplicate"): (41, 32),
        ("composition", "duplicate in other words"): (1, 1),
        ("composition", "nothing in common"): (4481, 293),
    }
    assert faults.query("fault == 'prompt itself'")["prompt"].item() == "A red car and a white sheep."


BENCHMARK = pd.DataFrame(
    {
        "set": ["counting", "composition"],
        "prompt": ["a realistic photo of three deer", "a realistic photo of a cat and a dog"],
    }
)


def test_a_rule_set_is_the_front_of_the_rules_list():
    sets = rule_sets(BENCHMARK, most=5)
    assert sets.columns.tolist() == ["set", "prompt", "text", "kind"]
    for prompt in BENCHMARK["prompt"]:
        assert sets.query("prompt == @prompt")["text"].tolist() == rule_based(prompt)[:5]
    assert sets.drop_duplicates("prompt")["set"].tolist() == BENCHMARK["set"].tolist()


def test_the_control_has_the_same_sizes_and_other_prompts():
    sets = rule_sets(BENCHMARK, most=6)
    control = random_sets(sets, seed=0)
    assert control.groupby("prompt").size().equals(sets.groupby("prompt").size())
    assert not control.duplicated(["prompt", "text"]).any() and (control["text"] != control["prompt"]).all()
    pd.testing.assert_frame_equal(control, random_sets(sets, seed=0))
    assert not control.equals(random_sets(sets, seed=1))
