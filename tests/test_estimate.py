"""The estimate: what is counted is what a run does, hours follow from counts and rates, each error is one line."""

import json
from collections import Counter
from itertools import chain

import pytest
import torch
from toys import toy_pipeline

from textnorm_lib import estimate as command
from textnorm_lib import workload
from textnorm_lib.config import load_profile
from textnorm_lib.contrastive.sets import random_sets
from textnorm_lib.errors import DataError, StudyError
from textnorm_lib.estimate import estimate, main, measure_rates
from textnorm_lib.mini.generator import save_pipeline
from textnorm_lib.pool import build_pool
from textnorm_lib.prompt_sets import contrast_sets
from textnorm_lib.rates import Rate, Trial, measure, split
from textnorm_lib.rewards.scoring import REWARDS, score_rewards
from textnorm_lib.start_here import build_start
from textnorm_lib.store import Store
from textnorm_lib.tia2.build import build_tia2
from textnorm_lib.tuned import tune_by_ddpo, tune_by_rwr
from textnorm_lib.workload import Work, count_work

FEW = {"comprehensive": 1, "counting": 1, "composition": 1}
TUNED = {"prompts_per_set": FEW, "numbers": 1, "other_betas": {}, "lora_rank": 2, "images_per_prompt": 8}
RECIPES = {
    "rwr": {"images_per_prompt": 8, "best": 2, "weighting": "centred", "steps": 2, "batch_size": 2, "save_every": 1},
    "ddpo": {
        **{"epochs": 1, "images_per_epoch": 6, "batch_size": 3, "denoising_steps": 3, "untrained_steps": 1},
        **{"save_every": 1, "min_count": 2, "buffer_size": 4},
    },
}
SMALL = {
    "contrastive_prompts": 2,
    "textnorm": {"rewards": ["clip", "pickscore"], "temperatures": [1.0, 1.0], "penalty": 0.0},
    "generator.steps": 3,
    "generator.batch_size": 4,
    "tia2.images_per_prompt": 2,
    "tia2.prompts_per_set": {"comprehensive": 2, "counting": 1, "composition": 1},
    "best_of_n.prompts_per_set": FEW,
    "best_of_n.images_per_prompt": 8,
    "best_of_n.sizes": [1, 2, 4],
    "best_of_n.judged": [4],
    **{f"{part}.{key}": value for part in RECIPES for key, value in TUNED.items()},
    **{f"{part}.recipe": {**recipe, "dtype": "float32"} for part, recipe in RECIPES.items()},
    "rwr.rewards": ["clip", "textnorm"],
    "rwr.checkpoints": [1, 2],
    "ddpo.rewards": ["textnorm"],
    "ddpo.checkpoints": [1],
}
ALIKE = Rate(3600.0, 0.0, 1.0)  # an hour an item, a GiB


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """Smoke's rewards and judges, a generator with random weights, and as little of everything as can be."""
    folder = tmp_path_factory.mktemp("model") / "toy"
    save_pipeline(toy_pipeline(), folder)
    return load_profile("smoke", {**SMALL, "generator.model": str(folder), "ddpo.model": str(folder)})


@pytest.fixture
def offline(monkeypatch):
    """Without the release, whether or not this machine has it."""
    monkeypatch.setattr(workload, "release_available", lambda: (False, "none here"))


def _totals(work: dict[str, list[Work]]) -> Counter:
    totals = Counter()
    for one in chain.from_iterable(work.values()):
        totals[one.kind, "items"] += one.items
        totals[one.kind, "parts"] += one.parts
    return totals


@pytest.mark.usefixtures("one_thread", "offline")
def test_what_is_counted_is_what_the_steps_of_a_real_run_hold(profile, tmp_path):
    store, done = Store(tmp_path), {}

    def compute(function, *inputs, **config):
        artifact = store.compute(function, *inputs, **config)
        done[artifact.key] = artifact
        return artifact

    build_start(compute, profile)
    built = build_tia2(compute, profile)
    rules = contrast_sets(compute, profile, built.prompts)
    for contrastive in (rules, compute(random_sets, rules, seed=profile.seed)):
        score_rewards(compute, profile, built.images, contrastive)
    pool = build_pool(compute, profile)
    for tune in (tune_by_rwr, tune_by_ddpo):
        tune(compute, profile, pool)

    found, generator = Counter(), workload.IMAGES + " " + profile.generator.model
    for artifact in done.values():
        step, told = artifact.meta["step"], artifact.meta.get("measured")
        if step in ("make_images", "sample_checkpoints"):
            found[generator, "items"] += len(list(artifact.value.rglob("image_*.png")))
        elif step == "score_images":
            found[workload.scores_by(artifact.meta["config"]["name"]), "parts"] += told["scores"]
        elif step == "train_rwr":
            found[workload.RWR, "items"] += told["runs"] * told["steps"]
        elif step == "train_ddpo":
            found[workload.DDPO_SAMPLING, "items"] += told["runs"] * told["steps"] * 6
        elif step in ("collect_votes", "rate_quality"):
            kind = workload.VOTES if step == "collect_votes" else workload.QUALITY
            found[kind, "items"] += artifact.value["image"].nunique()
    for name in ("clip", "pickscore"):  # what DDPO asks of TextNorm is not kept: six images, each with three texts
        found[workload.scores_by(name), "parts"] += 6 * 3
    counted = _totals(count_work(profile))
    assert {key: counted[key] for key in found} == dict(found)
    assert {kind for kind, _ in counted} - {kind for kind, _ in found} == {workload.DDPO_TRAINING}
    assert counted[workload.DDPO_TRAINING, "items"] == 6 * (3 - 1)


