"""What is wrong with contrastive sets, by rules that anyone can check by eye.

    contrastive = collect_contrastive(load_official("composition"))     # or as_frame("mine", {prompt: [...], ...})
    faults = lint(contrastive)
    lint_summary(contrastive, faults)

What the linter cannot see: a contrast that only says more than the prompt ("a yellow colored giraffe with a long
neck"). ``meaning`` and ``content_words`` decide what counts as the same and as nothing in common. A prompt of the mini
world's grammar means what ``parse`` reads, whatever its wording. Of other prompts they see through the plainest
rewordings alone: case, punctuation, articles, "a realistic photo of", the order around "and".
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import pandas as pd

from textnorm_lib.prompts.grammar import Spec, parse
from textnorm_lib.prompts.rules import canonical
from textnorm_lib.prompts.templates import NUMBER_WORDS
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import step

ITSELF, PARAPHRASE = "prompt itself", "paraphrase"
DUPLICATE, REWORDED = "duplicate", "duplicate in other words"
NOTHING_IN_COMMON = "nothing in common"
FAULTS = (ITSELF, PARAPHRASE, DUPLICATE, REWORDED, NOTHING_IN_COMMON)

_ARTICLES = {"a", "an", "the", "one", "single"}  # "a dog", "one dog" and "a single dog" ask for the same
_MEDIUM = re.compile(r"^(?:(?:an?|the) )?(?:realistic )?(?:photo|image|picture) (?:of|showing) ")
# Words that say how many, where or in which picture, but not what is to be seen.
_FUNCTION_WORDS = {
    *("and", "as", "at", "by", "during", "for", "from", "in", "inside", "is", "it", "its", "like", "of", "off", "on"),
    *("or", "over", "that", "to", "under", "with", "left", "right", "top", "bottom", "ten", *NUMBER_WORDS, *_ARTICLES),
    *("hyper", "realistic", "photo", "photography", "image", "picture", "showing"),
}


def as_frame(set_name: str, contrastive: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """{prompt: its contrastive prompts} as rows: set, prompt, position (from 0), contrastive_prompt."""
    rows = []
    for prompt, texts in contrastive.items():
        if isinstance(texts, str):
            raise DataError(f"{set_name}: the contrastive set of {prompt!r} is a single string; give a list of strings")
        rows += [(set_name, prompt, position, text) for position, text in enumerate(texts)]
    return pd.DataFrame(rows, columns=["set", "prompt", "position", "contrastive_prompt"])


@step(1)
def lint(contrastive: pd.DataFrame) -> pd.DataFrame:
    """One row per fault: set, prompt, contrast, fault; a contrastive prompt may have two.

    - "prompt itself": the same text as the prompt.
    - "paraphrase": another text, the same meaning as the prompt's (``meaning``).
    - "duplicate": the same text as an earlier one of the same prompt; "duplicate in other words": the same meaning.
    - "nothing in common": no content word (``content_words``) of the prompt's occurs. A hint rather than a fault, for
      the paper's own example contrasts two dogs with three cats; and of words, not of things: a synonym ("car" for
      "automobile") or an irregular plural is another word, one shared adjective or verb ("colored", "made") is enough.
    """
    sets = contrastive.groupby(["set", "prompt"], sort=False)["contrastive_prompt"]
    rows = [
        (name, prompt, text, fault)
        for (name, prompt), texts in progress(sets, "lint", total=sets.ngroups, unit="sets")
        for text, fault in _faults(prompt, texts.tolist())
    ]
    return pd.DataFrame(rows, columns=["set", "prompt", "contrast", "fault"])


@step(1)
def lint_summary(contrastive: pd.DataFrame, faults: pd.DataFrame) -> pd.DataFrame:
    """One row per set and fault: set, fault, entries with it, all_entries, prompts whose set has one, all_prompts."""
    rows = []
    for name, group in contrastive.groupby("set", sort=False):
        for fault in FAULTS:
            found = faults[(faults["set"] == name) & (faults["fault"] == fault)]
            counts = len(found), len(group), found["prompt"].nunique(), group["prompt"].nunique()
            rows.append((name, fault, *counts))
    return pd.DataFrame(rows, columns=["set", "fault", "entries", "all_entries", "prompts", "all_prompts"])


def _faults(prompt: str, texts: list[str]) -> Iterator[tuple[str, str]]:
    """(contrastive prompt, fault)."""
    for position, text in enumerate(texts):
        earlier = texts[:position]
        if text == prompt:
            yield text, ITSELF
        elif meaning(text) == meaning(prompt):
            yield text, PARAPHRASE
        if text in earlier:
            yield text, DUPLICATE
        elif meaning(text) in map(meaning, earlier):
            yield text, REWORDED
        if not content_words(text) & content_words(prompt):
            yield text, NOTHING_IN_COMMON


@cache
def meaning(prompt: str) -> Spec | str:
    """What ``prompt`` asks for, equal for prompts that mean the same: a ``Spec``, or normalised text."""
    try:
        return canonical(parse(prompt))
    except DataError:
        parts = _MEDIUM.sub("", " ".join(_words(prompt))).split(" and ")
        return " and ".join(sorted(" ".join(w for w in part.split() if w not in _ARTICLES) for part in parts))


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
