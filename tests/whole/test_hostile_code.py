"""What the code, the profiles and the page on reliability promise: nothing from outside runs, no secret is told."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textnorm_lib.optimise.training import append_row, cut_curve
from textnorm_lib.prompts import LLMWriter, llm
from textnorm_lib.study import config
from textnorm_lib.study.errors import ConfigError, StudyError
from textnorm_lib.study.store import Store, step

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = 40
SOURCES = [*CHECKOUT.glob("textnorm_lib/**/*.py"), *CHECKOUT.glob("benchmarks/**/*.py")]
TESTS = sorted(CHECKOUT.glob("tests/whole/test_hostile_*.py"))
RELIABILITY = CHECKOUT / "docs" / "reliability.md"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def calls(path):
    """Dotted name and node of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keywords(node):
    return {word.arg: ast.unparse(word.value) for word in node.keywords}


def dangerous(name, node):
    """Whether a call runs what it reads, or gives text to a shell."""
    given, last = keywords(node), name.split(".")[-1]
    if name in ("eval", "exec", "compile", "__import__", "os.popen") or name.startswith(("os.exec", "os.spawn")):
        return True
    if name == "os.system" or given.get("shell", "False") != "False" or last in ("read_pickle", "to_pickle"):
        return True
    if name.split(".")[0] in ("pickle", "dill", "joblib", "marshal", "shelve") and last in ("load", "loads", "open"):
        return True
    if name == "torch.load":
        return given.get("weights_only") != "True"
    if name.endswith("np.load"):
        return given.get("allow_pickle", "False") != "False"
    if name in ("yaml.load", "yaml.load_all"):
        return given.get("Loader") != "StrictLoader"
    return (name.startswith("yaml.") and last in ("unsafe_load", "full_load")) or given.get(
        "trust_remote_code"
    ) == "True"


@pytest.mark.parametrize(
    "line",
    [
        "eval(x)",
        "torch.load(x)",
        "pickle.load(x)",
        "yaml.load(x)",
        "run(x, shell=True)",
        "np.load(x, allow_pickle=True)",
    ],
)
def test_the_look_at_the_code_sees_what_it_looks_for(tmp_path, line):
    (tmp_path / "bad.py").write_text(line)
    assert [name for name, node in calls(tmp_path / "bad.py") if dangerous(name, node)]


def test_no_code_runs_what_it_reads_and_no_text_reaches_a_shell():
    assert len(SOURCES) > 100
    found = [
        f"{path.name}:{node.lineno}: {name}" for path in SOURCES for name, node in calls(path) if dangerous(name, node)
    ]
    assert found == []


def test_commands_are_lists_and_no_prompt_is_in_one():
    starts = (
        "subprocess.run",
        "subprocess.Popen",
        "subprocess.check_output",
        "subprocess.check_call",
        "subprocess.call",
    )
    started = [(path, node) for path in SOURCES for name, node in calls(path) if name in starts]
    assert started
    for path, node in started:
        command = ast.unparse(node.args[0])
        assert not re.search(r"prompt|caption|text\b", command), f"{path.name}: {command}"
        assert not isinstance(node.args[0], ast.JoinedStr | ast.BinOp), f"{path.name}: {command} is one string"


KEY = "sk-hostile-0123456789abcdef0123456789"


