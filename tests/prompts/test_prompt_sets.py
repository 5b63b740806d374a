"""Which prompts a profile means, and their contrastive prompts: the mini world's, or the release's."""

import types
from dataclasses import asdict

import pandas as pd
import pytest
from toys import study_of

from textnorm_lib.prompts.rules import rule_sets
from textnorm_lib.prompts.sets import DEVELOPMENT, SEALED, prompts_of_sets, side_of
from textnorm_lib.study.config import PromptsPerSet, load_profile
from textnorm_lib.study.errors import DataError
from textnorm_lib.tia2 import released
from textnorm_lib.tia2.official import SETS, load_official, release_available
from textnorm_lib.tia2.released import first_contrasts

FEW = PromptsPerSet(comprehensive=2, counting=2, composition=2)


def _release(**prompts):
    """Sets with these prompts, the others with one."""
    votes = {name: pd.DataFrame({"prompt": prompts.get(name, ["a cat"])}) for name in SETS}
    return [types.SimpleNamespace(name=name, votes=votes[name]) for name in SETS]


def test_a_profile_says_whose_prompts_and_whose_contrasts(tmp_path):
    for name, chosen, contrasts in (
        ("mini", prompts_of_sets, rule_sets),
        ("paper", released.released_prompts, first_contrasts),
    ):
        study = study_of(tmp_path, name)
        for prompts, contrastive, per_set, only in (
            (study.prompts, study.contrastive, study.profile.tia2.prompts_per_set, None),
            (study.pool.prompts, study.pool.contrastive, study.profile.best_of_n.prompts_per_set, SEALED),
            (study.start.prompts, study.start.contrastive, FEW, DEVELOPMENT),
        ):
            assert prompts.function is chosen and prompts.config == {"only": only, **asdict(per_set)}
            assert contrastive.function is contrasts
            assert contrastive.config == {"most": study.profile.contrastive_prompts}
            assert prompts in (*contrastive.inputs, *contrastive.inputs[0].inputs)


def test_released_prompts_are_taken_from_both_sides_in_turn_and_few_are_among_more():
    cats, cups = [f"a {kind} cat" for kind in "abcd"], [f"a {kind} cup" for kind in "abcd"]
    both = [*cats, *cups]
    sides = {side: [prompt for prompt in both if side_of(prompt) == side] for side in (DEVELOPMENT, SEALED)}
    one = {"counting": 1, "composition": 1}
    for number in range(1, 2 * min(map(len, sides.values())) + 1):
        found = released.released_prompts(*_release(comprehensive=both), only=None, comprehensive=number, **one)
        counts = found[found["set"] == "comprehensive"]["prompt"].map(side_of).value_counts()
        assert counts.get(DEVELOPMENT, 0) == (number + 1) // 2 and counts.get(SEALED, 0) == number // 2
    options = {"only": None, **one}
    everything = released.released_prompts(*_release(comprehensive=both), comprehensive=len(both), **options)
    assert everything["prompt"].tolist()[: len(both)] == both  # in the release's order


def test_only_one_side_is_chosen_from_and_too_many_are_refused():
    both = [f"a {kind} cat" for kind in "abcdefgh"]
    sealed = [prompt for prompt in both if side_of(prompt) == SEALED]
    sets = _release(comprehensive=both, counting=sealed, composition=sealed)
    many = dict.fromkeys(SETS, len(sealed))
    assert set(released.released_prompts(*sets, only=SEALED, **many)["prompt"]) == set(sealed)
    with pytest.raises(DataError, match=f"of the released comprehensive set; it has {len(sealed)} to choose from"):
        released.released_prompts(*sets, only=SEALED, **many | {"comprehensive": len(sealed) + 1})


def test_contrasts_are_cut_prompt_by_prompt():
    contrasts = pd.DataFrame({"prompt": ["a", "b", "a", "a"], "text": ["1", "2", "3", "4"]})
    assert first_contrasts(contrasts, most=2)["text"].tolist() == ["1", "2", "3"]


@pytest.mark.skipif(not release_available()[0], reason="needs the released data")
def test_the_paper_profile_has_all_released_prompts_and_a_sealed_pool_of_thirty_each(tmp_path):
    study = study_of(tmp_path, "paper")
    prompts, pool, contrasts = study.prompts.value, study.pool.prompts.value, study.contrastive.value
    assert prompts.groupby("set", sort=False).size().to_dict() == {
        "comprehensive": 100,
        "counting": 150,
        "composition": 300,
    }
    assert pool.groupby("set").size().to_dict() == dict.fromkeys(SETS, 30)
    assert {side_of(prompt) for prompt in pool["prompt"]} == {SEALED}
    assert set(contrasts["prompt"]) == set(prompts["prompt"])
    assert contrasts.groupby("prompt").size().max() <= study.profile.contrastive_prompts


@pytest.mark.skipif(not release_available()[0], reason="needs the released data")
def test_the_paper_profiles_textnorm_is_the_middle_of_the_released_settings():
    tuning = pd.concat([load_official(name).tuning for name in SETS])
    setting = load_profile("paper").textnorm
    assert setting.rewards == ("imagereward", "pickscore")
    assert setting.temperatures == (1 / tuning["scale"].median(),) * 2
    assert setting.penalty == tuning["penalty"].median()
