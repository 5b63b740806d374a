"""Files that somebody else may have made, looked at before they are opened; and one process at a time at a file."""

import errno
import os
import re
import stat
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout

from textnorm_lib.study.errors import DataError, shown


def check_regular(path: Path | str) -> None:
    """Raise ``OSError``, as opening does, for what is not there, and for a pipe or a device: it may never end."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (paths may be strings)
    except ValueError:
        raise OSError(errno.EINVAL, "no file can have this name") from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "a pipe or a device, and no file")


def file_within(folder: Path, name: str) -> Path:
    """``folder / name`` for the name of a file in ``folder`` itself, or in a folder below it.

    Raises ``DataError`` for a name that leads elsewhere: absolute, with "..", with a control character, or a link.
    """
    plain = isinstance(name, str) and name not in ("", ".") and name.isprintable() and not Path(name).is_absolute()
    if not plain or ".." in re.split(r"[/\\]", name) or not _real(folder / name).is_relative_to(_real(folder)):
        raise DataError(f"image {shown(repr(name))} is no file within {folder}; correct the table of images")
    return folder / name


def alone(path: Path, waiting: str) -> AbstractContextManager:
    """Held by one process at a time, through a file beside ``path``; who has to wait prints ``waiting`` first."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print(waiting, file=sys.stderr)
        return lock.acquire()


def _real(path: Path) -> Path:
    """Where links lead to; in a circle of links, somewhere in it."""
    return Path(os.path.realpath(path))
