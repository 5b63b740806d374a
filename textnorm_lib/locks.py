"""One process at a time, where several would make the same thing."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout


def alone(path: Path, waiting: str) -> AbstractContextManager:
    """Held by one process at a time, through a file beside ``path``; who has to wait prints ``waiting`` first."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print(waiting, file=sys.stderr)
        return lock.acquire()
