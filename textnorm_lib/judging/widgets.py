"""The two interfaces in JupyterLab over a ``labelling.Session``: one image and a prompt, or two sets of four images.

    alignment_interface(session)     # Good / Bad / Skip, as the paper's annotators had it (table 2, figure 7)
    comparison_interface(session)    # Left / Tie / Right, for alignment and for quality (section 5.4)

Answers come by mouse or by the keys 1, 2, 3; arrows look back and forth, U undoes. A page sends what was pressed
and the number of what it showed, which is new at each redraw: a press that belongs to something else, such as the
second half of a double click, is dropped.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from textnorm_lib.judging.labelling import Session
from textnorm_lib.study.errors import DataError, StudyError

_KINDS = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
_CUT_SHORT = "The file's last line was cut short when its program stopped, and was removed; the rest is here."
_REHEARSAL = "A rehearsal: these answers are not kept. To keep yours, give your name as annotator at the top."


@dataclass(frozen=True)
class Words:
    """What an interface says: its instructions, how each question is put, each answer's button, the sides' names."""

    title: str
    instructions: Sequence[str]
    questions: Mapping[str, str]
    answers: Mapping[str, str]
    sides: Sequence[str]


_SLIP = "A slip? Undo it (U), or go back (left arrow) and answer again; the last answer counts."
ALIGNMENT_WORDS = Words(
    title="One image and its prompt",
    instructions=(
        "Good (1): the image shows what the prompt says.",
        "Bad (2): something is missing, wrong or too much; also if the image is too poor to tell what it shows.",
        "Skip (3): you cannot decide.",
        _SLIP,
    ),
    questions={"alignment": "Does the image show what the prompt says?"},
    answers={"good": "Good", "bad": "Bad", "skip": "Skip (hard to answer)"},
    sides=("",),
)
COMPARISON_WORDS = Words(
    title="Two sets of images for one prompt",
    instructions=(
        "Four images of one model, or chosen by one reward, beside four of another; the sides are dealt at random.",
        "First: which side shows better what the prompt says? Then: which side looks better, whatever it shows?",
        "Left (1), Tie (2) if you see no difference worth naming, Right (3).",
        _SLIP,
    ),
    questions={
        "alignment": "Which side shows better what the prompt says?",
        "quality": "Which side's images are of better quality, whatever they show?",
    },
    answers={"left": "Left", "tie": "Tie", "right": "Right"},
    sides=("Left", "Right"),
)


class LabellingInterface(anywidget.AnyWidget):
    """Shows ``session`` in ``words``; the page's part is in ``widgets.js`` and ``.css``."""

    _esm = Path(__file__).with_suffix(".js")
    _css = Path(__file__).with_suffix(".css")

    about = traitlets.Dict().tag(sync=True)
    sides = traitlets.List().tag(sync=True)
    shown = traitlets.Dict().tag(sync=True)

    def __init__(self, session: Session, words: Words) -> None:
        super().__init__()
        self._session, self._words, self._number, self._item = session, words, 0, None
        about = {"title": words.title, "instructions": [*words.instructions], "fresh": session.done == 0}
        self.about = {**about, "annotator": session.annotator}
        self.on_msg(self._pressed)
        self._standing = _REHEARSAL if session.rehearsal else ""
        self._redraw(_CUT_SHORT if session.cut_short else "")

    def _pressed(self, _: Any, message: Any, __: Any) -> None:
        """A button or a key: ``message`` has what was pressed and the number of what was shown."""
        if not isinstance(message, dict) or message.get("shown") != self._number:
            return
        session, action, problem = self._session, message.get("action"), ""
        try:
            if action in ("back", "forward", "undo"):
                getattr(session, action)()
            elif session.current and action in session.questions[session.current.question]:
                session.answer(session.current, action)
        except StudyError as error:
            problem = str(error)
        self._redraw(problem)

    def _redraw(self, note: str) -> None:
        session, words, cell = self._session, self._words, self._session.current
        self._number += 1
        shown = {"number": self._number, "note": note or self._standing, "done": session.done}
        shown |= {"total": len(session.cells), "left": _time_left(session.seconds_left)}
        shown |= {"prompt": "", "asks": "", "answers": [], "given": None}
        with self.hold_sync():
            if cell:
                answers = [[answer, words.answers[answer]] for answer in session.questions[cell.question]]
                shown |= {"prompt": cell.item.prompt, "asks": words.questions[cell.question], "answers": answers}
                shown["given"] = session.answer_to(cell)
                if cell.item is not self._item:
                    try:
                        sides = zip(words.sides, cell.item.sides, strict=True)
                        self.sides = [{"head": head, "images": _images(head, files)} for head, files in sides]
                        self._item = cell.item
                    except DataError as error:  # what cannot be seen cannot be answered
                        self.sides, self._item = [], None
                        shown |= {"answers": [], "note": str(error)}
            self.shown = shown


def alignment_interface(session: Session) -> LabellingInterface:
    """Whether an image shows what its prompt says, for a session with the questions ``ALIGNMENT``."""
    return LabellingInterface(session, ALIGNMENT_WORDS)


def comparison_interface(session: Session) -> LabellingInterface:
    """Which of two sets of images is better, for a session with the questions ``COMPARISON``."""
    return LabellingInterface(session, COMPARISON_WORDS)


def _images(head: str, files: Sequence[Path]) -> list[dict[str, str]]:
    """What the page needs of each: the image itself, since a file's name might tell who made it, and its alt text."""
    images = []
    for place, file in enumerate(files, start=1):
        if (ending := file.suffix.lower()) not in _KINDS:
            raise DataError(f"{file}: browsers are given {', '.join(_KINDS)}; convert it")
        try:
            content = base64.b64encode(file.read_bytes()).decode()
        except OSError as error:
            remedy = "put the image back and press a key for back or forward"
            raise DataError(f"{file}: {error.strerror}; {remedy}") from None
        alt = f"{head}, image {place} of {len(files)}" if head else "The image to judge"
        images.append({"source": f"data:{_KINDS[ending]};base64,{content}", "alt": alt})
    return images


def _time_left(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return "less than a minute left" if seconds < 60 else f"about {seconds / 60:.0f} min left"
