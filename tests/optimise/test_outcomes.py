"""What is made of tuned models' images: gains, intervals, verdicts, checkpoints, sets and votes, on made-up images."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from textnorm_lib.figures.tuned_models import pick_tuned_images
from textnorm_lib.judging import selection as sets
from textnorm_lib.judging.selection import outcomes_by_size, sign_tests_by_size
from textnorm_lib.judging.verdicts import majority
from textnorm_lib.optimise import outcomes
from textnorm_lib.optimise.best_of_n import fit_gold
from textnorm_lib.optimise.outcomes import oracle_choice, papers_choice, selection_costs
from textnorm_lib.stats.intervals import two_way_interval
from textnorm_lib.study.errors import DataError

BOOTSTRAP = {"resamples": 200, "confidence": 0.95, "seed": 0}
PROMPTS = {"a dog": "comprehensive", "two dogs": "counting", "two cats": "counting", "a cat and a dog": "composition"}
CHECKPOINTS, RUNS, SEEDS = (10, 20, 30), (0, 1), 8
REWARDS = ("clip", "textnorm")


def make_judged(gold: dict, *, proxy: float = 2.0, runs=RUNS, noise: float = 0.0) -> pd.DataFrame:
    """Images of the base and of each model: ``gold`` is by (reward, checkpoint) the share of good images.

    The own reward grows by ``proxy`` in all, in the unit of a score that is 0 or 1 for every other seed of the base.
    """
    rng, rows = np.random.default_rng(0), []
    models = [("base", 0, 0), *((name, run, last) for name in REWARDS for run in runs for last in CHECKPOINTS)]
    for reward, run, checkpoint in models:
        share = gold.get((reward, checkpoint), 0.5)
        for prompt, name in PROMPTS.items():
            for seed in range(SEEDS):
                good = int(seed < share * SEEDS)
                scores = {other: seed % 2 + rng.normal(0, noise) for other in REWARDS}
                if reward != "base":
                    scores[reward] += proxy / 2 * checkpoint / CHECKPOINTS[-1]
                quality = {
                    f"quality_{judge}": seed % 2 * judge + 0.5 * judge * (checkpoint == 30) for judge in (1, 2, 3)
                }
                about = (
                    reward,
                    0.0,
                    run,
                    checkpoint,
                    name,
                    prompt,
                    seed,
                    f"{reward}_{run}_{checkpoint}_{prompt}_{seed}.png",
                )
                rows.append((*about, good, good, good, good, float(good), *quality.values(), *scores.values()))
    votes, quality = [f"vote_{judge}" for judge in (1, 2, 3)], [f"quality_{judge}" for judge in (1, 2, 3)]
    about = ["tuned_on", "beta", "run", "checkpoint", "set", "prompt", "seed", "image"]
    return pd.DataFrame(rows, columns=[*about, *votes, "label", "rating", *quality, *REWARDS])


def divergences_of(judged: pd.DataFrame) -> pd.DataFrame:
    keys = ["tuned_on", "beta", "run", "checkpoint", "set", "prompt"]
    cells = judged.loc[judged["tuned_on"] != "base", keys].drop_duplicates()
    return cells.assign(kl=cells["checkpoint"] / 10 + cells["run"] / 100)


# clip's gold rises and then falls below the base's, textnorm's rises.
GOLD = {("clip", 10): 0.75, ("clip", 20): 0.5, ("clip", 30): 0.125, ("textnorm", 20): 0.75, ("textnorm", 30): 1.0}


@pytest.fixture(scope="module")
def judged():
    return make_judged(GOLD)


@pytest.fixture(scope="module")
def cells(judged):
    return outcomes.prompt_gains(judged, divergences_of(judged))


@pytest.fixture(scope="module")
def gains(cells):
    return outcomes.tuning_gains(cells, confidence=0.95)


@pytest.fixture(scope="module")
def declines(cells):
    return outcomes.late_declines(cells, confidence=0.95)


def test_gains_are_the_models_means_less_the_bases_each_in_its_unit(cells):
    assert len(cells) == 2 * 2 * 3 * 4 and (cells["n_images"] == SEEDS).all()
    last = cells[cells["checkpoint"] == 30].set_index("tuned_on")
    np.testing.assert_allclose(last["proxy"], 2.0)  # the score's deviation is a half: one up is two of them
    np.testing.assert_allclose(last["quality"], 1.0)  # each judge in its own unit, though one's numbers are three times
    np.testing.assert_allclose(last.loc["clip", "gold"], -0.375)
    np.testing.assert_allclose(last.loc["textnorm", "gold"], 0.5)
    np.testing.assert_allclose(cells.query("run == 1 and checkpoint == 20")["kl"], 2.01)


def test_the_unit_is_the_bases_and_does_not_depend_on_what_tuned_models_make(judged, cells):
    spread = judged.assign(clip=judged["clip"].where(judged["checkpoint"] < 30, judged["clip"] * 9 - 4))
    again = outcomes.prompt_gains(spread, divergences_of(judged))
    early = cells["checkpoint"] < 30
    pd.testing.assert_frame_equal(again[early], cells[early])


def test_means_are_given_for_each_set_and_all_with_their_numbers(gains):
    assert set(gains["set"]) == {"comprehensive", "counting", "composition", "all"}
    row = gains.query("set == 'all' and tuned_on == 'clip' and checkpoint == 10 and what == 'gold'").iloc[0]
    assert (row["mean"], row["n_prompts"], row["n_runs"], row["n_images"]) == (0.25, 4, 2, 64)
    assert gains.query("set == 'counting'")["n_images"].eq(32).all()
    alone = gains.query("set == 'composition'")
    assert alone[["low", "high", "standard_error"]].isna().all(axis=None) and alone["mean"].notna().all()


def test_one_run_has_no_interval_and_is_not_called_overoptimised():
    judged = make_judged(GOLD, runs=(3,))
    cells = outcomes.prompt_gains(judged, divergences_of(judged))
    gains, declines = (of(cells, confidence=0.95) for of in (outcomes.tuning_gains, outcomes.late_declines))
    assert gains[["low", "high", "standard_error"]].isna().all(axis=None)
    assert declines[["mean", "low", "high"]].isna().all(axis=None)
    found = outcomes.verdicts(gains, declines, outcomes.image_errors(judged))
    assert not found["overoptimised"].any() and (found["proxy_does"] == "rises").all()


def test_the_means_of_runs_are_the_mean_of_the_gains(cells, gains):
    keys = ["set", "tuned_on", "beta", "checkpoint", "what"]
    means = outcomes.run_gains(cells).groupby(keys)["mean"].mean()
    pd.testing.assert_series_equal(means, gains.set_index(keys)["mean"].sort_index())


@pytest.mark.parametrize(("of_prompts", "of_runs", "of_both"), [(1, 0, 0.3), (1, 0.5, 0.5), (0.5, 1, 0.5), (0.3, 0, 1)])
@pytest.mark.parametrize("runs", [2, 3])
def test_the_interval_holds_the_truth_nearly_as_often_as_it_says(of_prompts, of_runs, of_both, runs):
    rng, prompts, studies = np.random.default_rng(0), 6, 4000
    table = of_prompts * rng.normal(size=(prompts, 1, studies)) + of_runs * rng.normal(size=(1, runs, studies))
    found = two_way_interval(table + of_both * rng.normal(size=(prompts, runs, studies)), confidence=0.95)
    assert 0.89 < np.mean((found["low"] <= 0) & (found["high"] >= 0)) < 0.995


def test_the_interval_follows_its_definition_and_is_a_point_where_nothing_varies():
    table = np.array([[1.0, 2.0], [3.0, 5.0], [2.0, 2.0]])[..., None]
    found = two_way_interval(table, confidence=0.95)
    of_prompts, of_runs = np.var([1.5, 4, 2], ddof=1) / 3, np.var([2, 3], ddof=1) / 2
    assert found["standard_error"] == pytest.approx(np.sqrt(of_prompts + of_runs))
    freedom = (of_prompts + of_runs) ** 2 / (of_prompts**2 / 2 + of_runs**2)
    assert found["high"] == pytest.approx(2.5 + stats.t.ppf(0.975, freedom) * found["standard_error"])
    same = two_way_interval(np.full((3, 2, 1), 0.25), confidence=0.95)
    assert [float(same[name][0]) for name in ("mean", "low", "high", "standard_error")] == [0.25, 0.25, 0.25, 0]


def test_a_proxys_error_is_that_of_its_images_with_prompts_and_runs_as_they_are():
    judged = make_judged(GOLD, noise=0.3)
    errors = outcomes.image_errors(judged).set_index(["set", "tuned_on", "checkpoint"])["proxy_image_error"]
    of_clip = judged.query("tuned_on in ('base', 'clip')").set_index(
        ["tuned_on", "run", "checkpoint", "prompt", "seed"]
    )
    unit = np.sqrt(of_clip.loc["base", "clip"].groupby("prompt").var(ddof=0).mean())
    tuned = (of_clip.loc[("clip", 0, 30), "clip"] + of_clip.loc[("clip", 1, 30), "clip"]) / 2
    gains = ((tuned - of_clip.loc[("base", 0, 0), "clip"]) / unit).unstack("prompt")
    assert errors["all", "clip", 30] == pytest.approx(np.sqrt((gains.var() / SEEDS).sum()) / len(PROMPTS))
    assert errors["composition", "clip", 30] == pytest.approx(gains["a cat and a dog"].sem())


def test_what_gold_does_in_these_runs_alone_is_said_where_no_more_can_be():
    judged = make_judged({("clip", 30): 0.125, ("textnorm", 30): 0.5}, runs=(0,))
    cells = outcomes.prompt_gains(judged, divergences_of(judged))
    gains, declines = (of(cells, confidence=0.95) for of in (outcomes.tuning_gains, outcomes.late_declines))
    found = outcomes.verdicts(gains, declines, outcomes.image_errors(judged)).query("set == 'all'")
    words = ["gold falls in these runs; in others cannot be told", "what gold does cannot be told"]
    assert found["verdict"].tolist() == words and not found["overoptimised"].any()


def test_gold_that_falls_while_the_proxy_rises_is_called_overoptimised(judged, gains, declines):
    found = (
        outcomes.verdicts(gains, declines, outcomes.image_errors(judged)).query("set == 'all'").set_index("tuned_on")
    )
    clip, textnorm = found.loc["clip"], found.loc["textnorm"]
    assert clip["proxy_does"] == "rises" and clip["gold_does"] == "falls" and clip["overoptimised"]
    assert clip["verdict"] == "overoptimised: gold falls below the base's"
    assert (clip["best"], clip["late"], clip["gold"]) == (10, -0.625, -0.375)
    assert textnorm["verdict"] == "gold rises with the proxy" and not textnorm["overoptimised"]
    assert (clip["checkpoint"], clip["n_prompts"], clip["n_runs"], clip["n_images"]) == (30, 4, 2, 64)


@pytest.mark.parametrize(
    ("proxy", "last", "verdict"),
    [
        (2.0, 0.625, "overoptimised: gold falls late"),
        (0.0, 0.125, "no verdict: the proxy does not rise"),
        (-2.0, 0.125, "no verdict: the proxy does not rise"),
    ],
)
def test_gold_that_falls_late_is_overoptimised_only_if_the_proxy_rises(proxy, last, verdict):
    judged = make_judged({("clip", 10): 0.5, ("clip", 20): 0.875, ("clip", 30): last}, proxy=proxy)
    cells = outcomes.prompt_gains(judged, divergences_of(judged))
    gains, declines = (of(cells, confidence=0.95) for of in (outcomes.tuning_gains, outcomes.late_declines))
    found = outcomes.verdicts(gains, declines, outcomes.image_errors(judged))
    found = found.query("set == 'all' and tuned_on == 'clip'").iloc[0]
    assert found["verdict"] == verdict and found["overoptimised"] == verdict.startswith("overoptimised")
    assert found["proxy_does"] == {2: "rises", 0: "cannot be told", -2: "falls"}[proxy]


def _noise_cells(rng, *, checkpoints: int) -> pd.DataFrame:
    """One model whose gold does not change, seen with noise."""
    keys = [(run, last, prompt) for run in range(3) for last in range(1, checkpoints + 1) for prompt in range(6)]
    frame = pd.DataFrame(keys, columns=["run", "checkpoint", "prompt"]).astype({"prompt": str})
    return frame.assign(tuned_on="clip", beta=0.0, set="counting", gold=rng.normal(0, 0.1, len(frame)))


def test_of_models_that_do_not_change_few_seem_to_decline_and_none_on_average():
    rng, found, naive = np.random.default_rng(0), [], []
    for _ in range(60):
        cells = _noise_cells(rng, checkpoints=8)
        found.append(outcomes.late_declines(cells, confidence=0.95).query("set == 'all'").iloc[0])
        means = cells.groupby("checkpoint")["gold"].mean()
        naive.append(means.iloc[-1] - means.iloc[:-1].max())
    found = pd.DataFrame(found)
    assert abs(found["mean"].mean()) < 0.012 and np.mean(naive) < -0.02
    assert (found["high"] < 0).mean() < 0.05


def test_points_over_the_divergence_are_what_the_fit_takes(cells):
    points = outcomes.gold_over_kl(cells)
    base = points[points["kl"] == 0]
    assert len(base) == 2 * 4 and (base["gold"] == 0).all() and len(points) == 8 + len(cells)
    fits = fit_gold(points, form="rl", **BOOTSTRAP)
    assert set(fits["reward"]) == set(REWARDS) and np.isfinite(fits.query("term == 'a'")["value"]).all()


def test_the_models_of_one_coefficient_keep_the_base(judged):
    tuned = judged["tuned_on"] != "base"
    both = pd.concat([judged, judged[tuned].assign(beta=0.5, image=judged["image"] + "_")])
    kept = outcomes.with_beta(both, beta=0.5)
    assert (kept["beta"] == 0.5).sum() == tuned.sum() and (kept["tuned_on"] == "base").sum() == (~tuned).sum()
    with pytest.raises(DataError, match=r"no model was tuned with beta 0.3; there are 0, 0.5"):
        outcomes.with_beta(both, beta=0.3)


def test_a_score_that_tells_no_images_apart_is_refused(judged):
    with pytest.raises(DataError, match="quality_2 tells no images of a prompt apart: it has no unit"):
        outcomes.prompt_gains(judged.assign(quality_2=0.5), divergences_of(judged))


def test_a_checkpoint_without_divergence_and_a_run_with_a_gap_are_refused(judged, cells):
    said = "no finite kl of tuned_on clip, beta 0.0, run 0, checkpoint 10, set comprehensive, prompt a dog; measure it"
    with pytest.raises(DataError, match=said):
        outcomes.prompt_gains(judged, divergences_of(judged).iloc[1:])
    whole_run_short = cells[(cells["run"] == 0) | (cells["checkpoint"] < 30)]
    for gap in (whole_run_short, cells.iloc[1:]):
        with pytest.raises(DataError, match="proxy of clip with beta 0: all runs of a model need the same checkpoints"):
            outcomes.tuning_gains(gap, confidence=0.95)


@pytest.fixture(scope="module")
def noisy():
    return make_judged(GOLD, noise=0.5)


@pytest.fixture(scope="module")
def choices(noisy):
    return sets.choose_checkpoints(noisy, **BOOTSTRAP)


def test_every_run_has_the_papers_choice_and_the_oracles(noisy, choices):
    assert choices[["tuned_on", "run"]].to_numpy().tolist() == [[name, run] for name in REWARDS for run in RUNS]
    for _, row in choices.iterrows():
        own = noisy[noisy["tuned_on"].isin(["base", row["tuned_on"]]) & noisy["run"].isin([0, row["run"]])]
        own = own[(own["tuned_on"] == "base") | (own["run"] == row["run"])]
        assert row["chosen"] == papers_choice(own, score=row["tuned_on"])
    clip = choices[choices["tuned_on"] == "clip"]
    assert (clip["oracle"] == 10).all() and (clip["gold_oracle"] == 0.75).all() and (clip["gold_last"] == 0.125).all()
    np.testing.assert_allclose(clip["cost"], clip["gold_oracle"] - clip["gold_chosen"])
    assert (choices["last"] == 30).all() and (choices["n_images"] == 32).all()


@pytest.fixture(scope="module")
def shown(noisy, choices):
    return sets.tuned_sets(noisy, choices)


def test_set_k_is_of_run_k_and_holds_the_same_seeds_for_every_model(noisy, choices, shown):
    told = shown.merge(noisy, on=["image", "set", "prompt"])
    assert len(shown) == len(told) == 3 * 4 * 8
    chosen = choices.set_index(["tuned_on", "run"])["chosen"]
    for (model, number), rows in told.groupby(["model", "number"]):
        assert set(rows["seed"]) == set(range(4 * number - 4, 4 * number))
        if model != "base":
            assert set(rows["run"]) == {number - 1} and set(rows["checkpoint"]) == {chosen[model, number - 1]}
    assert set(told.query("model == 'base'")["tuned_on"]) == {"base"}


def test_one_run_gives_both_sets_and_a_run_that_chooses_the_base_shows_it(noisy, choices):
    alone = choices[choices["run"] == 0].assign(chosen=[0, 20])
    told = sets.tuned_sets(noisy, alone).merge(noisy, on="image")
    assert set(told.query("model == 'clip'")["tuned_on"]) == {"base"}
    textnorm = told.query("model == 'textnorm'")
    assert set(textnorm["run"]) == {0} and set(textnorm["checkpoint"]) == {20} and textnorm["image"].is_unique


def test_several_coefficients_and_too_few_images_are_refused(noisy, choices):
    with pytest.raises(DataError, match="clip was tuned with several beta"):
        sets.tuned_sets(noisy, pd.concat([choices, choices.assign(beta=0.5)]))
    with pytest.raises(DataError, match="a prompt has 7 images of a checkpoint; 2 sets of 4 are judged"):
        sets.tuned_sets(noisy[noisy["seed"] < 7], choices)


def test_the_reference_meets_every_model_and_every_other_meets_the_base(noisy, choices):
    last = sets.tuned_sets(noisy, choices.assign(chosen=30))
    votes = sets.judge_tuned(last, noisy, reference="textnorm", quality_tie=0.25, seed=0)
    pairs = votes.groupby(["model", "opponent", "question"]).size()
    assert {key[:2] for key in pairs.index} == {("textnorm", "clip"), ("textnorm", "base"), ("clip", "base")}
    assert (pairs == 3 * 2 * 4).all()
    alignment = majority(votes).query("question == 'alignment'").groupby(["model", "opponent"])["outcome"]
    assert alignment.agg(set)["textnorm", "clip"] == {"win"} and "win" not in alignment.agg(set)["clip", "base"]
    quality = majority(votes).query("question == 'quality' and opponent == 'base'")
    assert set(quality["outcome"]) == {"win"}  # the last checkpoints' images are better drawn by half a unit or more
    judged = outcomes_by_size(votes, confidence=0.95), sign_tests_by_size(votes)
    assert all(set(frame["n"]) == {1} for frame in judged)
    with pytest.raises(
        DataError, match="reference is 'blip2'; one of the tuned models is needed, base, clip, textnorm"
    ):
        sets.judge_tuned(last, noisy, reference="blip2", quality_tie=0.25, seed=0)


def test_samples_are_of_the_prompt_nearest_to_half_good_and_spread_over_training(judged, tmp_path):
    better = judged.assign(label=judged["label"].where(judged["prompt"] != "two cats", 1))
    for name in judged["image"]:
        (tmp_path / name).write_bytes(name.encode())
    found = pick_tuned_images(tmp_path, better, checkpoints=2, seeds=2)
    assert set(found["prompt"]) == {"a dog", "two dogs", "a cat and a dog"} and set(found["seed"]) == {0, 1}
    tuned = found[found["tuned_on"] != "base"]
    assert set(tuned["checkpoint"]) == {20, 30} or set(tuned["checkpoint"]) == {10, 30}
    assert set(found["image"].str.contains("_1_")) == {False}  # the first run
    assert len(found) == 3 * 2 * (1 + 2 * 2) and found["png"].iloc[0] == found["image"].iloc[0].encode()
    assert set(pick_tuned_images(tmp_path, judged, checkpoints=9, seeds=1)["checkpoint"]) == {0, 10, 20, 30}


# Which checkpoint is taken, on images whose answer is known by hand


def _images(**scores: list[list[float]]) -> pd.DataFrame:
    """For each score a row a checkpoint (0, 50, 100, ...) with a value an image; two seeds a prompt."""
    rows = len(next(iter(scores.values())))
    width = len(next(iter(scores.values()))[0])
    frame = pd.DataFrame(
        [(50 * row, f"prompt {column // 2}", column % 2) for row in range(rows) for column in range(width)],
        columns=["checkpoint", "prompt", "seed"],
    )
    return frame.assign(**{name: np.ravel(values) for name, values in scores.items()})


# Wins over the base: 1, 3, 3, 2; gold is best at 50 and falls.
RUN = _images(
    clip=[[1, 1, 1, 1], [2, 1, 0, 0], [2, 2, 2, 0], [9, 9, 9, 1], [9, 9, 0, 0]],
    gold=[[0, 0, 1, 0], [1, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]],
)


def test_the_earliest_checkpoint_with_the_most_wins_is_chosen():
    assert papers_choice(RUN, score="clip") == 100


def test_the_order_of_the_rows_and_any_increasing_change_of_the_score_do_not_matter():
    generator = np.random.default_rng(0)
    images = _images(clip=generator.normal(size=(6, 20)).tolist())
    shuffled = images.sample(frac=1, random_state=0).assign(clip=lambda rows: np.exp(3 * rows["clip"]) - 7)
    assert papers_choice(shuffled, score="clip") == papers_choice(images, score="clip")


def test_an_image_is_compared_with_the_bases_image_of_its_own_prompt_and_seed():
    images = _images(clip=[[0, 10], [1, 9], [2, 3]])
    assert papers_choice(images, score="clip") == 50


def test_where_no_image_ever_wins_the_base_is_chosen():
    assert papers_choice(_images(clip=[[1, 1], [1, 1], [0, 0]]), score="clip") == 0


def test_the_oracle_is_the_earliest_checkpoint_with_the_highest_mean_gold():
    assert oracle_choice(RUN, gold="gold") == 50
    assert oracle_choice(_images(gold=[[1, 1], [0, 2], [1, 1]]), gold="gold") == 0


def test_the_cost_is_the_gold_that_the_choice_by_the_reward_leaves():
    costs = selection_costs(RUN, scores=["clip", "gold"], gold="gold", **BOOTSTRAP).set_index("reward")
    assert costs.loc["clip", ["chosen", "oracle", "n_prompts"]].tolist() == [100, 50, 2]
    means = costs.loc["clip", ["gold_base", "gold_chosen", "gold_oracle", "cost"]].tolist()
    assert means == [0.25, 0.5, 0.75, 0.25]
    assert costs.loc["clip", "low"] == 0 and costs.loc["clip", "high"] == 0.5  # the prompts' own costs
    assert costs.loc["gold", ["chosen", "cost", "low", "high"]].tolist() == [50, 0, 0, 0]


def test_a_cost_is_never_negative_and_lies_in_its_interval():
    generator = np.random.default_rng(1)
    for _ in range(20):
        shape = (5, 24)
        images = _images(clip=generator.normal(size=shape).tolist(), gold=generator.integers(0, 3, shape).tolist())
        row = selection_costs(images, scores=["clip"], gold="gold", **BOOTSTRAP).iloc[0]
        assert row["cost"] >= 0 and row["low"] <= row["cost"] + 1e-12 and row["cost"] <= row["high"] + 1e-12


def test_prompts_may_have_different_numbers_of_images():
    images = RUN[~((RUN["prompt"] == "prompt 1") & (RUN["seed"] == 1))]
    row = selection_costs(images, scores=["clip"], gold="gold", **BOOTSTRAP).iloc[0]
    assert row["gold_base"] == pytest.approx(1 / 3) and row["cost"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (RUN.drop(index=6), "checkpoint 50 lacks clip of prompt 'prompt 1', seed 0"),
        (RUN.drop(index=2), "checkpoint 0 lacks clip of prompt 'prompt 1', seed 0"),
        (RUN.assign(clip=RUN["clip"].where(RUN.index != 5)), "checkpoint 50 lacks clip of prompt 'prompt 0', seed 1"),
        (RUN[4:], "no base, checkpoint 0; there are 50, 100, 150, 200"),
    ],
)
def test_a_checkpoint_without_an_image_of_the_base_and_no_base_are_refused(images, said):
    for function in (
        lambda: papers_choice(images, score="clip"),
        lambda: oracle_choice(images, gold="clip"),
        lambda: selection_costs(images, scores=["gold"], gold="clip", **BOOTSTRAP),
    ):
        with pytest.raises(DataError, match=said) as caught:
            function()
        assert "\n" not in str(caught.value)
