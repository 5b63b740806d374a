"""Settings of TextNorm: arranged scores, the grid, held-out choices and what leaks are worth; the ablations' steps."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from textnorm_lib.confidence.ablations import (
    alternative_metrics,
    compare_pairs,
    gains_by_group,
    mean_values,
    paired_gains,
    risk_coverage,
    softmax_shares,
)
from textnorm_lib.confidence.textnorm import TextNormReward, textnorm, uncertainty_ensemble
from textnorm_lib.confidence.tuning import (
    BY_PROMPT,
    CHOICES,
    CLASSES_HELD_OUT,
    HELD_OUT,
    HINDSIGHT,
    PENALTIES,
    TEMPERATURES,
    apply_recipes,
    at_settings,
    best_settings,
    choose_settings,
    every_ensemble,
    given_recipe,
    grid_metrics,
    raw_metrics,
    reward_units,
    score_table,
    tuned_recipes,
    units,
)
from textnorm_lib.prompts.sets import DEVELOPMENT, MIXED, SEALED, classes_of, images_of_side, side_of
from textnorm_lib.stats.metrics import alignment_metrics, prompt_metrics
from textnorm_lib.study.errors import ConfigError, DataError

NAMES = ("clip", "pickscore")
OBJECTS = (
    "airplane",
    "bird",
    "deer",
    "frog",
    "ship",
    "apple",
    "cake",
    "vase",
    "chair",
    "laptop",
    "toaster",
    "suitcase",
)
PROMPTS = [f"a realistic photo of {'an' if name[0] in 'aeiou' else 'a'} {name}" for name in OBJECTS]
BOOTSTRAP = {"resamples": 200, "confidence": 0.9, "seed": 0}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Images of twelve prompts; two rewards of different scale; a prompt has three or four contrasts of two kinds."""
    rng = np.random.default_rng(0)
    images, texts, scores = [], [], {name: [] for name in NAMES}
    for number, prompt in enumerate(PROMPTS):
        own = [(prompt, f"two of {number}", "count"), (prompt, f"not {number}", "swap"), (prompt, "nothing", "swap")]
        texts += own + ([(prompt, f"three of {number}", "count")] if number % 2 else [])
        for index in range(8):
            good, level = index % 2, rng.normal()
            images.append(("counting", prompt, f"{number}_{index}", good, float(good)))
            for name, scale in zip(NAMES, (1.0, 30.0), strict=True):
                rows = [(prompt, f"{number}_{index}", prompt, scale * (level + good + rng.normal()))]
                for _, text, _ in texts[-4:] if number % 2 else texts[-3:]:
                    rows.append((prompt, f"{number}_{index}", text, scale * (level + rng.normal())))
                scores[name] += rows
    folders = []
    for name in NAMES:
        folders.append(tmp_path_factory.mktemp(name))
        frame = pd.DataFrame(scores[name], columns=["prompt", "image", "text", "score"])
        frame.astype({"score": np.float32}).sample(frac=1, random_state=0).to_parquet(folders[-1] / "00000.parquet")
    images = pd.DataFrame(images, columns=["set", "prompt", "image", "label", "rating"])
    return images, pd.DataFrame(texts, columns=["prompt", "text", "kind"]), folders


@pytest.fixture(scope="module")
def grid(world):
    images, contrastive, folders = world
    return grid_metrics(images, contrastive, *folders, names=NAMES, ensembles=every_ensemble(NAMES))


def _scores_of(folder: Path) -> dict:
    frame = pd.read_parquet(folder / "00000.parquet")
    return frame.set_index(["prompt", "image", "text"])["score"].to_dict()


def test_scores_are_arranged_by_image_and_contrast(world):
    images, contrastive, folders = world
    again = pd.concat([contrastive, contrastive, pd.DataFrame({"prompt": PROMPTS, "text": PROMPTS, "kind": "itself"})])
    table = score_table(images, again, NAMES, folders)
    assert table.mask.shape == (96, 5) and table.mask.sum(axis=1).tolist() == ([4] * 8 + [5] * 8) * 6
    assert set(table.kinds[table.mask]) == {"", "count", "swap"} and (table.kinds[:, 0] == "").all()
    for name, folder in zip(NAMES, folders, strict=True):
        known = _scores_of(folder)
        for row in (0, 15, 95):
            prompt, image = images.loc[row, "prompt"], images.loc[row, "image"]
            wanted = [prompt, *contrastive.query("prompt == @prompt")["text"]]
            found = table.scores[name][row][table.mask[row]]
            np.testing.assert_array_equal(found, [known[prompt, image, text] for text in wanted])


