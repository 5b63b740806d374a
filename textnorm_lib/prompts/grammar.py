"""The mini world's prompts as a grammar: the paper's wording, written and read back without loss.

    a realistic photo of three deer            a cat on the left of a dog           two dogs on the street
    a realistic photo of a cat and a dog       a red book and a yellow vase         a pencil sketch of a cat

A prompt asks for up to eight objects of one class, or up to three each of two; and for colours *or* a relation *or* a
location *or* a style, as the paper's comprehensive prompts do.
"""

import difflib
import re
from dataclasses import dataclass
from typing import NamedTuple

from textnorm_lib.prompts.templates import (
    CLASSES,
    COLOURS,
    LOCATIONS,
    NUMBER_WORDS,
    PREFIX,
    STYLES,
    plural,
    with_article,
)
from textnorm_lib.study.errors import DataError

PHOTO = "photo"
LONGEST = 200  # characters of a prompt that is read; those that are written have fewer than 100
MOST_OF_ONE, MOST_OF_TWO = 8, 3  # the released contrastive sets: two counts above six; pairs up to three each

# The first wording of each is the one that is written; the others, all from the paper's prompts, are read too.
RELATION_WORDING = {
    "left": ("on the left of", "to the left of"),
    "right": ("on the right of", "to the right of"),
    "top": ("on top of",),
}
LOCATION_WORDING = {
    "street": ("on the street",),
    "grass": ("on the grass", "sitting on the grass", "running in a field", "in a field"),
    "desert": ("in the desert",),
    "ocean": ("in the middle of the ocean",),
    "forest": ("in the forest", "in a forest"),
    "table": ("on the table", "on a table"),
}

_COUNTS = {"a": 1, "an": 1, **{word: count for count, word in enumerate(NUMBER_WORDS[:MOST_OF_ONE], 1)}}
_TOO_MANY = re.compile(r"\d+|nine|ten|eleven|twelve|\w+teen|twenty|many|dozens?")
_PLACE = re.compile(r"(.+?) (?:\w+ing )?((?:in|on|at|under|behind|below|above|beside|over|near|to|next to)\b.*)")
_NAMES = {form: name for name in CLASSES for form in (name, plural(name))}


class Asked(NamedTuple):
    """So many objects of one class, in one of ``COLOURS`` or, with None, their natural colour."""

    name: str
    count: int = 1
    colour: str | None = None


@dataclass(frozen=True)
class Spec:
    """What a prompt asks for; with a relation, the first object lies left or right or on top of the second."""

    objects: tuple[Asked, ...]
    relation: str | None = None
    location: str | None = None
    style: str = PHOTO

    def __post_init__(self) -> None:
        object.__setattr__(self, "objects", tuple(Asked(*asked) for asked in self.objects))
        if not 1 <= len(self.objects) <= 2:
            raise DataError(f"{len(self.objects)} kinds of objects; take one or two")
        most = MOST_OF_ONE if len(self.objects) == 1 else MOST_OF_TWO
        for name, count, colour in self.objects:
            if name not in CLASSES:
                raise DataError(_unknown_class(name))
            if not 1 <= count <= most:
                raise DataError(f"{count} of {name!r}; take 1 to {MOST_OF_ONE} of one class, {MOST_OF_TWO} each of two")
            _known("colour", colour, COLOURS)
        if len({asked.name for asked in self.objects}) < len(self.objects):
            raise DataError(f"{self.objects[0].name!r} is asked for twice; take two different classes")
        _known("relation", self.relation, RELATION_WORDING)
        _known("location", self.location, LOCATIONS)
        _known("style", self.style, STYLES)
        if self.relation and [asked.count for asked in self.objects] != [1, 1]:
            raise DataError("a relation holds between two single objects of different classes")
        colours = any(asked.colour for asked in self.objects)
        if sum(map(bool, (colours, self.relation, self.location, self.style != PHOTO))) > 1:
            raise DataError("only one of colours, relation, location and style can be asked for at a time")


def write(spec: Spec) -> str:
    """The prompt that asks for ``spec``; ``parse`` reads it back."""
    phrases = [_phrase(asked, alone=len(spec.objects) == 1) for asked in spec.objects]
    if spec.relation:
        return f"{phrases[0]} {RELATION_WORDING[spec.relation][0]} {phrases[1]}"
    text = " and ".join(phrases)
    if spec.location:
        return f"{text} {LOCATION_WORDING[spec.location][0]}"
    if spec.style != PHOTO:
        return f"{with_article(spec.style)} of {text}"
    return text if any(asked.colour for asked in spec.objects) else PREFIX + text


