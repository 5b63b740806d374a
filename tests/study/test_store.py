"""The store computes once, keeps results whole or not at all, and survives full disks, kills and neighbours."""

import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from textnorm_lib.study.errors import DataUnavailable, StoreError
from textnorm_lib.study.store import Store, step, write_atomically

CALLS = []  # what the steps below did
FULL_AT = []  # the part at which write_parts finds the disk full


@pytest.fixture
def store(tmp_path):
    CALLS.clear()
    FULL_AT.clear()
    return Store(tmp_path / "steps")


@dataclass(frozen=True)
class Given:
    """An input that is no step's result."""

    key: str


@step(1)
def count_to(*, n, start=0):
    CALLS.append(n)
    return pd.DataFrame({"number": range(start, start + n)})


@step(1)
def double(numbers):
    return numbers * 2


@step(1)
def noise():
    return pd.DataFrame({"x": np.random.default_rng(0).random(1000)})


@step(1)
def split(*, n):
    return {"even": pd.DataFrame({"x": range(0, n, 2)}), "odd": pd.DataFrame({"x": range(1, n, 2)})}


@step(1)
def write_parts(*, folder):
    """A resumable step of four files."""
    for number in range(4):
        path = folder / f"{number}.txt"
        if not path.exists():
            if number in FULL_AT:
                raise OSError(errno.ENOSPC, "No space left on device")
            CALLS.append(number)
            path.write_text(str(number))


@step(1, unkeyed=("workers",))
def measure(*, n, workers, folder):
    CALLS.append(workers)
    (folder / "n.txt").write_text(str(n))
    return {"workers": workers}


