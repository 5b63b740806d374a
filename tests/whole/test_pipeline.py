"""The study's steps and what takes long among them: by several processes together as by one, a lost one made up for."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from toys import rests_on, study_of

from benchmarks.stand_ins import write_stand_ins
from textnorm_lib import __main__ as commands
from textnorm_lib.study import config, processes
from textnorm_lib.study.store import STEPS, Store, step
from textnorm_lib.tia2.official import release_available

ROOT = Path(__file__).parents[2]
LAUNCH = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
COMMAND = """
from pathlib import Path
from textnorm_lib.study import config
if __name__ == "__main__":
    config.PROFILES = Path(__file__).parent
    from textnorm_lib.__main__ import main
    raise SystemExit(main(["compute", "paper-toy"]))
"""
FEWER = {"rewards": ["clip", "textnorm"], "other_betas": {}}
SHARED = ("make_images", "score_images", "run_rwr", "run_ddpo", "sample_checkpoints")

needs_release = pytest.mark.skipif(not release_available()[0], reason="the profile's prompts are the release's")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stand_ins")
    write_stand_ins(folder, toy=True)
    return folder


@pytest.fixture
def command(tmp_path):
    """A file that runs ``compute paper-toy`` with models tuned on two rewards instead of five."""
    for path in config.PROFILES.glob("*.yaml"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    toy = yaml.safe_load((config.PROFILES / "paper-toy.yaml").read_text(encoding="utf-8"))
    fewer = {**toy, **{part: {**toy[part], **FEWER} for part in ("rwr", "ddpo")}}
    (tmp_path / "paper-toy.yaml").write_text(json.dumps(fewer))  # which is YAML
    (tmp_path / "command.py").write_text(COMMAND)
    return str(tmp_path / "command.py")


@pytest.fixture
def begin(weights, command):
    """Starts the command, by one process or by two."""

    def begin(artifacts: Path, *, together: bool) -> subprocess.Popen:
        given = {"TEXTNORM_WEIGHTS": str(weights), "TEXTNORM_ARTIFACTS": str(artifacts), "PYTHONPATH": str(ROOT)}
        environment = {**os.environ, **given, "OMP_NUM_THREADS": "1"}
        started = [sys.executable, *(LAUNCH if together else []), command]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(started, env=environment, cwd=ROOT, start_new_session=True, **pipes)

    return begin


def _finish(process: subprocess.Popen) -> None:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output[-3000:]


def _results(artifacts: Path) -> dict[str, Path]:
    """The stored steps, by name and key."""
    found = {str(path.parent.relative_to(artifacts / "steps")): path.parent for path in artifacts.rglob("meta.json")}
    assert not list(artifacts.rglob("*.partial"))
    return found


def _assert_same(one: Path, other: Path) -> None:
    """The same images and scores, the same weights up to the order of sums."""
    alone, together = _results(one), _results(other)
    assert alone.keys() == together.keys() and {key.split("/")[0] for key in alone} >= set(SHARED)
    for key, folder in alone.items():
        if (name := key.split("/")[0]) in ("make_images", "score_images"):
            files = sorted(
                path.relative_to(folder) for path in folder.rglob("*") if path.suffix in (".png", ".parquet")
            )
            assert files and all((folder / file).read_bytes() == (together[key] / file).read_bytes() for file in files)
        elif name in ("run_rwr", "run_ddpo"):
            adapters = sorted(path.relative_to(folder) for path in folder.rglob("pytorch_lora_weights.safetensors"))
            assert adapters
            for file in adapters:
                torch.testing.assert_close(
                    load_file(folder / file), load_file(together[key] / file), rtol=1e-2, atol=1e-4
                )


@needs_release
def test_two_processes_compute_what_one_does_and_a_killed_one_is_made_up_for(begin, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    _finish(begin(one, together=False))
    launched = begin(two, together=True)
    while not list(two.rglob("run_rwr/*.partial/*/curve.jsonl")):  # images and scores are there, training has begun
        assert launched.poll() is None, launched.communicate()[0][-3000:]
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(launched.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    assert launched.wait(timeout=120) != 0  # the others end, too
    _finish(begin(two, together=True))
    _assert_same(one, two)


# Without processes: what is shared, what is not


HERE, TOGETHER = threading.local(), threading.Barrier(2)


@step(1, shared=True)
def shared_step(*, folder: Path) -> dict:
    (folder / f"{HERE.rank}.txt").write_text("done")
    TOGETHER.wait(60)
    return {}


@step(1)
def single_step(made: Path) -> pd.DataFrame:
    return pd.DataFrame({"rank": [HERE.rank], "found": [",".join(sorted(path.stem for path in made.glob("*.txt")))]})


@step(1)
def last_step(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(last=HERE.rank)


def _by_two(monkeypatch, artifact_of) -> None:
    """``compute_together`` in two threads that stand for two processes, each with handles of its own."""
    TOGETHER.reset()
    monkeypatch.setattr(commands, "Processes", lambda: HERE)
    monkeypatch.setattr(commands, "wait_for_all", lambda: TOGETHER.wait(60))

    def work(rank: int) -> None:
        HERE.rank = rank
        try:
            commands.compute_together(artifact_of())
        except BaseException:
            TOGETHER.abort()
            raise

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (0, 1)))


def test_a_shared_step_is_worked_on_by_all_and_stored_by_the_first_any_other_is_computed_by_the_first(
    tmp_path, monkeypatch
):
    def artifact():
        store = Store(tmp_path)
        return store.step(last_step, store.step(single_step, store.step(shared_step)))

    _by_two(monkeypatch, artifact)
    result = artifact()
    assert result.value.to_dict("records") == [{"rank": 0, "found": "0,1", "last": 0}]
    assert sorted(path.name for path in result.inputs[0].inputs[0].folder.glob("*.txt")) == ["0.txt", "1.txt"]
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    _by_two(monkeypatch, artifact)
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}  # nothing is made again


@pytest.mark.parametrize("gone", ["last_step", "single_step"])
def test_what_is_stored_or_came_along_needs_none_of_what_it_rests_on(tmp_path, monkeypatch, gone):
    def artifact(root: Path, **more):
        store = Store(root, **more)
        return store.step(last_step, store.step(single_step, store.step(shared_step)))

    given, root = tmp_path / "results", tmp_path / "steps"
    _by_two(monkeypatch, lambda: artifact(given))
    for name in {"shared_step", gone}:
        shutil.rmtree(given / name)
    _by_two(monkeypatch, lambda: artifact(root, results=given, prefer=True))
    made = {path.parent.parent.name for path in root.rglob("meta.json")}
    assert made == ({"last_step"} if gone == "last_step" else set())


def test_alone_everything_is_ones_own_and_nobody_is_waited_for(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes.own_share([1, 2, 3]) == [1, 2, 3]
    processes.wait_for_all()


def test_a_wrong_profile_is_one_line(capsys):
    assert commands.main(["compute", "papr"]) == 2
    assert capsys.readouterr().err == "compute: unknown profile 'papr': did you mean 'paper'?\n"


def test_what_is_marked_as_shared_takes_part_in_the_work():
    marked = {name for name, one in STEPS.items() if one.shared and one.__module__.startswith("textnorm_lib.")}
    assert marked == set(SHARED)


# The pipeline's handles


def test_what_takes_long_is_all_of_it_and_without_votes_what_needs_none(tmp_path):
    voted, nobodys = study_of(tmp_path, "mini"), study_of(tmp_path, "paper")
    of_mini = {one.function.__name__ for one in rests_on(*voted.long_steps())}
    of_paper = {one.function.__name__ for one in rests_on(*nobodys.long_steps())}
    assert of_mini >= {*SHARED, "collect_votes", "rate_quality", "random_sets", "grid_metrics", "measure_divergences"}
    assert of_paper >= {*SHARED, "released_prompts", "given_recipe", "measure_divergences"}
    assert not {"label_images", "collect_votes", "rate_quality", "random_sets", "grid_metrics"} & of_paper
    assert not list(tmp_path.iterdir())  # nothing was computed


def test_no_two_purposes_have_the_same_noise(tmp_path):
    study = study_of(tmp_path, "mini")
    seeds = {name: getattr(study, name).images.config["seed"] for name in ("pool", "start", "rwr", "ddpo")}
    assert study.images.config["seed"] == study.profile.seed and study.profile.seed not in seeds.values()
    assert len({seeds["pool"], seeds["start"], seeds["rwr"]}) == 3 and seeds["rwr"] == seeds["ddpo"]


def test_sealed_prompts_are_judged_by_what_was_chosen_on_development_prompts(tmp_path):
    study = study_of(tmp_path, "mini")
    ensembles = ["clip", "blip2", "imagereward", "pickscore", "imagereward+pickscore"]
    ensembles.append("clip+blip2+imagereward+pickscore")
    random, rules = study.sealed_values, study.sealed_values.inputs[0]
    assert rules.inputs[0] == study.sealed and study.sealed.config == {"side": "sealed"}
    for values, prefix, texts, scores in (
        (rules, "textnorm", study.contrastive, study.scores),
        (random, "random", study.random_contrasts, study.random_scores),
    ):
        recipes = values.inputs[2]
        grid, units = recipes.inputs
        assert values.inputs[1:] == (texts, recipes, *scores.values())
        assert values.config == {"names": list(scores), "prefix": prefix}
        assert grid.inputs == (study.development, texts, *scores.values())
        assert ["+".join(one) for one in grid.config["ensembles"]] == ensembles
        assert units.inputs == (study.development, *study.scores.values())
    columns = [f"{prefix}:{one}" for prefix in ("textnorm", "random") for one in ensembles]
    assert study.sealed_metrics.inputs == (random,)
    assert study.sealed_metrics.config == {"rewards": [*ensembles[:4], *columns]}


# Every step has a name of its own, which the report knows


def _steps_written() -> Counter:
    """The names of the functions under ``@step(...)`` anywhere in the library."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.glob("textnorm_lib/**/*.py"))
    functions = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    return Counter(
        function.name
        for function in functions
        if any(isinstance(by, ast.Call) and ast.unparse(by.func) == "step" for by in function.decorator_list)
    )


def test_every_step_has_a_name_of_its_own_and_the_report_knows_them_all():
    written = _steps_written()
    assert [name for name, times in written.items() if times > 1] == [] and len(written) > 100
    command = "import textnorm_lib.__main__; from textnorm_lib.study.store import STEPS; print(*STEPS)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    known = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert set(known.stdout.split()) == set(written)