def test_scores_of_two_scorings_make_one_table_and_a_lacking_one_is_named(world, tmp_path):
    images, contrastive, (folder, _) = world
    more = tmp_path / "more"
    more.mkdir()
    frame = images[["prompt", "image"]].assign(text="another", score=np.float32(1.0))
    frame.to_parquet(more / "00000.parquet")
    both = pd.concat([contrastive, pd.DataFrame({"prompt": PROMPTS, "text": "another", "kind": "more"})])
    table = score_table(images, both, ["clip", "clip"], [folder, more])
    assert (table.scores["clip"][table.kinds == "more"] == 1).all()
    with pytest.raises(DataError, match="clip: no score of '0_0' with 'another'"):
        score_table(images, both, ["clip"], [folder])


def test_a_unit_is_the_spread_of_a_prompts_own_scores(world):
    images, contrastive, folders = world
    table = score_table(images, contrastive, NAMES, folders)
    known = _scores_of(folders[1])
    variances = [
        np.var([known[prompt, image, prompt] for image in group["image"]]) for prompt, group in images.groupby("prompt")
    ]
    assert units(table)["pickscore"] == pytest.approx(np.sqrt(np.mean(variances)), rel=1e-6)
    assert 20 < units(table)["pickscore"] / units(table)["clip"] < 45
    table.scores["clip"][:] = 1.0
    with pytest.raises(DataError, match="clip gives all images of a prompt the same score"):
        units(table)


def test_the_grid_holds_equations_1_to_3_and_the_papers_criterion(world, grid):
    images, contrastive, folders = world
    assert len(grid) == 12 * (2 * len(TEMPERATURES) + len(TEMPERATURES) * len(PENALTIES))
    table = score_table(images, contrastive, NAMES, folders)
    unit, rows = units(table), images.index[images["prompt"] == PROMPTS[3]]
    values = []
    for name in NAMES:
        matrix = table.scores[name][rows].astype(np.float64)
        values.append([textnorm(row[~np.isnan(row)], 0.5 * unit[name]) for row in matrix])
    expected = uncertainty_ensemble(np.array(values), 2.0)
    metrics = alignment_metrics(expected, images.loc[rows, "label"], images.loc[rows, "rating"])
    found = grid.query(
        "rewards == 'clip+pickscore' and temperature == .5 and penalty == 2 and prompt == @PROMPTS[3]"
    ).iloc[0]
    assert found["auroc"] == pytest.approx(metrics["auroc"])
    assert found["ap"] == pytest.approx(np.mean([metrics["ap5"], metrics["ap10"], metrics["ap25"]]))


def test_most_and_kinds_choose_contrasts(world):
    images, contrastive, folders = world
    some = {"names": NAMES, "ensembles": [("clip",)]}
    for options, kept in [
        ({"most": 1}, contrastive.groupby("prompt").head(1)),
        ({"kinds": ["swap"]}, contrastive[contrastive["kind"] == "swap"]),
    ]:
        found = grid_metrics(images, contrastive, *folders, **some, **options)
        pd.testing.assert_frame_equal(found, grid_metrics(images, kept, *folders, **some))


def test_a_prompt_with_one_label_is_left_out_and_none_left_is_refused(world):
    images, contrastive, folders = world
    options = {"names": NAMES, "ensembles": [("clip",)]}
    one = images.assign(label=images["label"].where(images["prompt"] != PROMPTS[0], 1))
    assert PROMPTS[0] not in set(grid_metrics(one, contrastive, *folders, **options)["prompt"])
    with pytest.raises(DataError, match="no prompt has good and bad images"):
        grid_metrics(images.assign(label=1), contrastive, *folders, **options)


def test_raw_metrics_are_those_of_the_rewards_themselves(world):
    images, _, folders = world
    found = raw_metrics(images, *folders, names=NAMES, ensembles=[("pickscore",)]).set_index("prompt")["auroc"]
    known = _scores_of(folders[1])
    own = [known[row.prompt, row.image, row.prompt] for row in images.itertuples()]
    expected = prompt_metrics(images.assign(pickscore=own), ["pickscore"]).query("metric == 'auroc'")
    np.testing.assert_allclose(found[expected["prompt"]], expected["value"])


