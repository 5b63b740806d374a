"""ImageReward and BLIP-2 through the packages that their authors published: what the study's own path is compared with.

    with ReferenceReward("blip2", folder, head="itc") as original:
        original.score_matrix(images, prompts)

image-reward 1.5 and salesforce-lavis 1.0.2 cannot be imported beside the study's packages. Each has a virtual
environment of its own, made when it is first needed (benchmarks/environments), and a process in it (worker.py) that
stays and is spoken with over pipes. Whatever happens to that process, death, silence or rubbish, is one ``DataError``;
it never outlives the object that started it.

Pairs are scored one by one with the package's own call and preprocessing: LAVIS squeezes an image that is not square,
lowercases a prompt and drops some punctuation, and on a GPU its image encoder computes in half precision.
"""

import contextlib
import hashlib
import inspect
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import platformdirs
import torch
from PIL import Image

from textnorm_lib.images.pixels import Images
from textnorm_lib.rewards.base import Reward
from textnorm_lib.study import compat
from textnorm_lib.study.errors import ConfigError, DataError, DataUnavailable
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import alone

TIME_LIMIT_S = 1800.0  # for one request: reading gigabytes from a slow disk, an image with a hundred prompts
WORKER = Path(__file__).with_name("worker.py")
VARIABLE = "TEXTNORM_REFERENCE_ENVS"  # names the folder of the environments; else they are in the user's cache
LOCKS = Path(__file__).parents[1] / "environments"
PYTHON = (3, 11)  # what the locks were frozen for

_TOKENIZER = "bert-base-uncased/vocab.txt"
_MARKER = "complete"  # in an environment: written last
_LONGEST_LINE, _LONGEST_PAYLOAD = 2**16, 2**26  # bytes of a reply
_LAST_WORDS = 4096  # bytes of standard error that are kept


class Package(NamedTuple):
    """An original package: the lock file of its environment, the files of its weights, the heads to choose from."""

    lock: str
    files: tuple[str, ...]
    heads: tuple[str, ...]


PACKAGES = {
    "imagereward": Package("imagereward", ("ImageReward.pt", "med_config.json", _TOKENIZER), ()),
    "blip2": Package(
        "lavis",
        ("blip2_pretrained.pth", "eva_vit_g.pth", "bert-base-uncased/config.json", _TOKENIZER),
        ("itm", "itc"),
    ),
}


class ReferenceReward(Reward):
    """An original package as a reward; ``close`` it, or use it in ``with``.

    ``seconds`` is what the worker spent on the latest call, ``peak_mib`` the most memory that it has had so far.
    """

    def __init__(
        self,
        name: str,
        folder: Path | str,
        *,
        head: str | None = None,
        device: str = "cpu",
        random: Mapping[str, Any] | None = None,
        seed: int = 0,
        time_limit: float = TIME_LIMIT_S,
    ) -> None:
        """With the published files in ``folder``, or what ``save`` wrote there; nothing is fetched.

        ``random`` asks for random weights instead: {} of the published sizes, else of those that it names (as in
        worker.py); then only the tokenizer has to be there, bert-base-uncased/vocab.txt, one word a line.
        ``head`` is for "blip2": "itm" (the default) or "itc". ``time_limit`` is the seconds that a request may take.
        """
        if name not in PACKAGES:
            raise ConfigError(f"{name!r} has no original package here; those with one: {', '.join(PACKAGES)}")
        package = PACKAGES[name]
        if head is not None and head not in package.heads:
            raise ConfigError(f"{name} (reference): head is {head!r}; known: {', '.join(package.heads) or 'none'}")
        super().__init__(Path(folder).absolute(), batch_size=1)
        for file in package.files if random is None else (_TOKENIZER,):
            if not (self.folder / file).is_file():
                raise DataError(f"{name} (reference): {self.folder / file} is missing; put that file there")
        self.name, self.device = name, device
        self.head = head or next(iter(package.heads), None)
        self.seconds = self.peak_mib = 0.0
        self._worker = _start(name, package, time_limit)
        start = {"do": "load"} if random is None else {"do": "random", "sizes": dict(random), "seed": seed}
        try:
            self._ask(**start, folder=str(self.folder), device=device)
        except BaseException:
            self.close()
            raise

    def save(self, folder: Path | str) -> None:
        """Write weights, configuration and tokenizer to ``folder``, in the original's own files."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._ask("save", folder=str(Path(folder).absolute()))

    def to(self, device: str, dtype: torch.dtype = torch.float32) -> Self:
        """Itself, if that is what it is."""
        if (device, dtype) != (self.device, self.dtype):
            raise ConfigError(f"{self.name} (reference) stays on {self.device!r} with its own arithmetic; load it anew")
        return self

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _ask(self, do: str, **request: Any) -> np.ndarray | None:
        reply = self._worker.ask(do, **request)
        self.seconds, self.peak_mib = self.seconds + reply.seconds, reply.peak_mib
        return reply.scores

    def _matrix(self, images: Images, prompts: list[str]) -> torch.Tensor:
        return self._rows(images, [prompts] * len(images))

    def _pairs(self, images: Images, prompts: list[str]) -> torch.Tensor:
        return self._rows(images, [[prompt] for prompt in prompts])[:, 0]

    def _rows(self, images: Images, prompts: Sequence[list[str]]) -> torch.Tensor:
        """Image i with its equally many prompts i -> (n images, n prompts)."""
        self.seconds = 0.0
        indices = progress(range(len(images)), f"{self.name} (reference): images", unit="images")
        return torch.from_numpy(np.stack([self._row(images[index], index, prompts[index]) for index in indices]))

    def _row(self, image: Image.Image | str | Path | np.ndarray, index: int, prompts: list[str]) -> np.ndarray:
        path = pixels = None
        if isinstance(image, str | Path):
            path = str(Path(image).absolute())
        elif isinstance(image, Image.Image | np.ndarray):
            pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        else:
            raise DataError(f"{self.name}: image {index} is a {type(image).__name__}; give a PIL image or a path")
        about = f"image {index}"
        scores = self._ask("score", about=about, image=pixels, path=path, prompts=prompts, head=self.head)
        if scores is None or scores.dtype != np.float32 or scores.shape != (len(prompts),):
            said = "no scores" if scores is None else f"{scores.dtype} scores of shape {scores.shape}"
            raise self._worker.failure(f"gave {said} for {about} with {len(prompts)} prompts")
        return scores


def worker_command(name: str) -> list[str]:
    """What starts the worker. -I: neither this folder nor the caller's PYTHONPATH is imported from."""
    python = environment_python(PACKAGES[name].lock)
    return [str(python), "-I", str(WORKER), name, inspect.getsourcefile(compat)]


