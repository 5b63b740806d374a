"""What a language model answered, read strictly: one list of captions, or an error that says why there is none.

Nothing in an answer is evaluated. Understood are a list in brackets, as JSON or Python would write it (also inside an
object, a code fence or prose, also with curly quotation marks), or two and more adjacent lines that are numbered,
bulleted or each in quotation marks. Whatever is ambiguous is refused, since a caption lost or made up changes a reward.
"""

import json
import re
import unicodedata
from itertools import groupby
from typing import NamedTuple

from textnorm_lib.errors import DataError

LONGEST_ANSWER = 20_000  # characters; the longest released list has 1,785
LONGEST_CAPTION = 400  # characters; the longest released caption has 95

# No part can match the same text in two ways, so that a hostile answer cannot make the search go back and forth.
_QUOTED = r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"' + r"|'[^'\\\n]*(?:\\.[^'\\\n]*)*'" + r"|“[^“”\\\n]*(?:\\.[^“”\\\n]*)*”"
_LIST = re.compile(rf"\[\s*(?:{_QUOTED})\s*(?:,\s*(?:{_QUOTED})\s*)*(?:,\s*)?\]")
_ITEM = re.compile(rf"(?P<marker>\d+[.)]|[-*•])\s+(?P<marked>.+)|(?P<quoted>{_QUOTED})")


class AnswerError(DataError):
    """An answer that holds no list of captions, or one that cannot be trusted; the message is the reason alone."""


class Answer(NamedTuple):
    """The captions of an answer, and what was dropped from it."""

    captions: list[str]
    own: int  # times the prompt itself was among them
    duplicates: int


def parse_answer(text: str, prompt: str) -> Answer:
    """The captions in ``text``, without ``prompt`` itself and without duplicates, in their order.

    Two captions are the same if only case, white space or a final full stop differ. Raises ``AnswerError`` for an
    answer of more than ``LONGEST_ANSWER`` characters, no list or more than one, an entry that is no string, empty,
    longer than ``LONGEST_CAPTION`` or not plain text (control characters, Markdown), and where only the prompt is left.
    """
    if len(text) > LONGEST_ANSWER:
        raise AnswerError(f"it has {len(text):,} characters, more than {LONGEST_ANSWER:,}")
    if _unprintable(text, allowed="\t\r\n"):
        raise AnswerError("it holds control or invisible characters")
    entries = _bracketed(text) if "[" in text else _lines(text)
    captions = [_caption(entry, number) for number, entry in enumerate(entries, start=1)]
    others = [caption for caption in captions if _same(caption) != _same(prompt)]
    distinct: dict[str, str] = {}
    for caption in others:
        distinct.setdefault(_same(caption), caption)
    if not distinct:
        raise AnswerError("its list holds nothing but the prompt itself")
    own, duplicates = len(captions) - len(others), len(others) - len(distinct)
    return Answer(list(distinct.values()), own, duplicates)


def _bracketed(text: str) -> list[str]:
    """The strings of the only list in brackets; a second bracket could hide a part of it or be the list that counts."""
    found = _LIST.search(text)
    if not found:
        raise AnswerError("it holds no list whose entries are all strings in quotation marks")
    if re.search(r"[][]", text[: found.start()] + text[found.end() :]):
        raise AnswerError("it holds more brackets than those of one plain list")
    return [_unquoted(token) for token in re.findall(_QUOTED, found[0])]


def _lines(text: str) -> list[str]:
    """The strings of the only block of numbered, bulleted or quoted lines."""
    lines = [line.strip().removesuffix(",").rstrip() for line in text.split("\n") if line.strip()]
    blocks = [list(block) for is_item, block in groupby(map(_ITEM.fullmatch, lines), key=bool) if is_item]
    if not blocks:
        raise AnswerError("it holds no list")
    kinds = {"number" if (match["marker"] or "")[:1].isdigit() else match["marker"] for match in blocks[0]}
    if len(blocks) > 1 or len(blocks[0]) < 2 or len(kinds) > 1:
        raise AnswerError("it holds lines of a list, but not one clear list")
    items = [match["marked"] or match["quoted"] for match in blocks[0]]
    return [_unquoted(item) if re.fullmatch(_QUOTED, item) else item for item in items]


def _unquoted(token: str) -> str:
    """What a quoted string stands for, by JSON's escapes and \\'."""
    inner = re.sub(r'\\.|"', lambda part: {"\\'": "'", '"': '\\"'}.get(part[0], part[0]), token[1:-1])
    try:
        return json.loads(f'"{inner}"')
    except ValueError:
        raise AnswerError(f"the entry {token[:60]} is not written as JSON or Python would") from None


def _caption(entry: str, number: int) -> str:
    caption = " ".join(entry.split())
    if not caption:
        raise AnswerError(f"entry {number} is empty")
    if len(caption) > LONGEST_CAPTION:
        raise AnswerError(f"entry {number} has {len(caption):,} characters, more than {LONGEST_CAPTION}")
    if _unprintable(entry):
        raise AnswerError(f"entry {number} holds control or invisible characters")
    if "**" in caption or "`" in caption:
        raise AnswerError(f"entry {number} holds Markdown")
    return caption


def _unprintable(text: str, *, allowed: str = "") -> bool:
    """Whether ``text`` holds control, invisible or unassigned characters, or separators of lines."""
    return any(
        (unicodedata.category(character)[0] == "C" or character in "\u2028\u2029") and character not in allowed
        for character in text
    )


def _same(caption: str) -> str:
    return " ".join(caption.split()).casefold().removesuffix(".")
