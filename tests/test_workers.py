"""Processes: results in order, one thread each, a killed one is one line, none outlives its parent."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from textnorm_lib.errors import StudyError
from textnorm_lib.workers import in_workers

TESTS = Path(__file__).parent
ORPHANS = """
from test_workers import sleep
from textnorm_lib.workers import in_workers

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
    before = torch.get_num_threads()
    expected = [(task, 1) for task in range(5)]
    assert list(in_workers(threads, range(5), workers=2)) == expected
    assert list(in_workers(threads, range(5), workers=1)) == expected
    assert list(in_workers(threads, [], workers=2)) == []
    assert torch.get_num_threads() == before


def test_a_killed_worker_is_one_line():
    with pytest.raises(StudyError, match=r"worker processes was killed, .* run again, with fewer workers"):
        list(in_workers(die, range(3), workers=2))


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    env = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
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