def _start(name: str, package: Package, time_limit: float) -> "WorkerProcess":
    environment = environment_folder(package.lock)
    remedy = f"load it again; if that does not help, delete {environment} and it is installed anew"
    return WorkerProcess(worker_command(name), label=f"{name} (reference)", time_limit=time_limit, remedy=remedy)


# The process that holds a package; worker.py says what a message looks like.


class Reply(NamedTuple):
    """The answer to a request: what the worker spent on it, the most memory that it has had so far, any scores."""

    seconds: float
    peak_mib: float
    error: str | None
    scores: np.ndarray | None


class WorkerProcess:
    """Starts ``command`` in a group of its own, with no access to the hub; a request may take ``time_limit`` seconds.

    ``label`` begins and ``remedy`` ends every message of failure.
    """

    def __init__(self, command: list[str], *, label: str, time_limit: float, remedy: str) -> None:
        self.time_limit, self._label, self._remedy = time_limit, label, remedy
        self._ended = ""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        try:
            self._process = subprocess.Popen(command, **pipes, env={**os.environ, **offline}, start_new_session=True)
        except OSError as error:
            raise DataError(f"{label}: {command[0]} cannot be started ({error.strerror}); {remedy}") from error
        self._said = bytearray()
        self._listener = threading.Thread(target=_listen, args=(self._process.stderr, self._said), daemon=True)
        self._listener.start()
        self._end = weakref.finalize(self, _end, self._process)

    def ask(self, do: str, *, about: str = "", image: np.ndarray | None = None, **fields: Any) -> Reply:
        """Send a request and wait for its reply.

        Raises ``DataError`` if the reply is an error (``about`` says in what; the worker stays) or if there is none.
        """
        if self._ended:
            raise DataError(f"{self._label}: its worker has ended ({self._ended}); load it again")
        try:
            with self._limited() as late:
                self._send({"do": do, **fields}, image)
                reply = self._receive()
        except (EOFError, BrokenPipeError):
            if late.is_set():
                raise self.failure(f"gave no answer to {do!r} in {self.time_limit:g} s (time_limit)") from None
            raise self.failure(f"{self._status()} while it was to {do}") from None
        except _Rubbish as error:
            raise self.failure(f"wrote {str(error)!r} where the reply to {do!r} was due") from None
        except BaseException:  # an interrupt: the reply still to come would be taken for that to the next request
            self.close("interrupted")
            raise
        if reply.error is not None:
            raise DataError(f"{self._label}: {about or do}: {reply.error}")
        return reply

    def failure(self, what: str) -> DataError:
        """End the process, for this reason; the error to raise."""
        self.close(what)
        self._listener.join(1.0)
        lines = bytes(self._said).decode(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        return DataError(f"{self._label}: its worker {what}; it said last: {last[-300:]!r}; {self._remedy}")

    def close(self, why: str = "closed") -> None:
        """End the process; a second call does nothing."""
        self._ended = self._ended or why
        self._end()

    @contextlib.contextmanager
    def _limited(self) -> Iterator[threading.Event]:
        """End the process if this takes longer than ``time_limit``; the event says that it did."""
        late = threading.Event()
        timer = threading.Timer(self.time_limit, lambda: (late.set(), _end_group(self._process)))
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()

    def _send(self, request: dict[str, Any], image: np.ndarray | None) -> None:
        payload = io.BytesIO()
        if image is not None:
            np.savez(payload, image=image)
        line = json.dumps({**request, "bytes": len(payload.getbuffer())}).encode() + b"\n"
        self._process.stdin.write(line + payload.getbuffer())
        self._process.stdin.flush()

    def _receive(self) -> Reply:
        line = self._process.stdout.readline(_LONGEST_LINE)
        if not line.endswith(b"\n") and len(line) < _LONGEST_LINE:
            raise EOFError
        try:
            header = json.loads(line)
            if not 0 <= header["bytes"] <= _LONGEST_PAYLOAD:
                raise ValueError
            payload = self._process.stdout.read(header["bytes"])
            if len(payload) < header["bytes"]:
                raise EOFError
            scores = np.load(io.BytesIO(payload), allow_pickle=False)["scores"] if payload else None
            return Reply(float(header["seconds"]), float(header["peak_mib"]), header.get("error"), scores)
        except EOFError:
            raise
        except Exception as error:  # of many kinds, by what it wrote
            raise _Rubbish(line[:80].decode(errors="replace")) from error

    def _status(self) -> str:
        try:
            status = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if status == -signal.SIGKILL:
            return "was killed, as the system does where memory runs out,"
        return f"ended with exit status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"


class _Rubbish(Exception):
    """What a worker wrote is no reply."""


def _end_group(process: subprocess.Popen) -> None:
    """Kill a process that leads a group of its own, and that group, unless it was waited for before; wait for it."""
    if process.returncode is None:  # or else its number may be another's by now
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended by itself
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(process: subprocess.Popen) -> None:
    _end_group(process)
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):  # half a request
            pipe.close()


