"""The reference rewards: their workers, also those that fail; environments; the originals where these are made."""

import gc
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from benchmarks import originals
from benchmarks.originals import PACKAGES, ReferenceReward, environment_folder, environment_python, is_made
from textnorm_lib.study.errors import ConfigError, DataError, DataUnavailable

CHECKOUT = Path(__file__).parents[2]
PROMPTS = ["a cat", "two dogs", "a cat", "three red frogs"]

# The real server around a package that is none: an image's mean plus the length of the prompt; one that prints a lot.
TALKATIVE = f"""
import importlib.util, os, subprocess, sys
import numpy as np
from PIL import Image

spec = importlib.util.spec_from_file_location("server", {str(originals.WORKER)!r})
server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(server)

class Package:
    def random(self, folder, device, sizes, seed):
        print("printed", {{"bytes": 0}})
        os.write(1, b"written to descriptor 1")
        subprocess.run(["echo", "from a child"])
        assert sys.stdin.read() == ""

    def score(self, prompts, head, path, image=None):
        print("scoring" * 10_000, file=sys.stderr)
        image = np.asarray(Image.open(path)) if image is None else image
        return np.array([image.mean() + len(prompt) for prompt in prompts], dtype=np.float32)

server.serve(Package(), *server._own_pipes())
"""

