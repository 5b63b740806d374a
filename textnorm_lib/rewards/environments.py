"""Virtual environments for the original reward packages, which cannot share the study's own (environments/README.md).

One is made on demand, once: in the folder that ``TEXTNORM_REFERENCE_ENVS`` names, by default in the study's cache. Its
name holds a digest of its lock file, so that a changed lock gives a new environment; it counts once its marker is
written, which comes last. What an interrupted installation left is gone on with.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from textnorm_lib.errors import ConfigError, DataError, DataUnavailable
from textnorm_lib.locks import alone
from textnorm_lib.progress import progress
from textnorm_lib.rewards.worker_process import end_group

VARIABLE = "TEXTNORM_REFERENCE_ENVS"
LOCKS = Path(__file__).parents[2] / "environments"
PYTHON = (3, 11)  # what the locks were frozen for
_MARKER = "complete"
_LAST_LINES = 40  # of pip's output, among which the reason of a failure is looked for


def environment_folder(lock: str) -> Path:
    """Where the environment of ``environments/<lock>.txt`` is or would be."""
    import platformdirs

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
    """The Python of the environment of ``environments/<lock>.txt``, which is made if it is not there, with progress.

    Raises ``DataUnavailable`` where it cannot be installed, ``ConfigError`` where there is no Python 3.11 for it.
    """
    folder = environment_folder(lock)
    if not is_made(lock):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
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
    print(f"{lock}: making its environment, once (some minutes, 2 GB and more) in {folder}", file=sys.stderr)
    requirements = LOCKS / f"{lock}.txt"
    _run([_python(), "-m", "venv", folder], lock, folder)
    pip = [folder / "bin" / "python", "-I", "-m", "pip", "install", "--no-input", "--progress-bar=off"]
    _run([*pip, "-r", requirements], lock, folder, packages=requirements.read_text().count("=="))
    (folder / _MARKER).touch()


def _python() -> str:
    if sys.version_info[:2] == PYTHON:
        return sys.executable
    name = "python{}.{}".format(*PYTHON)
    if found := shutil.which(name):
        return found
    raise ConfigError(f"{name} is not on the PATH: the original packages are frozen for it; install it")


def _run(command: list[str | Path], lock: str, folder: Path, *, packages: int = 0) -> None:
    """Run a command, its output in install.log, with a bar over the packages that pip names."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [str(part) for part in command],
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT},
        **{"text": True, "errors": "replace", "start_new_session": True},
    )
    last = deque(maxlen=_LAST_LINES)
    try:
        lines = _logged(process, folder / "install.log", last)
        for _ in progress(lines, f"{lock}: packages", total=packages or None, unit="packages"):
            pass
    finally:
        end_group(process)
        process.stdout.close()
    if process.returncode:
        reasons = [line for line in last if line.startswith("ERROR")] or list(last) or ["it said nothing"]
        raise DataUnavailable(
            f"{lock}: {LOCKS.name}/{lock}.txt cannot be installed ({' '.join(' '.join(reasons[-2:]).split())[:300]}); "
            f"{folder / 'install.log'} says more; connect to the network and run again, it goes on where it stopped"
        )


def _logged(process: subprocess.Popen, path: Path, last: deque[str]) -> Iterator[str]:
    """Copy all output to a file; give the lines in which pip takes up another package."""
    with path.open("a", encoding="utf-8", buffering=1) as log:
        for line in process.stdout:
            log.write(line)
            last.append(line.strip())
            if line.startswith(("Collecting", "Processing", "Requirement already satisfied")):
                yield line
            elif line.startswith("Installing collected packages"):
                print("all packages are here; installing them (a minute or more)", file=sys.stderr)
    process.wait()
