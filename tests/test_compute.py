"""Several processes launched together compute what one does, and a lost one leaves what the next run goes on with."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.stand_ins import write_stand_ins
from textnorm_lib import compute, processes
from textnorm_lib.store import Store, step
from textnorm_lib.tia2.official import release_available

ROOT = Path(__file__).parents[1]
LAUNCH = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", "-m"]
COMMAND = ["textnorm_lib.compute", "paper-toy"]
SHARED = ("make_images", "score_images", "train_rwr", "train_ddpo", "sample_checkpoints")

needs_release = pytest.mark.skipif(not release_available()[0], reason="the profile's prompts are the release's")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stand_ins")
    write_stand_ins(folder, toy=True)
    return folder


@pytest.fixture
def begin(weights):
    """Starts the command, by one process or by two."""

    def begin(artifacts: Path, *, together: bool) -> subprocess.Popen:
        given = {"TEXTNORM_WEIGHTS": str(weights), "TEXTNORM_ARTIFACTS": str(artifacts), "PYTHONPATH": str(ROOT)}
        environment = {**os.environ, **given, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *(LAUNCH if together else ["-m"]), *COMMAND]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True, **pipes)

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
        elif name.startswith("train_"):
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
    while not list(two.rglob("train_rwr/*.partial/*/curve.jsonl")):  # images and scores are there, training has begun
        assert launched.poll() is None, launched.communicate()[0][-3000:]
        time.sleep(0.05)
    children = subprocess.run(["pgrep", "-P", str(launched.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGKILL)
    assert launched.wait(timeout=120) != 0  # the others end, too
    _finish(begin(two, together=True))
    _assert_same(one, two)


# Without processes: what is shared, what is not


class Told:
    """Stands in for ``Processes``: this is number ``rank``."""

    def __init__(self, rank):
        self.rank = rank


@step(1, shared=True)
def shared_step(*, folder: Path) -> dict:
    (folder / f"{os.environ['RANK']}.txt").write_text("done")
    return {}


@step(1)
def single_step() -> pd.DataFrame:
    return pd.DataFrame({"rank": [os.environ["RANK"]]})


def test_a_shared_step_is_worked_on_by_all_and_stored_by_the_first_any_other_is_computed_by_the_first(
    tmp_path, monkeypatch
):
    store, waited = Store(tmp_path), []

    def others():  # what happens elsewhere while this process waits: here, one after the other
        waited.append(os.environ["RANK"])
        if os.environ["RANK"] == "1":
            monkeypatch.setenv("RANK", "0")
            monkeypatch.setattr(compute, "Processes", lambda: Told(0))
            compute.compute_together(store, function)

    monkeypatch.setattr(compute, "wait_for_all", others)
    for function in (shared_step, single_step):
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setattr(compute, "Processes", lambda: Told(1))
        result = compute.compute_together(store, function)
        assert waited == ["1", "0"]
        waited.clear()
        if function is shared_step:
            assert sorted(path.name for path in result.folder.glob("*.txt")) == ["0.txt", "1.txt"]
        else:
            assert result.value["rank"].tolist() == ["0"]


def test_alone_everything_is_ones_own_and_nobody_is_waited_for(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert processes.own_share([1, 2, 3]) == [1, 2, 3]
    processes.wait_for_all()


def test_a_wrong_profile_is_one_line(capsys):
    assert compute.main(["papr"]) == 2
    assert capsys.readouterr().err == "compute: unknown profile 'papr': did you mean 'paper'?\n"


def test_what_is_marked_as_shared_takes_part_in_the_work():
    from textnorm_lib import checkpoint_images, finetuning
    from textnorm_lib.rewards import scoring
    from textnorm_lib.tia2 import build

    modules = {"make_images": build, "score_images": scoring, "sample_checkpoints": checkpoint_images}
    modules |= {"train_rwr": finetuning, "train_ddpo": finetuning}
    assert set(modules) == set(SHARED)
    assert all(getattr(module, name).shared for name, module in modules.items())
    assert not build.collect_votes.shared