def _listen(stream: io.BufferedReader, said: bytearray) -> None:
    """Keep the end of what a process writes to standard error: it would stand still before a full pipe."""
    with stream:
        while chunk := stream.read1(2**16):
            said += chunk
            del said[:-_LAST_WORDS]


# The environments.


def environment_folder(lock: str) -> Path:
    """Where the environment of ``environments/<lock>.txt`` is or would be; a changed lock is another environment."""
    path = LOCKS / f"{lock}.txt"
    if not path.is_file():
        raise DataError(f"{path} is missing: it lists what to install; run from a checkout of the study")
    given = os.environ.get(VARIABLE)
    root = Path(given).expanduser() if given else Path(platformdirs.user_cache_dir("textnorm-study")) / "reference_envs"
    return root.absolute() / f"{lock}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def is_made(lock: str) -> bool:
    """Whether that environment is complete."""
    return (environment_folder(lock) / _MARKER).exists()


def environment_python(lock: str) -> Path:
    """The Python of the environment of ``environments/<lock>.txt``, which is made if it is not there.

    An installation that was interrupted is gone on with. Raises ``DataUnavailable`` where the packages cannot be
    installed, ``ConfigError`` where there is no Python 3.11.
    """
    folder = environment_folder(lock)
    if not is_made(lock):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with alone(folder, f"{folder.name}: another process is making it, waiting"):
                if not is_made(lock):
                    _make(lock, folder)
        except OSError as error:
            raise DataUnavailable(
                f"{folder} cannot be written ({error.strerror or error}); make room or make it writable, or point "
                f"{VARIABLE} elsewhere"
            ) from error
    return folder / "bin" / "python"


def _make(lock: str, folder: Path) -> None:
    """pip shows its own progress, on standard error."""
    python = sys.executable if sys.version_info[:2] == PYTHON else shutil.which(name := "python{}.{}".format(*PYTHON))
    if python is None:
        raise ConfigError(f"{name} is not on the PATH: the original packages are frozen for it; install it")
    print(f"{lock}: making its environment, once (some minutes, 2 GB and more) in {folder}", file=sys.stderr)
    log, requirements = folder / "install.log", LOCKS / f"{lock}.txt"
    pip = [folder / "bin" / "python", "-I", "-m", "pip", "install", "--no-input", "--log", log, "-r", requirements]
    for command in ([python, "-m", "venv", folder], pip):
        if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=2).returncode:
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            reasons = [line[line.index("ERROR:") :] for line in lines if "ERROR:" in line] or ["it said nothing"]
            raise DataUnavailable(
                f"{lock}: {LOCKS.name}/{lock}.txt cannot be installed ({' '.join(reasons[-2:])[:300]}); {log} says "
                "more; connect to the network and run again, it goes on where it stopped"
            )
    (folder / _MARKER).touch()
