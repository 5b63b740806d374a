"""The file behind a labelling session: JSON lines, one for each thing that happened, of which nothing is lost.

The first line says who answers what. Every other one is an answer, or, with ``"undo": true``, an answer put back to
what it was before (null: none):

    {"item": "bird_3.png", "question": "alignment", "answer": "good", "seconds": 2.31}

A line counts once it ends. It is on the disk before the next thing can happen, so that a crash costs at most the answer
that was being written; a line cut short is removed when the file is opened again. One program at a time has a file.
"""

import json
import math
import os
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from textnorm_lib.errors import DataError, StoreError
from textnorm_lib.files import check_regular

FORMAT = "textnorm labels 1"
Key = tuple[str, str]  # an item's name and a question

_open_here: weakref.WeakValueDictionary[Path, "LabelFile"] = weakref.WeakValueDictionary()


@dataclass
class Labels:
    """What a file says: its header, answers, what can be undone (of which key, what was before), and seconds."""

    header: dict[str, Any]
    answers: dict[Key, str] = field(default_factory=dict)
    history: list[tuple[Key, str | None]] = field(default_factory=list)
    seconds: dict[Key, float] = field(default_factory=dict)

    def answer(self, key: Key, answer: str, seconds: float) -> None:
        """``key`` has this answer now."""
        self.history.append((key, self.answers.get(key)))
        self.answers[key], self.seconds[key] = answer, seconds

    def undo(self) -> Key:
        """The last answer is what it was before; whose it was."""
        key, before = self.history.pop()
        if before is None:
            del self.answers[key]
        else:
            self.answers[key] = before
        return key


class LabelFile:
    """``path``, opened to be written by this program alone; ``header`` says who answers what.

    Raises ``DataError`` for a file that another program has open, that is damaged, or whose header differs, naming in
    what; ``StoreError`` where nothing can be written. Opened again in the same program, a file passes to the later
    ``LabelFile``; the earlier one is closed.
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path.absolute()
        if earlier := _open_here.get(self.path):
            earlier.close()
        self._lock = self._locked()
        try:
            self.labels, self.cut_short = self._resume(header)
        except BaseException:
            self._lock.release()
            raise
        _open_here[self.path] = self

    def append(self, event: dict[str, Any]) -> None:
        """Put a line at the end and have it reach the disk; or raise, and the file is as it was."""
        if self._file.closed:
            why = "this session is closed, maybe because its file was opened again"
            raise DataError(f"{self.path}: {why}; go on in the one that is open")
        before = os.fstat(self._file.fileno())
        if not before.st_nlink:
            raise StoreError(f"{self.path} was removed while it was open; open the session again")
        line = _line(event)
        try:
            if self._file.write(line) < len(line):
                raise OSError(0, "only a part could be written")
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(before.st_size)
            raise StoreError(f"{self.path}: {error.strerror}; nothing was stored: make room and repeat it") from None

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        self._lock.release()

    def _locked(self) -> FileLock:
        lock = FileLock(self.path.with_name(f"{self.path.name}.lock"))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            remedy = "shut that kernel down, or take another file"
            raise DataError(f"{self.path} is open in another notebook or program; {remedy}") from None
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}; give a folder that can be written") from None
        return lock

    def _resume(self, header: dict[str, Any]) -> tuple[Labels, bool]:
        """What the file says so far, and whether a last line was cut short."""
        try:
            if self.path.exists():
                check_regular(self.path)
            stored = self.path.read_bytes() if self.path.exists() else b""
            whole = stored[: stored.rfind(b"\n") + 1]
            if whole:
                labels = read_labels(self.path)
                _check_same(self.path, labels.header, header)
            elif _line(header).startswith(stored):
                labels = Labels(header)
            else:  # not ours to mend
                raise DataError(f"{self.path} is no file of labels; take another name")
            self._file = self.path.open("ab", buffering=0)
            self._file.truncate(len(whole))
            if not whole:
                self.append(header)
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}; give a file that can be written") from None
        return labels, len(whole) < len(stored)


def read_labels(path: Path) -> Labels:
    """What ``path`` says, without a last line that does not end.

    Raises ``DataError``, naming the line, for anything that no session writes, and for a file that cannot be read.
    """
    try:
        check_regular(path)
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give a session's file") from None
    labels = None
    for number, line in enumerate(lines, start=1):
        try:
            event = json.loads(line, object_pairs_hook=_unique)
            if labels is None:
                labels = Labels(_header(event))
            else:
                _replay(labels, event)
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
            raise DataError(
                f"{path}, line {number}: no session writes this; restore the file or mend the line"
            ) from None
    if labels is None:
        raise DataError(f"{path} is empty; give a session's file")
    return labels


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def _header(event: dict[str, Any]) -> dict[str, Any]:
    annotator, questions = event["annotator"], event["questions"]
    if event["format"] != FORMAT or not isinstance(annotator, str) or not annotator.isprintable():
        raise ValueError
    if not isinstance(questions, dict) or not all(isinstance(answers, list) for answers in questions.values()):
        raise TypeError
    return event


def _replay(labels: Labels, event: dict[str, Any]) -> None:
    """Have ``event`` happen. Any of the errors that ``read_labels`` catches says that it cannot."""
    key, answer = (event["item"], event["question"]), event["answer"]
    if not isinstance(key[0], str):
        raise TypeError
    if event.get("undo"):
        if (key, answer) != labels.history[-1]:
            raise ValueError
        labels.undo()
    elif answer in labels.header["questions"][key[1]] and 0 <= (seconds := float(event["seconds"])) < math.inf:
        labels.answer(key, answer, seconds)
    else:
        raise ValueError


def _check_same(path: Path, stored: dict[str, Any], header: dict[str, Any]) -> None:
    for key, value in header.items():
        if stored.get(key) != value:
            began = f"was begun with {key} {stored.get(key)!r:.80}, not {value!r:.80}"
            raise DataError(f"{path} {began}; go on with what it was begun with, or take another file")


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"
