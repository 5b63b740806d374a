"""TIA2 as its authors released it: found or downloaded, then read with every entry checked.

Source: the public GitHub repository kykim0/TextNorm at one commit (Apache-2.0), three JSON files a set. The release
holds prompts, votes and per-prompt metrics, not the 27,500 images. Look-up order: the folder in ``TEXTNORM_TIA2_DIR``,
the local cache, a download in which every file must have the SHA-256 pinned here.
"""

import functools
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from textnorm_lib.study.errors import DataError, DataUnavailable
from textnorm_lib.tia2.release_files import (
    VARIABLE,
    check_agreement,
    one_line,
    read_contrastive,
    read_object,
    read_scores,
    read_votes,
)

SETS = ("comprehensive", "counting", "composition")
TIMEOUT_S = 20
COMMIT = "5ed52025b1c4a62f31765165a14dff41d304b4a9"
BASE_URL = f"https://raw.githubusercontent.com/kykim0/TextNorm/{COMMIT}"
FOLDERS = {
    "votes": "human_annotations/human_labels_{}.json",
    "contrastive": "prompts/prompt_set_{}.json",
    "scores": "alignment_scores/alignment_scores_{}.json",
}
# Path in the repository -> path in the local folder. They agree: the repository keeps the three folders at its root.
LAYOUT = {path.format(name): path.format(name) for path in FOLDERS.values() for name in SETS}
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
            return _key({path: read_object(folder / path)[1] for path in _paths(self.name).values()})
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
    read = {kind: read_object(path) for kind, path in paths.items()}
    files = {relative[kind]: digest for kind, (_, digest) in read.items()}
    votes = read_votes(paths["votes"], read["votes"][0])
    contrastive = read_contrastive(paths["contrastive"], read["contrastive"][0])
    scores, tuning, share_good = read_scores(paths["scores"], read["scores"][0])
    check_agreement(paths, votes, contrastive, share_good)
    return OfficialSet(set_name, votes, contrastive, scores, tuning, share_good, _key(files), files)


def cache_folder() -> Path:
    """Where downloads are kept for this user, one folder a commit."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("textnorm-study")) / "tia2" / COMMIT


def locate_release() -> Path:
    """The folder that holds the nine released files; downloads them if the variable and the cache do not decide it.

    Raises ``DataError`` if the variable names a wrong folder, ``DataUnavailable`` if the download fails.
    """
    if given := os.environ.get(VARIABLE):
        folder = Path(given).expanduser()
        if missing := [name for name in LAYOUT.values() if not (folder / name).is_file()]:
            raise DataError(f"{VARIABLE}={given}: no file {missing[0]} there; correct the variable or unset it")
        return folder
    folder = cache_folder()
    if not _intact(folder):
        _download(folder)
    return folder


def release_available() -> tuple[bool, str]:
    """Whether there is anything for ``load_official`` to read, and if not, one line that says why. Never raises.

    A folder that the variable names counts as there: if it is wrong, ``load_official`` must say so, not be passed over.
    Cheap where the variable or the cache decides; otherwise tries the download, once a process if it fails.
    """
    try:
        if os.environ.get(VARIABLE) or _intact(cache_folder()):
            return True, ""
        reason = _download_failure(cache_folder())
    except Exception as error:  # a caller that only asks must get an answer, whatever is wrong with this machine
        reason = f"{type(error).__name__}: {error}"
    return not reason, one_line(reason)


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

    urls = {local: f"{BASE_URL}/{remote}" for remote, local in LAYOUT.items()}
    pooch.get_logger().setLevel("WARNING")  # the progress bar is enough
    store = pooch.create(path=folder, base_url=BASE_URL, registry=DIGESTS, urls=urls, retry_if_failed=0)
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
