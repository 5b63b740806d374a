"""What fine-tuning does to proxy, gold and quality over training, and whether it overoptimises (sections 5.3 and 5.4).

    cells = run.step(prompt_gains, judged, divergences)  # a row a model, run, checkpoint and prompt
    gains = run.step(tuning_gains, cells, confidence=0.95)
    found = run.step(verdicts, gains, run.step(late_declines, cells, confidence=0.95), run.step(image_errors, judged))

A *model* is a reward that it was tuned on and a KL coefficient (``tuned_on``, ``beta``); its *runs* differ in the seed
of training only. All numbers are gains over the base's images of the same prompts and seeds, their intervals those of
``stats/intervals.py``: there are none with one prompt or one run.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from textnorm_lib.optimise.pool import QUALITY, pooled_deviations
from textnorm_lib.stats.intervals import two_way_interval
from textnorm_lib.stats.metrics import ALL_SETS
from textnorm_lib.stats.names import BASE, PROMPT
from textnorm_lib.stats.rankings import RATING
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.store import step

WHAT = ("proxy", "gold", "quality", "kl")
CLEAR = 2  # standard errors over images: what a proxy has to rise by before its gold says anything

_MODEL = ["tuned_on", "beta"]
_CHECKPOINT = [*_MODEL, "run", "checkpoint"]
_CELL = [*_CHECKPOINT, *PROMPT]


@step(1)
def with_beta(frame: pd.DataFrame, *, beta: float) -> pd.DataFrame:
    """The rows of the models tuned with this KL coefficient, and of the base. ``DataError`` if there is none."""
    tuned = frame["tuned_on"] != BASE
    if not (frame["beta"][tuned] == beta).any():
        known = ", ".join(f"{value:g}" for value in sorted(frame["beta"][tuned].unique()))
        raise DataError(f"no model was tuned with beta {beta:g}; there are {known}")
    return frame[~tuned | (frame["beta"] == beta)].reset_index(drop=True)


@step(1)
def prompt_gains(judged: pd.DataFrame, divergences: pd.DataFrame) -> pd.DataFrame:
    """What each checkpoint's images of each prompt have beyond the base's, on average over the images.

    ``judged``: a row an image with tuned_on ("base", or the reward's name), beta, run, checkpoint, set, prompt, seed,
    rating, quality_1 .. 3 and a column a reward. ``divergences``: tuned_on, beta, run, checkpoint, set, prompt, kl
    (nats an image). Returns tuned_on, beta, run, checkpoint, set, prompt, n_images, proxy (the own reward, in pooled
    standard deviations of the base's images of a prompt), gold (the rating), quality (mean of the judges, each in its
    own such unit), kl.

    Raises ``DataError`` for a missing column, a number that is not finite, a score that tells no images of the base
    apart, a checkpoint with other prompts and seeds than the base, and one without divergence.
    """
    judged = judged.reset_index(drop=True)
    rewards = _check_images(judged)
    values = [*rewards, *QUALITY, RATING]
    base = judged["tuned_on"] == BASE
    units = pooled_deviations(judged[base], [*rewards, *QUALITY])
    scaled = judged[_CELL].join(judged[values] / units.reindex(values, fill_value=1.0))
    scaled = scaled.assign(quality=scaled[list(QUALITY)].mean(axis=1), gold=scaled[RATING])
    of_base = scaled[base].groupby(PROMPT)[[*rewards, "quality", "gold"]].mean()
    found = []
    for reward in rewards:
        prompts = scaled[judged["tuned_on"] == reward].groupby(_CELL, sort=False)
        means = prompts[[reward, "quality", "gold"]].mean()
        same = of_base.loc[pd.MultiIndex.from_frame(means.index.to_frame()[PROMPT]), means.columns]
        found.append((means - same.to_numpy()).rename(columns={reward: "proxy"}).assign(n_images=prompts.size()))
    told = pd.concat(found).reset_index()
    told = told.merge(divergences[[*_CELL, "kl"]], on=_CELL, how="left", validate="1:1")
    if (lacking := ~np.isfinite(told["kl"])).any():
        raise DataError(f"divergences: no finite kl of {_said(told[lacking].iloc[0], *_CELL[2:])}; measure it")
    return told[[*_CELL, "n_images", *WHAT]]


@step(1)
def image_errors(judged: pd.DataFrame) -> pd.DataFrame:
    """The standard error of each checkpoint's gains over the images, prompts and runs being taken as they are.

    Whether training raised the reward that it trained on is a question about these models and the very prompts that
    they were tuned on; what holds for other prompts and in other runs, the intervals of ``tuning_gains`` say.
    ``judged`` and units as in ``prompt_gains``. Returns set (each and ``"all"``), tuned_on, beta, checkpoint,
    proxy_image_error, gold_image_error.
    """
    keys, base, found = [*_MODEL, "checkpoint", *PROMPT, "seed"], judged["tuned_on"] == BASE, []
    for reward in judged["tuned_on"][~base].unique():
        unit = pooled_deviations(judged[base], [reward])[reward]
        scaled = judged.assign(proxy_image_error=judged[reward] / unit, gold_image_error=judged[RATING])
        columns = ["proxy_image_error", "gold_image_error"]
        means = scaled[judged["tuned_on"] == reward].groupby(keys, sort=False)[columns].mean()  # over the runs
        of_base = scaled[base].set_index([*PROMPT, "seed"])[columns]
        gains = (means - of_base.loc[means.index.droplevel(keys[:3])].to_numpy()).groupby(keys[:-1], sort=False)
        cells = gains.var().div(gains.size(), axis=0).reset_index()
        sets = pd.concat([cells, cells.assign(set=ALL_SETS)]).groupby(["set", *keys[:3]], sort=False)[columns]
        found.append(np.sqrt(sets.sum()).div(sets.size(), axis=0).reset_index())
    return pd.concat(found, ignore_index=True)


@step(1)
def tuning_gains(cells: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """Mean over prompts and runs of every gain at every checkpoint, with its interval.

    ``cells`` as from ``prompt_gains``. Returns set (each and ``"all"``), tuned_on, beta, checkpoint, what (``WHAT``),
    mean, low, high, standard_error, n_prompts, n_runs, n_images (of the checkpoint, all runs together). Raises
    ``DataError`` for a run that lacks a checkpoint or a prompt of the others.
    """
    tables = []
    for about, checkpoints, rows in _models(cells):
        for what in WHAT:
            table = _table(rows, what)
            prompts, runs = table.shape[:2]
            numbers = {"n_prompts": prompts, "n_runs": runs, "n_images": rows["n_images"].sum() // len(checkpoints)}
            interval = two_way_interval(table, confidence=confidence)
            tables.append(pd.DataFrame({**about, "checkpoint": checkpoints, "what": what, **interval, **numbers}))
    return pd.concat(tables, ignore_index=True)


@step(1)
def run_gains(cells: pd.DataFrame) -> pd.DataFrame:
    """The gains of single runs, means over prompts: set, tuned_on, beta, run, checkpoint, what, mean."""
    keys = ["set", *_CHECKPOINT]
    means = pd.concat([cells, cells.assign(set=ALL_SETS)]).groupby(keys, sort=False)[list(WHAT)].mean()
    return means.reset_index().melt(keys, var_name="what", value_name="mean")


@step(1)
def gold_over_kl(cells: pd.DataFrame) -> pd.DataFrame:
    """What ``best_of_n.fit_gold`` takes for its form "rl": set, prompt, reward (tuned_on), run, checkpoint, kl, gold.

    Gold is the gain, so that the base's rows have kl 0 and gold 0. Every run is a point of its own.
    """
    tuned = cells.rename(columns={"tuned_on": "reward"})
    base = tuned[[*PROMPT, "reward"]].drop_duplicates().assign(run=0, checkpoint=0, kl=0.0, gold=0.0)
    return pd.concat([base, tuned[base.columns]], ignore_index=True)


@step(1)
def late_declines(cells: pd.DataFrame, *, confidence: float) -> pd.DataFrame:
    """The gold of each model's last checkpoint minus that of its best earlier one: below 0, it was trained too far.

    The highest of several noisy means is too high, and what is compared with it seems to have fallen though nothing
    has. So the best checkpoint of a run is looked up in the *other* runs. Returns set (each and ``"all"``), tuned_on,
    beta, best (the earlier checkpoint with the highest mean over all runs, to be named only), mean, low, high,
    standard_error; these four are nan with a single checkpoint or run. Raises as ``tuning_gains``.
    """
    tables = []
    for about, checkpoints, rows in _models(cells):
        table = _table(rows, "gold")
        earlier, last, runs = table[:, :, :-1], table[:, :, -1:], table.shape[1]
        best, late = checkpoints[-1], np.full_like(last, np.nan)
        if earlier.size:
            means = earlier.mean(axis=0)
            best = checkpoints[means.mean(axis=0).argmax()]
            if runs > 1:
                of_others = (means.sum(axis=0) - means).argmax(axis=1)
                late = last - np.take_along_axis(earlier, of_others[None, :, None], axis=2)
        tables.append(pd.DataFrame({**about, "best": best, **two_way_interval(late, confidence=confidence)}))
    return pd.concat(tables, ignore_index=True)


@step(1)
def verdicts(gains: pd.DataFrame, declines: pd.DataFrame, errors: pd.DataFrame) -> pd.DataFrame:
    """What each model's last checkpoint says of overoptimisation: set, tuned_on, beta, checkpoint, numbers and words.

    ``gains``, ``declines`` and ``errors`` as from ``tuning_gains``, ``late_declines`` and ``image_errors``. For each of
    ``WHAT`` and "late" the mean under that name, and its _low, _high and _error; proxy_image_error, gold_image_error;
    best; n_prompts, n_runs, n_images. In words: proxy_does ("rises", "falls": by two errors over images or more),
    gold_does and late_does (by whether the interval excludes 0), else "cannot be told". ``overoptimised``: the proxy
    rises, and gold falls below the base's or late. ``verdict`` says why, or what gold does in these runs alone.
    """
    keys = ["set", *_MODEL]
    last = gains[gains["checkpoint"] == gains.groupby(keys)["checkpoint"].transform("max")]
    told = last[[*keys, "checkpoint", "n_prompts", "n_runs", "n_images"]].drop_duplicates(ignore_index=True)
    told = told.merge(declines[[*keys, "best"]], on=keys, validate="1:1")
    for what in (*WHAT, "late"):
        found = declines if what == "late" else last[last["what"] == what]
        names = {"mean": what, "low": f"{what}_low", "high": f"{what}_high", "standard_error": f"{what}_error"}
        told = told.merge(found[[*keys, *names]].rename(columns=names), on=keys, validate="1:1")
    told = told.merge(errors, on=[*keys, "checkpoint"], validate="1:1")
    for what in ("proxy", "gold"):
        reach = CLEAR * told[f"{what}_image_error"]
        told[f"{what}_here"] = _in_words(told[what] - reach, told[what] + reach)
    told = told.rename(columns={"proxy_here": "proxy_does"})
    for what in ("gold", "late"):
        told[f"{what}_does"] = _in_words(told[f"{what}_low"], told[f"{what}_high"])
    rises, falls, late = told["proxy_does"] == "rises", told["gold_does"] == "falls", told["late_does"] == "falls"
    told["overoptimised"] = rises & (falls | late)
    words = {
        "no verdict: the proxy does not rise": ~rises,
        "overoptimised: gold falls below the base's": falls,
        "overoptimised: gold falls late": late,
        "gold rises with the proxy": told["gold_does"] == "rises",
        "gold falls in these runs; in others cannot be told": told["gold_here"] == "falls",
        "gold rises in these runs; in others cannot be told": told["gold_here"] == "rises",
    }
    return told.assign(verdict=np.select(list(words.values()), list(words), "what gold does cannot be told"))


def _in_words(low: pd.Series, high: pd.Series) -> np.ndarray:
    return np.select([low > 0, high < 0], ["rises", "falls"], "cannot be told")


def _models(cells: pd.DataFrame) -> Iterator[tuple[dict[str, Any], list[int], pd.DataFrame]]:
    """Of each set, and of all together, each model: set, tuned_on and beta, its checkpoints, its rows."""
    for name, rows in [*cells.groupby("set", sort=False), (ALL_SETS, cells)]:
        for (tuned_on, beta), own in rows.groupby(_MODEL, sort=False):
            yield {"set": name, "tuned_on": tuned_on, "beta": beta}, sorted(own["checkpoint"].unique()), own


def _table(rows: pd.DataFrame, what: str) -> np.ndarray:
    """One model's (prompts, runs, checkpoints). ``DataError`` if it has gaps."""
    wide = rows.set_index([*PROMPT, "run", "checkpoint"])[what].unstack(["run", "checkpoint"])
    runs, checkpoints = (sorted(rows[key].unique()) for key in ("run", "checkpoint"))
    wide = wide.reindex(columns=pd.MultiIndex.from_product([runs, checkpoints]))
    for (run, checkpoint), column in wide.items():
        for _, prompt in column.index[column.isna()]:
            missing = _said({**rows.iloc[0], "run": run, "checkpoint": checkpoint, "prompt": prompt}, *_CELL[2:])
            raise DataError(f"{missing} is missing; all runs of a model need the same checkpoints and prompts")
    return wide.to_numpy().reshape(len(wide), len(runs), len(checkpoints))


def _check_images(judged: pd.DataFrame) -> list[str]:
    """The rewards that were tuned on. ``DataError`` unless each checkpoint has the base's images and finite numbers."""
    needed = [*_CELL, "seed", *QUALITY, RATING]
    rewards = [name for name in judged.get("tuned_on", pd.Series()).unique() if name != BASE]
    if missing := [name for name in [*needed, *rewards] if name not in judged]:
        raise DataError(f"judged has no column {missing[0]!r}; needed are {', '.join([*needed, *rewards])}")
    for name in [*rewards, *QUALITY, RATING]:
        if (wrong := ~np.isfinite(judged[name].to_numpy(float))).any():
            row = judged[wrong].iloc[0]
            raise DataError(f"judged: {name} is {row[name]} of {_said(row, *_CELL[2:])}; a finite number is needed")
    images = judged.groupby(_CHECKPOINT, sort=False)[[*PROMPT, "seed"]]
    images = {key: sorted(rows.itertuples(index=False, name=None)) for key, rows in images}
    base = [rows for (tuned_on, *_), rows in images.items() if tuned_on == BASE]
    if len(base) != 1 or not rewards:
        raise DataError(f"judged: one base (tuned_on {BASE!r}, checkpoint 0) and models tuned on a reward are needed")
    for key, rows in images.items():
        if rows != base[0] or len(set(rows)) < len(rows):
            one = _said(dict(zip(_CHECKPOINT, key, strict=True)), "run", "checkpoint")
            raise DataError(f"judged: {one} needs one image of each prompt and seed of the base, and no other")
    return rewards


def _said(row: Mapping[str, Any], *keys: str) -> str:
    """What a row is about, in words."""
    return ", ".join([f"{row['tuned_on']} with beta {row['beta']:g}", *(f"{key} {row[key]}" for key in keys)])