# Workers that fail: each answers "random" and then does something else, or does it at once.
FAILING = """
import io, json, os, subprocess, sys, time

def reply(scores=None, kind="float32", **more):
    payload = io.BytesIO()
    if scores is not None:
        import numpy as np
        np.savez(payload, scores=np.array(scores, kind))
    header = {"bytes": len(payload.getvalue()), "seconds": 0.0, "peak_mib": 1.0, **more}
    write(json.dumps(header).encode() + b"\\n" + payload.getvalue())

def write(content):
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()

def say(text):
    print(text, file=sys.stderr, flush=True)

def take():
    line = sys.stdin.buffer.readline()
    request = json.loads(line or "null") or sys.exit(0)
    sys.stdin.buffer.read(request["bytes"])

def hang():
    child = subprocess.Popen(["sleep", "600"])
    with open(__file__ + ".child", "w") as file:
        file.write(str(child.pid))
    say("going to sleep")
    time.sleep(600)

HERE
"""
ANSWERS_ONCE = "take(); reply(); take()\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a tokenizer."""
    (tmp_path / "bert-base-uncased").mkdir()
    (tmp_path / "bert-base-uncased" / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    return tmp_path


@pytest.fixture
def start(folder, monkeypatch):
    """Start a reward whose worker is a script that this Python runs; whatever is left of it in the end is a failure."""
    script = folder / "worker.py"

    def begin(code: str, **options) -> ReferenceReward:
        script.write_text(code)
        monkeypatch.setattr(originals, "worker_command", lambda name: [sys.executable, "-I", str(script)])
        return ReferenceReward("blip2", folder, random={}, **options)

    before = psutil.Process().children()
    yield begin
    left = [child for child in psutil.Process().children() if child not in before]
    assert left == []  # nor a zombie
    if (child := folder / "worker.py.child").exists():
        _wait_until_gone(int(child.read_text()))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:  # init's to bury
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_each_image_is_scored_with_each_prompt_whatever_the_package_prints(start, images):
    with start(TALKATIVE) as reward:
        expected = images.mean(axis=(1, 2, 3))[:, None] + [len(prompt) for prompt in PROMPTS]
        matrix = reward.score_matrix(images, PROMPTS)
        assert matrix.dtype == np.float32
        np.testing.assert_allclose(matrix, expected, rtol=1e-6)
        np.testing.assert_allclose(reward.scores(images, PROMPTS[1:]), np.diagonal(expected[:, 1:]), rtol=1e-6)


def test_images_may_be_of_any_kind_and_size(start, images, tmp_path, monkeypatch):
    Image.fromarray(images[1]).save(tmp_path / "one.png")
    large = Image.fromarray(images[2]).resize((700, 500), Image.Resampling.NEAREST)
    monkeypatch.chdir(tmp_path)
    with start(TALKATIVE) as reward:
        found = reward.score_matrix([images[0], "one.png", tmp_path / "one.png", large], ["x", "four"])
        expected = [images[0].mean(), images[1].mean(), images[1].mean(), np.asarray(large).mean()]
        np.testing.assert_allclose(found, np.add.outer(expected, [1, 4]), rtol=1e-6)


def test_time_and_memory_are_the_workers_own(start, images):
    mine = psutil.Process().memory_info().rss / 2**20  # with torch; in Linux a process is born with its parent's peak
    with start(TALKATIVE) as reward:
        started = time.monotonic()
        reward.score_matrix(images, PROMPTS)
        assert 0 < reward.seconds < time.monotonic() - started
        assert 10 < reward.peak_mib < mine / 2


@pytest.mark.parametrize(
    ("given", "said"),
    [("nowhere.png", r"image 1: FileNotFoundError: .*nowhere\.png"), (np.zeros((4, 4)), "image 1: .*")],
)
def test_an_image_that_cannot_be_scored_is_named_and_the_worker_goes_on(given, said, start, images):
    code = TALKATIVE.replace("image.mean() + len(prompt)", "image.mean() + len(prompt) + 0 * image.shape[2]")
    with start(code) as reward:
        with pytest.raises(DataError, match=said) as caught:
            reward.score_matrix([images[0], given], PROMPTS)
        _one_line(caught)
        with pytest.raises(DataError, match="image 0 is a Tensor; give a PIL image or a path"):
            reward.score_matrix([torch.zeros(3, 4, 4)], PROMPTS)
        assert reward.score_matrix(images, PROMPTS).shape == (3, 4)


FAILURES = {
    "exits": ("say('a'); say('out of luck'); sys.exit(3)", "ended with exit status 3 .*it said last: 'out of luck'"),
    "raises": ("raise ImportError('no such module')", "exit status 1 .*'ImportError: no such module'"),
    "is killed": ("os.kill(os.getpid(), 9)", "was killed, as the system does where memory runs out"),
    "crashes": ("os.abort()", "was ended by SIGABRT"),
    "dies in a line": ("write(b'{\"by'); sys.exit(0)", "ended with exit status 0"),
    "dies in scores": ("reply(bytes=500); sys.exit(0)", "ended with exit status 0"),
    "hangs": ("hang()", r"gave no answer to '\w+' in 3 s .*it said last: 'going to sleep'"),
    "hangs in a line": ("write(b'{'); hang()", r"gave no answer to '\w+' in 3 s"),
    "closes its output": ("os.close(1); hang()", "closed its output while it was to score"),
    "prints": ("write(b'Loading weights...\\n')", r"wrote 'Loading weights\.\.\.\\n' where the reply to '\w+' was due"),
    "prints without end": ("write(b'x' * 10**7); hang()", "wrote 'xxxxx"),
    "replies with a list": ("write(b'[1, 2]\\n')", "wrote '.1, 2"),
    "replies with depth": ("write(b'[' * 60_000 + b'\\n')", r"wrote '\[\[\["),
    "replies with too much": ("reply(bytes=10**15)", "wrote '.*1000000000000000"),
    "replies with less than nothing": ("reply(bytes=-1)", "wrote '.*-1"),
    "replies without a time": ("write(b'{\"bytes\": 0}\\n')", "wrote '.*bytes"),
    "replies with bytes of no kind": ("reply(bytes=4); write(b'1234')", "wrote '"),
    "replies with pickles": ("reply([{}, 1], kind=object)", "wrote '"),
}


def _check_failure(caught) -> None:
    message = _one_line(caught)
    assert message.startswith("blip2 (reference): its worker ") and "load it again" in message
    assert len(message) < 1000


@pytest.mark.parametrize("failure", FAILURES)
def test_a_worker_that_fails_is_one_line_and_gone(failure, start, images):
    code, said = FAILURES[failure]
    reward = start(FAILING.replace("HERE", ANSWERS_ONCE + code))
    reward._worker.time_limit = 3.0 if failure.startswith("hangs") else 60.0
    with pytest.raises(DataError, match=said) as caught:
        reward.score_matrix(images, PROMPTS)
    _check_failure(caught)


@pytest.mark.parametrize("failure", ["exits", "raises", "hangs", "prints"])
def test_so_is_a_worker_that_fails_at_its_start(failure, start):
    code, said = FAILURES[failure]
    with pytest.raises(DataError, match=said) as caught:
        start(FAILING.replace("HERE", code), time_limit=3.0 if failure == "hangs" else 60.0)
    _check_failure(caught)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("reply()", "gave no scores for image 0 with 3 prompts"),
        ("reply([0, 0])", r"float32 scores of shape \(2,\) for image 0 with 3 prompts"),
        ("reply([[0], [0], [0]])", r"scores of shape \(3, 1\)"),
        ("reply([0, 0, 0], kind='int64')", "int64 scores"),
        ("reply([1, 2, float('nan')])", "image 0 with prompt 'three red frogs' scores nan"),
        ("reply([1, float('inf'), 3])", "image 0 with prompt 'two dogs' scores inf"),
    ],
)
def test_scores_that_are_none_are_refused(code, said, start, images):
    with (
        start(FAILING.replace("HERE", f"{ANSWERS_ONCE}{code}; take()")) as reward,
        pytest.raises(DataError, match=said) as caught,
    ):
        reward.score_matrix(images[:1], PROMPTS)
    _one_line(caught)


