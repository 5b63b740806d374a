"""The three files of a released set, read with every entry checked (``official.py`` finds them).

The first defect raises ``DataError`` in one line, with the file and what is wrong.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from textnorm_lib.study.errors import DataError, check_regular
from textnorm_lib.tia2.labels import ANNOTATORS, BAD, GOOD, SKIP, image_table

REWARDS = ("clip", "blip2", "imagereward", "pickscore", "textnorm")
ENSEMBLES = {"textnorm_ur": "uncertainty", "textnorm_mean": "mean"}  # the released names of TextNorm's two ensembles
SHARES, CORRELATIONS = ("auroc", "auprc", "ap5", "ap10", "ap25"), ("spearman", "kendall")
SCORE_RANGES = dict.fromkeys(SHARES, (0.0, 1.0)) | dict.fromkeys(CORRELATIONS, (-1.0, 1.0))
IMAGES_PER_PROMPT = 50
TOLERANCE = 1e-9  # the release holds an AP of 1.0000000000000002

VARIABLE = "TEXTNORM_TIA2_DIR"
REMEDY = f"restore the released file (delete the cached copy, or set {VARIABLE} to an intact folder)"


def one_line(text: object) -> str:
    """``text`` without line breaks."""
    return " ".join(str(text).split())


def _short(value: object) -> str:
    text = one_line(f"{type(value).__name__}: {value}" if isinstance(value, Exception) else repr(value))
    return text if len(text) <= 100 else f"{text[:97]}..."


def _fault(path: Path, defect: str) -> NoReturn:
    raise DataError(f"{path}: {defect}; {REMEDY}") from None


def read_object(path: Path) -> tuple[dict[str, Any], str]:
    """The JSON object in a file and the SHA-256 of its bytes."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            names = [name for name, _ in pairs]
            _fault(path, f"the entry {_short(next(n for n in names if names.count(n) > 1))} occurs twice")
        return entries

    try:
        check_regular(path)
        raw = path.read_bytes()
        content = json.loads(raw, object_pairs_hook=unique)
    except DataError:  # of ``unique``, which is a ValueError as well
        raise
    except FileNotFoundError:
        _fault(path, "the file is missing")
    except OSError as error:
        _fault(path, f"the file cannot be read ({_short(error)})")
    except json.JSONDecodeError as error:
        _fault(path, f"not valid JSON at line {error.lineno}, column {error.colno} ({error.msg})")
    except (ValueError, RecursionError) as error:  # bytes that are no text, absurd numbers, absurd nesting
        _fault(path, f"not valid JSON ({_short(error)})")
    if not isinstance(content, dict) or not content:
        _fault(path, f"the top level is a {type(content).__name__}, or empty, where an object with entries belongs")
    return content, hashlib.sha256(raw).hexdigest()


def _check_keys(path: Path, where: str, entry: object, wanted: Iterable[str]) -> None:
    if not isinstance(entry, dict):
        _fault(path, f"{where} is {_short(entry)}, not an object")
    if lacking := [key for key in wanted if key not in entry]:
        _fault(path, f"{where} lacks {lacking[0]!r}")
    if unknown := [key for key in entry if key not in wanted]:
        _fault(path, f"{where} has an unknown {_short(unknown[0])}")


