"""Runs of RWR and DDPO as steps: which there are, what seeds them, any number of processes, stopped and resumed."""

import inspect
import io
import json
import pickle
import threading
import time
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from toys import rests_on, study_of, toy_pipeline

from textnorm_lib.confidence.tuning import given_recipe
from textnorm_lib.mini.generator import save_pipeline
from textnorm_lib.optimise import finetuning, training
from textnorm_lib.optimise.finetuning import (
    Run,
    all_runs,
    choose_open_prompts,
    join_models,
    measure_divergences,
    read_curves,
    run_ddpo,
    run_rwr,
    sample_checkpoints,
)
from textnorm_lib.optimise.training import FILE
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.study import processes
from textnorm_lib.study import progress as bars
from textnorm_lib.study.config import profile_names
from textnorm_lib.study.errors import DataError, StudyError
from textnorm_lib.study.weights import Weights

PROMPTS = pd.DataFrame({"set": ["comprehensive", "counting"], "prompt": ["a deer", "two frogs"]})
LORA = {"lora_rank": 2, "lora_targets": "attention"}
RWR = {
    "rewards": ["clip", "textnorm"],
    "numbers": 2,
    "beta": 0.25,
    "other_betas": {"textnorm": [1.0]},
    "recipe": {
        "images_per_prompt": 4,
        "best": 2,
        "weighting": "centred",
        "steps": 3,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "dtype": "float32",
        "save_every": 2,
    },
    "seed": 5,
    **LORA,
}
DDPO = {
    "rewards": ["clip", "textnorm"],
    "numbers": 2,
    "beta": 0.0,
    "other_betas": {},
    "recipe": {
        "epochs": 2,
        "images_per_epoch": 4,
        "updates_per_epoch": 2,
        "batch_size": 4,
        "denoising_steps": 3,
        "untrained_steps": 1,
        "guidance_scale": 2.0,
        "dtype": "float32",
        "learning_rate": 1e-2,
        "clip_range": 1e-2,
        "min_count": 4,
        "kl_every": 1,
        "save_every": 1,
    },
    "reward_dtype": "bfloat16",
    "seed": 5,
    **LORA,
}
CONTRASTIVE = pd.DataFrame({"prompt": ["a deer"] * 3 + ["two frogs"] * 3, "text": ["a dog", "a cat", "two deer"] * 2})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small pipeline with random weights, by name."""
    folder = tmp_path_factory.mktemp("model") / "toy"
    save_pipeline(toy_pipeline(), folder)
    return Weights(str(folder))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of four images of each prompt."""
    folder, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    for prompt in PROMPTS["prompt"]:
        for number in range(4):
            Image.fromarray(rng.integers(256, size=(64, 64, 3), dtype=np.uint8)).save(folder / f"{prompt}_{number}.png")
    return folder


@pytest.fixture(scope="module")
def judged():
    """More images of more prompts than are trained on: of those there is no file and no score."""
    keys = [(prompt, number) for prompt in (*PROMPTS["prompt"], "a toaster") for number in range(5)]
    frame = pd.DataFrame(keys, columns=["prompt", "number"])
    scores = pd.DataFrame(np.random.default_rng(1).normal(size=(len(frame), 2)), columns=["clip", "textnorm"])
    scores[(frame["number"] == 4) | (frame["prompt"] == "a toaster")] = np.nan
    names = frame["prompt"] + "_" + frame["number"].astype(str) + ".png"
    return pd.concat([frame.assign(image=names), scores], axis=1)


@pytest.fixture(scope="module")
def by_rwr(model, made, judged, tmp_path_factory):
    """The folder of all runs of RWR, and what the step told."""
    folder = tmp_path_factory.mktemp("rwr")
    return folder, run_rwr(PROMPTS, judged, made, model, **RWR, workers=1, folder=folder)


def _adapter(folder, run: str, checkpoint: int) -> bytes:
    return (folder / run / f"checkpoint_{checkpoint:05}" / FILE).read_bytes()


