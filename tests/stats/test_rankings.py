"""How rewards order the images of one prompt: by rating, beside each other, and where people disagree most."""

import numpy as np
import pandas as pd
import pytest

from textnorm_lib.figures.mini_benchmark import HIGH, LOW, pick_disagreements
from textnorm_lib.stats.metrics import prompt_metrics
from textnorm_lib.stats.rankings import rank_correlations, scores_by_rating
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.store import Store, step
from textnorm_lib.tia2.labels import consolidate

BOOTSTRAP = {"resamples": 200, "confidence": 0.95, "seed": 0}
VOTES = ["vote_1", "vote_2", "vote_3"]


def _prompt(prompt, votes, *, set_name="counting", **scores):
    """The images of one prompt: a string of votes such as "GBS" an image."""
    values = [[{"G": 1, "B": 0, "S": -1}[vote] for vote in image] for image in votes]
    frame = pd.DataFrame(values, columns=VOTES)
    frame["label"], frame["rating"] = consolidate(frame.to_numpy())
    names = [f"{prompt} {index}.png" for index in range(len(votes))]
    return frame.assign(set=set_name, prompt=prompt, image=names, **scores)


def _random(n_prompts=12, per_prompt=6, *, seed=0):
    rng = np.random.default_rng(seed)
    prompts = []
    for index in range(n_prompts):
        votes = ["".join(rng.choice(list("GB"), 3)) for _ in range(per_prompt)]
        scores = {name: rng.normal(size=per_prompt) for name in ("clip", "blip2")}
        prompts.append(_prompt(f"p{index}", votes, **scores))
    return pd.concat(prompts, ignore_index=True)


@pytest.fixture
def made(tmp_path):
    """A folder in which every image is a file that holds its own name."""

    def write(images):
        for name in images["image"]:
            (tmp_path / name).write_text(name)
        return tmp_path

    return write


def test_correlation_by_hand_and_each_pair_once():
    images = _prompt("p", ["BBB", "BBG", "GGB", "GGG"], clip=[1, 2, 3, 4], blip2=[9.0, 7.0, 5.0, 3.0])
    found = rank_correlations(images, rewards=["clip", "blip2"])
    assert list(found) == ["set", "prompt", "reward", "metric", "value"]
    values = found.set_index(["reward", "metric"])["value"].to_dict()
    assert values == pytest.approx({("clip", "blip2"): -1, ("clip", "rating"): 1, ("blip2", "rating"): -1})


def test_the_correlation_with_the_rating_is_the_metric_spearman():
    images = _random()
    ours = rank_correlations(images, rewards=["clip", "blip2"]).query("metric == 'rating'")
    theirs = prompt_metrics(images, ["clip", "blip2"]).query("metric == 'spearman'")
    merged = ours.merge(theirs, on=["set", "prompt", "reward"])
    assert len(merged) == 24 and np.allclose(merged["value_x"], merged["value_y"], equal_nan=True)


def test_no_pair_has_a_value_where_the_prompt_has_one_label_and_a_constant_reward_never_has():
    images = pd.concat(
        [
            _prompt("one label", ["BBB", "BBG", "BBB"], clip=[1, 2, 3], blip2=[1, 2, 3]),
            _prompt("both", ["BBB", "GGG", "BBB"], clip=[1, 2, 3], blip2=[0.1, 0.1, 0.1]),
        ]
    )
    found = rank_correlations(images, rewards=["clip", "blip2"])
    found = found.set_index(["prompt", "reward", "metric"])["value"].sort_index()
    assert found["one label"].isna().all() and found["both", "blip2"].isna().all()
    assert np.isnan(found["both", "clip", "blip2"]) and found["both", "clip", "rating"] == 0


def test_scores_by_rating_are_standardised_within_the_prompt():
    low = _prompt("low", ["BBB", "GGG"], clip=[-1.0, 1.0])
    high = _prompt("high", ["BBB", "GGG", "GGG", "BBB"], clip=[100.0, 102.0, 100.0, 102.0])
    found = scores_by_rating(pd.concat([low, high]), rewards=["clip"], **BOOTSTRAP).set_index("rating")
    assert found["mean"].to_dict() == {0: -0.5, 1: 0.5}  # the prompts' means: -1 and 0, 1 and 0
    assert found["n_prompts"].tolist() == [2, 2] and found["n_images"].tolist() == [3, 3]
    assert found.loc[0, ["low", "high"]].tolist() == [-1, 0]
    assert found.loc[1, ["p25", "p75"]].tolist() == [0, 1]  # of -1, 1 and 1


def test_a_prompt_whose_scores_are_all_equal_or_that_has_one_label_has_no_place():
    equal = _prompt("equal", ["BBB", "GGG", "BBB"], clip=[0.1] * 3)
    one_label = _prompt("one label", ["BBB", "BBG"], clip=[1.0, 2.0])
    other = _prompt("other", ["BBB", "GGG"], clip=[1.0, 2.0])
    found = scores_by_rating(pd.concat([equal, one_label, other]), rewards=["clip"], **BOOTSTRAP)
    assert found["n_images"].tolist() == [1, 1] and found["mean"].tolist() == [-1, 1]
    with pytest.raises(DataError, match="both labels"):
        scores_by_rating(one_label, rewards=["clip"], **BOOTSTRAP)


