"""What would stop a run is found before it begins: all of it, a line each with its remedy, and nothing else."""

import json
import re
import shutil
from types import SimpleNamespace

import httpx
import huggingface_hub
import pandas as pd
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError
from toys import profile_with, study_of

from textnorm_lib import rewards
from textnorm_lib.__main__ import disk_problems, images_asked_for, main, model_problems, models_of, seconds_stored
from textnorm_lib.images import sampling
from textnorm_lib.study.store import Store, step
from textnorm_lib.study.weights import VARIABLE, bundled

COMMIT = "0123456789abcdef" * 2 + "01234567"
PICKSCORE = {"rewards.pickscore.weights": "yuvalkirstain/PickScore_v1"}


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Without a GPU and the hub, with an empty folder for results."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TEXTNORM_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def run(monkeypatch, capsys):
    """Exit status, standard output and problems, without progress bars, of the command on smoke with overrides."""

    def call(overrides=None):
        profile = profile_with("smoke", overrides or {})
        monkeypatch.setattr("textnorm_lib.study.run.load_profile", lambda name: profile)
        status, said = main(["preflight", "smoke"]), capsys.readouterr()
        return status, said.out, [line for line in said.err.splitlines() if line.startswith("preflight: ")]

    return call


def test_a_healthy_profile_is_ok_without_a_model_being_loaded(run, monkeypatch):
    def loaded(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(sampling, "load_pipeline", loaded)
    monkeypatch.setattr(rewards, "load_reward", loaded)
    said = "preflight: profile smoke: 11 models are here, the disk has room, ok\n"
    assert run() == (0, said, [])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"generator.model": "/nowhere/model"}, r"generator\.model: .*'/nowhere/model': there is no such .*; correct"),
        ({"ddpo.model": "no folder"}, r"ddpo\.model: .*'no folder': there is no such file or folder; correct the name"),
        (PICKSCORE, r"rewards\.pickscore: .*revision = None pins nothing; give the 40 digits of a commit"),
        (
            {**PICKSCORE, "rewards.pickscore.revision": COMMIT},
            r"rewards\.pickscore: .*HF_HUB_OFFLINE is set\); connect",
        ),
        ({"rewards.blip2.weights": "models/blip2"}, r"rewards\.blip2: .*; run python -m textnorm_lib rewards convert"),
        ({"annotators": ["judge_1", "judge_2", "judge_9"]}, r"annotators judge_9: there is no bundled model"),
        ({"quality_judges": ["quality_1", "x", "quality_3"]}, r"quality_judges x: there is no bundled model"),
    ],
    ids=lambda value: None if isinstance(value, dict) else re.sub(r"\W.*", "", value),
)
def test_a_model_that_is_not_here_is_a_line_with_its_key_and_the_remedy(run, overrides, said):
    status, out, lines = run(overrides)
    assert (status, out, len(lines)) == (2, "", 1)
    assert re.match(f"preflight: {said}", lines[0])


def test_a_revision_that_the_hub_does_not_have_is_named(run, monkeypatch):
    def hub(name, *, local_files_only=False, **_):
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        raise RevisionNotFoundError("404", response=httpx.Response(404, request=httpx.Request("GET", "https://hub")))

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    status, _, lines = run({**PICKSCORE, "rewards.pickscore.revision": COMMIT})
    assert status == 2 and len(lines) == 1
    assert lines[0].startswith("preflight: rewards.pickscore: ") and COMMIT in lines[0]
    assert lines[0].endswith("correct the name or the revision")


def test_a_pickle_is_refused_with_the_converter(run, tmp_path):
    (tmp_path / "ImageReward.pt").write_bytes(b"")
    status, _, (line,) = run({"rewards.imagereward.weights": str(tmp_path / "ImageReward.pt")})
    assert status == 2 and line.startswith("preflight: rewards.imagereward: ")
    assert line.endswith("python -m textnorm_lib rewards convert --help")