def test_a_worker_that_has_ended_says_why_when_it_is_asked_again(start, images):
    reward = start(FAILING.replace("HERE", f"{ANSWERS_ONCE}sys.exit(7)"))
    for said in ("ended with exit status 7", r"worker has ended \(ended with exit status 7 .*; load it again"):
        with pytest.raises(DataError, match=said) as caught:
            reward.score_matrix(images, PROMPTS)
        _one_line(caught)


def test_a_worker_that_does_not_read_is_not_waited_for_for_ever(start):
    reward = start(FAILING.replace("HERE", "take(); reply(); hang()"))
    reward._worker.time_limit = 1.0
    with pytest.raises(DataError, match="gave no answer to 'score' in 1 s"):
        reward.score_matrix(np.zeros((1, 2000, 2000, 3), dtype=np.uint8), PROMPTS)


def test_much_on_standard_error_stops_nobody(start, images):
    code = "take(); reply(); take(); say('x' * 80 + '\\n' * 10**7 + 'y' * 10**7); reply([0, 0, 0]); take()"
    with start(FAILING.replace("HERE", code), time_limit=60.0) as reward:
        assert reward.score_matrix(images[:1], PROMPTS).tolist() == [[0, 0, 0, 0]]


def test_an_interrupt_ends_the_worker_so_that_no_late_reply_is_taken_for_another(start, images):
    reward = start(FAILING.replace("HERE", f"{ANSWERS_ONCE}hang()"))
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            reward.score_matrix(images, PROMPTS)
    finally:
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(DataError, match=r"worker has ended \(interrupted\)"):
        reward.score_matrix(images, PROMPTS)


@pytest.mark.parametrize("way", ["closed", "left", "dropped"])
def test_a_worker_ends_with_its_reward(way, start, images):
    reward = start(FAILING.replace("HERE", f"{ANSWERS_ONCE}hang()"))
    (worker,) = [child for child in psutil.Process().children() if "worker.py" in " ".join(child.cmdline())]
    if way == "closed":
        reward.close()
        with pytest.raises(DataError, match=r"worker has ended \(closed\); load it again"):
            reward.score_matrix(images, PROMPTS)
    elif way == "left":
        with reward:
            pass
    else:
        del reward
        gc.collect()
    assert not worker.is_running()


PARENT = """
import sys, time
from benchmarks import originals
originals.worker_command = lambda name: [sys.executable, "-I", sys.argv[2]]
reward = originals.ReferenceReward("blip2", sys.argv[1], random={})
print(reward._worker._process.pid, flush=True)
time.sleep(float(sys.argv[3]))
"""