def _names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("beta", [0, 0.25, 1.0, 1e-05, 0.1234567, 2.5e20])
def test_a_run_is_found_again_by_its_folders_name(beta):
    run = Run("blip2", beta, 12)
    assert Run.named(run.name) == run and "/" not in run.name
    assert len({replace(run, beta=beta + beta * 1e-9).name, run.name}) == (2 if beta else 1)


@pytest.mark.parametrize("name", ["clip", "clip_beta_0", "clip_beta_x_run_0", "clip_beta_0_run_0.partial", "meta.json"])
def test_another_folder_is_no_run(name):
    with pytest.raises(DataError, match="is no run's; names are like clip_beta_0_run_0"):
        Run.named(name)


def test_all_rewards_have_the_one_beta_and_some_have_others_number_by_number():
    runs = all_runs(["clip", "textnorm"], 2, beta=0.25, other_betas={"textnorm": [1.0, 0.25]})
    first = [Run("clip", 0.25, 0), Run("textnorm", 0.25, 0), Run("textnorm", 1.0, 0)]
    assert runs == [*first, *(replace(run, number=1) for run in first)]


def _rated(shares: dict[str, float], name: str) -> pd.DataFrame:
    rows = [(name, prompt, float(image < 10 * share)) for prompt, share in shares.items() for image in range(10)]
    return pd.DataFrame(rows, columns=["set", "prompt", "rating"])


def test_prompts_nearest_to_half_good_are_chosen_of_each_set_in_the_pools_order():
    counting = _rated({"two frogs": 1.0, "two deer": 0.6, "six cups": 0.1, "two cats": 0.5}, "counting")
    composition = _rated({"a cup and a fork": 0.9, "a cat and a dog": 0.7}, "composition")
    pool = pd.concat([counting, composition])
    found = choose_open_prompts(pool, passed_over=0, composition=1, counting=2)
    assert found.to_dict("list") == {
        "set": ["composition", "counting", "counting"],
        "prompt": ["a cat and a dog", "two deer", "two cats"],
    }
    for number, there in ((3, 2), (1, 0)):
        name = "composition" if there else "comprehensive"
        with pytest.raises(DataError, match=f"{name}: {number} prompts are asked for, the pool has {there}") as caught:
            choose_open_prompts(pool, passed_over=0, counting=1, **{name: number})
        assert "\n" not in str(caught.value)
    assert choose_open_prompts(pool, passed_over=1, counting=2)["prompt"].tolist() == ["two deer", "six cups"]
    with pytest.raises(DataError, match="2 prompts are asked for beside 3 passed over, the pool has 4"):
        choose_open_prompts(pool, passed_over=3, counting=2)


def test_without_votes_there_is_nothing_to_choose_by_and_all_are_taken():
    pool = pd.DataFrame({"set": "counting", "prompt": ["two cats", "two cats", "two deer"]})
    assert choose_open_prompts(pool, passed_over=0, counting=2)["prompt"].tolist() == ["two cats", "two deer"]
    with pytest.raises(DataError, match="counting: votes choose 1 of 2 prompts; name annotators, or take all"):
        choose_open_prompts(pool, passed_over=0, counting=1)


def test_every_run_has_a_folder_with_its_checkpoints_and_its_curve(by_rwr):
    folder, told = by_rwr
    each = ("clip_beta_0.25", "textnorm_beta_0.25", "textnorm_beta_1")
    assert _names(folder) == [f"{name}_run_{number}" for name in each for number in (0, 1)]
    checkpoints = [f"checkpoint_{step:05}" for step in (0, 2, 3)]
    assert all(_names(run) == [*checkpoints, "curve.jsonl"] for run in folder.iterdir())
    assert told == {"runs": 6, "steps": 3}