def refusal(call, *args, **options):
    """The one line with which the store refuses."""
    with pytest.raises(StoreError) as caught:
        call(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def data_files(root):
    """What a reader could take for a result: everything but folders and locks."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")


# ---- the same question is computed once


def test_the_second_call_reads_what_the_first_stored(store):
    first = store.compute(count_to, n=3)
    second = store.compute(count_to, n=3)
    assert CALLS == [3]
    assert second.key == first.key
    pd.testing.assert_frame_equal(second.value, pd.DataFrame({"number": [0, 1, 2]}))


def test_what_was_stored_before_a_moment_is_computed_again_once_and_replaced(store):
    store.compute(count_to, n=3)
    Store(store.root, since=time.time()).compute(count_to, n=3)
    assert CALLS == [3, 3]
    assert store.compute(count_to, n=3).value["number"].tolist() == [0, 1, 2]


def test_the_key_ignores_the_order_of_the_configuration(store):
    assert store.compute(count_to, n=3, start=5).key == store.compute(count_to, start=5, n=3).key
    assert CALLS == [3]


def test_the_key_changes_with_version_configuration_inputs_and_their_order(store):
    def version(number):
        @step(number)
        def identity(*inputs, n=1):
            return pd.DataFrame({"x": [n]})

        return identity

    a, b = Given("a"), Given("b")
    keys = [
        store.compute(version(1)).key,
        store.compute(version(2)).key,
        store.compute(version(1), n=2).key,
        store.compute(version(1), a).key,
        store.compute(version(1), b).key,
        store.compute(version(1), a, b).key,
        store.compute(version(1), b, a).key,
    ]
    assert len(set(keys)) == len(keys)


def test_a_steps_input_arrives_as_its_data_and_is_remembered_by_key(store):
    numbers = store.compute(count_to, n=3)
    doubled = store.compute(double, numbers)
    assert doubled.value["number"].tolist() == [0, 2, 4]
    assert doubled.meta["inputs"] == [numbers.key]
    assert store.compute(double, store.compute(count_to, n=4)).key != doubled.key


def test_several_frames_come_back_by_name(store):
    for _ in range(2):
        frames = store.compute(split, n=5).value
        assert list(frames) == ["even", "odd"]
        assert frames["odd"]["x"].tolist() == [1, 3]


def test_meta_json_says_what_made_the_result(store):
    meta = store.compute(count_to, n=3).meta
    assert (meta["step"], meta["version"], meta["config"]) == ("count_to", 1, {"n": 3})
    assert meta["seconds"] >= 0


def test_what_the_result_does_not_depend_on_is_not_in_the_key(store):
    first = store.compute(measure, n=1, workers=1)
    assert store.compute(measure, n=1, workers=2) == first and CALLS == [1]
    assert first.meta["config"] == {"n": 1} and first.meta["measured"] == {"workers": 1}
    assert store.compute(measure, n=2, workers=1).key != first.key


def test_a_function_that_is_no_step_is_refused_by_name(store):
    def not_marked():
        return pd.DataFrame()

    assert "not_marked is not a step" in refusal(store.compute, not_marked)


def test_an_edited_step_with_an_unchanged_version_is_warned_of(store, tmp_path, monkeypatch, capsys):
    source = tmp_path / "edited_step.py"
    text = "import pandas as pd\nfrom textnorm_lib.study.store import step\n\n@step(1)\n"
    text += "def constant():\n    return pd.DataFrame"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    source.write_text(f"{text}({{'x': [1]}})\n")
    edited_step = importlib.import_module("edited_step")

    store.compute(edited_step.constant)
    capsys.readouterr()
    store.compute(edited_step.constant)
    assert capsys.readouterr().err == ""
    source.write_text(f"{text}({{'x': [1, 2]}})\n")
    assert store.compute(edited_step.constant).value["x"].tolist() == [1]
    (line,) = capsys.readouterr().err.splitlines()
    assert "constant" in line and "version" in line and "--force" in line


# ---- nothing is computed before it is asked for


def test_a_handle_knows_its_key_and_computes_nothing(store):
    numbers = store.step(count_to, n=3)
    doubled = store.step(double, numbers)
    assert CALLS == [] and doubled.key == store.step(double, numbers).key
    assert doubled.value["number"].tolist() == [0, 2, 4] and CALLS == [3]


def test_what_is_stored_needs_none_of_what_it_rests_on(store, tmp_path):
    doubled = store.compute(double, store.step(count_to, n=3))
    shutil.rmtree(store.root / "count_to")
    assert store.step(double, store.step(count_to, n=3)).value.equals(doubled.value) and CALLS == [3]


def test_results_that_come_along_are_preferred_or_serve_where_an_input_is_missing(store, tmp_path):
    class Missing:
        key = "missing"

        @property
        def value(self):
            raise DataUnavailable("not on this machine")

    @step(1)
    def of_missing(data):
        raise AssertionError("is never reached")

    given = tmp_path / "results"
    place = given / "of_missing" / store.step(of_missing, Missing()).key
    place.mkdir(parents=True)
    pd.DataFrame({"x": [7]}).to_parquet(place / "data.parquet", write_page_checksum=True)
    (place / "meta.json").write_text(json.dumps({"frames": ["data"]}))
    with pytest.raises(DataUnavailable):
        store.compute(of_missing, Missing())
    for options in ({"prefer": True}, {"prefer": False}, {"since": time.time()}):
        there = Store(store.root, given, **options)
        assert there.step(of_missing, Missing()).value["x"].tolist() == [7]
    counted = given / "count_to" / store.step(count_to, n=3).key
    shutil.copytree(place, counted)
    assert Store(store.root, given, prefer=True).step(count_to, n=3).value["x"].tolist() == [7] and CALLS == []
    for number, options in enumerate(({"prefer": False}, {"prefer": True, "since": time.time() + 60}), start=1):
        assert Store(store.root, given, **options).step(count_to, n=3).value["number"].tolist() == [0, 1, 2]
        assert [3] * number == CALLS


# ---- interrupted, refused, damaged


def test_a_step_that_raises_leaves_nothing_half_written(store):
    @step(1)
    def break_down():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.compute(break_down)
    assert data_files(store.root) == []
    assert not list(store.root.rglob("*.partial"))


def test_a_resumable_step_finds_what_an_interrupted_run_left(store):
    FULL_AT.append(2)
    message = refusal(store.compute, write_parts)
    assert "No space left on device" in message and "write_parts" in message
    assert "nothing half-written was kept" not in message  # two parts were, on purpose
    assert not list(store.root.rglob("meta.json"))
    FULL_AT.clear()
    folder = store.compute(write_parts).value
    assert CALLS == [0, 1, 2, 3]
    assert sorted(path.name for path in folder.glob("*.txt")) == ["0.txt", "1.txt", "2.txt", "3.txt"]
    assert not list(store.root.rglob("*.partial"))
    assert store.compute(write_parts).value == folder
    assert CALLS == [0, 1, 2, 3]


def test_a_disk_that_fills_while_writing_is_one_line_and_the_next_run_succeeds(store, monkeypatch):
    def half_then_full(frame, path, **options):
        path.write_bytes(b"PAR1 half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", half_then_full)
        message = refusal(store.compute, count_to, n=3)
    assert "No space left on device" in message and "count_to" in message and str(store.root) in message
    assert data_files(store.root) == []
    assert not list(store.root.rglob("*.partial"))
    assert len(store.compute(count_to, n=3).value) == 3


LIMITED = """
import resource, signal, sys
from pathlib import Path
import numpy as np, pandas as pd
from textnorm_lib.study.errors import DataUnavailable, StoreError
from textnorm_lib.study.store import Store, step

@step(1)
def noise(*, n):
    return {"small": pd.DataFrame({"x": [1]}), "large": pd.DataFrame({"x": np.random.default_rng(0).random(n)})}

if sys.argv[2] == "limited":  # a real write error: no file may grow beyond 64 kB
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
try:
    print(len(Store(Path(sys.argv[1])).compute(noise, n=50_000).value["large"]))
except StoreError as error:
    sys.exit(f"StoreError: {error}")
"""


def test_a_file_that_really_cannot_grow_is_one_line_and_the_next_run_succeeds(store, tmp_path):
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    command = [sys.executable, script, store.root]
    refused = subprocess.run([*command, "limited"], capture_output=True, text=True)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith("StoreError: ") and os.strerror(errno.EFBIG) in line and "noise" in line
    assert data_files(store.root) == []
    assert not list(store.root.rglob("*.partial"))
    assert subprocess.run([*command, "free"], capture_output=True, text=True, check=True).stdout == "50000\n"


def test_a_folder_that_cannot_be_written_is_named_with_the_variable_that_moves_it(tmp_path):
    # Below a regular file: nobody can make a folder there, not even root, who may run this test.
    (tmp_path / "file").write_text("")
    root = tmp_path / "file" / "steps"
    message = refusal(Store(root).compute, count_to, n=3)
    assert str(root) in message and "TEXTNORM_ARTIFACTS" in message


def test_an_error_of_the_step_itself_is_not_taken_for_one_of_the_disk(store):
    @step(1)
    def read_secret():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/secret/data.json")

    with pytest.raises(PermissionError, match=r"/secret/data\.json"):
        store.compute(read_secret)


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "first page", "deleted", "meta.json"])
def test_a_damaged_result_is_one_line_that_names_the_file(store, damage):
    result = store.compute(noise)
    name = "meta.json" if damage == "meta.json" else "data.parquet"
    path = result.folder / name
    content = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    elif damage == "overwritten":
        path.write_bytes(b"not what it was")
    elif damage == "first page":
        path.write_bytes(content[:4] + bytes(200) + content[204:])
    else:
        path.write_bytes(content[: len(content) // 2])
    message = refusal(lambda: store.compute(noise).value)
    assert str(path) in message and "delete its folder" in message


def test_damaged_data_is_never_read_back_as_if_it_were_whole(store):
    result = store.compute(noise)
    path = result.folder / "data.parquet"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1  # one bit of one number
    path.write_bytes(content)
    refusal(lambda: result.value)


def test_a_run_with_force_that_is_killed_while_it_replaces_leaves_no_half_result(store, monkeypatch):
    folder = store.compute(noise).folder

    def killed_half_way(path, **options):
        if path == folder:
            (folder / "data.parquet").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed_half_way)
        with pytest.raises(KeyboardInterrupt):
            Store(store.root, since=time.time()).compute(noise)
    assert len(store.compute(noise).value) == 1000


# ---- two runs side by side, and kills

SLOW = """
import sys, time
from pathlib import Path
import pandas as pd
from textnorm_lib.study.store import Store, step

@step(1)
def slow(*, counter):
    with open(counter, "a") as file:
        file.write("called\\n")
    while not Path(counter).with_name("go").exists():
        time.sleep(0.02)
    return pd.DataFrame({"x": [1, 2, 3]})

print(Store(Path(sys.argv[1])).compute(slow, counter=sys.argv[2]).value["x"].sum())
"""


@pytest.fixture
def start_slow(store, tmp_path):
    """A function that starts a process whose step waits for a file ``go``; the file to which each adds a line."""
    script, counter = tmp_path / "slow.py", tmp_path / "counter.txt"
    script.write_text(SLOW)
    started = []

    def start():
        command = [sys.executable, script, store.root, counter]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start, counter
    for process in started:
        process.kill()
        process.communicate()


def wait_for(path, seconds=30):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(0.02)


def test_two_processes_compute_a_step_once_and_both_get_it(start_slow):
    start, counter = start_slow
    first = start()
    wait_for(counter)
    second = start()
    said = second.stderr.readline()
    counter.with_name("go").touch()
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert outputs == ["6\n", "6\n"]
    assert counter.read_text() == "called\n"
    assert "slow" in said and "waiting" in said


def test_a_killed_process_leaves_the_step_free_at_once(store, start_slow):
    start, counter = start_slow
    killed = start()
    wait_for(counter)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    counter.with_name("go").touch()
    out, err = start().communicate(timeout=30)
    assert (out, "waiting" in err) == ("6\n", False)
    assert counter.read_text() == "called\n" * 2
    assert not list(store.root.rglob("*.partial"))


# ---- single files


def test_write_atomically_replaces_whole_files_and_leaves_an_unchanged_one_alone(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_atomically(path, b"one")
    os.utime(path, (0, 0))
    write_atomically(path, b"one")
    assert path.stat().st_mtime == 0
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_write_atomically_keeps_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    path.write_bytes(b"old")

    def half_then_full(self, content):
        with open(self, "wb") as file:  # noqa: PTH123 - the method that it stands for is replaced
            file.write(content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half_then_full)
        message = refusal(write_atomically, path, b"new")
    assert str(path) in message and "No space left on device" in message
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("place", ["file/below.txt", "folder"])
def test_write_atomically_names_a_place_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    assert str(tmp_path / place) in refusal(write_atomically, tmp_path / place, b"x")
    assert not list(tmp_path.rglob("*.partial"))


def test_what_a_killed_process_left_of_a_file_is_cleared_by_the_next_write(tmp_path):
    kill_itself = (
        "import os, pathlib, signal\n"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from textnorm_lib.study.store import write_atomically\n"
        f"write_atomically(pathlib.Path({str(tmp_path / 'file.txt')!r}), b'never there')\n"
    )
    assert subprocess.run([sys.executable, "-c", kill_itself]).returncode == -signal.SIGKILL
    assert not (tmp_path / "file.txt").exists()
    write_atomically(tmp_path / "file.txt", b"whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_what_is_kept_can_be_read_without_the_study(store):
    result = store.compute(count_to, n=3)
    assert json.loads((result.folder / "meta.json").read_text())["frames"] == ["data"]
    assert pd.read_parquet(result.folder / "data.parquet")["number"].tolist() == [0, 1, 2]