def test_a_bad_image_on_top_and_a_good_one_at_the_bottom_are_found(made):
    votes = ["BBB", "GGG", "GGS", "GGG", "BBB", "GGG"]
    images = _prompt("a", votes, clip=[6, 5, 4, 3, 2, 1], blip2=[1, 2, 3, 4, 5, 6])
    images = pd.concat([images, _prompt("b", votes, clip=[5, 6, 4, 3, 2, 1], blip2=[1, 2, 3, 4, 5, 6])])
    found = pick_disagreements(made(images), images, rewards=["clip", "blip2"], number=1, within=1)
    high, low = (found.query("reward == 'clip' and kind == @kind").iloc[0] for kind in (HIGH, LOW))
    assert (high["image"], high["rank"], high["n_images"], high["blip2"]) == ("a 0.png", 1, 6, 6)
    assert (low["image"], low["rank"]) == ("b 5.png", 6)  # "a 5.png" is as bad, but a prompt is shown once a reward
    assert high[VOTES].tolist() == [0, 0, 0] and low[VOTES].tolist() == [1, 1, 1]
    assert high["png"] == b"a 0.png"
    assert set(found["reward"]) == {"clip"}  # BLIP-2 has good images first and bad ones last


def test_no_image_is_wrong_where_people_are_not_unanimous_or_all_images_have_one_label(made):
    images = pd.concat(
        [
            _prompt("all bad", ["BBB", "BBB"], clip=[1, 2]),
            _prompt("all good", ["GGG", "GGG"], clip=[1, 2]),
            _prompt("not unanimous", ["BBG", "BBS", "GGS", "GGB"], clip=[4, 3, 2, 1]),
            _prompt("right", ["BBB", "GGG"], clip=[1, 2]),
            _prompt("tied", ["BBB", "GGG", "BBB", "GGG"], clip=[1, 1, 1, 1]),
        ]
    )
    found = pick_disagreements(made(images), images, rewards=["clip"], number=3, within=2)
    assert found.empty and "png" in found


def test_a_tie_does_not_count_against_a_reward(made):
    images = _prompt("p", ["BBB", "GGG", "GGG", "GGG", "BBB", "GGG"], clip=[2, 2, 2, 1, 0, 0])
    for within, expected in ((1, []), (2, []), (3, [["p 0.png", 3]])):  # tied for the first three places
        found = pick_disagreements(made(images), images, rewards=["clip"], number=1, within=within)
        assert found.loc[found["kind"] == HIGH, ["image", "rank"]].to_numpy().tolist() == expected
    low = pick_disagreements(made(images), images, rewards=["clip"], number=1, within=1).query("kind == @LOW")
    assert low.empty  # the last good image shares the last place, and so holds the fifth


def test_the_most_wrong_come_first_and_the_sets_take_turns(made):
    def pair(prompt, good, set_name):
        """A bad image above so many good ones."""
        scores = np.arange(good + 1)[::-1]
        return _prompt(prompt, ["BBB", *["GGG"] * good], set_name=set_name, clip=scores)

    images = [pair(f"a{good}", good, "comprehensive") for good in (2, 5, 4)] + [pair("c1", 1, "composition")]
    images = pd.concat(images)
    found = pick_disagreements(made(images), images, rewards=["clip"], number=3, within=1).query("kind == @HIGH")
    assert found["prompt"].tolist() == ["a5", "c1", "a4"]
    everything = pick_disagreements(made(images), images, rewards=["clip"], number=9, within=9)
    assert len(everything) == everything["prompt"].nunique() == 4


def test_a_score_that_is_missing_or_infinite_is_named(made):
    images = _random(2)
    folder = made(images)
    steps = (
        lambda frame: rank_correlations(frame, rewards=["clip"]),
        lambda frame: scores_by_rating(frame, rewards=["clip"], **BOOTSTRAP),
        lambda frame: pick_disagreements(folder, frame, rewards=["clip"], number=1, within=1),
    )
    for value in (np.nan, np.inf):
        broken = images.assign(clip=images["clip"].where(images["image"] != "p1 2.png", value))
        for run in steps:
            with pytest.raises(DataError, match=r"clip of 'p1 2\.png'"):
                run(broken)


def test_what_was_picked_can_be_stored_even_if_it_is_nothing(made, tmp_path):
    images = _prompt("p", ["BBB", "GGG"], clip=[1, 2])
    folder = made(images)

    @step(1)
    def pick():
        return pick_disagreements(folder, images, rewards=["clip"], number=1, within=1)

    stored = Store(tmp_path / "steps").compute(pick).value
    assert stored.empty and list(stored) == list(pick())