@pytest.mark.parametrize("killed", [True, False])
def test_a_worker_does_not_outlive_its_parent(killed, folder):
    (folder / "worker.py").write_text(TALKATIVE)
    (folder / "parent.py").write_text(PARENT)
    command = [sys.executable, folder / "parent.py", folder, folder / "worker.py", "600" if killed else "0"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        worker = int(parent.stdout.readline())
        if killed:
            parent.kill()
    _wait_until_gone(worker)


def test_a_python_that_does_not_start_is_named(folder, monkeypatch):
    monkeypatch.setattr(originals, "worker_command", lambda name: ["/nowhere/bin/python"])
    with pytest.raises(
        DataError, match=r"/nowhere/bin/python cannot be started \(No such file.*delete .*lavis-"
    ) as caught:
        ReferenceReward("blip2", folder, random={})
    _one_line(caught)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("clip", {}, "'clip' has no original package here; those with one: imagereward, blip2"),
        ("blip2", {"head": "vqa"}, "head is 'vqa'; known: itm, itc"),
        ("imagereward", {"head": "itm"}, "head is 'itm'; known: none"),
    ],
)
def test_a_package_or_a_head_that_is_unknown_is_refused(name, options, said, tmp_path):
    with pytest.raises(ConfigError, match=said) as caught:
        ReferenceReward(name, tmp_path, **options)
    _one_line(caught)


@pytest.mark.parametrize("name", PACKAGES)
def test_every_published_file_must_be_there_before_anything_is_started(name, tmp_path, monkeypatch):
    monkeypatch.setattr(originals, "worker_command", lambda name: ["/nowhere/bin/python"])
    for file in PACKAGES[name].files:
        with pytest.raises(DataError, match=f"{file} is missing") as caught:
            ReferenceReward(name, tmp_path)
        _one_line(caught)
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    with pytest.raises(DataError, match="cannot be started"):
        ReferenceReward(name, tmp_path)


def test_a_reference_stays_on_its_device(start):
    with start(TALKATIVE) as reward:
        assert reward.to("cpu") is reward
        with pytest.raises(ConfigError, match=r"stays on 'cpu' .* load it anew"):
            reward.to("cuda")


# Environments