def test_curves_of_all_runs_come_in_one_table(by_rwr):
    curves = read_curves(by_rwr[0])
    runs = curves.groupby(["tuned_on", "beta", "run"])
    assert runs.ngroups == 6 and all(rows["step"].tolist() == [1, 2, 3] for _, rows in runs)
    path = by_rwr[0] / "textnorm_beta_1_run_1" / "curve.jsonl"
    expected = [json.loads(line)["loss"] for line in path.read_text().splitlines()]
    assert curves.query("tuned_on == 'textnorm' and beta == 1 and run == 1")["loss"].tolist() == expected


def test_runs_of_one_number_start_from_one_adapter_and_end_in_different_ones(by_rwr):
    names = _names(by_rwr[0])
    first, last = ({name: _adapter(by_rwr[0], name, step) for name in names} for step in (0, 3))
    for number in "01":
        assert len({content for name, content in first.items() if name.endswith(number)}) == 1
    assert len(set(first.values())) == 2 and len(set(last.values())) == 6
    draws = read_curves(by_rwr[0]).query("step == 1 and tuned_on == 'textnorm' and beta == 1")["loss"]
    assert draws.nunique() == 2  # of the base both: noise and images differ as well


def test_two_processes_train_to_the_same_adapters_bit_for_bit_as_one(by_rwr, model, made, judged, tmp_path):
    options = RWR | {"rewards": ["clip"], "other_betas": {}}
    run_rwr(PROMPTS, judged, made, model, **options, workers=2, folder=tmp_path)
    assert len(_names(tmp_path)) == 2
    for name in _names(tmp_path):
        for step in (0, 2, 3):
            assert _adapter(tmp_path, name, step) == _adapter(by_rwr[0], name, step)


def test_a_stopped_step_finds_its_runs_again_and_ends_in_the_same_adapters(
    by_rwr, model, made, judged, tmp_path, monkeypatch
):
    options, written = RWR | {"rewards": ["clip"], "other_betas": {}}, training.append_row
    stop, seen = True, []

    def append_row(folder, row):
        written(folder, row)
        seen.append((folder.name, row["step"]))
        if stop and seen[-1] == ("clip_beta_0.25_run_1", 3):
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "append_row", append_row)
    with pytest.raises(KeyboardInterrupt):
        run_rwr(PROMPTS, judged, made, model, **options, workers=1, folder=tmp_path)
    stop = False
    seen.clear()
    run_rwr(PROMPTS, judged, made, model, **options, workers=1, folder=tmp_path)
    assert seen == [("clip_beta_0.25_run_1", 3)]  # after its checkpoint; the first run was finished
    for number in (0, 1):
        name = f"clip_beta_0.25_run_{number}"
        assert _adapter(tmp_path, name, 3) == _adapter(by_rwr[0], name, 3)
    assert len(read_curves(tmp_path)) == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rewards": ["blip2"]}, "no column 'blip2'"),
        ({"recipe": {**RWR["recipe"], "images_per_prompt": 6, "best": 3}}, "'a deer' has 5 images, not 6"),
        ({"recipe": {**RWR["recipe"], "images_per_prompt": 5, "best": 2}}, "clip of 'a deer_4.png' is nan"),
    ],
)
def test_what_rwr_cannot_be_trained_on_is_refused_in_one_line(model, made, judged, tmp_path, options, said):
    with pytest.raises(DataError, match=said) as caught:
        run_rwr(PROMPTS, judged, made, model, **(RWR | options), workers=1, folder=tmp_path)
    assert "\n" not in str(caught.value)


class _Redness:
    """A reward that likes red, and an image's own prompt by its name's length."""

    def __init__(self, name: str) -> None:
        self.name = name

    def scores(self, images, prompts):
        assert images.dtype == np.uint8 and len(images) == len(prompts)
        return images[..., 0].mean(axis=(1, 2)) / 255

    def score_matrix(self, images, prompts):
        return np.tile(np.float32([len(self.name) / 10, *[0] * (len(prompts) - 1)]), (len(images), 1))


