"""How every fit of a training went (``fit.py``), as a table."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from textnorm_lib.errors import DataError

POINTS = 100


def curves(folder: Path) -> pd.DataFrame:
    """What every fit in ``folder`` has lost so far: stage, step, loss, validation (nan where none was taken)."""
    files = sorted(folder.glob("*/curve.json"))
    if not files:
        raise DataError(f"{folder} holds no training run; run a stage first")
    tables = []
    for file in files:
        loss = json.loads(file.read_text())
        scores = file.with_name("scores.json")
        found = json.loads(scores.read_text()) if scores.exists() else {}
        validation = [found.get(str(step), np.nan) for step in range(len(loss))]
        table = {"stage": file.parent.name, "step": range(len(loss)), "loss": loss, "validation": validation}
        tables.append(pd.DataFrame(table))
    return pd.concat(tables, ignore_index=True)


def thinned(table: pd.DataFrame) -> pd.DataFrame:
    """``curves`` with about ``POINTS`` rows a stage, each the mean loss since the last; validations are kept."""
    every = table.groupby("stage")["step"].transform("max") // POINTS + 1
    groups = table.groupby(["stage", table["step"] // every], sort=False)
    return groups.agg(step=("step", "last"), loss=("loss", "mean"), validation=("validation", "max")).reset_index(0)
