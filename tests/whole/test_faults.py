"""Runs of the smoke profile under bad luck: killed, side by side, without data or network, with nowhere to write.

Each run happens in a copy of the checkout with an artifacts folder of its own; this checkout is not touched. What they
are compared with is what an undisturbed run stored: the test command's own, or one that is made here. The run without
data has all notebooks and goes on from there; the others have two: they compute and train.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from textnorm_lib.figures.report import ITEMS
from textnorm_lib.study.store import artifacts_folder
from textnorm_lib.tia2.official import VARIABLE, release_available

CHECKOUT = Path(__file__).parents[2]
TIMEOUT_S = 900  # of a machine that does other things as well
KILLS = 3
MOMENTS = 25  # so many steps at least does a run of these store
FEW = ("01_build_tia2", "05_rwr_finetuning")
ONLY = [word for name in FEW for word in ("--only", name.split("_")[0] + "_")]


@dataclass
class Copy:
    """A copy of the checkout that can be run in the environment of this test."""

    folder: Path
    artifacts: Path

    def environment(self, **more):
        env = {**os.environ, "TEXTNORM_ARTIFACTS": str(self.artifacts), "VIRTUAL_ENV": sys.prefix}
        env["PATH"] = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{env['PATH']}"
        env.pop("PYTHONPATH", None)
        return {name: value for name, value in {**env, **more}.items() if value is not None}

    def start(self, *arguments, **more):
        """Start run_all.sh in a process group of its own."""
        return subprocess.Popen(
            ["./run_all.sh", "smoke", *arguments],
            **{"cwd": self.folder, "env": self.environment(**more), "start_new_session": True},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
        )

    def run(self, *arguments, **more):
        """Exit status and what was said on standard output and on standard error."""
        return finish(self.start(*arguments, **more))

    def check(self):
        """The report's own check of the copy."""
        return subprocess.run(
            [sys.executable, "-m", "textnorm_lib", "report", "smoke", "--check"],
            **{"cwd": self.folder, "env": self.environment(PYTHONPATH=str(self.folder))},
            **{"capture_output": True, "text": True},
        )

    def results(self):
        """Every byte of every figure, table and stored result; of a result's record all but what was timed."""
        found = {}
        stored = (path for path in self.artifacts.glob("steps/*/*/**/*") if path.is_file())
        for path in [*self.folder.glob("papers_figures/smoke/*"), *stored]:
            name = str(path.relative_to(self.artifacts if self.artifacts in path.parents else self.folder))
            found[name] = path.read_bytes()
            if path.name == "curve.jsonl":
                found[name] = re.sub(rb'"(steps|images)_per_s": [0-9.]+', b"", found[name])
            if path.name == "meta.json":
                meta = json.loads(found[name])
                found[name] = {key: value for key, value in meta.items() if key not in ("seconds", "measured")}
        return found

    def steps(self):
        """How many steps are stored."""
        return len(list(self.artifacts.glob("steps/*/*/meta.json")))

    def leavings(self):
        return [*self.folder.rglob("*.partial"), *self.artifacts.rglob("*.partial")]


def finish(process):
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out, err


def kill(process, *, with_kernels):
    """End a run as `kill -9` on its process group does. A kernel, in a group of its own, notices later."""
    everything = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, 9)
    if with_kernels:
        for child in everything:
            if child.is_running():
                child.kill()
    process.communicate()
    return everything


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """What git tracks and what it would track, no caches and no results, as it is when the first test starts."""
    folder = tmp_path_factory.mktemp("snapshot")
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, folder / name)
    assert list(folder.glob("notebooks/[0-9]*.ipynb")), "there is no notebooks/[0-9]*.ipynb to run"
    return folder


def copy_to(folder, snapshot):
    """A copy in ``folder``."""
    return Copy(shutil.copytree(snapshot, folder / "checkout"), folder / "artifacts")


@pytest.fixture
def copy(snapshot, tmp_path):
    return copy_to(tmp_path, snapshot)


@pytest.fixture(scope="module")
def with_data():
    available, reason = release_available()
    if not available:
        pytest.skip(f"needs the released data: {reason}")