@pytest.fixture(scope="module")
def ddpo(model, tmp_path_factory):
    """A function that trains by DDPO with rewards of a few lines, whose loading it gives back; as workers would."""
    loaded = []

    def load_reward(name, *, folder, dtype, device):
        loaded.append((name, folder.name, dtype, device))
        return _Redness(name)

    def pickled(function, tasks, *, workers):
        function, tasks = pickle.loads(pickle.dumps((function, tasks)))
        return map(function, tasks)

    recipe = given_recipe(rewards=["imagereward", "pickscore"], temperatures=[1.0, 0.5], penalty=3.0)
    recipe = pd.read_parquet(io.BytesIO(recipe.to_parquet()))  # as the store gives it back
    root = tmp_path_factory.mktemp("rewards")
    for name in REWARDS:
        (root / f"{name}_weights").mkdir()
    weights = [Weights(str(root / f"{name}_weights")) for name in REWARDS]

    def run(folder, **options):
        run_ddpo(PROMPTS, CONTRASTIVE, recipe, model, *weights, **(DDPO | options), workers=2, folder=folder)
        return loaded

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(finetuning, "load_reward", load_reward)
        patched.setattr(finetuning, "in_workers", pickled)
        yield run


@pytest.fixture(scope="module")
def by_ddpo(ddpo, tmp_path_factory):
    """The folder of all runs of DDPO, and the rewards that they loaded."""
    folder = tmp_path_factory.mktemp("ddpo")
    return folder, list(ddpo(folder))


def test_every_run_of_ddpo_has_the_reward_of_its_name(by_ddpo):
    folder, loaded = by_ddpo
    assert _names(folder) == [f"{name}_beta_0_run_{number}" for name in ("clip", "textnorm") for number in (0, 1)]
    each = [(name, f"{name}_weights", torch.bfloat16, loaded[0][3]) for name in ("clip", "imagereward", "pickscore")]
    assert loaded == each * 2
    curves = read_curves(folder)
    own, normalised = (curves[curves["tuned_on"] == name] for name in ("clip", "textnorm"))
    assert (own["reward_std"] > 0).all() and own["reward"].between(0, 1).all()
    shares = np.array([np.exp(level) / (np.exp(level) + 3) for level in (1.1 / 1.0, 0.9 / 0.5)])
    np.testing.assert_allclose(normalised["reward"], shares.mean() - 3.0 * shares.var(), rtol=1e-5)
    assert len(curves) == 8 and curves["epoch"].tolist() == [0, 1] * 4


def test_ddpo_draws_by_a_runs_number_alone(by_ddpo):
    first, last = ({name: _adapter(by_ddpo[0], name, step) for name in _names(by_ddpo[0])} for step in (0, 2))
    for number in "01":
        assert first[f"clip_beta_0_run_{number}"] == first[f"textnorm_beta_0_run_{number}"]
    assert len(set(first.values())) == 2 and len(set(last.values())) == 4
    at_first = read_curves(by_ddpo[0]).query("epoch == 0 and tuned_on == 'clip'")
    assert at_first["reward"].nunique() == 2  # images of the base both, from other noise


def test_a_reward_that_fails_names_its_run_and_the_step_goes_on_to_the_same_adapters(
    by_ddpo, ddpo, tmp_path, monkeypatch
):
    calls, scores = [], _Redness.scores

    def failing(self, images, prompts):
        calls.append(0)
        if len(calls) == 4:
            raise ValueError("two\nlines")
        return scores(self, images, prompts)

    monkeypatch.setattr(_Redness, "scores", failing)
    said = r"clip_beta_0_run_1: epoch 1: the reward raised ValueError: two lines; .*checkpoint_00001 keeps the last"
    with pytest.raises(StudyError, match=said) as caught:
        ddpo(tmp_path, rewards=["clip"])
    assert "\n" not in str(caught.value)
    ddpo(tmp_path, rewards=["clip"])
    assert len(calls) == 5
    for name in ("clip_beta_0_run_0", "clip_beta_0_run_1"):
        assert _adapter(tmp_path, name, 2) == _adapter(by_ddpo[0], name, 2)