def test_passes_are_counted_for_images_divergences_and_training(offline):
    work = count_work(load_profile("smoke"))
    images = "images by bundled:generator"
    assert work["00_start_here"][0] == Work(images, 6 * 16, 6 * 16 * 8)
    assert work["04_best_of_n"][0] == Work(images, 6 * 16, 6 * 16 * 8)
    # three runs of two checkpoints and the base, three prompts, eight images of each
    assert Work(images, 7 * 3 * 8, 7 * 3 * 8 * 8) in work["05_rwr_finetuning"]
    # three ways a prompt, by the model and by the base
    assert Work(images, 0, 3 * 2 * 3 * 3 * 8 * 2) in work["05_rwr_finetuning"]
    assert Work(workload.RWR, 3 * 4, 3 * 3 * 8) in work["05_rwr_finetuning"]
    assert Work(workload.DDPO_SAMPLING, 2 * 2 * 12, 2 * 2 * 12 * 4) in work["06_ddpo_finetuning"]
    assert Work(workload.DDPO_TRAINING, 2 * 2 * 12 * 2) in work["06_ddpo_finetuning"]


def test_a_model_of_its_own_for_ddpo_makes_the_images_of_its_checkpoints(offline):
    work = count_work(load_profile("smoke", {"ddpo.model": "another/model"}))
    of = {name: {one.kind for one in noted if one.kind.startswith(workload.IMAGES)} for name, noted in work.items()}
    assert of["05_rwr_finetuning"] == {"images by bundled:generator"}
    assert of["06_ddpo_finetuning"] == {"images by another/model"}


def test_without_annotators_nobody_votes_and_nothing_is_tuned_on_votes(offline):
    setting = {"rewards": ["clip"], "temperatures": [1.0], "penalty": 0.0}
    work = count_work(load_profile("smoke", {"annotators": [], "quality_judges": [], "textnorm": setting}))
    kinds = {one.kind for one in chain.from_iterable(work.values())}
    assert not kinds & {workload.VOTES, workload.QUALITY}
    assert work["03_textnorm_ablations"] == []


@pytest.mark.parametrize(
    ("key", "notebook", "kind"),
    [
        ("tia2.images_per_prompt", "01_build_tia2", "images"),
        ("tia2.images_per_prompt", "02b_benchmark_mini_rewards", "scores"),
        ("best_of_n.images_per_prompt", "04_best_of_n", "images"),
        ("rwr.numbers", "05_rwr_finetuning", "RWR steps"),
        ("ddpo.recipe.epochs", "06_ddpo_finetuning", "DDPO rows"),
    ],
)
def test_twice_as_much_takes_twice_as_long(offline, key, notebook, kind):
    def row(times: int):
        changed = load_profile("smoke")
        for part in key.split("."):
            changed = changed[part] if isinstance(changed, dict) else getattr(changed, part)
        work = count_work(load_profile("smoke", {key: times * changed}))
        kinds = {one.kind for one in chain.from_iterable(work.values())}
        rates = {one: ALIKE if _column(one) == kind else Rate(0, 0, 0) for one in kinds}
        return estimate(work, rates, processes=1).set_index("notebook").loc[notebook]

    once, twice = row(1), row(2)
    assert twice[kind] == 2 * once[kind] > 0
    assert twice["hours"] == pytest.approx(2 * once["hours"]) and once["hours"] > 0


def _column(kind: str) -> str:
    prefixes = {workload.IMAGES: "images", workload.SCORES: "scores"}
    return next((name for prefix, name in prefixes.items() if kind.startswith(prefix)), kind)