@pytest.fixture(scope="module")
def undisturbed(with_data, snapshot, tmp_path_factory):
    """A run that nothing disturbed: the one of this checkout, or one that is made now."""
    if (CHECKOUT / "papers_figures" / "smoke" / "manifest.json").exists():
        return Copy(CHECKOUT, artifacts_folder())
    copy = copy_to(tmp_path_factory.mktemp("undisturbed"), snapshot)
    status, _, err = copy.run(*ONLY)
    assert status == 0, err
    return copy


def changed(copy, undisturbed):
    """The results of ``copy`` that the undisturbed run has not, or others; the report's two lists of all are let be."""
    expected, found = undisturbed.results(), copy.results()
    lists = {f"papers_figures/smoke/{name}" for name in ("README.md", "manifest.json")}
    assert len([name for name in found if name.startswith("papers_figures/")]) > 10
    return {name for name in found.keys() - lists if found[name] != expected.get(name)}


def test_a_run_killed_at_any_moment_ends_with_the_same_bytes(undisturbed, copy):
    luck, orphans = random.Random(0), []
    for number, stored in enumerate(sorted(luck.sample(range(MOMENTS), KILLS))):
        run = copy.start(*ONLY)
        while copy.steps() < stored:
            assert run.poll() is None, finish(run)
            time.sleep(0.05)
        time.sleep(luck.random())
        orphans += kill(run, with_kernels=number % 2 == 0)
    status, out, err = copy.run(*ONLY)
    assert status == 0, err
    assert "not attempted" not in out
    assert changed(copy, undisturbed) == set()
    assert copy.leavings() == []
    made = [name for name, item in ITEMS.items() if item.notebook in FEW]
    wrong = [line for line in copy.check().stdout.splitlines() if line.split(":")[0] in made]
    assert made and wrong == []
    _, alive = psutil.wait_procs(orphans, timeout=10)
    for process in alive:
        process.kill()
    assert alive == []


def test_two_runs_side_by_side_share_their_results(undisturbed, copy):
    runs = [copy.start("--only", "01") for _ in range(2)]
    for status, _, err in map(finish, runs):
        assert status == 0, err
    assert changed(copy, undisturbed) == set()
    assert copy.leavings() == []


def test_without_data_and_network_a_run_says_what_it_did_not_attempt_and_why(copy, tmp_path, request):
    if release_available()[0]:
        shutil.copytree(request.getfixturevalue("undisturbed").artifacts / "steps", copy.artifacts / "steps")
    nowhere = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), "http://127.0.0.1:9")
    nowhere |= {VARIABLE: None, "XDG_CACHE_HOME": str(tmp_path / "cache"), "NO_PROXY": None, "no_proxy": None}
    status, out, err = copy.run(**nowhere)
    assert status == 0, err
    manifest = json.loads((copy.folder / "papers_figures" / "smoke" / "manifest.json").read_text())
    reasons = {name: entry.get("not_attempted", "") for name, entry in manifest["items"].items()}
    missing = [name for name, reason in reasons.items() if "released TIA2 data are not on this machine" in reason]
    assert len(missing) > 10
    (line,) = [line for line in out.splitlines() if line.startswith("report: ") and "not attempted" in line]
    assert line.startswith(f"report: {len(missing)} not attempted, because the released TIA2 data are not")
    assert f"set {VARIABLE}" in line and "Proxy" in line
    assert "Traceback" not in err
    assert copy.check().returncode == 0


def test_artifacts_that_cannot_be_written_stop_the_run_with_one_line(copy, tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "artifacts"  # below a regular file: not even root can write there
    status, out, err = copy.run(TEXTNORM_ARTIFACTS=str(folder))
    assert status != 0
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("run_all.sh: ") and str(folder) in line and "TEXTNORM_ARTIFACTS" in line


def test_a_step_that_cannot_be_written_names_its_folder_and_stops_the_run(with_data, copy):
    copy.artifacts.mkdir()
    (copy.artifacts / "steps").write_text("a file where the store has its folder")
    status, _, err = copy.run("--only", "01")
    assert status != 0
    (line,) = {line for line in err.splitlines() if line.startswith("StoreError: ")}
    assert str(copy.artifacts / "steps") in line and "TEXTNORM_ARTIFACTS" in line
    assert "01_build_tia2.ipynb stopped with an error" in err.splitlines()[-1]
    assert not (copy.folder / "papers_figures" / "smoke").exists()