def _grid_of(values: np.ndarray, prompts: list[str]) -> pd.DataFrame:
    """Settings by temperature, one column each: values (prompts, settings) are both metrics."""
    rows = [
        ("clip", float(setting), 0.0, "counting", prompt, value, value)
        for prompt, row in zip(prompts, values, strict=True)
        for setting, value in enumerate(row)
    ]
    return pd.DataFrame(rows, columns=["rewards", "temperature", "penalty", "set", "prompt", "ap", "auroc"])


def test_a_held_out_prompt_has_no_say_in_its_own_setting():
    """Each prompt is by far the best under a setting of its own: only who peeks gets it."""
    values = np.full((12, 13), 0.5)
    values[np.arange(12), np.arange(12)] = 1.0
    values[:, 12] = 0.6
    chosen = choose_settings(_grid_of(values, PROMPTS), seed=0).groupby("choice", sort=False)["ap"].mean()
    assert chosen.index.tolist() == list(CHOICES)
    assert chosen[HELD_OUT] == chosen[CLASSES_HELD_OUT] == chosen[HINDSIGHT] == pytest.approx(0.6)
    assert chosen[BY_PROMPT] == 1.0


def test_classes_held_out_leaves_out_every_prompt_that_shares_a_class():
    """Prompts of deer do best under setting 0, all others under 1: a deer prompt may learn from those others only."""
    prompts = [f"a realistic photo of {count} deer" for count in ("a", "two", "three", "four", "five", "six")]
    prompts += PROMPTS[:2] + [p.replace("photo of a", "photo of two") + "s" for p in PROMPTS[1:2]] + [PROMPTS[5]]
    values = np.array([[1.0, 0.0]] * 6 + [[0.0, 0.9]] * 4)
    chosen = choose_settings(_grid_of(values, prompts), seed=0, folds=10).set_index(["choice", "prompt"])
    assert (chosen.loc[HELD_OUT].loc[prompts[:6], "temperature"] == 0).all()
    assert (chosen.loc[CLASSES_HELD_OUT].loc[prompts[:6], "temperature"] == 1).all()
    assert (chosen.loc[CLASSES_HELD_OUT].loc[prompts[:6], "ap"] == 0).all()


def test_settings_that_tie_for_a_prompt_are_averaged():
    grid = _grid_of(np.tile([1.0, 1.0, 0.0], (12, 1)), PROMPTS)
    grid["auroc"] = np.tile([0.2, 0.8, 1.0], 12)
    peeked = choose_settings(grid, seed=0).query("choice == @BY_PROMPT")
    assert np.allclose(peeked["auroc"], 0.5) and peeked["temperature"].isna().all()


def test_too_few_prompts_are_refused():
    assert len(choose_settings(_grid_of(np.ones((3, 2)), PROMPTS[:3]), seed=0)) == 3 * len(CHOICES)
    with pytest.raises(ConfigError, match="one prompt cannot be judged"):
        choose_settings(_grid_of(np.ones((1, 2)), PROMPTS[:1]), seed=0)
    with pytest.raises(ConfigError, match="shares a class with every other one"):
        choose_settings(_grid_of(np.ones((2, 2)), ["two deer", "three deer"]), seed=0, folds=2)


def test_the_best_setting_is_the_one_with_the_highest_mean(grid):
    for setting in best_settings(grid):
        own = grid[grid["rewards"] == "+".join(setting.rewards)]
        means = own.groupby(["temperature", "penalty"])["ap"].mean()
        assert means[setting.temperature, setting.penalty] == pytest.approx(means.max())
        chosen = at_settings(grid, [setting])
        assert len(chosen) == 12 and chosen["ap"].mean() == pytest.approx(means.max())