def test_processes_share_the_time_and_each_takes_its_memory():
    work = {"a": [Work("votes", 3), Work("images by x", 1, 10)], "b": [Work("images by x", 2, 0)], "c": []}
    rates = {"votes": Rate(3600.0, 0.0, 0.5), "images by x": Rate(0.0, 360.0, 2.0)}
    alone, together = (estimate(work, rates, processes=n).set_index("notebook") for n in (1, 2))
    assert alone["hours"].to_dict() == {"a": 4.0, "b": 0.0, "c": 0.0, "total": 4.0}
    assert alone["GiB"].to_dict() == {"a": 2.0, "b": 2.0, "c": 0.0, "total": 2.0}
    assert alone["images"].to_dict() == {"a": 1, "b": 2, "c": 0, "total": 3}
    assert (together["hours"] * 2 == alone["hours"]).all() and (together["GiB"] == 2 * alone["GiB"]).all()


@pytest.mark.parametrize(("item", "part"), [(0.0, 2.0), (3.0, 0.0), (0.25, 0.125)])
def test_two_tries_tell_an_item_from_its_parts(item, part):
    tries = [(parts, 4 * (item + parts * part)) for parts in (2, 8)]
    assert split(*tries, 4) == pytest.approx((item, part))


@pytest.mark.parametrize("tries", [[(2, 1.0), (8, 0.9)], [(2, 0.1), (8, 1.0)]])
def test_a_disturbed_try_gives_no_negative_time(tries):
    assert min(split(*tries, 4)) >= 0


@pytest.mark.usefixtures("offline")
def test_every_kind_of_work_is_tried_with_the_profiles_models(profile):
    rates = measure_rates(profile, device="cpu")
    assert {one.kind for one in chain.from_iterable(count_work(profile).values())} == set(rates)
    assert all(rate.seconds(Work("", 1, 8)) > 0 and 0.05 < rate.gib < 64 for rate in rates.values())


def _fails(error: Exception, cause: Exception | None = None):
    def run(folder):
        raise error from cause

    return Trial("RWR", "rwr.recipe.pass_size", run)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (torch.OutOfMemoryError("Tried to allocate\n20 GiB"), None),
        (StudyError("images a to b: OutOfMemoryError"), torch.OutOfMemoryError("no")),
        (DataError("clip: no room for a single image"), torch.OutOfMemoryError("no")),
    ],
)
def test_too_little_memory_is_a_line_with_what_was_needed_free_and_the_key_to_lower(error, cause):
    with pytest.raises(StudyError) as caught:
        measure(_fails(error, cause), device="cpu")
    said = str(caught.value)
    assert said.startswith("RWR: out of memory on cpu: more than ") and "\n" not in said
    assert "GiB were free; lower rwr.recipe.pass_size" in said


def test_what_else_a_try_raises_is_passed_on():
    with pytest.raises(DataError, match="no such file"):
        measure(_fails(DataError("no such file")), device="cpu")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["smok"], "unknown profile 'smok': did you mean 'smoke'?"),
        (["smoke", "--device", "gpu"], "--device gpu: no such device; take cpu"),
        (["smoke", "--device", "cuda"], "--device cuda: there is no CUDA device here; take cpu"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(arguments, said, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", f"estimate: {said}\n")


def test_a_missing_model_is_one_line_before_anything_is_measured(monkeypatch, capsys, offline):
    profile = load_profile("smoke", {"generator.model": "no/such-model"})
    monkeypatch.setattr(command, "load_profile", lambda name: profile)
    assert main(["smoke", "--device", "cpu"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("estimate: ") and "'no/such-model'" in line


def test_the_table_and_the_json_say_the_same(monkeypatch, capsys, offline):
    kinds = [*(workload.scores_by(name) for name in REWARDS), workload.VOTES, workload.QUALITY, workload.RWR]
    kinds += ["images by bundled:generator", workload.DDPO_SAMPLING, workload.DDPO_TRAINING]
    monkeypatch.setattr(command, "measure_rates", lambda profile, device: dict.fromkeys(kinds, ALIKE))
    assert main(["smoke", "--device", "cpu", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["profile"], told["device"], told["processes"]) == ("smoke", "cpu", 1)
    assert told["rates"]["votes"] == {"item": 3600.0, "part": 0.0, "gib": 1.0}
    assert told["total"]["images"] == sum(row["images"] for row in told["notebooks"]) == 96 + 64 + 96 + 168 + 120
    assert main(["smoke", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for row in told["notebooks"]:
        (line,) = [line for line in lines if line.startswith(f"| {row['notebook']}")]
        cells = [cell.strip().replace(",", "") for cell in line.strip("|").split("|")]
        assert cells[1:6] == [str(value) for value in list(row.values())[1:6]]
        assert float(cells[6]) == pytest.approx(row["hours"], rel=0.05)
