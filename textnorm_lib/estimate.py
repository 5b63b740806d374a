"""Hours and memory of each notebook before anything starts, from rates that are measured here and now.

    python -m textnorm_lib.estimate PROFILE [--device cpu|cuda] [--json]

Measured are the profile's own models (``rate_trials.py``), counted is what its notebooks ask of them (``workload.py``),
as if nothing were stored yet. Statistics, figures and the loading of models come on top: some minutes.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
import torch

from textnorm_lib.config import DEFAULT_PROFILE, Profile, load_profile
from textnorm_lib.errors import ConfigError, StudyError
from textnorm_lib.progress import progress
from textnorm_lib.rate_trials import trials
from textnorm_lib.rates import Rate, measure
from textnorm_lib.workload import DDPO_SAMPLING, DDPO_TRAINING, IMAGES, RWR, SCORES, Work, count_work


def estimate(work: Mapping[str, Sequence[Work]], rates: Mapping[str, Rate], *, processes: int) -> pd.DataFrame:
    """A row a notebook, and their total: notebook, what it makes, hours, GiB (at most, of all ``processes``).

    ``work``: of ``count_work``; it is shared by so many processes.
    """
    rows = {notebook: _row(noted, rates, processes) for notebook, noted in work.items()}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.loc["total"] = table.sum().where(table.columns != "GiB", table.max())
    counts = [name for name in table if name not in ("hours", "GiB")]
    return table.astype(dict.fromkeys(counts, int)).rename_axis("notebook").reset_index()


def _row(work: Sequence[Work], rates: Mapping[str, Rate], processes: int) -> dict[str, float]:
    return {
        "images": sum(one.items for one in work if one.kind.startswith(IMAGES)),
        "scores": sum(one.parts for one in work if one.kind.startswith(SCORES)),
        **{kind: sum(one.items for one in work if one.kind == kind) for kind in (RWR, DDPO_SAMPLING, DDPO_TRAINING)},
        "hours": sum(rates[one.kind].seconds(one) for one in work) / processes / 3600,
        "GiB": max((rates[one.kind].gib for one in work), default=0.0) * processes,
    }


def measure_rates(profile: Profile, *, device: str) -> dict[str, Rate]:
    """The rate of each kind of work of ``profile`` on ``device``. Raises as ``rates.measure``."""
    rates = {}
    for trial in progress(trials(profile, device=device), "measuring", unit="kinds of work"):
        rates |= measure(trial, device=device)
    return rates


def chosen_device(name: str | None) -> str:
    """ "cpu" or "cuda"; of None what a run would take. Raises ``ConfigError`` for a device that is not here."""
    here = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    if name not in (None, *here):
        missing = "there is no CUDA device here" if name == "cuda" else "no such device"
        raise ConfigError(f"--device {name}: {missing}; take {' or '.join(here)}")
    return name or here[0]


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m textnorm_lib.estimate", description="Hours and memory, beforehand."
    )
    parser.add_argument("profile", nargs="?", default=DEFAULT_PROFILE)
    parser.add_argument("--device", help="cpu or cuda, by default what a run would take")
    parser.add_argument("--json", action="store_true", help="the same for a program")
    options = parser.parse_args(arguments)
    try:
        device, profile = chosen_device(options.device), load_profile(options.profile)
        work = count_work(profile)
        rates = measure_rates(profile, device=device)
    except StudyError as error:
        print(f"estimate: {error}", file=sys.stderr)
        return 2
    processes = 1 if device == "cuda" else min(profile.workers, os.cpu_count() or 1)
    table = estimate(work, rates, processes=processes)
    told = {"profile": profile.name, "device": device, "processes": processes}
    print(json.dumps(_record(told, table, rates), indent=1) if options.json else _page(told, table, rates))
    return 0


def _record(told: dict[str, Any], table: pd.DataFrame, rates: Mapping[str, Rate]) -> dict[str, Any]:
    *notebooks, total = table.to_dict("records")
    return {
        **told,
        "notebooks": notebooks,
        "total": total,
        "rates": {kind: asdict(rate) for kind, rate in rates.items()},
    }


def _page(told: dict[str, Any], table: pd.DataFrame, rates: Mapping[str, Rate]) -> str:
    shown = table.assign(hours=table["hours"].map(_short), GiB=table["GiB"].map("{:.1f}".format))
    measured = pd.DataFrame([{"one process": kind, **asdict(rate)} for kind, rate in rates.items()])
    measured.columns = ["one process", "s an item", "s a part", "GiB"]
    alignment = ("left", *["right"] * (shown.shape[1] - 1))
    return (
        f"profile {told['profile']} on {told['device']}, {told['processes']} process(es); "
        "notebooks that are not listed read what these made\n\n"
        f"{shown.to_markdown(index=False, intfmt=',', disable_numparse=[6, 7], colalign=alignment)}\n\n"
        "measured; a part is a denoising step of an image, a text of a score, an image encoded for RWR\n\n"
        f"{measured.to_markdown(index=False, floatfmt='.3g')}"
    )


def _short(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"


if __name__ == "__main__":
    sys.exit(main())