def test_a_recipe_gives_what_the_reward_for_trainers_gives(world):
    images, contrastive, folders = world
    unit = reward_units(images, *folders, names=NAMES)
    grid = _grid_of(np.array([[1.0]]), PROMPTS[:1]).assign(rewards="+".join(NAMES), temperature=0.5, penalty=1.0)
    recipes = pd.read_parquet(io.BytesIO(tuned_recipes(grid, unit).to_parquet()))  # as the store gives them back
    (recipe,) = recipes.to_dict("records")
    scale = unit.set_index("reward")["unit"]
    assert recipe["temperatures"].tolist() == [0.5 * scale["clip"], 0.5 * scale["pickscore"]]
    assert (recipe["rewards"], recipe["penalty"]) == ("clip+pickscore", 1.0)
    found = apply_recipes(images, contrastive, recipes, *folders, names=NAMES)["textnorm:clip+pickscore"]

    class Known:
        def __init__(self, name, folder):
            self.name, self.known = name, _scores_of(folder)

        def score_matrix(self, shown, prompts):
            return np.array([[self.known[prompts[0], one, text] for text in prompts] for one in shown], np.float32)

    sets = contrastive.groupby("prompt")["text"].agg(list).to_dict()
    rewards = [Known(*pair) for pair in zip(NAMES, folders, strict=True)]
    whole = TextNormReward(rewards, sets, recipe["temperatures"].tolist(), "uncertainty", recipe["penalty"])
    np.testing.assert_allclose(found, whole.score(images["image"].tolist(), images["prompt"].tolist()), atol=1e-5)
    with pytest.raises(ConfigError, match="no scores of blip2"):
        alone = given_recipe(rewards=["blip2"], temperatures=[1.0])
        apply_recipes(images, contrastive, alone, *folders, names=NAMES)


def test_each_ensemble_has_a_recipe_of_its_own_and_a_column_of_that_name(world, grid):
    images, contrastive, folders = world
    unit = reward_units(images, *folders, names=NAMES)
    recipes = tuned_recipes(grid, unit)
    assert recipes["rewards"].tolist() == ["clip", "pickscore", "clip+pickscore"]
    scale = unit.set_index("reward")["unit"]
    for recipe, setting in zip(recipes.itertuples(), best_settings(grid), strict=True):
        assert recipe.temperatures == [setting.temperature * scale[name] for name in setting.rewards]
        assert recipe.penalty == setting.penalty
    found = apply_recipes(images, contrastive, recipes, *folders, names=NAMES, prefix="random")
    assert list(found) == [*images, "random:clip", "random:pickscore", "random:clip+pickscore"]


def test_sides_and_classes_of_prompts():
    assert classes_of("a realistic photo of a cat and two dogs") == ("cat", "dog")
    assert classes_of("A heart made of chocolate") == ("A heart made of chocolate",)
    sides = {side_of(f"a realistic photo of a {name} and a {other}") for name in ("cat", "deer") for other in ("dog",)}
    assert sides == {SEALED, MIXED}
    free = [f"a heart made of {number} hearts" for number in range(40)]
    assert {side_of(prompt) for prompt in free} == {DEVELOPMENT, SEALED}
    frame = pd.DataFrame({"prompt": ["two deer", "a cat", "two deer"], "image": ["a", "b", "c"]})
    assert images_of_side(frame, side=DEVELOPMENT)["image"].tolist() == ["a", "c"]


def test_alternatives_by_hand(world):
    images, contrastive, folders = world
    found = alternative_metrics(images, contrastive, *folders, names=NAMES)
    assert len(found) == 3 * 2 * 12
    table = score_table(images, contrastive, NAMES, folders)
    rows = images.index[images["prompt"] == PROMPTS[0]]
    own, others = table.scores["clip"][rows, 0], table.scores["clip"][rows, 1:4]
    for form, value in [
        ("minus mean contrast", own - others.mean(axis=1)),
        ("minus best contrast", own - others.max(axis=1)),
        ("rank among contrasts", -(others > own[:, None]).sum(axis=1)),
    ]:
        expected = alignment_metrics(value, images.loc[rows, "label"], images.loc[rows, "rating"])["auroc"]
        row = found[(found["rewards"] == "clip") & (found["form"] == form) & (found["prompt"] == PROMPTS[0])]
        assert row["auroc"].item() == pytest.approx(expected)


def test_softmax_shares_add_up_and_follow_the_scores(world):
    images, contrastive, folders = world
    found = softmax_shares(images, contrastive, *folders, names=NAMES, temperature=1.0)
    totals = found.groupby(["reward", "prompt"])[["share", "expected"]].sum()
    np.testing.assert_allclose(totals, 1.0)
    hot = softmax_shares(images, contrastive, *folders, names=NAMES, temperature=1e6)
    np.testing.assert_allclose(hot["share"], hot["expected"], atol=1e-4)
    assert not np.allclose(found["share"], found["expected"], atol=1e-2)


