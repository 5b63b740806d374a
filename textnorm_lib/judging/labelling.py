"""Labelling by people, as the paper's annotators did (section 8.2) and as two models are compared (section 5.4).

    session = Session(path, items, ALIGNMENT, annotator="ana", seed=0)
    session.current                            # Cell(item, question): what to show
    session.answer(session.current, "good")    # in the file before it counts; then the next open cell is current
    session.undo()                             # takes the last answer back
    session.back()                             # to look at the cell before, or to answer it anew

A *cell* is one question on one item. Each annotator has the items in an order of their own, from the seed and the name:
it tells nothing of models or rewards. There are no widgets here: ``judging/widgets.py`` shows a session, and
``judging/labelled.py`` makes votes of the files.

The file behind a session has a line of JSON for each thing that happened, and none of it is lost. The first line says
who answers what. Every other one is an answer, or, with ``"undo": true``, an answer put back to what it was before
(null: none):

    {"item": "bird_3.png", "question": "alignment", "answer": "good", "seconds": 2.31}

A line counts once it ends. It is on the disk before the next thing can happen, so that a crash costs at most the answer
that was being written; a line cut short is removed when the file is opened again. One program at a time has a file.
"""

import hashlib
import json
import math
import os
import re
import statistics
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from textnorm_lib.judging.comparisons import QUESTIONS, blind
from textnorm_lib.study.errors import DataError, StoreError, check_regular, file_within
from textnorm_lib.study.store import write_atomically

ALIGNMENT = {"alignment": ("good", "bad", "skip")}
COMPARISON = dict.fromkeys(QUESTIONS, ("left", "tie", "right"))
FORMAT = "textnorm labels 1"
_LONGEST_S = 60.0  # whoever takes longer was away: for the time that is left it counts as this
_LONGEST_NAME = 60  # characters: with four bytes each still a file's name
_RECENT = 20  # answers that tell how long the next ones will take

Key = tuple[str, str]  # an item's name and a question: what an answer is stored by
_open_here: weakref.WeakValueDictionary[Path, "LabelFile"] = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class LabelItem:
    """What an annotator sees: a prompt and one side (an image) or two (sets of images), as files.

    ``name`` is what answers are stored by, an image's or a comparison's; neither it nor a file's name is shown.
    """

    name: str
    prompt: str
    sides: tuple[tuple[Path, ...], ...]


@dataclass(frozen=True)
class Cell:
    """One question on one item."""

    item: LabelItem
    question: str

    @property
    def key(self) -> Key:
        """What its answer is stored by."""
        return self.item.name, self.question


def alignment_items(images: pd.DataFrame, folder: Path) -> list[LabelItem]:
    """One item per image: ``images`` has image (a file in ``folder``) and prompt. Raises as ``files.file_within``."""
    pairs = zip(images["image"], images["prompt"], strict=True)
    return [LabelItem(image, prompt, ((file_within(folder, image),),)) for image, prompt in pairs]


def comparison_items(comparisons: pd.DataFrame, see: Callable[[Any], Path]) -> list[LabelItem]:
    """One item per comparison of ``comparisons.make_comparisons``; ``see`` gives an image's file."""
    return [LabelItem(one.comparison, one.prompt, (one.left, one.right)) for one in blind(comparisons, see=see)]


def write_pictures(pictures: pd.DataFrame, folder: Path) -> Path:
    """Write what a result has of pictures (image, png) to files in ``folder``, for a labelling interface to show."""
    for image, png in zip(pictures["image"], pictures["png"], strict=True):
        write_atomically(file_within(folder, image), png)
    return folder


def open_session(
    folder: Path, items: Sequence[LabelItem], questions: Mapping[str, Sequence[str]], *, annotator: str, seed: int
) -> "Session":
    """The session of ``annotator`` in ``folder``, begun or gone on with; without a name a rehearsal, not kept.

    Raises as ``Session``.
    """
    if not annotator:
        return Session(None, items, questions, annotator="rehearsal", seed=seed)
    file = folder / (re.sub(r"[^\w-]", "_", annotator) + ".jsonl")
    return Session(file, items, questions, annotator=annotator, seed=seed)