@pytest.fixture
def toy_lock(tmp_path, monkeypatch):
    """A lock file that asks for one small package, pip without a network, and what puts that package within reach."""
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments" / "toy.txt").write_text("toy-package==1.0\n")
    monkeypatch.setattr(originals, "LOCKS", tmp_path / "environments")
    monkeypatch.setenv(originals.VARIABLE, str(tmp_path / "made"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    def publish() -> None:
        with zipfile.ZipFile(tmp_path / "toy_package-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("toy_package.py", "said = 'hello'")
            info = "toy_package-1.0.dist-info"
            wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-package\nVersion: 1.0\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")

    return publish


needs_python = pytest.mark.skipif(sys.version_info[:2] != originals.PYTHON, reason="not Python 3.11")


@needs_python
def test_an_environment_is_made_once_and_a_failed_one_is_gone_on_with(toy_lock, capfd):
    with pytest.raises(DataUnavailable, match=r"toy.txt cannot be installed \(ERROR: .*toy-package==1.0") as caught:
        environment_python("toy")
    assert "install.log says more; connect to the network and run again" in _one_line(caught)
    assert not is_made("toy")
    toy_lock()
    python = environment_python("toy")
    assert is_made("toy") and python.is_relative_to(environment_folder("toy"))
    code = "import toy_package, sys; print(toy_package.said, sys.prefix)"
    found = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["hello", str(environment_folder("toy"))]
    assert "toy: making its environment, once" in capfd.readouterr().err
    log = environment_folder("toy") / "install.log"
    assert "Successfully installed toy-package-1.0" in log.read_text()
    written = log.stat().st_mtime_ns
    assert environment_python("toy") == python and log.stat().st_mtime_ns == written
    assert capfd.readouterr().err == ""


def test_a_changed_lock_is_another_environment(toy_lock, tmp_path):
    before = environment_folder("toy")
    (tmp_path / "environments" / "toy.txt").write_text("toy-package==1.1\n")
    assert environment_folder("toy") != before


def test_an_environment_that_cannot_be_made_says_why(toy_lock, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"environments/nothing.txt is missing"):
        environment_python("nothing")
    monkeypatch.setattr(originals, "PYTHON", (9, 9))
    with pytest.raises(ConfigError, match=r"python9.9 is not on the PATH"):
        environment_python("toy")
    (tmp_path / "made-file").touch()
    monkeypatch.setenv(originals.VARIABLE, str(tmp_path / "made-file"))
    with pytest.raises(DataUnavailable, match=rf"made-file.* cannot be written .*{originals.VARIABLE}") as caught:
        environment_python("toy")
    _one_line(caught)


def test_without_the_variable_environments_are_in_the_studys_cache(monkeypatch, tmp_path):
    monkeypatch.delenv(originals.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment_folder("lavis").is_relative_to(tmp_path)
    assert environment_folder("lavis").parent.name == "reference_envs"


# The originals, at toy size

TEXT = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
VISION = {"embed_dim": 32, "depth": 2, "num_heads": 4}
SIZES = {
    "imagereward": {"image_size": 32, "vision": {**VISION, "patch_size": 8}, "text": TEXT},
    "blip2": {
        "image_size": 28,
        "vision": {**VISION, "patch_size": 7},
        "text": TEXT,
        "model": {"num_query_token": 4, "embed_dim": 16},
    },
}
WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a the photo of two three cat dog dogs red frogs and ."


@pytest.fixture(scope="module", params=list(PACKAGES))
def original(request, tmp_path_factory):
    """An original package with random weights."""
    lock = PACKAGES[request.param].lock
    if not is_made(lock):
        pytest.skip(f"{environment_folder(lock)} is not made; environment_python({lock!r}) makes it")
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "bert-base-uncased").mkdir()
    (folder / "bert-base-uncased" / "vocab.txt").write_text("\n".join(WORDS.split()) + "\n")
    with ReferenceReward(request.param, folder, random=SIZES[request.param]) as reward:
        yield reward


def test_an_original_scores_pairs_as_it_does_a_matrix(original, images):
    matrix = original.score_matrix(images, PROMPTS)
    assert matrix.shape == (3, 4) and np.ptp(matrix, axis=0).min() > 1e-3 and np.ptp(matrix, axis=1).min() > 1e-3
    np.testing.assert_array_equal(original.scores(images, PROMPTS[1:]), np.diagonal(matrix[:, 1:]))
    np.testing.assert_array_equal(original.score_matrix([Image.fromarray(image) for image in images], PROMPTS), matrix)
    if original.name == "blip2":
        assert ((matrix > 0) & (matrix < 1)).all()  # probabilities of a match


def test_what_an_original_saves_it_loads_and_scores_the_same(original, images, tmp_path):
    matrix = original.score_matrix(images, PROMPTS)
    original.save(tmp_path)
    heads = PACKAGES[original.name].heads or (None,)
    for head in heads:
        options = {} if head is None else {"head": head}
        with ReferenceReward(original.name, tmp_path, **options) as again:
            found = again.score_matrix(images, PROMPTS)
        if head == original.head:
            np.testing.assert_allclose(found, matrix, rtol=1e-5, atol=1e-6)
        else:
            assert (np.abs(found) <= 1).all() and np.ptp(found) > 1e-3  # cosines


@pytest.mark.parametrize("damage", ["absent", "of another shape", "no checkpoint"])
def test_an_original_refuses_weights_that_are_not_its_own(damage, original, tmp_path):
    original.save(tmp_path)
    file = tmp_path / PACKAGES[original.name].files[0]
    content = torch.load(file, weights_only=True)
    weights = content.get("model", content)
    name = next(key for key in weights if key.endswith("encoder.layer.1.output.dense.weight"))
    if damage == "absent":
        del weights[name]
        said = f"1 weights are missing, such as {name}"
    elif damage == "of another shape":
        weights[name] = weights[name][1:]
        said = f"size mismatch for {name}"
    else:
        said = "load: "
    torch.save(content, file)
    if damage == "no checkpoint":
        file.write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match=said) as caught:
        ReferenceReward(original.name, tmp_path)
    _one_line(caught)
