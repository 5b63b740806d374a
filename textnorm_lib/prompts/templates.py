"""The prompts of TIA2: the synthetic counting and composition sets, and categories for the comprehensive set.

The paper's sections 3.1, 8.1 and 10. The synthetic prompts are generated here and equal the released ones, in the
released order; the 100 comprehensive prompts were collected by hand and come with the release (``tia2/official.py``).
"""

import itertools
import re

from textnorm_lib.study.errors import DataError

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COCO_CLASSES = (
    *("apple", "book", "cake", "carrot", "chair", "cup", "fork", "laptop", "microwave", "orange", "suitcase"),
    *("teddy bear", "toaster", "umbrella", "vase"),
)
CLASSES = CIFAR10_CLASSES + COCO_CLASSES
NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COUNTS = range(1, 7)  # the counts of the released counting set
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "pink", "brown")  # of the comprehensive prompts
LOCATIONS = ("street", "grass", "desert", "ocean", "forest", "table")
STYLES = ("photo", "pencil sketch", "oil painting", "neon sign")
PREFIX = "a realistic photo of "
CATEGORIES = ("text", "style", "composition", "counting", "creative", "location", "colors", "spatial")

_NUMBERS = "|".join(NUMBER_WORDS)
_PLACES = (
    "street|grass|forest|rainforest|jungle|field|desert|ocean|table|bedroom|class|press conference|industrial site|"
    "in the background"
)

# Read from top to bottom: every row that matches adds its category, the first that matches is the primary one.
_RULES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (category, re.compile(pattern, re.IGNORECASE))
    for category, pattern in (
        # The wording to be drawn is given between quotation marks.
        ("text", r"\b(?:says|written|reads)\b"),
        # A medium, an artist or an era that decides how the whole picture looks.
        ("style", r"\b(?:painting|illustration|cartoon|comic|poster|statue|colou?ring page|pencil art|yearbook)\b"),
        ("style", r"^an? (?:pencil sketch|neon sign) of\b"),
        ("style", r"\b(?:in .+ style|in the style of|real life photography)\b"),
        # Unusual materials, mergers of two ideas, animals in human roles: what a photograph would never show.
        ("creative", r"\bmade of\b|\blego\b|\bmcdonalds\b|\bcyberpunk\b|\bdepicting\b|\busing\b.+\bas an?\b"),
        ("creative", r"\b(?:confused|athlete|singing|wizard|wearing|dressed as)\b"),
        ("spatial", r"\bon top of\b|\b(?:on|to) the (?:left|right) of\b|(?<!tripping )\bover an?\b"),
        # Two things joined by "and", or one acting on the other; "a yellow and black bus" is one thing.
        ("composition", rf"\band (?:an?|{_NUMBERS}) |\b(?:licking|tripping over) an?\b"),
        ("composition", r"^(?!an? )(?:\w+ ){1,2}and(?: \w+){1,3}$"),
        ("colors", rf"\b(?:{'|'.join(COLOURS)})\b"),  # without "orange", which is a fruit in these prompts
        # The second pattern is the paper's own reading of "A black colored car"; the third a synthetic prompt for one.
        ("counting", rf"\b(?:{_NUMBERS})\b|^an? \w+ colored\b|^{PREFIX}an? (?:(?! and ).)+$"),
        ("location", rf"\b(?:{_PLACES})\b"),
        # How the camera is set matters less than what it sees, so these come last.
        ("style", r"\b(?:hyper-realistic|35mm)\b"),
    )
)


def with_article(name: str) -> str:
    """'umbrella' -> 'an umbrella'; by the first letter, which is right for all 25 classes."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def plural(name: str) -> str:
    """'teddy bear' -> 'teddy bears', 'deer' -> 'deer'; right for all 25 classes."""
    return name if name == "deer" else f"{name}s"


def counting_prompt(name: str, count: int) -> str:
    """'deer', 3 -> 'a realistic photo of three deer'; ``count`` in 1..9, one is written as the article."""
    most = len(NUMBER_WORDS)
    if not 1 <= count <= most:
        raise DataError(f"counting prompt of {name!r}: the count {count} has no word here; take 1 to {most}")
    return PREFIX + (with_article(name) if count == 1 else f"{NUMBER_WORDS[count - 1]} {plural(name)}")


def composition_prompt(first: str, second: str) -> str:
    """'cat', 'dog' -> 'a realistic photo of a cat and a dog'."""
    return f"{PREFIX}{with_article(first)} and {with_article(second)}"


def counting_prompts() -> tuple[str, ...]:
    """The 150 prompts of the counting set in the released order: by count, then by class alphabetically."""
    return tuple(counting_prompt(name, count) for count in COUNTS for name in sorted(CLASSES))


def composition_prompts() -> tuple[str, ...]:
    """The 300 prompts of the composition set: unordered pairs of the 25 classes, alphabetically, as released."""
    return tuple(itertools.starmap(composition_prompt, itertools.combinations(sorted(CLASSES), 2)))


_COUNTING = {counting_prompt(c, n): (c, n) for c in CLASSES for n in range(1, len(NUMBER_WORDS) + 1)}
_COMPOSITION = {composition_prompt(a, b): (a, b) for a, b in itertools.permutations(CLASSES, 2)}


def parse_counting(prompt: str) -> tuple[str, int]:
    """'a realistic photo of three deer' -> ('deer', 3); counts 1..9 of a known class. Else ``DataError``."""
    if prompt not in _COUNTING:
        raise DataError(f"not a counting prompt: {prompt!r:.80}; expected e.g. {counting_prompt('deer', 3)!r}")
    return _COUNTING[prompt]


def parse_composition(prompt: str) -> tuple[str, str]:
    """'a realistic photo of a cat and a dog' -> ('cat', 'dog'), two known, distinct classes. Else ``DataError``."""
    if prompt not in _COMPOSITION:
        raise DataError(f"not a composition prompt: {prompt!r:.80}; expected e.g. {composition_prompt('cat', 'dog')!r}")
    return _COMPOSITION[prompt]


def categorise(prompt: str) -> tuple[str, ...]:
    """The paper's categories that ``prompt`` belongs to, the primary one (used for statistics) first, if any.

    The release carries no categories; this rule is ours, from the paper's table 3 and its one worked example: "A black
    colored car" is colors and counting, so colors is primary there and the single object counts as counting. The
    release lists prompts 20-99 in blocks of ten that read like one category each (creative, spatial, text, style,
    counting, colors, composition, location): the primary category equals the block's. Prompts 0-19 are open-ended.
    An object's place ("on the street") counts as location, its place relative to another as spatial.
    """
    return tuple(dict.fromkeys(category for category, pattern in _RULES if pattern.search(prompt)))
