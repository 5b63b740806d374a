"""What rewards choose from a pool and how it is judged, on pools whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from textnorm_lib.figures.best_of_n import pick_grids, pick_loved
from textnorm_lib.judging import selection
from textnorm_lib.judging.verdicts import majority
from textnorm_lib.optimise.best_of_n import gold_curves
from textnorm_lib.study.errors import DataError

SETTINGS = {"resamples": 100, "confidence": 0.95, "seed": 0}
PROMPTS = {"a dog": "comprehensive", "two dogs": "counting", "two cats": "counting", "a cat and a dog": "composition"}
POOL = 16


@pytest.fixture(scope="module")
def images():
    """Good images are random; textnorm knows the votes, clip knows nothing, blip2 prefers bad images."""
    rng = np.random.default_rng(0)
    rows = [(name, prompt, f"{prompt}_{index}.png") for prompt, name in PROMPTS.items() for index in range(POOL)]
    frame = pd.DataFrame(rows, columns=["set", "prompt", "image"])
    good = np.tile(np.arange(POOL) % 4 == 0, len(PROMPTS)).astype(int)
    frame[["vote_1", "vote_2", "vote_3"]] = np.stack([good] * 3, axis=1)
    noise = rng.normal(size=(3, len(frame))) / 100
    frame["label"], frame["rating"] = good, good.astype(float)
    frame[["quality_1", "quality_2", "quality_3"]] = rng.random((len(frame), 1)) * np.ones(3)
    return frame.assign(textnorm=good + noise[0], clip=noise[1], blip2=-good + noise[2])


@pytest.fixture(scope="module")
def chosen(images):
    return selection.choose_sets(images, choosers=["textnorm", "clip", "blip2", "rating"], sizes=[4, 8])


@pytest.fixture
def folder(images, tmp_path):
    for name in images["image"]:
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_the_two_sets_of_a_chooser_are_the_best_of_disjoint_batches(images, chosen):
    number = images.set_index("image").groupby("prompt").cumcount()
    for (n, _model, _prompt, half), rows in chosen.groupby(["n", "model", "prompt", "number"]):
        places = number[rows["image"]]
        assert rows["place"].tolist() == [1, 2, 3, 4] and places.is_unique
        assert places.between((half - 1) * 8, (half - 1) * 8 + n - 1).all()
    best = chosen.query("n == 8 and model == 'textnorm' and place <= 2").merge(images, on=["prompt", "image"])
    assert (best["label"] == 1).all()
    assert len(chosen) == 2 * 4 * len(PROMPTS) * 2 * 4


def test_an_n_of_which_the_pool_has_no_two_batches_is_refused(images):
    with pytest.raises(DataError, match="n is 9, and 'a dog' has a pool of 16: two disjoint batches need 18 images"):
        selection.choose_sets(images, choosers=["clip"], sizes=[4, 9])
    with pytest.raises(DataError, match="clip gives all 16 images of 'a dog' 0: it cannot choose"):
        selection.choose_sets(images.assign(clip=0.0), choosers=["clip"], sizes=[4])


def test_the_annotators_may_find_all_images_of_a_prompt_good(images):
    chosen = selection.choose_sets(images.assign(rating=1.0), choosers=["rating"], sizes=[4])
    assert chosen.query("prompt == 'a dog'")["image"].tolist() == [f"a dog_{i}.png" for i in (0, 1, 2, 3, 8, 9, 10, 11)]


@pytest.fixture(scope="module")
def votes(images, chosen):
    return selection.judge_sets(
        chosen, images, model="textnorm", opponents=["clip", "blip2", "rating"], quality_tie=0.25, seed=0
    )


def test_three_judges_answer_both_questions_on_every_comparison_of_every_n(votes):
    assert set(votes["n"]) == {4, 8} and set(votes["judge"]) == {"judge_1", "judge_2", "judge_3"}
    sizes = votes.groupby(["n", "opponent", "comparison", "question"]).size()
    assert (sizes == 3).all() and len(sizes) == 2 * 3 * 2 * len(PROMPTS) * 2


def test_who_knows_the_votes_beats_who_prefers_bad_images_and_ties_with_the_annotators(votes):
    outcomes = majority(votes.query("n == 8")).query("question == 'alignment'").groupby("opponent")["outcome"]
    assert set(outcomes.get_group("blip2")) == {"win"}
    assert set(outcomes.get_group("rating")) == {"tie"}


def test_judging_is_symmetric_in_who_is_called_the_model(images, chosen, votes):
    mirrored = selection.judge_sets(chosen, images, model="clip", opponents=["textnorm"], quality_tie=0.25, seed=0)
    ours = selection.outcomes_by_size(votes.query("opponent == 'clip'"), confidence=0.95)
    theirs = selection.outcomes_by_size(mirrored, confidence=0.95)
    theirs["outcome"] = theirs["outcome"].replace({"win": "loss", "loss": "win"})
    sides = [
        table.set_index(["n", "set", "question", "outcome"])[["count", "share", "low", "high"]].sort_index()
        for table in (ours, theirs)
    ]
    pd.testing.assert_frame_equal(*sides)


def test_a_skip_counts_as_half_a_good_image(images, chosen):
    sure = selection.judge_sets(chosen, images, model="textnorm", opponents=["rating"], quality_tie=0.25, seed=0)
    assert set(sure.query("question == 'alignment'")["answer"]) == {"tie"}
    one = chosen.query("model == 'textnorm' and n == 8")["image"].iloc[3]  # a bad one
    assert one not in set(chosen.query("model == 'rating'")["image"])
    skipped = images.assign(vote_1=images["vote_1"].where(images["image"] != one, -1))
    changed = selection.judge_sets(chosen, skipped, model="textnorm", opponents=["rating"], quality_tie=0.25, seed=0)
    answers = changed.query("question == 'alignment' and answer != 'tie'")
    assert set(answers["judge"]) == {"judge_1"} and set(answers["prompt"]) == {"a dog"}


def test_each_quality_judge_counts_in_its_own_unit_and_one_without_is_refused(images, chosen, votes):
    scaled = images.assign(quality_2=images["quality_2"] * 7 - 3)
    options = {"model": "textnorm", "opponents": ["clip"], "quality_tie": 0.25, "seed": 0}
    ours = votes.query("opponent == 'clip'")["answer"].tolist()
    assert selection.judge_sets(chosen, scaled, **options)["answer"].tolist() == ours
    assert {"left", "tie", "right"} == set(votes.query("question == 'quality'")["answer"])
    with pytest.raises(DataError, match="quality_3 tells no images of a prompt apart"):
        selection.judge_sets(chosen, images.assign(quality_3=0.5), **options)


def test_power_is_of_twice_as_many_wins_and_grows_with_decided_prompts(votes):
    tests = selection.sign_tests_by_size(votes).set_index(["n", "set", "opponent", "question"])
    assert np.isnan(tests.loc[(8, "all", "rating", "alignment"), "power"])
    row = tests.loc[(8, "all", "blip2", "alignment")]
    assert (row["prompts_won"], row["n_prompts"]) == (4, 4)
    assert row["power"] == selection.sign_test_power(4, win=2 / 3, loss=1 / 3)


def test_the_proxy_begins_at_nothing_and_grows_in_the_pools_standard_deviations(images):
    curves = selection.proxy_curves(images, rewards=["clip", "blip2"], sizes=[1, 4, 16])
    wide = curves.pivot(index=["prompt", "reward"], columns="n", values="proxy")
    np.testing.assert_allclose(wide[1], 0, atol=1e-12)
    assert ((wide[4] > 0) & (wide[16] > wide[4])).all()
    clip = images.query("prompt == 'two cats'")["clip"]
    assert wide.loc[("two cats", "clip"), 16] == pytest.approx((clip.max() - clip.mean()) / clip.std(ddof=0))


def test_mean_curves_hold_gains_of_gold_and_proxy_at_the_same_distances(images):
    rewards = ["textnorm", "clip", "blip2"]
    gold = gold_curves(images, rewards=rewards, gold="rating", sizes=[1, 2, 4])
    proxy = selection.proxy_curves(images, rewards=rewards, sizes=[1, 2, 4])
    means = selection.mean_curves(gold, proxy, **SETTINGS).set_index(["what", "set", "reward", "n"])
    assert means.loc[("gold", "all", "textnorm", 1), "mean"] == 0
    assert means.loc[("gold", "all", "textnorm", 4), "mean"] > 0.3 > 0 > means.loc[("gold", "all", "blip2", 4), "mean"]
    assert means.loc[("proxy", "all", "blip2", 4), "mean"] > 0.5
    assert means.loc[("gold", "counting", "clip", 4), "distance"] == pytest.approx(np.sqrt(np.log(4) - 3 / 4))
    compared = selection.compare_gold(gold, reference="textnorm", **SETTINGS).query("set == 'all'")
    last = gold.query("n == 4").groupby("reward")["gold"].mean()
    differences = compared.set_index("reward")["difference"]
    assert differences["blip2"] == pytest.approx(last["textnorm"] - last["blip2"])


def test_the_late_gain_is_what_the_last_quadrupling_of_n_does_to_gold(images):
    gold = gold_curves(images, rewards=["textnorm", "blip2"], gold="rating", sizes=[1, 2, 4, 8])
    late = selection.late_gains(gold, **SETTINGS).set_index(["set", "reward"])
    wide = gold.groupby(["reward", "n"])["gold"].mean()
    assert late.loc[("all", "blip2"), "mean"] == pytest.approx(wide["blip2", 8] - wide["blip2", 2])
    assert late.loc[("all", "textnorm"), "mean"] > 0 > late.loc[("all", "blip2"), "high"]
    assert (late["before"] == 2).all() and (late["after"] == 8).all()


def test_grids_show_the_first_set_of_the_prompt_with_the_most_to_choose(images, chosen, folder):
    certain = images["prompt"] == "two dogs"
    images = images.assign(label=images["label"].where(~certain, 1))
    shown = pick_grids(folder, images, chosen)
    assert set(shown["prompt"]) == {"a dog", "two cats", "a cat and a dog"} and set(shown["number"]) == {1}
    assert shown["png"].tolist() == [name.encode() for name in shown["image"]]


def test_loved_images_are_rejected_by_all_and_ranked_high_where_better_were_there(images, folder):
    rewards = ["textnorm", "clip", "blip2"]
    images = images.assign(vote_1=images["vote_1"].where(images["image"] != "a dog_1.png", -1))
    loved = pick_loved(folder, images, rewards=rewards, number=3, within=4)
    assert (loved[["vote_1", "vote_2", "vote_3"]] == 0).all(axis=None) and (loved["rank"] <= 4).all()
    assert not loved.duplicated(["reward", "prompt"]).any()
    assert loved.groupby("reward").size().to_dict() == {"clip": 3, "blip2": 3}  # textnorm's first four are good
    assert set(loved.query("reward == 'blip2'")["set"]) == set(PROMPTS.values())
    pool = images.query("prompt == @loved['prompt'].iloc[0]")
    row = pool[pool["image"] == loved["image"].iloc[0]].iloc[0]
    assert loved["clip"].iloc[0] == pytest.approx((row["clip"] - pool["clip"].mean()) / pool["clip"].std(ddof=0))
    hopeless = images.assign(label=0)
    assert pick_loved(folder, hopeless, rewards=rewards, number=3, within=4).empty
