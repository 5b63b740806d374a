"""TIA2 as its authors released it: found or downloaded, then read with every entry checked.

Source: the public GitHub repository kykim0/TextNorm at one commit (Apache-2.0), three JSON files per set. The release
holds prompts, votes and per-prompt metrics, not the 27,500 images. Look-up order: the folder in ``TEXTNORM_TIA2_DIR``,
the local cache, a download in which every file must have the SHA-256 pinned here.
"""

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd

from textnorm_lib.study.errors import DataError, DataUnavailable, check_regular, shown
from textnorm_lib.tia2.labels import ANNOTATORS, BAD, GOOD, SKIP, image_table

VARIABLE = "TEXTNORM_TIA2_DIR"
SETS = ("comprehensive", "counting", "composition")
TIMEOUT_S = 20
COMMIT = "5ed52025b1c4a62f31765165a14dff41d304b4a9"
BASE_URL = f"https://raw.githubusercontent.com/kykim0/TextNorm/{COMMIT}"
FOLDERS = {
    "votes": "human_annotations/human_labels_{}.json",
    "contrastive": "prompts/prompt_set_{}.json",
    "scores": "alignment_scores/alignment_scores_{}.json",
}
_SHA256SUMS = """
7bfe88c8b709c9ae0e685d4d4eea2fb724ac2d797c5b894845774a8fe48ee1c5  alignment_scores/alignment_scores_composition.json
b4428bc28fe6af6963e3e8e7545356f1f8fb18bdccb9371c3ec36c86a10fff0e  alignment_scores/alignment_scores_comprehensive.json
f69a728fcb1a408f9b010cb2be2130e783bbedfec0ff6fef1b8c4f01628aee01  alignment_scores/alignment_scores_counting.json
f7b1710c969f72b4d9c80e8360a01bb4666a877aa83e1d200cd28ef19ca48d46  human_annotations/human_labels_composition.json
eeb31f73d1cf53c3a169c303d66f40b02f1f52cd0c1198efcfe283a6158ce0cf  human_annotations/human_labels_comprehensive.json
58b9a8a4bc934cc3fd60e01f851fd82b2dc8df1d1c60f27a8b568ebb50520d17  human_annotations/human_labels_counting.json
de5da1f63d6f5051824aba05355820ecc76e14cd65217f4f15b22bf44fbd3136  prompts/prompt_set_composition.json
e99dc45050babe26656f2012fb8ba118452cebc6eb034af5d11e0b2f3f197a60  prompts/prompt_set_comprehensive.json
09e9364d29d2e6ac20e2c8a1e701e7fe53a69835ade83fe4236bf423eea4b52b  prompts/prompt_set_counting.json
"""
DIGESTS = {path: digest for digest, path in map(str.split, _SHA256SUMS.strip().splitlines())}

REWARDS = ("clip", "blip2", "imagereward", "pickscore", "textnorm")
ENSEMBLES = {"textnorm_ur": "uncertainty", "textnorm_mean": "mean"}  # the released names of TextNorm's two ensembles
SCORE_RANGES = dict.fromkeys(("auroc", "auprc", "ap5", "ap10", "ap25"), (0.0, 1.0))
SCORE_RANGES |= dict.fromkeys(("spearman", "kendall"), (-1.0, 1.0))
IMAGES_PER_PROMPT = 50
TOLERANCE = 1e-9  # the release holds an AP of 1.0000000000000002


@dataclass(frozen=True, eq=False)
class OfficialSet:
    """One released set as tidy frames, rows in the files' order."""

    name: str
    votes: pd.DataFrame  # image, prompt, annotator (1..3), vote (1 good, 0 bad, -1 skip)
    contrastive: pd.DataFrame  # prompt, position (from 0), contrastive_prompt
    scores: pd.DataFrame  # prompt, reward, metric, value; only prompts whose images carry both labels
    tuning: pd.DataFrame  # prompt, ensemble ("uncertainty" | "mean"), scale, penalty (nan for mean)
    share_good: pd.DataFrame  # prompt, share_good
    key: str  # hex digest of the three files: identifies the inputs of a cached result
    files: Mapping[str, str]  # relative path -> SHA-256


@dataclass(frozen=True)
class ReleasedSet:
    """A released set as a step's input: its key is known without reading, and without the files on this machine."""

    name: str

    @functools.cached_property
    def key(self) -> str:
        """``OfficialSet.key``: of the files that are here, else of those that would be fetched."""
        if os.environ.get(VARIABLE):
            folder = locate_release()
            return _key({path: _read_object(folder / path)[1] for path in _paths(self.name).values()})
        return _key({path: DIGESTS[path] for path in _paths(self.name).values()})

    @property
    def value(self) -> OfficialSet:
        """The frames. Raises as ``load_official``."""
        return load_official(self.name)


def _paths(set_name: str) -> dict[str, str]:
    return {kind: path.format(set_name) for kind, path in FOLDERS.items()}


