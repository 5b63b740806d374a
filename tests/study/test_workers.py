"""Processes: results in order, one thread each, a killed one is one line, none outlives its parent."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from textnorm_lib.study.errors import StudyError
from textnorm_lib.study.processes import in_workers
from textnorm_lib.study.store import CHECKOUT

ORPHANS = """
from test_workers import sleep
from textnorm_lib.study.processes import in_workers

if __name__ == "__main__":
    for _ in in_workers(sleep, [600, 600], workers=2):
        pass
"""


def threads(task):
    return task, torch.get_num_threads()


def die(task):
    if task == 1:
        os.kill(os.getpid(), 9)
    return task


def sleep(task):
    time.sleep(task)


def test_results_come_in_order_and_each_process_has_one_thread():
    torch.set_num_threads(2)
    expected = [(task, 1) for task in range(5)]
    assert list(in_workers(threads, range(5), workers=2)) == expected
    assert list(in_workers(threads, range(5), workers=1)) == expected
    assert list(in_workers(threads, [], workers=2)) == []
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


def test_a_killed_worker_is_one_line():
    with pytest.raises(StudyError, match=r"worker processes was killed, .* run again, with fewer workers"):
        list(in_workers(die, range(3), workers=2))


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    env = {**os.environ, "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{Path(__file__).parent}"}
    parent = subprocess.Popen([sys.executable, script], env=env)
    # Two workers, the server that they are forked from, and a tracker of resources.
    family, deadline = [], time.monotonic() + 120
    while len(family) < 4 and time.monotonic() < deadline:
        family = psutil.Process(parent.pid).children(recursive=True)
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    assert len(family) == 4
    _, alive = psutil.wait_procs(family, timeout=120)
    for process in alive:
        process.kill()
    assert alive == []


def preparation(task):
    return torch.get_num_threads(), "transformers" in sys.modules, os.environ.get("MALLOC_MMAP_THRESHOLD_")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker starts anew")
def test_a_worker_has_the_large_libraries_already_and_its_malloc_keeps_memory(monkeypatch):
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    assert list(in_workers(preparation, [0, 1], workers=2)) == [(1, True, str(2**25))] * 2
    assert "MALLOC_MMAP_THRESHOLD_" not in os.environ


UNGUARDED = """
from textnorm_lib.study.processes import in_workers

list(in_workers(abs, [1, 2], workers=2))
"""


def test_a_script_without_the_line_that_processes_need_is_told_just_that(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    result = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=300)
    said = [line for line in result.stderr.splitlines() if line.strip()]
    assert result.returncode == 1 and result.stderr.count("Traceback") == 1
    assert said[-1] == (
        f"textnorm_lib.study.errors.StudyError: {script} starts 2 worker processes, and each begins by importing it; "
        'put what it does below a line if __name__ == "__main__": (or take workers=1)'
    )