class Session:
    """One annotator's answers to ``questions`` (each with the answers that it may have) on ``items``.

    Begins the file ``path``, or goes on with it at its first open cell; ``cut_short`` says whether it ended in a line
    that was cut short, which was removed. Without a path it is a ``rehearsal``, whose file goes with it. Raises
    ``DataError`` for items that share a name or lack a file, for a name that cannot be printed, and for a file that is
    open elsewhere, is damaged or holds other items, questions, annotator or seed; ``StoreError`` where nothing can be
    written.
    """

    def __init__(
        self,
        path: Path | str | None,
        items: Sequence[LabelItem],
        questions: Mapping[str, Sequence[str]],
        *,
        annotator: str,
        seed: int,
    ) -> None:
        self.rehearsal = path is None
        self._temporary = tempfile.TemporaryDirectory() if self.rehearsal else None
        self.path = Path(self._temporary.name, "rehearsal.jsonl") if self.rehearsal else Path(path)
        self.annotator = annotator
        self.questions = {name: tuple(answers) for name, answers in questions.items()}
        _check_items(items, annotator)
        ordered = sorted(items, key=lambda item: item.name)
        told = json.dumps([(item.name, item.prompt) for item in ordered])
        these = f"{len(items)} ({hashlib.sha256(told.encode()).hexdigest()[:16]})"
        asked = {name: [*answers] for name, answers in self.questions.items()}
        header = {"format": FORMAT, "annotator": annotator, "seed": seed, "items": these, "questions": asked}
        order = np.random.default_rng([seed, *annotator.encode()]).permutation(len(items))
        self.cells = [Cell(ordered[place], question) for place in order for question in self.questions]
        self._place = {cell.key: place for place, cell in enumerate(self.cells)}
        self._file = LabelFile(self.path, header)
        self._labels, self.cut_short = self._file.labels, self._file.cut_short
        if strange := self._labels.answers.keys() - self._place.keys():
            self.close()
            raise DataError(f"{self.path} has an answer to {min(strange)}, which is none of these items; mend the line")
        self._show(self._first_open(0))

    @property
    def current(self) -> Cell | None:
        """The cell that is shown; None past the last one."""
        return self.cells[self._position] if self._position < len(self.cells) else None

    @property
    def done(self) -> int:
        """The number of cells that have an answer."""
        return len(self._labels.answers)

    @property
    def seconds_left(self) -> float | None:
        """At the pace of the last answers; None before the first."""
        recent = [*self._labels.seconds.values()][-_RECENT:]
        if not recent:
            return None
        return statistics.median(min(seconds, _LONGEST_S) for seconds in recent) * (len(self.cells) - self.done)

    def answer_to(self, cell: Cell) -> str | None:
        """The answer that ``cell`` has, if any."""
        return self._labels.answers.get(cell.key)

    def answer(self, cell: Cell, answer: str) -> None:
        """Store the answer to ``cell``, its first or another, and show the next open cell.

        Raises ``DataError`` for a cell that is not the current one (what is not shown cannot be answered), an answer
        that its question does not have, and a closed session; ``StoreError`` if it cannot be written, and nothing has
        changed.
        """
        if cell != self.current:
            raise DataError(f"{cell.item.name!r}, {cell.question} is not what is shown; answer session.current")
        if answer not in self.questions[cell.question]:
            raise DataError(f"answer is {answer!r}; known are {', '.join(self.questions[cell.question])}")
        seconds = round(time.monotonic() - self._shown_at, 2)
        self._file.append({"item": cell.item.name, "question": cell.question, "answer": answer, "seconds": seconds})
        self._labels.answer(cell.key, answer, seconds)
        self._show(self._first_open(self._position))

    def undo(self) -> bool:
        """Put the last answer back to what it was before and show its cell; False where there is none left.

        Raises as ``answer``.
        """
        if not self._labels.history:
            return False
        (item, question), before = self._labels.history[-1]
        self._file.append({"item": item, "question": question, "answer": before, "undo": True})
        return self._show(self._place[self._labels.undo()])

    def back(self) -> bool:
        """Show the cell before; False at the first one."""
        return self._position > 0 and self._show(self._position - 1)

    def forward(self) -> bool:
        """Show the cell after this one; False where this one is open: answers are given in order."""
        return self.current is not None and self.answer_to(self.current) is not None and self._show(self._position + 1)

    def close(self) -> None:
        """Let go of the file; this session takes no more answers."""
        self._file.close()

    def _show(self, place: int) -> bool:
        self._position, self._shown_at = place, time.monotonic()
        return True

    def _first_open(self, place: int) -> int:
        """The first open cell from ``place`` on, else from the beginning, else past the last."""
        order = [*range(place, len(self.cells)), *range(place)]
        return next((one for one in order if self.cells[one].key not in self._labels.answers), len(self.cells))


def _check_items(items: Sequence[LabelItem], annotator: str) -> None:
    if not annotator.strip() or not annotator.isprintable() or len(annotator) > _LONGEST_NAME:
        raise DataError(f"annotator is {annotator!r:.80}; give a printable name of at most {_LONGEST_NAME} characters")
    names = [item.name for item in items]
    if not names or len(set(names)) < len(names):
        raise DataError(f"{len(names)} items have {len(set(names))} different names; give each one its own")
    for file in (file for item in items for side in item.sides for file in side):
        if not file.is_file():
            raise DataError(f"{file}: this image is not there; make the images first")


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
            self._resume(header)
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

    def _resume(self, header: dict[str, Any]) -> None:
        """Read what the file says so far, without a last line that was cut short, or begin it."""
        try:
            stored = b""
            if self.path.exists():
                check_regular(self.path)
                stored = self.path.read_bytes()
            whole = stored[: stored.rfind(b"\n") + 1]
            if whole:
                self.labels = read_labels(self.path)
                _check_same(self.path, self.labels.header, header)
            elif _line(header).startswith(stored):
                self.labels = Labels(header)
            else:  # not ours to mend
                raise DataError(f"{self.path} is no file of labels; take another name")
            self.cut_short = len(whole) < len(stored)
            self._file = self.path.open("ab", buffering=0)
            self._file.truncate(len(whole))
            if not whole:
                self.append(header)
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}; give a file that can be written") from None


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