def _key(files: Mapping[str, str]) -> str:
    return hashlib.sha256("".join(f"{digest} {name}\n" for name, digest in files.items()).encode()).hexdigest()


def load_official(set_name: str, folder: Path | str | None = None) -> OfficialSet:
    """Read "comprehensive", "counting" or "composition" from ``folder``, by default from ``locate_release()``.

    Raises ``DataUnavailable`` if there is no folder and no network, ``DataError`` for the first defect found.
    """
    if set_name not in SETS:
        raise DataError(f"unknown set {set_name!r}; choose one of {', '.join(SETS)}")
    folder = locate_release() if folder is None else Path(folder)
    relative = _paths(set_name)
    paths = {kind: folder / name for kind, name in relative.items()}
    read = {kind: _read_object(path) for kind, path in paths.items()}
    files = {relative[kind]: digest for kind, (_, digest) in read.items()}
    votes = _votes(paths["votes"], read["votes"][0])
    contrastive = _contrastive(paths["contrastive"], read["contrastive"][0])
    scores, tuning, share_good = _scores(paths["scores"], read["scores"][0])
    _check_agreement(paths, votes, contrastive, share_good)
    return OfficialSet(set_name, votes, contrastive, scores, tuning, share_good, _key(files), files)


# ---- where the files are


def cache_folder() -> Path:
    """Where downloads are kept for this user, one folder per commit."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("textnorm-study")) / "tia2" / COMMIT


def locate_release() -> Path:
    """The folder that holds the nine released files; downloads them if the variable and the cache do not decide it.

    Raises ``DataError`` if the variable names a wrong folder, ``DataUnavailable`` if the download fails.
    """
    if given := os.environ.get(VARIABLE):
        folder = Path(given).expanduser()
        if missing := [name for name in DIGESTS if not (folder / name).is_file()]:
            raise DataError(f"{VARIABLE}={given}: no file {missing[0]} there; correct the variable or unset it")
        return folder
    folder = cache_folder()
    if not _intact(folder):
        _download(folder)
    return folder


def release_available() -> tuple[bool, str]:
    """Whether there is anything for ``load_official`` to read, and if not, one line that says why. Never raises.

    A folder that the variable names counts as there: if it is wrong, ``load_official`` must say so, not be passed over.
    Cheap where the variable or the cache decides; otherwise tries the download, once per process if it fails.
    """
    try:
        if os.environ.get(VARIABLE) or _intact(cache_folder()):
            return True, ""
        reason = _download_failure(cache_folder())
    except Exception as error:  # a caller that only asks must get an answer, whatever is wrong with this machine
        reason = f"{type(error).__name__}: {error}"
    return not reason, " ".join(reason.split())


@functools.cache
def _download_failure(folder: Path) -> str:
    """Try the download; the reason if it fails. Remembered, so that offline a test run waits for one time-out only."""
    try:
        _download(folder)
    except DataUnavailable as error:
        return str(error)
    return ""


def _intact(folder: Path) -> bool:
    try:
        return all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == DIGESTS[name] for name in DIGESTS)
    except OSError:
        return False


def _download(folder: Path) -> None:
    """Fetch what ``folder`` lacks; pooch checks digests and moves a file into place only when it is complete."""
    import pooch  # here, because importing it takes longer than reading a set

    pooch.get_logger().setLevel("WARNING")  # the progress bar is enough
    store = pooch.create(path=folder, base_url=f"{BASE_URL}/", registry=DIGESTS, retry_if_failed=0)
    downloader = pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT_S)
    try:
        for name in DIGESTS:
            store.fetch(name, downloader=downloader)
    except (OSError, ValueError) as error:  # no network, time-out, HTTP status, disk (all OSError); a wrong digest
        wrong_digest = "it arrived with another SHA-256 than the pinned one"
        why = type(error).__name__ if isinstance(error, OSError) else wrong_digest
        raise DataUnavailable(
            f"the released TIA2 data are not on this machine and could not be downloaded ({name}: {why}); "
            f"set {VARIABLE} to a folder that holds them, or connect to the network"
        ) from None


# ---- what is in the files: the first defect is a ``DataError`` of one line, with the file and what is wrong


def _fault(path: Path, defect: str) -> NoReturn:
    remedy = f"restore the released file (delete the cached copy, or set {VARIABLE} to an intact folder)"
    raise DataError(f"{path}: {defect}; {remedy}") from None


def _short(value: object) -> str:
    return shown(f"{type(value).__name__}: {value}" if isinstance(value, Exception) else repr(value), 100)


def _read_object(path: Path) -> tuple[dict[str, Any], str]:
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


def _votes(path: Path, entries: dict[str, Any]) -> pd.DataFrame:
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


def _contrastive(path: Path, entries: dict[str, Any]) -> pd.DataFrame:
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


def _scores(path: Path, entries: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
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


def _check_agreement(
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