def test_risk_falls_with_coverage_for_a_perfect_reward_and_not_for_a_constant_one():
    prompts = np.repeat(PROMPTS, 10)
    labels = np.tile([1, 0], 60)
    images = pd.DataFrame({"prompt": prompts, "label": labels, "perfect": labels * 1.0, "constant": 1.0})
    found = risk_coverage(images, rewards=["perfect", "constant"], coverages=[0.25, 0.5, 0.75, 1.0], **BOOTSTRAP)
    risk = found.pivot(index="reward", columns="coverage", values="risk")
    np.testing.assert_allclose(risk.loc["perfect"], [0, 0, 1 / 3, 0.5], atol=1e-9)
    np.testing.assert_allclose(risk.loc["constant"], 0.5, atol=1e-9)
    assert (found["low"] <= found["risk"] + 1e-9).all() and (found["risk"] <= found["high"] + 1e-9).all()


def test_a_risk_is_a_share_even_where_one_image_is_drawn_often():
    images = pd.DataFrame({"prompt": list("abcd"), "label": [0, 1, 0, 1], "reward": [4.0, 3.0, 2.0, 1.0]})
    found = risk_coverage(images, rewards=["reward"], coverages=[0.05, 0.5, 1.0], **BOOTSTRAP)
    assert (found[["risk", "low", "high"]].to_numpy() <= 1).all() and found["high"].max() == 1


def test_gains_are_paired_and_averaged_over_prompts():
    columns = ["rewards", "set", "prompt", "ap", "auroc"]
    before = pd.DataFrame([("clip", "s", p, 0.5, 0.5) for p in "abc"], columns=columns)
    after = pd.DataFrame([("clip", "s", p, 0.7, v) for p, v in zip("ab", (0.4, 0.8), strict=True)], columns=columns)
    gains = paired_gains(after.assign(choice="x"), before)
    np.testing.assert_allclose(gains["auroc"], [-0.1, 0.3])
    means = mean_values(gains, by=["choice", "rewards"], **BOOTSTRAP).set_index("metric")
    assert means.loc["auroc", "mean"] == pytest.approx(0.1) and means.loc["auroc", "n_prompts"] == 2
    assert means.loc["ap", "low"] == means.loc["ap", "high"] == pytest.approx(0.2)
    with pytest.raises(pd.errors.MergeError):
        paired_gains(after, pd.concat([before, before]))


def test_pairs_are_tested_together():
    rng = np.random.default_rng(0)
    rows = [
        ("s", str(p), r, "auroc", rng.normal(m, 0.1))
        for p in range(30)
        for r, m in zip("abcd", (0, 1, 0, 0), strict=True)
    ]
    per_prompt = pd.DataFrame(rows, columns=["set", "prompt", "reward", "metric", "value"])
    found = compare_pairs(per_prompt, pairs=[("a", "b"), ("c", "d")], metrics=["auroc"], **BOOTSTRAP)
    found = found[found["set"] == "s"].set_index(["reward", "reference"])
    assert found.loc[("a", "b"), "difference"] == pytest.approx(1, abs=0.1) and found.loc[("a", "b"), "wins"] == 30
    smaller, larger = found["p_wilcoxon"].sort_values()
    assert found.loc[("a", "b"), "p_holm"] == pytest.approx(2 * smaller)  # a family of two tests
    assert found.loc[("c", "d"), "p_holm"] == pytest.approx(larger)


def test_gains_by_group_name_every_class_of_a_prompt():
    prompts = ["a realistic photo of a cat and a dog", "a realistic photo of two deer"]
    rows = [("s", p, reward, "auroc", v) for p in prompts for reward, v in (("clip", 0.5), ("textnorm:clip", 0.75))]
    metrics = pd.DataFrame(rows, columns=["set", "prompt", "reward", "metric", "value"])
    found = gains_by_group(metrics, pairs=[("clip", "textnorm:clip")], metric="auroc")
    assert found["class"].tolist() == ["cat", "dog", "deer"] and (found["gain"] == 0.25).all()
    with pytest.raises(DataError, match="no reward 'blip2'"):
        gains_by_group(metrics, pairs=[("blip2", "textnorm:clip")], metric="auroc")
