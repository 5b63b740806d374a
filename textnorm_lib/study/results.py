"""``results/``: what the default profile's notebooks read, kept in the repository so that they need not compute it.

    python -m textnorm_lib results collect     after ./run_all.sh refresh: take what the notebooks asked the store for
    python -m textnorm_lib results compare     after ./run_all.sh: how much of it the run reproduced

The folder has the form of the store: content-addressed, Parquet, a ``meta.json`` beside the data. It holds images only
where a figure shows them, and what follows from the released files, but nothing of these files.
"""

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from textnorm_lib.study.config import DEFAULT_PROFILE, as_dict, load_profile
from textnorm_lib.study.errors import StoreError
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import RESULTS, read_meta, read_result, write_atomically

LARGEST = 15_000_000  # bytes of all results together
TOLERANCE = 1e-3  # of a column's spread: what another processor's rounding may change
ROUNDING = 1e-2  # the same for an image made anew: a pixel that another processor rounds up moves its scores


@dataclass(frozen=True)
class Compared:
    """Which results agree with what was computed here; each is named step/key."""

    same: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    not_computed: list[str] = field(default_factory=list)


def collect(steps: Path, keys: set[str], results: Path = RESULTS, *, never: Collection[str] = ()) -> int:
    """Make ``results`` hold just the results with these keys, as they lie in ``steps``; returns their size in bytes.

    Folders of images stay out, and so does whatever has an input whose key is in ``never``: the released files, of
    which it would be a copy. Raises ``StoreError`` where there are no keys, where neither folder has one of them, and
    where all results together are too large.
    """
    if not keys:
        raise StoreError(f"{steps}: no notebook has read any result; run ./run_all.sh refresh first")
    found = {folder.name: folder for root in (results, steps) for folder in root.glob("*/*") if folder.name in keys}
    if lacking := min(keys - set(found), default=""):
        raise StoreError(f"{steps}: has no result {lacking}, which a notebook read; run ./run_all.sh refresh again")
    kept = {}
    for key, folder in sorted(found.items()):
        meta = read_meta(folder)
        if meta["frames"] is not None and not set(meta["inputs"]) & set(never):
            kept[key] = folder
    size = sum(file.stat().st_size for folder in kept.values() for file in folder.iterdir())
    if size > LARGEST:
        raise StoreError(f"{results}: {size:,} bytes are more than {LARGEST:,}; let notebooks read smaller tables")
    fresh = results.with_name(f"{results.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    for key, folder in kept.items():
        shutil.copytree(folder, fresh / folder.parent.name / key)
    profile = json.dumps(as_dict(load_profile(DEFAULT_PROFILE)), indent=1, sort_keys=True) + "\n"
    write_atomically(fresh / "profile.json", profile.encode())
    if results.exists():
        shutil.rmtree(results)
    fresh.replace(results)
    return size


def compare(steps: Path, results: Path = RESULTS) -> Compared:
    """Each result that came with the repository, compared with the one that was computed into ``steps``."""
    compared = Compared()
    for folder in sorted(path.parent for path in results.glob("*/*/meta.json")):
        name = folder.relative_to(results).as_posix()
        if not (steps / name / "meta.json").exists():
            compared.not_computed.append(name)
        elif agree(read_result(folder), read_result(steps / name)):
            compared.same.append(name)
        else:
            compared.different.append(name)
    return compared


def recompute(functions: Mapping[str, Callable], share: float, *, seed: int, results: Path = RESULTS) -> Compared:
    """A random share of the results that follow from other results alone, computed again by ``functions``, by name."""
    places = {path.parent.name: path.parent for path in results.glob("*/*/meta.json")}
    metas = {key: read_meta(folder) for key, folder in sorted(places.items())}
    able = [key for key, meta in metas.items() if meta["inputs"] and set(meta["inputs"]) <= set(places)]
    drawn = np.random.default_rng(seed).permutation(able)[: max(1, round(share * len(able)))]
    compared = Compared()
    for key in progress(drawn, "results", unit="steps"):
        meta = metas[key]
        again = functions[meta["step"]](*(read_result(places[one]) for one in meta["inputs"]), **meta["config"])
        found = compared.same if agree(read_result(places[key]), again) else compared.different
        found.append(f"{meta['step']}/{key}")
    return compared


def agree(one: pd.DataFrame | dict, other: pd.DataFrame | dict) -> bool:
    """Whether two results are the same but for rounding: words and labels equal, numbers within ``TOLERANCE``.

    Pictures (columns of bytes) are not compared: a value of a pixel may differ by one.
    """
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(agree(one[name], other[name]) for name in one)
    if list(one) != list(other) or len(one) != len(other):
        return False
    one, other = one.reset_index(drop=True), other.reset_index(drop=True)  # which the store does not keep
    return all(_agree(one[name], other[name]) for name in one)


def _agree(one: pd.Series, other: pd.Series) -> bool:
    if pd.api.types.is_float_dtype(one) and pd.api.types.is_float_dtype(other):
        spread = np.nan_to_num(one[np.isfinite(one)].std(ddof=0))
        return bool(np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE * spread, equal_nan=True))
    if one.map(type).eq(bytes).any():
        return True
    if one.map(type).eq(np.ndarray).any():  # lists, as they are read back
        lists = [column.explode(ignore_index=True).infer_objects() for column in (one, other)]
        return one.map(np.size).eq(other.map(np.size)).all() and _agree(*lists)
    return bool((one.eq(other) | (one.isna() & other.isna())).all())


def report(compared: Compared) -> str:
    """What whoever ran the study is told: one to three lines."""
    total = sum(map(len, (compared.same, compared.different, compared.not_computed)))
    if not total:
        return "results: none are in the repository to compare with"
    lines = [f"results: {len(compared.same)} of {total} stored results were reproduced within rounding"]
    if compared.different:
        named = ", ".join(compared.different[:3])
        lines.append(f"results: {len(compared.different)} came out differently: {named} ...")
    if compared.not_computed:
        what = ", ".join(sorted({name.split("/")[0] for name in compared.not_computed})[:5])
        lines.append(f"results: {len(compared.not_computed)} were not computed here and taken as stored ({what}, ...)")
    return "\n".join(lines)