class _Bar:
    """What ``watch`` does with a bar."""

    made: ClassVar[list] = []

    def __init__(self, *_, total, initial, **__) -> None:
        self.total, self.n, self.closed = total, initial, False
        self.made.append(self)

    def update(self, more: int) -> None:
        self.n += more

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.closed = True


@pytest.mark.parametrize("fails", [False, True])
def test_a_watched_bar_ends_with_the_work_and_shows_all_of_it(monkeypatch, fails):
    monkeypatch.setattr(bars, "tqdm", _Bar)
    done, before = 3, threading.active_count()
    try:
        with bars.watch(lambda: done, "work", total=10, unit="steps"):
            while not _Bar.made:
                time.sleep(0.01)
            done = 8
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    bar = _Bar.made.pop()
    assert (bar.total, bar.n, bar.closed) == (10, 8, True) and threading.active_count() == before


def silent(_) -> bool:
    """Whether bars are off."""
    return bars.progress(None, "work").disable


def test_bars_are_shown_by_the_main_process_alone():
    assert list(processes.in_workers(silent, range(2), workers=1)) == [False, False]
    assert list(processes.in_workers(silent, range(2), workers=2)) == [True, True]


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_a_recipe_that_the_steps_take(tmp_path, monkeypatch, name):
    monkeypatch.setattr(Weights, "key", property(lambda weights: f"{weights.name}@{weights.revision}"))
    study, steps = study_of(tmp_path, name), {"rwr": run_rwr, "ddpo": run_ddpo}
    for one in rests_on(*study.long_steps()):
        into = {"folder": None} if "folder" in inspect.signature(one.function).parameters else {}
        inspect.signature(one.function).bind(*one.inputs, **one.config, **into)
        json.dumps(one.config, allow_nan=False)
    for method, train in steps.items():
        asked, found = getattr(study.profile, method), getattr(study, method)
        training, images, divergences = found.trained.config, found.images.config, found.divergences.config
        assert found.trained.function is train and found.trained.inputs[0] == found.prompts
        judged = found.judged if study.profile.annotators else found.rewarded
        assert judged.function is join_models and judged.inputs[1] == found.images
        assert training["recipe"] == asked.recipe and tuple(training["rewards"]) == asked.rewards
        assert (found.images.function, found.divergences.function) == (sample_checkpoints, measure_divergences)
        assert found.prompts.function is choose_open_prompts and found.curves.inputs == (found.trained,)
        assert found.images.inputs == found.divergences.inputs and found.images.inputs[:2] == (
            found.prompts,
            found.trained,
        )
        shared = ("checkpoints", "steps", "guidance_scale", "batch_size", "dtype", "seed")
        assert all(images[option] == divergences[option] for option in shared)
        assert images["checkpoints"] == list(asked.checkpoints) and 0 <= divergences["left_out"] < images["steps"]
        first, pool = study.images.config["seed"], study.pool.images.config["seed"]
        assert (first, pool) == (study.profile.seed, study.profile.seed + 1000)
        used = {first, pool, training["seed"], images["seed"]}
        assert len(used) == 4 and training["seed"] + asked.numbers <= images["seed"]


def test_ddpo_has_the_studys_recipe_and_the_contrasts_of_its_own_prompts(tmp_path):
    study = study_of(tmp_path, "mini")
    prompts, contrastive, recipe, _, *weights = study.ddpo.trained.inputs
    assert contrastive == study.ddpo.contrastive and contrastive.inputs[0] == prompts == study.ddpo.prompts
    assert recipe == study.recipe and prompts.inputs == (study.pool.judged,)
    assert [one.name for one in weights] == [f"bundled:rewards/{name}" for name in REWARDS]
    assert study.rwr.trained.inputs[1:3] == (study.pool.rewarded, study.pool.images)