def parse(prompt: str) -> Spec:
    """What ``prompt`` asks for.

    ``parse`` reads, besides what ``write`` writes, capitals, a full stop, "one" for the article, the paper's other
    wordings of a place, and prompts without "a realistic photo of". Raises ``DataError``, naming prompt and fault.
    """
    if len(prompt) > LONGEST:
        raise DataError(f"prompt {prompt!r:.80}... has {len(prompt):,} characters; expected are {LONGEST} at most")
    text = re.sub(r"\s+", " ", prompt).strip(" .").lower()
    if not text:
        raise DataError(f"the prompt is empty; expected e.g. {PREFIX}three deer")
    try:
        style, text = _take_style(text)
        text, location = _take_location(text)
        relation, phrases = _take_relation(text)
        return Spec(tuple(_asked(phrase) for phrase in phrases), relation, location, style)
    except DataError as error:
        raise DataError(f"prompt {prompt!r}: {error}") from None


def _known(kind: str, value: str | None, known: dict) -> None:
    if value is not None and value not in known:
        raise DataError(f"unknown {kind} {value!r}; known: {', '.join(known)}")


def _unknown_class(name: str) -> str:
    near = difflib.get_close_matches(name, _NAMES, n=1, cutoff=0.6)
    return f"unknown class {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(CLASSES)}")


def _phrase(asked: Asked, *, alone: bool) -> str:
    name = asked.name if asked.count == 1 else plural(asked.name)
    if asked.colour:
        name = f"{asked.colour} colored {name}" if alone else f"{asked.colour} {name}"
    return with_article(name) if asked.count == 1 else f"{NUMBER_WORDS[asked.count - 1]} {name}"


def _take_style(text: str) -> tuple[str, str]:
    """'a pencil sketch of a cat' -> ('pencil sketch', 'a cat')."""
    if text.startswith(PREFIX):
        return PHOTO, text.removeprefix(PREFIX)
    if match := re.match(rf"an? ((?:(?!\b(?:{'|'.join(_NAMES)})\b).)+?) of (.+)", text):
        _known("style", match[1], STYLES)
        return match[1], match[2]
    return PHOTO, text


def _take_location(text: str) -> tuple[str, str | None]:
    """'two dogs on the street' -> ('two dogs', 'street')."""
    endings = ((f" {wording}", name) for name, wordings in LOCATION_WORDING.items() for wording in wordings)
    for ending, name in sorted(endings, key=lambda pair: -len(pair[0])):
        if text.endswith(ending):
            return text.removesuffix(ending), name
    return text, None


def _take_relation(text: str) -> tuple[str | None, list[str]]:
    """'a cat on top of a dog' -> ('top', ['a cat', 'a dog']); 'a cat and a dog' -> (None, ['a cat', 'a dog'])."""
    for name, wordings in RELATION_WORDING.items():
        for wording in wordings:
            if f" {wording} " in text:
                return name, text.split(f" {wording} ", 1)
    return None, text.split(" and ")


def _asked(phrase: str) -> Asked:
    """'two red colored dogs' -> Asked('dog', 2, 'red')."""
    first, _, rest = phrase.partition(" ")
    if _TOO_MANY.fullmatch(first):
        raise DataError(f"the count {first!r} is not one of a, an, one, ... eight")
    if first not in _COUNTS or not rest:
        is_name = not rest and first not in (*_NAMES, *_COUNTS)
        hint = _unknown_class(first) if is_name else "begin with a, an, one, ... eight"
        raise DataError(f"{phrase!r} does not say how many of which class; {hint}")
    count, (colour, name) = _COUNTS[first], _take_colour(rest)
    if name not in _NAMES:
        place = _PLACE.fullmatch(name)
        if place and place[1] in _NAMES:
            known = ", ".join(wordings[0] for wordings in (*LOCATION_WORDING.values(), *RELATION_WORDING.values()))
            raise DataError(f"unknown location or relation {place[2]!r}; known: {known}")
        raise DataError(_unknown_class(name))
    expected = _NAMES[name] if count == 1 else plural(_NAMES[name])
    if name != expected:
        raise DataError(f"{first!r} and {name!r} do not agree; write {expected!r}")
    return Asked(_NAMES[name], count, colour)


def _take_colour(text: str) -> tuple[str | None, str]:
    """'red colored dog' -> ('red', 'dog'), 'red dog' -> ('red', 'dog'), 'orange' -> (None, 'orange')."""
    match = re.fullmatch(r"(\w+) colou?red (.+)", text) or re.fullmatch(r"(\w+) (.+)", text)
    if text in _NAMES or not match or (match[1] not in COLOURS and match[2] not in _NAMES):
        return None, text
    _known("colour", match[1], COLOURS)
    return match[1], match[2]
