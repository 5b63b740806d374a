"""Comparisons of two models' images, blind for those who judge them (the paper's section 5.4 and appendix 9).

A *comparison* shows a prompt and two sets of four images, one of each model. Every judge answers two questions, of
alignment with the prompt first and of image quality second, by left, tie, right or skip. Which model is left is random
and balanced. A judge gets a ``BlindComparison``: no names of models, and of the images what they look like only,
because the path of an image may name its model. ``judging/verdicts.py`` makes results of the votes.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from textnorm_lib.stats.names import PROMPT
from textnorm_lib.study.errors import DataError, check_regular
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import step

QUESTIONS = ("alignment", "quality")  # in the order in which they are asked
ANSWERS = ("left", "tie", "right", "skip")
SETS_PER_PROMPT, IMAGES_PER_SET = 2, 4

_OF_VOTE = ["comparison", "judge", "question", "answer"]
_ROUNDING_DECIMALS = 12  # the same numbers in another order can have means some 1e-16 apart


@dataclass(frozen=True)
class BlindComparison:
    """All that a judge gets: an id that tells nothing, the prompt, and what there is to see on each side."""

    comparison: str
    prompt: str
    left: tuple[Any, ...]
    right: tuple[Any, ...]


@step(1)
def make_comparisons(
    images_a: pd.DataFrame, images_b: pd.DataFrame, *, sets_per_prompt: int = SETS_PER_PROMPT, seed: int
) -> pd.DataFrame:
    """Sets of one model's images against sets of another's for the same prompts, the sides dealt at random.

    ``images_a`` and ``images_b`` have one row an image: model (one name each), set, prompt, image (what ``blind`` looks
    it up by), for each prompt exactly as many as are shown; the first ones make the first set, and so on. The models
    take turns on the left, each begins in half of the prompts, drawn at random. Which of the two is called a matters to
    the columns model and opponent and to nothing else.

    Returns comparison, set, prompt, number (1 .. ``sets_per_prompt``), model (a), opponent (b), left_model, left, right
    (lists of images), seed. Raises ``DataError`` for a missing column or value, models that are not two, and, naming
    the prompt, for one that only one model has, another number of images, or an image given twice.
    """
    model, sets_a = _sets_of_images("images_a", images_a, sets_per_prompt)
    opponent, sets_b = _sets_of_images("images_b", images_b, sets_per_prompt)
    if model == opponent:
        raise DataError(f"images_a and images_b are both of model {model!r}; two models are needed")
    for _, prompt in sorted(sets_a.keys() ^ sets_b.keys()):
        raise DataError(f"prompt {prompt!r} has images of one model only; give both models the same prompts")
    sets, pair = {model: sets_a, opponent: sets_b}, sorted([model, opponent])
    rng = np.random.default_rng([seed, *"/".join(pair).encode()])
    begins = rng.permutation(np.arange(len(sets_a)) % 2)
    rows = []
    for (name, prompt), first in zip(sorted(sets_a), begins.tolist(), strict=True):
        for number in range(sets_per_prompt):
            side = (first + number) % 2
            left, right = (sets[pair[place]][name, prompt][number] for place in (side, 1 - side))
            told = json.dumps([seed, *pair, name, prompt, number])
            identity = hashlib.sha256(told.encode()).hexdigest()[:12]
            rows.append((identity, name, prompt, number + 1, model, opponent, pair[side], left, right, seed))
    columns = ["comparison", "set", "prompt", "number", "model", "opponent", "left_model", "left", "right", "seed"]
    return pd.DataFrame(rows, columns=columns)


def blind(comparisons: pd.DataFrame, *, see: Mapping[Any, Any] | Callable[[Any], Any]) -> Iterator[BlindComparison]:
    """What judges get of ``comparisons``, sorted by the ids: an order that tells nothing.

    ``see`` gives, by the image, what a judge sees of it (pixels, or a number): a mapping or a function. Raises
    ``DataError`` for an image that a mapping lacks.
    """
    for row in comparisons.sort_values("comparison").itertuples():
        left, right = (tuple(_look(see, image) for image in side) for side in (row.left, row.right))
        yield BlindComparison(row.comparison, row.prompt, left, right)


def ask(
    judge: Callable[[BlindComparison], str | None],
    comparisons: pd.DataFrame,
    *,
    name: str,
    question: str,
    see: Mapping[Any, Any] | Callable[[Any], Any],
) -> pd.DataFrame:
    """One judge's votes on one question, one row a comparison, in the form that ``judging/verdicts.py`` takes.

    ``judge`` takes a ``BlindComparison`` and returns "left", "tie", "right", or None to skip; ``see`` as for ``blind``.
    Returns comparison, set, prompt, model, opponent, left_model, judge (its ``name``), question, answer. Raises
    ``DataError`` for an unknown question or answer and a comparison that occurs twice.
    """
    if question not in QUESTIONS:
        raise DataError(f"question is {question!r}; known are {', '.join(QUESTIONS)}")
    rows = []
    for shown in progress(blind(comparisons, see=see), name, total=len(comparisons), unit="comparisons"):
        answer = judge(shown)
        if answer not in (*ANSWERS[:3], None):
            raise DataError(f"judge {name!r} answers {answer!r}; known are {', '.join(ANSWERS[:3])} and None")
        rows.append((shown.comparison, name, question, answer or "skip"))
    return votes_on(rows, comparisons)


def gold_judge(*, tie_within: float) -> Callable[[BlindComparison], str]:
    """A judge that sees a number of each image and prefers the side with the higher mean.

    Means at most ``tie_within`` apart tie. Raises ``DataError`` for a negative ``tie_within``; the judge does so for a
    number that is not finite.
    """
    if not tie_within >= 0:
        raise DataError(f"tie_within is {tie_within}: a number of 0 or more is needed")

    def judge(shown: BlindComparison) -> str:
        if not np.isfinite([*shown.left, *shown.right]).all():
            raise DataError(f"comparison {shown.comparison}: an image's gold is not finite; give every image a number")
        difference = np.round(np.mean(shown.left) - np.mean(shown.right), _ROUNDING_DECIMALS)
        if abs(difference) <= tie_within:
            return "tie"
        return "left" if difference > 0 else "right"

    return judge


def read_votes(path: Path | str, comparisons: pd.DataFrame, *, judges: Sequence[str]) -> pd.DataFrame:
    """The votes in a file, in the form that ``ask`` gives them.

    The file is CSV with a header (.csv) or one JSON object a line (.jsonl), with comparison, judge, question, answer
    (one of ``ANSWERS``): one answer of each judge to each question on each comparison, in any order. Raises
    ``DataError`` for anything else, naming the file and the line.
    """
    path = Path(path)
    known = {"comparison": set(comparisons["comparison"]), "judge": judges, "question": QUESTIONS, "answer": ANSWERS}
    found: dict[tuple[str, ...], tuple[int, str]] = {}
    for line, keys, values in _lines(path):
        where = f"{path}, line {line}"
        if sorted(keys) != sorted(_OF_VOTE) or len(values) != len(keys):
            raise DataError(f"{where}: exactly one {', one '.join(_OF_VOTE)} are needed")
        vote = dict(zip(keys, values, strict=True))
        for key in _OF_VOTE:
            if not isinstance(vote[key], str) or vote[key] not in known[key]:
                these = "those of the comparisons given" if key == "comparison" else ", ".join(known[key])
                raise DataError(f"{where}: {key} is {vote[key]!r:.80}; known are {these}")
        cell = tuple(vote[key] for key in _OF_VOTE[:3])
        if cell in found:
            raise DataError(f"{where}: {' / '.join(cell)} has its answer in line {found[cell][0]}; keep one of the two")
        found[cell] = line, vote["answer"]
    for cell in product(comparisons["comparison"], judges, QUESTIONS):
        if cell not in found:
            raise DataError(f"{path}: {' / '.join(cell)} has no answer; add a line with it (skip is an answer)")
    return votes_on([(*cell, answer) for cell, (_, answer) in found.items()], comparisons)


def _sets_of_images(name: str, images: pd.DataFrame, sets: int) -> tuple[str, dict[tuple, list[list]]]:
    """The model, and by set and prompt its sets of images."""
    columns = ["model", "set", "prompt", "image"]
    if missing := [column for column in columns if column not in images or images[column].isna().any()]:
        raise DataError(f"{name}: every image needs {', '.join(columns)}; {missing[0]!r} is missing")
    models = list(images["model"].unique())
    if len(models) != 1:
        raise DataError(f"{name} has the models {models}; the images of exactly one are needed")
    dealt = {}
    for (name_of_set, prompt), group in images.groupby(PROMPT):
        own = group["image"].tolist()
        if len(own) != sets * IMAGES_PER_SET or len(set(own)) != len(own):
            raise DataError(
                f"{name}: prompt {prompt!r} has {len(own)} images, {len(set(own))} of them different; "
                f"{sets} x {IMAGES_PER_SET} different ones are needed"
            )
        dealt[name_of_set, prompt] = [
            own[first : first + IMAGES_PER_SET] for first in range(0, len(own), IMAGES_PER_SET)
        ]
    return models[0], dealt


def _look(see: Mapping[Any, Any] | Callable[[Any], Any], image: Any) -> Any:
    if callable(see):
        return see(image)
    if image not in see:
        raise DataError(f"image {image!r} is in no entry of see; add what a judge sees of it")
    return see[image]


def votes_on(rows: list[tuple[str, str, str, str]], comparisons: pd.DataFrame) -> pd.DataFrame:
    """Answers with what they are about, in the order of ``comparisons``."""
    if (twice := comparisons["comparison"].duplicated()).any():
        first = comparisons["comparison"][twice].iloc[0]
        raise DataError(f"comparison {first} occurs twice; drop one, or give each pair of models its own names")
    about = comparisons[["comparison", "set", "prompt", "model", "opponent", "left_model"]]
    return about.merge(pd.DataFrame(rows, columns=_OF_VOTE), on="comparison")


def _lines(path: Path) -> Iterator[tuple[int, list[str], list[Any]]]:
    """Number, keys and values of each line with a vote."""
    if path.suffix not in (".csv", ".jsonl"):
        raise DataError(f"{path}: votes are read from .csv and .jsonl files; name it by what it holds")
    line = 0
    try:
        check_regular(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                reader = csv.reader(file, strict=True)
                header = next(reader, [])
                for row in filter(None, reader):
                    line = reader.line_num
                    yield line, header, row
                return
            for line, text in enumerate(file, start=1):
                if text.strip():
                    found = json.loads(text, object_pairs_hook=tuple)  # every pair, and unlike any other JSON value
                    pairs = found if isinstance(found, tuple) else ()
                    yield line, [key for key, _ in pairs], [value for _, value in pairs]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give the file of the votes") from None
    except (csv.Error, ValueError, RecursionError) as error:  # ValueError: bad JSON, or bytes that are no UTF-8
        why = " ".join(str(getattr(error, "msg", error)).split())
        raise DataError(f"{path}, at line {line} or the next: {why}; save it as UTF-8 {path.suffix[1:]}") from None
