"""The pool that rewards choose from: sealed prompts, a seed of its own, judges, and rewards that cannot choose."""

import numpy as np
import pandas as pd
import pytest
from toys import rests_on, study_of

from textnorm_lib.confidence.tuning import apply_recipes, given_recipe
from textnorm_lib.mini.annotators import rate_quality
from textnorm_lib.optimise import pool
from textnorm_lib.prompts.sets import SEALED, prompts_of_sets, side_of
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.weights import Weights
from textnorm_lib.tia2.build import label_images, make_images

RECIPE = given_recipe(rewards=["clip", "blip2"], temperatures=[1.0, 1.0])


@pytest.fixture
def images():
    """Two prompts, four images each, with the scores of all who choose."""
    keys = [("counting", prompt, f"{prompt}_{index}.png") for prompt in ("a dog", "a cat") for index in range(4)]
    scores = {name: np.arange(8.0) for name in (*pool.REWARDS, "textnorm:clip+blip2")}
    return pd.DataFrame(keys, columns=["set", "prompt", "image"]).assign(**scores)


@pytest.fixture
def quality(images):
    return images[["image"]][::-1].assign(**{name: np.linspace(0, 1, 8) for name in pool.QUALITY})


def test_prompts_are_sealed_and_few_are_among_more():
    few = prompts_of_sets(only=SEALED, comprehensive=2, counting=2, composition=2)
    more = prompts_of_sets(only=SEALED, comprehensive=30, counting=30, composition=30)
    assert few.groupby("set", sort=False).size().to_dict() == {"comprehensive": 2, "counting": 2, "composition": 2}
    assert {side_of(prompt) for prompt in more["prompt"]} == {SEALED}
    assert set(few["prompt"]) < set(more["prompt"])


def test_the_pool_has_its_profiles_numbers_and_another_seed_than_the_benchmark(tmp_path):
    study = study_of(tmp_path, "mini")
    made, judged = study.pool.images, study.pool.judged
    assert study.pool.prompts.function is prompts_of_sets and study.pool.prompts.config["only"] == SEALED
    assert made.function is make_images and judged.function is pool.join_judges
    assert made.inputs == (study.pool.prompts, Weights("bundled:generator"))
    assert made.config["images_per_prompt"] == 128 and made.config["seed"] != study.profile.seed
    rewarded, labels, quality = judged.inputs
    assert (labels.function, quality.function) == (label_images, rate_quality) and judged.config == {}
    names = [f"bundled:annotators/quality_{n}.safetensors" for n in (1, 2, 3)]
    assert quality.inputs[0] == made and [one.name for one in quality.inputs[1:]] == names
    assert labels.inputs[0].inputs[0] == made
    assert rewarded == study.pool.rewarded and rewarded.function is pool.name_textnorm and rewarded.config == {}
    values, recipe = rewarded.inputs
    assert values.function is apply_recipes and recipe == study.recipe
    assert values.inputs[1:] == (study.pool.contrastive, recipe, *study.pool.scores.values())


def test_without_annotators_there_are_rewards_and_nothing_is_judged(tmp_path):
    recipe = {"rewards": ["clip"], "temperatures": [1.0], "penalty": 0.0}
    found = study_of(tmp_path, "mini", {"annotators": [], "textnorm": recipe}).pool
    assert found.rewarded.function is pool.name_textnorm and found.judged is None
    names = {one.function.__name__ for one in rests_on(found.rewarded)}
    assert "given_recipe" in names
    assert not {"collect_votes", "label_images", "rate_quality", "grid_metrics"} & names


def test_votes_the_judges_numbers_and_textnorm_stand_in_the_row_of_their_image(images, quality):
    labels = images[["set", "prompt", "image"]][::-1].assign(label=[0, 1] * 4, rating=np.linspace(0, 1, 8))
    rewarded = pool.name_textnorm(images.drop(columns=["label", "rating"], errors="ignore"), RECIPE)
    judged = pool.join_judges(rewarded, labels, quality)
    assert judged["image"].tolist() == images["image"].tolist()
    assert judged["textnorm"].tolist() == images["textnorm:clip+blip2"].tolist()
    np.testing.assert_allclose(judged["quality_2"], np.linspace(1, 0, 8))
    np.testing.assert_allclose(judged["rating"], np.linspace(1, 0, 8))
    with pytest.raises(DataError, match=r"a cat_1\.png has no quality_1; let the judges see every image"):
        pool.join_judges(rewarded, labels, quality.drop(index=quality.index[2]))
    with pytest.raises(DataError, match=r"has no label; let the judges see every image"):
        pool.join_judges(rewarded, labels.iloc[1:], quality)


@pytest.mark.parametrize(
    ("rows", "value", "said"),
    [
        ([4, 5, 6, 7], 3.5, "blip2 gives all 4 images of 'a cat' 3.5: it cannot choose"),
        ([5], np.nan, "blip2 of 'a cat_1.png' is nan: score every image with a finite number"),
        ([5], np.inf, "blip2 of 'a cat_1.png' is inf"),
    ],
)
def test_a_reward_that_cannot_choose_is_refused_in_one_line(images, rows, value, said):
    images.loc[rows, "blip2"] = value
    with pytest.raises(DataError) as caught:
        pool.name_textnorm(images, RECIPE)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)