def read_votes(path: Path, entries: dict[str, Any]) -> pd.DataFrame:
    """The frame ``votes`` of ``OfficialSet``."""
    for name, entry in entries.items():
        where = f"image {_short(name)}"
        _check_keys(path, where, entry, ("image", "caption", "human_labels"))
        votes, caption = entry["human_labels"], entry["caption"]
        if entry["image"] != name:
            _fault(path, f"{where} calls itself {_short(entry['image'])}")
        if not isinstance(caption, str) or not caption.strip():
            _fault(path, f"{where} has no caption but {_short(caption)}")
        if not isinstance(votes, list) or len(votes) != len(ANNOTATORS):
            _fault(path, f"{where} has not exactly three votes but {_short(votes)}")
        for slot, vote in zip(ANNOTATORS, votes, strict=True):
            if type(vote) is not int or vote not in (GOOD, BAD, SKIP):  # type: True and 1.0 also equal 1
                _fault(path, f"{where}, vote {slot} is {_short(vote)}, not 1 (good), 0 (bad) or -1 (skip)")
    rows = [(n, e["caption"], a, v) for n, e in entries.items() for a, v in enumerate(e["human_labels"], start=1)]
    frame = pd.DataFrame(rows, columns=["image", "prompt", "annotator", "vote"])
    for prompt, count in (frame["prompt"].value_counts(sort=False) // len(ANNOTATORS)).items():
        if count != IMAGES_PER_PROMPT:
            _fault(path, f"prompt {_short(prompt)} has {count} images, not {IMAGES_PER_PROMPT}")
    return frame


def read_contrastive(path: Path, entries: dict[str, Any]) -> pd.DataFrame:
    """The frame ``contrastive`` of ``OfficialSet``."""
    for prompt, texts in entries.items():
        if not isinstance(texts, list) or not texts:
            _fault(path, f"prompt {_short(prompt)} has an empty contrastive set ({_short(texts)})")
        if wrong := [text for text in texts if not isinstance(text, str) or not text.strip()]:
            _fault(path, f"prompt {_short(prompt)} has a contrastive prompt that is no text: {_short(wrong[0])}")
    rows = [(prompt, position, text) for prompt, texts in entries.items() for position, text in enumerate(texts)]
    return pd.DataFrame(rows, columns=["prompt", "position", "contrastive_prompt"])


def _number(path: Path, where: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _fault(path, f"{where} is {_short(value)}, not a number")
    if not low - TOLERANCE <= value <= high + TOLERANCE:  # also false for NaN, which Python's json lets through
        _fault(path, f"{where} is {_short(value)}, not a number between {low:g} and {high:g}")
    return float(value)


def read_scores(path: Path, entries: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The frames scores, tuning and share_good of ``OfficialSet``."""
    scores, tuning, shares = [], [], []
    for prompt, entry in entries.items():
        where = f"prompt {_short(prompt)}"
        ours = [name for name in ENSEMBLES if isinstance(entry, dict) and name in entry]
        released = (*REWARDS[:-1], *(ours or ["textnorm_ur"])[:1])
        _check_keys(path, where, entry, ("human", *released))
        shares.append((prompt, _number(path, f"{where}, human", entry["human"], 0, 1)))
        for reward, name in zip(REWARDS, released, strict=True):
            knobs = ("scale", "lambda") if name == "textnorm_ur" else ("scale",) if name in ENSEMBLES else ()
            values, place = entry[name], f"{where}, {name}"
            _check_keys(path, place, values, (*SCORE_RANGES, *knobs))
            for metric, (low, high) in SCORE_RANGES.items():
                scores.append((prompt, reward, metric, _number(path, f"{place}, {metric}", values[metric], low, high)))
            if knobs:
                found = [_number(path, f"{place}, {knob}", values[knob], 0, 1e6) for knob in knobs]
                tuning.append((prompt, ENSEMBLES[name], *found, *[float("nan")] * (2 - len(found))))
    return (
        pd.DataFrame(scores, columns=["prompt", "reward", "metric", "value"]),
        pd.DataFrame(tuning, columns=["prompt", "ensemble", "scale", "penalty"]),
        pd.DataFrame(shares, columns=["prompt", "share_good"]),
    )


def check_agreement(
    paths: Mapping[str, Path], votes: pd.DataFrame, contrastive: pd.DataFrame, shares: pd.DataFrame
) -> None:
    """The three files tell of the same prompts and labels; a prompt has scores exactly if both labels occur."""
    by_votes = image_table(votes).groupby("prompt", sort=False)["label"].mean().to_dict()
    released = dict(zip(shares["prompt"], shares["share_good"], strict=True))
    with_sets = dict.fromkeys(contrastive["prompt"])
    if bare := [prompt for prompt in by_votes if prompt not in with_sets]:
        _fault(paths["contrastive"], f"prompt {_short(bare[0])} has images but no contrastive set")
    for kind, prompts in (("contrastive", with_sets), ("scores", released)):
        if strange := [prompt for prompt in prompts if prompt not in by_votes]:
            _fault(paths[kind], f"prompt {_short(strange[0])} has no images in {paths['votes'].name}")
    for prompt, share in by_votes.items():
        where, path = f"prompt {_short(prompt)}", paths["scores"]
        if 0 < share < 1 and prompt not in released:
            _fault(path, f"{where} has no scores although its images carry both labels")
        if prompt in released and not 0 < share < 1:
            _fault(path, f"{where} has scores although its images carry one label only")
        if prompt in released and abs(released[prompt] - share) > TOLERANCE:
            _fault(path, f"{where}, human is {released[prompt]:g} but the votes' share of good images is {share:g}")
