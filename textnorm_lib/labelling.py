"""Labelling by people, as the paper's annotators did (section 8.2) and as two models are compared (section 5.4).

    session = Session(path, items, ALIGNMENT, annotator="ana", seed=0)
    session.current                            # Cell(item, question): what to show
    session.answer(session.current, "good")    # in the file before it counts; then the next open cell is current
    session.undo()                             # takes the last answer back
    session.back()                             # to look at the cell before, or to answer it anew

A *cell* is one question on one item. Each annotator has the items in an order of their own, from the seed and the name:
it tells nothing of models or rewards. There are no widgets here: ``labelling_widgets.py`` shows a session, and
``labelled.py`` makes votes of the files.
"""

import hashlib
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from textnorm_lib.comparisons import QUESTIONS, blind
from textnorm_lib.errors import DataError
from textnorm_lib.files import file_within
from textnorm_lib.label_file import FORMAT, LabelFile
from textnorm_lib.store import write_atomically

ALIGNMENT = {"alignment": ("good", "bad", "skip")}
COMPARISON = dict.fromkeys(QUESTIONS, ("left", "tie", "right"))

_LONGEST_S = 60.0  # whoever takes longer was away: for the time that is left it counts as this
_LONGEST_NAME = 60  # characters: with four bytes each still a file's name
_RECENT = 20  # answers that tell how long the next ones will take


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
    def key(self) -> tuple[str, str]:
        """What its answer is stored by."""
        return self.item.name, self.question


def alignment_items(images: pd.DataFrame, folder: Path) -> list[LabelItem]:
    """One item an image: ``images`` has image (a file in ``folder``) and prompt. Raises as ``files.file_within``."""
    pairs = zip(images["image"], images["prompt"], strict=True)
    return [LabelItem(image, prompt, ((file_within(folder, image),),)) for image, prompt in pairs]


def comparison_items(comparisons: pd.DataFrame, see: Callable[[Any], Path]) -> list[LabelItem]:
    """One item a comparison of ``comparisons.make_comparisons``; ``see`` gives an image's file."""
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

    Begins the file ``path``, or goes on with it at its first open cell; without a path it is a rehearsal, whose file
    goes with it. Raises ``DataError`` for items that share a name or lack a file, for a name that cannot be printed,
    and for a file that is open elsewhere, is damaged or holds other items, questions, annotator or seed; ``StoreError``
    where nothing can be written.
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
        self._temporary = tempfile.TemporaryDirectory() if path is None else None
        self.path = Path(self._temporary.name, "rehearsal.jsonl") if self._temporary else Path(path)
        self.annotator = annotator
        self.questions = {name: tuple(answers) for name, answers in questions.items()}
        _check(items, annotator)
        ordered = sorted(items, key=lambda item: item.name)
        told = json.dumps([(item.name, item.prompt) for item in ordered])
        these = f"{len(items)} ({hashlib.sha256(told.encode()).hexdigest()[:16]})"
        asked = {name: [*answers] for name, answers in self.questions.items()}
        header = {"format": FORMAT, "annotator": annotator, "seed": seed, "items": these, "questions": asked}
        order = np.random.default_rng([seed, *annotator.encode()]).permutation(len(items))
        self.cells = [Cell(ordered[place], question) for place in order for question in self.questions]
        self._place = {cell.key: place for place, cell in enumerate(self.cells)}
        self._file = LabelFile(self.path, header)
        self._labels = self._file.labels
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
    def rehearsal(self) -> bool:
        """Whether nothing is kept."""
        return self._temporary is not None

    @property
    def cut_short(self) -> bool:
        """Whether the file ended in a line that was cut short, which was removed."""
        return self._file.cut_short

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


def _check(items: Sequence[LabelItem], annotator: str) -> None:
    if not annotator.strip() or not annotator.isprintable():
        raise DataError(f"annotator is {annotator!r:.80}; give a name")
    if len(annotator) > _LONGEST_NAME:
        raise DataError(f"annotator is {annotator!r:.80}...; give a name of at most {_LONGEST_NAME} characters")
    names = [item.name for item in items]
    if not names or len(set(names)) < len(names):
        raise DataError(f"{len(names)} items have {len(set(names))} different names; give each one its own")
    for file in (file for item in items for side in item.sides for file in side):
        if not file.is_file():
            raise DataError(f"{file}: this image is not there; make the images first")
