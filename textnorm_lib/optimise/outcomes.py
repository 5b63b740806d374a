"""What fine-tuning does to proxy, gold and quality, whether it overoptimises, and which checkpoint is taken.

    cells = run.step(prompt_gains, judged, divergences)  # a row a model, run, checkpoint and prompt
    gains = run.step(tuning_gains, cells, confidence=0.95)
    found = run.step(verdicts, gains, run.step(late_declines, cells, confidence=0.95), run.step(image_errors, judged))

A *model* is a reward that it was tuned on and a KL coefficient (``tuned_on``, ``beta``); its *runs* differ in the seed
of training only (sections 5.3 and 5.4). All numbers are gains over the base's images of the same prompts and seeds,
their intervals those of ``stats/intervals.py``: there are none with one prompt or one run.

The paper takes the earliest checkpoint at which the number of images that score higher than the base's is largest. Here
an image meets the base's image of the same prompt and seed, a tie is no win, and where no image ever wins, the base is
taken. The rule looks neither at losses nor at how far an image wins, and it trusts the reward: a misaligned one may
choose a checkpoint that has long been overoptimised. The *oracle* takes the earliest checkpoint of the highest mean
gold.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from textnorm_lib.optimise.pool import QUALITY, pooled_deviations
from textnorm_lib.stats.intervals import prompt_bootstrap, two_way_interval
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

    Raises ``DataError`` for a score that tells no images of the base apart, and for a checkpoint without divergence.
    """
    judged = judged.reset_index(drop=True)
    base = judged["tuned_on"] == BASE
    rewards = list(judged["tuned_on"][~base].unique())
    values = [*rewards, *QUALITY, RATING]
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
        where = ", ".join(f"{key} {told.loc[lacking, key].iloc[0]}" for key in _CELL)
        raise DataError(f"divergences: no finite kl of {where}; measure it")
    return told[[*_CELL, "n_images", *WHAT]]


@step(1)
def image_errors(judged: pd.DataFrame) -> pd.DataFrame:
    """The standard error of each checkpoint's gains over the images, prompts and runs being taken as they are.

    Whether training raised its own reward is a question about these models and these prompts; what holds for others,
    the intervals of ``tuning_gains`` say. ``judged`` and units as in ``prompt_gains``. Returns set (each and
    ``"all"``), tuned_on, beta, checkpoint, proxy_image_error, gold_image_error.
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

    The highest of several noisy means is too high, and what is compared with it seems to have fallen. So the best
    checkpoint of a run is looked up in the *other* runs. Returns set (each and ``"all"``), tuned_on,
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
    for what, here in (("proxy", "proxy_does"), ("gold", "gold_here")):
        reach = CLEAR * told[f"{what}_image_error"]
        told[here] = _in_words(told[what] - reach, told[what] + reach)
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
    wide = rows.pivot(index=PROMPT, columns=["run", "checkpoint"], values=what).sort_index(axis=1)
    runs, checkpoints = rows["run"].nunique(), rows["checkpoint"].nunique()
    if wide.shape[1] < runs * checkpoints or wide.isna().any(axis=None):
        model = f"{rows['tuned_on'].iloc[0]} with beta {rows['beta'].iloc[0]:g}"
        raise DataError(f"{what} of {model}: all runs of a model need the same checkpoints and prompts")
    return wide.to_numpy().reshape(len(wide), runs, checkpoints)


# ---- which checkpoint to take


def papers_choice(images: pd.DataFrame, *, score: str) -> int:
    """The earliest checkpoint with the most wins over the base by ``score``; the base where nothing ever wins.

    ``images``: a row an image, with checkpoint (0: the base; numbers in the order of training), prompt, seed and the
    column ``score``. Raises ``DataError`` where there is no base, and for an image that a checkpoint lacks.
    """
    scores = _by_checkpoint(images, score)
    return int((scores > scores.loc[0]).sum(axis=1).idxmax())


def oracle_choice(images: pd.DataFrame, *, gold: str) -> int:
    """The earliest checkpoint, the base among them, with the highest mean of ``gold``; else as ``papers_choice``."""
    return int(_by_checkpoint(images, gold).mean(axis=1).idxmax())


@step(1)
def selection_costs(
    images: pd.DataFrame, *, scores: Sequence[str], gold: str, resamples: int, confidence: float, seed: int
) -> pd.DataFrame:
    """What it costs to choose by each of ``scores`` with the paper's rule instead of by ``gold``, in gold's unit.

    ``images`` as for ``papers_choice``. Returns reward, chosen, oracle (checkpoints), gold_base, gold_chosen,
    gold_oracle (means over all images), cost (gold_oracle - gold_chosen, 0 or more), low, high (bootstrap over prompts
    with both choices as they are; nan for a single prompt), n_prompts. The oracle chooses on the very images that it is
    measured on, so that the cost is too high by what luck gives it: more images, less luck.
    """
    table = _by_checkpoint(images, gold)
    oracle, means = oracle_choice(images, gold=gold), table.mean(axis=1)
    rows = []
    for name in scores:
        chosen = papers_choice(images, score=name)
        of_prompts = (table.loc[oracle] - table.loc[chosen]).groupby("prompt").agg(["sum", "count"]).to_numpy(float)

        def cost(counts: np.ndarray, of_prompts=of_prompts) -> np.ndarray:
            total, number = (counts @ of_prompts).T
            return total / number

        options = {"resamples": resamples, "confidence": confidence, "seed": seed}
        low, high = (float(end) for end in prompt_bootstrap(cost, len(of_prompts), **options))
        gains = {"gold_base": means[0], "gold_chosen": means[chosen], "gold_oracle": means[oracle]}
        choices = {"reward": name, "chosen": chosen, "oracle": oracle}
        interval = {"cost": means[oracle] - means[chosen], "low": low, "high": high, "n_prompts": len(of_prompts)}
        rows.append(choices | gains | interval)
    return pd.DataFrame(rows)


def _by_checkpoint(images: pd.DataFrame, score: str) -> pd.DataFrame:
    """One row a checkpoint, increasing, one column an image (prompt, seed): ``score``."""
    table = images.pivot(index="checkpoint", columns=["prompt", "seed"], values=score).sort_index()
    if 0 not in table.index:
        raise DataError(f"images: there is no base, checkpoint 0; there are {', '.join(map(str, table.index))}")
    if (lacking := table.isna()).any(axis=None):
        checkpoint = lacking.any(axis=1).idxmax()
        prompt, number = lacking.loc[checkpoint].idxmax()
        raise DataError(f"images: checkpoint {checkpoint} lacks {score} of prompt {prompt!r}, seed {number}")
    return table
