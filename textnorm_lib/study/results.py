"""``results/``: what the default profile's notebooks read, kept in the repository so that they need not compute it.

    python -m textnorm_lib results collect     after ./run_all.sh refresh: take what the notebooks asked the store for
    python -m textnorm_lib results compare     after ./run_all.sh: how much of it the run reproduced

The folder has the form of the store: content-addressed, Parquet, a ``meta.json`` beside the data. Images are there only
where a figure shows them. Nothing of the released files is: what follows from them is.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from textnorm_lib.study.config import DEFAULT_PROFILE, as_dict, load_profile
from textnorm_lib.study.errors import StoreError, StudyError
from textnorm_lib.study.progress import progress
from textnorm_lib.study.run import records_folder
from textnorm_lib.study.store import RESULTS, artifacts_folder, read_meta, read_result, write_atomically

LARGEST = 15_000_000  # bytes of all results together
TOLERANCE = 1e-3  # of a column's spread: what another processor's rounding may change


@dataclass(frozen=True)
class Compared:
    """How results agree with what was computed here; each is named step/key."""

    same: list[str]
    different: list[str]
    not_computed: list[str]


def collect(steps: Path, keys: set[str], results: Path = RESULTS, *, never: Collection[str] = ()) -> int:
    """Make ``results`` hold just the results with these keys, as they lie in ``steps``; returns the bytes.

    Folders of images and the like stay away, and what rests on an input whose key is in ``never`` without a step
    between: it would be the released files themselves.

    Raises ``StoreError`` for a key that neither folder has, and where there are none or all together are too large.
    """
    if not keys:
        raise StoreError(f"{steps}: no notebook has read any result; run ./run_all.sh refresh first")
    found = {folder.name: folder for root in (results, steps) for folder in root.glob("*/*") if folder.name in keys}
    if lacking := keys - set(found):
        raise StoreError(
            f"{steps}: has no result {min(lacking)}, which a notebook read; run ./run_all.sh refresh again"
        )
    metas = {key: read_meta(folder) for key, folder in found.items()}
    kept = {key for key, meta in metas.items() if meta["frames"] is not None and not set(meta["inputs"]) & set(never)}
    found = {key: folder for key, folder in found.items() if key in kept}
    size = sum(file.stat().st_size for folder in found.values() for file in folder.iterdir())
    if size > LARGEST:
        raise StoreError(f"{results}: {size:,} bytes are more than {LARGEST:,}; let notebooks read smaller tables")
    fresh = results.with_name(f"{results.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    for key, folder in sorted(found.items()):
        shutil.copytree(folder, fresh / folder.parent.name / key)
    profile = json.dumps(as_dict(load_profile(DEFAULT_PROFILE)), indent=1, sort_keys=True) + "\n"
    write_atomically(fresh / "profile.json", profile.encode())
    if results.exists():
        shutil.rmtree(results)
    fresh.replace(results)
    return size


def compare(steps: Path, results: Path = RESULTS) -> Compared:
    """Every result that came along beside the one that was computed into ``steps``."""
    compared = Compared([], [], [])
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
    """A random share of the results that follow from other results alone, computed again from those.

    ``functions``: the steps by name.
    """
    places = {path.parent.name: path.parent for path in results.glob("*/*/meta.json")}
    metas = {key: read_meta(folder) for key, folder in sorted(places.items())}
    able = [key for key, meta in metas.items() if meta["inputs"] and set(meta["inputs"]) <= set(places)]
    drawn = np.random.default_rng(seed).permutation(able)[: max(1, round(share * len(able)))]
    compared = Compared([], [], [])
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
        spread = np.nan_to_num(np.nanstd(one.to_numpy())) if one.notna().any() else 0.0
        return bool(np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE * spread, equal_nan=True))
    if one.map(type).eq(bytes).any():
        return True
    if one.map(type).eq(np.ndarray).any():  # lists, as they are read back
        lists = [column.explode(ignore_index=True).infer_objects() for column in (one, other)]
        return one.map(np.size).eq(other.map(np.size)).all() and _agree(*lists)
    return bool((one.eq(other) | (one.isna() & other.isna())).all())


def report(compared: Compared) -> str:
    """One or two lines for who ran the study."""
    total = sum(map(len, (compared.same, compared.different, compared.not_computed)))
    if not total:
        return "results: none are in the repository to compare with"
    lines = [f"results: {len(compared.same)} of {total} stored results were reproduced within rounding"]
    if compared.different:
        lines.append(
            f"results: {len(compared.different)} came out differently: {', '.join(compared.different[:3])} ..."
        )
    if compared.not_computed:
        what = ", ".join(sorted({name.split("/")[0] for name in compared.not_computed})[:5])
        lines.append(f"results: {len(compared.not_computed)} were not computed here and taken as stored ({what}, ...)")
    return "\n".join(lines)


def main(arguments: list[str] | None = None, *, never: Collection[str] = ()) -> int:
    """The command line; returns the exit status. ``never`` as for ``collect``."""
    parser = argparse.ArgumentParser(
        prog="python -m textnorm_lib results", description="The results in the repository."
    )
    parser.add_argument("command", choices=["collect", "compare"])
    options = parser.parse_args(arguments)
    steps = artifacts_folder() / "steps"
    try:
        if options.command == "collect":
            records = [json.loads(path.read_text()) for path in records_folder(DEFAULT_PROFILE).glob("*.json")]
            asked = {key for record in records for key in record["asked"]}
            size = collect(steps, asked, never=never)
            print(f"results: {size / 1e6:.1f} MB in {RESULTS}")
        else:
            print(report(compare(steps)))
    except StudyError as error:
        print(f"results: {error}", file=sys.stderr)
        return 2
    return 0