def test_the_key_is_in_no_error_no_repr_no_file_and_no_log(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(llm, "RETRIES", 0)
    write = LLMWriter(cache=tmp_path / "cache", base_url=f"http://user:{KEY}@127.0.0.1:9/v1")
    with pytest.raises(StudyError) as caught:
        write("a dog", ["counting"])
    Store(tmp_path).compute(a_table, rows=3)
    told = [
        str(caught.value),
        repr(caught.value),
        repr(write),
        str(write),
        repr(caught.value.__cause__),
        *capfd.readouterr(),
    ]
    told += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    assert len(told) > 8 and not [text for text in told if KEY in text]


@step(1)
def a_table(*, rows):
    return pd.DataFrame({"row": range(rows)})


def test_a_clock_that_jumps_changes_no_key_and_loses_no_result(tmp_path, monkeypatch):
    store, clock = Store(tmp_path), iter([2e9, 1e9, 1e9, 3e9] * 50)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    first = store.compute(a_table, rows=3)
    for path in tmp_path.rglob("*"):
        os.utime(path, (4e9, 4e9))  # in the future
    assert store.compute(a_table, rows=3).key == first.key and first.meta["seconds"] >= 0
    os.utime(first.folder / "meta.json", (0, 0))
    assert store.compute(a_table, rows=3).value.equals(first.value)


def test_a_run_killed_while_it_writes_its_curve_goes_on_from_whole_lines(tmp_path):
    script = f"""
import sys; sys.path.insert(0, {str(CHECKOUT)!r})
from pathlib import Path
from textnorm_lib.optimise.training import append_row
for number in range(10**9): append_row(Path({str(tmp_path)!r}), {{"epoch": number}})
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        while not (tmp_path / "curve.jsonl").exists() or (tmp_path / "curve.jsonl").stat().st_size < 2000:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert [row["epoch"] for row in cut_curve(tmp_path, 50)] == list(range(50))
    append_row(tmp_path, {"epoch": 50})
    assert len((tmp_path / "curve.jsonl").read_text().splitlines()) == 51


PROFILES = {
    "a tag": "seed: !!python/object/apply:os.system [exit]\n",
    "a name": "x: !!python/name:os.system\n",
    "a billion laughs": "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n",
    "itself": "a: &a [*a]\n",
    "a list for a key": "[a]: 1\n",
    "a date for a key": "2020-01-01: 1\n",
    "a number for a key": "1: 1\n",
    "a date that there is not": "seed: 2020-99-99\n",
    "brackets without end": "a: " + "[" * 2000,
    "a number that Python does not read": "seed: " + "9" * 5000 + "\n",
    "a long value": "seed: " + "x" * 40_000 + "\n",
    "too long a file": "seed: 1\n" + "#" * 60_000,
}


@pytest.mark.parametrize("content", PROFILES.values(), ids=PROFILES)
def test_a_profile_runs_nothing_and_grows_to_nothing(tmp_path, monkeypatch, content):
    monkeypatch.setattr(config, "PROFILES", tmp_path)
    (tmp_path / "mini.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"\Amini\.yaml: ") as caught:
        config.load_profile("mini")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600


@pytest.fixture(scope="module")
def profiles(tmp_path_factory):
    """A folder of profiles with the whole one that others extend."""
    folder = tmp_path_factory.mktemp("profiles")
    (folder / "mini.yaml").write_bytes((config.PROFILES / "mini.yaml").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "PROFILES", folder)
        yield folder


@settings(max_examples=EXAMPLES, derandomize=True, deadline=None)
@given(st.text(max_size=10), JSON)
def test_any_key_and_value_of_a_profile_is_taken_or_refused_in_one_line(profiles, key, value):
    (profiles / "own.yaml").write_text(json.dumps({"extends": "mini", key: value}), encoding="utf-8")
    try:
        config.load_profile("own")
    except ConfigError as error:
        assert str(error).isprintable() and len(str(error)) < 900


def counted(path):
    """How many tests and how many generated examples a file has at least."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    drawn = sum(ast.unparse(mark).startswith("given") for test in tests for mark in test.decorator_list)
    (examples,) = [node.value.value for node in tree.body if ast.unparse(node).startswith("EXAMPLES = ")]
    return len(tests), drawn * examples


def test_the_page_on_reliability_counts_what_there_is_and_names_tests_that_exist():
    page = RELIABILITY.read_text(encoding="utf-8")
    for path in TESTS:
        tests, examples = counted(path)
        (row,) = [line for line in page.splitlines() if line.startswith("|") and f"`tests/whole/{path.name}` |" in line]
        assert [int(cell) for cell in re.findall(r"\| (\d+) (?=\|)", row)] == [tests, examples], row
    tests, examples = (sum(column) for column in zip(*map(counted, TESTS), strict=True))
    faults = page.split("## Faults")[1].split("\n## ")[0].count("\n| ") - 2  # without the table's head
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    assert (
        f"{tests} tests, with at least {examples:,} generated examples in all," in readme
        and f"; {faults} faults" in readme
    )
    for file, name in re.findall(r"`(tests/[\w/]+\.py)`: `(test_\w+)`", page):
        assert f"def {name}(" in (CHECKOUT / file).read_text(encoding="utf-8"), f"{file} has no {name}"