@pytest.mark.parametrize(
    ("key", "model", "file", "change", "said"),
    [
        ("rewards.clip.weights", "rewards/clip", "open_clip_config.json", "delete", "is missing"),
        ("rewards.blip2.weights", "rewards/blip2", "preprocessor_config.json", "delete", "is missing"),
        ("rewards.blip2.weights", "rewards/blip2", "config.json", "cut", r"cannot be read \(no JSON\)"),
        ("generator.model", "generator", "scheduler/scheduler_config.json", "delete", "is missing"),
        ("generator.model", "generator", "model_index.json", "cut", r"cannot be read \(no JSON\)"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_named(run, tmp_path, key, model, file, change, said):
    folder = tmp_path / "copy"
    shutil.copytree(bundled(model), folder)
    if change == "delete":
        (folder / file).unlink()
    else:
        (folder / file).write_text((folder / file).read_text()[:-9])
    status, _, (line,) = run({key: str(folder)})
    assert status == 2
    assert re.fullmatch(f"preflight: {key.removesuffix('.weights')}: {folder / file} {said}; copy .* anew", line)


def test_a_pipeline_without_sizes_is_named(run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(bundled("generator"), folder)
    (folder / "unet" / "config.json").write_text("{}")
    status, _, (line,) = run({"ddpo.model": str(folder)})
    assert status == 2 and line.startswith(f"preflight: {folder}: unet/config.json or vae/config.json is no use")


def test_all_problems_are_listed_and_none_twice(run, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"")
    overrides = {"generator.model": "no folder", "rewards.clip.weights": str(tmp_path / "model.pt"), **PICKSCORE}
    status, out, lines = run({**overrides, "generator.dtype": "float16"})
    assert (status, out) == (2, "")
    keys = ["generator.model", "rewards.clip", "rewards.pickscore", "generator.dtype"]
    assert [line.split(": ")[1] for line in lines] == keys


def test_a_model_with_two_keys_is_looked_at_once(tmp_path):
    study = study_of(tmp_path, "smoke", {"generator.model": "no folder", "ddpo.model": "no folder"})
    problems = model_problems(models_of(study))
    assert len(problems) == 1 and problems[0].startswith("generator.model and ddpo.model: ")


@pytest.mark.parametrize("there", [True, False])
def test_half_precision_wants_a_gpu(run, monkeypatch, there):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    status, _, lines = run({"rewards.dtype": "float16", "rwr.recipe.dtype": "float16"})
    assert status == (0 if there else 2)
    said = "preflight: rewards.dtype and rwr.recipe.dtype: float16 wants a GPU, and torch finds none here; install a"
    assert [line.startswith(said) for line in lines] == [True] * (not there)


def _disk(monkeypatch, free: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=int(free)))


def test_a_disk_that_is_too_small_is_named_with_what_is_needed_and_free(run, tmp_path, monkeypatch):
    _disk(monkeypatch, 1e5)
    status, _, (line,) = run({"tia2.images_per_prompt": 1000, "best_of_n.images_per_prompt": 10_000})
    needed = (16_000 + 60_000) * 64 * 64 * 2 / 2**30
    assert status == 2
    assert line == (
        f"preflight: {tmp_path / 'artifacts'}: {needed:.1f} GiB may be written, 0.0 GiB are free; make room, point "
        "TEXTNORM_ARTIFACTS to a larger disk, or lower images_per_prompt in the profile"
    )


def test_what_is_written_already_needs_no_room_again(tmp_path, monkeypatch):
    images, steps = images_asked_for(study_of(tmp_path, "smoke")), tmp_path / "artifacts" / "steps" / "make_images"
    _disk(monkeypatch, 1e6)
    assert len(disk_problems(images)) == 1
    steps.mkdir(parents=True)
    (steps / "image.png").write_bytes(bytes(20_000_000))
    assert disk_problems(images) == []


def test_prompts_that_cannot_be_had_are_a_problem(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTNORM_TIA2_DIR", str(tmp_path))
    setting = {"rewards": ["clip"], "temperatures": [1.0], "penalty": 0.0}
    status, _, lines = run({"prompts": "released", "annotators": [], "quality_judges": [], "textnorm": setting})
    assert status == 2 and len(lines) == 1 and f"TEXTNORM_TIA2_DIR={tmp_path}: no file" in lines[0]


def test_an_unknown_profile_is_one_line(capsys):
    assert main(["preflight", "smok"]) == 2
    assert capsys.readouterr() == ("", "preflight: unknown profile 'smok': did you mean 'smoke'?\n")


@step(1)
def slow(*, seed):
    return pd.DataFrame({"seed": [seed]})


def test_the_seconds_of_the_last_run_are_told_where_it_is_stored(run, tmp_path):
    store, artifacts = Store(tmp_path / "artifacts" / "steps"), []
    for seed, seconds in enumerate((100, 20.4)):
        artifacts.append(store.compute(slow, seed=seed))
        path = artifacts[-1].folder / "meta.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": seconds}))
    steps = [{"key": one.key, "step": "slow"} for one in artifacts]
    record = tmp_path / "artifacts" / "runs" / "smoke" / "04_best_of_n.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"made": {"fig": {"steps": steps}, "tab": {"steps": steps[:1]}}}))
    assert seconds_stored("smoke") == {"slow": 120.4} and seconds_stored("mini") == {}
    assert run()[1].endswith("ok\npreflight: its last run is stored; seconds of its steps: slow 120\n")
    record.write_text("{")
    assert run()[1].endswith("ok\n")
