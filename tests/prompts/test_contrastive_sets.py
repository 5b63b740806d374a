"""Contrastive prompts for a whole benchmark: rows, order, sizes, and the control."""

import pandas as pd

from textnorm_lib.prompts import rule_based
from textnorm_lib.prompts.random import random_sets
from textnorm_lib.prompts.rules import rule_sets

PROMPTS = pd.DataFrame(
    {
        "set": ["counting", "composition"],
        "prompt": ["a realistic photo of three deer", "a realistic photo of a cat and a dog"],
    }
)


def test_a_rule_set_is_the_front_of_the_rules_list():
    sets = rule_sets(PROMPTS, most=5)
    assert sets.columns.tolist() == ["set", "prompt", "text", "kind"]
    for prompt in PROMPTS["prompt"]:
        assert sets.query("prompt == @prompt")["text"].tolist() == rule_based(prompt)[:5]
    assert sets.drop_duplicates("prompt")["set"].tolist() == PROMPTS["set"].tolist()


def test_the_control_has_the_same_sizes_and_other_prompts():
    sets = rule_sets(PROMPTS, most=6)
    control = random_sets(sets, seed=0)
    assert control.groupby("prompt").size().equals(sets.groupby("prompt").size())
    assert not control.duplicated(["prompt", "text"]).any() and (control["text"] != control["prompt"]).all()
    pd.testing.assert_frame_equal(control, random_sets(sets, seed=0))
    assert not control.equals(random_sets(sets, seed=1))
