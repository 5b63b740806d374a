"""When two prompts mean the same, and when they share nothing: what rules, controls and the linter agree on.

A prompt of the mini world's grammar means what ``parse`` reads, whatever its wording. Of other prompts only the
plainest rewordings are seen through: case, punctuation, articles, "a realistic photo of", the order around "and".
"""

import re
from dataclasses import replace
from functools import cache

from textnorm_lib.errors import DataError
from textnorm_lib.mini.grammar import Spec, parse
from textnorm_lib.tia2.prompts import NUMBER_WORDS

_ARTICLES = {"a", "an", "the", "one", "single"}  # "a dog", "one dog" and "a single dog" ask for the same
_MEDIUM = re.compile(r"^(?:(?:an?|the) )?(?:realistic )?(?:photo|image|picture) (?:of|showing) ")
# Words that say how many, where or in which picture, but not what is to be seen.
_FUNCTION_WORDS = {
    *("and", "as", "at", "by", "during", "for", "from", "in", "inside", "is", "it", "its", "like", "of", "off", "on"),
    *("or", "over", "that", "to", "under", "with", "left", "right", "top", "bottom", "ten", *NUMBER_WORDS, *_ARTICLES),
    *("hyper", "realistic", "photo", "photography", "image", "picture", "showing"),
}


@cache
def meaning(prompt: str) -> Spec | str:
    """What ``prompt`` asks for, equal for prompts that mean the same: a ``Spec``, or normalised text."""
    try:
        return canonical(parse(prompt))
    except DataError:
        parts = _MEDIUM.sub("", " ".join(_words(prompt))).split(" and ")
        return " and ".join(sorted(" ".join(w for w in part.split() if w not in _ARTICLES) for part in parts))


def canonical(spec: Spec) -> Spec:
    """``spec`` in one of its two orders: a dog on the right of a cat is a cat on the left of a dog."""
    if spec.relation == "right":
        return replace(spec, objects=spec.objects[::-1], relation="left")
    return spec if spec.relation else replace(spec, objects=tuple(sorted(spec.objects)))


@cache
def content_words(prompt: str) -> frozenset[str]:
    """The words that say what is to be seen, alike in singular and plural where the plural is regular."""
    return frozenset(_stem(word) for word in _words(prompt) if word not in _FUNCTION_WORDS)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower().replace("'", ""))


def _stem(word: str) -> str:
    """'horses', 'horse' -> 'hors'; 'cherries', 'cherry' -> 'cherry'."""
    singular = re.sub(r"(?<![su])s$", "", word)
    return re.sub(r"ie$", "y", singular).removesuffix("e")
