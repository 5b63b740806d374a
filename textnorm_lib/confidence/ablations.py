"""What TextNorm's effect hangs on: the ablations of notebook 03 that are more than another grid of settings.

Every function is a step. ``images``: set, prompt, image, label (and more), a row per image; ``contrastive``: prompt,
text, kind; ``scored``: ``score_images``' folders, in the order of ``names``.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from textnorm_lib.confidence.tuning import (
    HELD_OUT,
    Setting,
    at_settings,
    best_settings,
    judge_values,
    score_table,
    units,
)
from textnorm_lib.prompts.sets import classes_of
from textnorm_lib.stats.intervals import prompt_bootstrap
from textnorm_lib.stats.metrics import compare, holm
from textnorm_lib.stats.names import PROMPT
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.store import step

VALUES = ("ap", "auroc")

# A score with its own prompt (n,) against those with the contrasts (n, m, nan where there is none) -> (n,).
ALTERNATIVES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "minus mean contrast": lambda own, others: own - np.nanmean(others, axis=1),
    "minus best contrast": lambda own, others: own - np.nanmax(others, axis=1),
    "rank among contrasts": lambda own, others: (
        -(others > own[:, None]).sum(axis=1) - (others == own[:, None]).sum(1) / 2
    ),
}


@step(1)
def stack(*frames: pd.DataFrame, labels: Sequence[Any], column: str) -> pd.DataFrame:
    """Frames under one another, each with its label in ``column``; of chosen settings those that were held out."""
    labelled = []
    for frame, label in zip(frames, labels, strict=True):
        kept = frame[frame["choice"] == HELD_OUT].drop(columns="choice") if "choice" in frame else frame
        labelled.append(kept.assign(**{column: label}))
    return pd.concat(labelled, ignore_index=True)


@step(1)
def with_prompts_of(frame: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``frame`` whose prompts are among those of ``other``."""
    return frame[frame["prompt"].isin(other["prompt"])].reset_index(drop=True)


@step(1)
def at_best_settings(frame: pd.DataFrame, grid: pd.DataFrame, contrastive: pd.DataFrame, *, kind: str) -> pd.DataFrame:
    """``frame``, another grid, under the best settings of ``grid``, on the prompts with contrasts of a ``kind``."""
    having = contrastive.loc[contrastive["kind"] == kind, "prompt"]
    found = at_settings(frame, best_settings(grid))
    return found[found["prompt"].isin(having)].reset_index(drop=True)


@step(1)
def at_best_temperatures(grid: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``grid`` with each ensemble's best temperature, all penalties."""
    best = {"+".join(setting.rewards): setting.temperature for setting in best_settings(grid)}
    return grid[grid["temperature"] == grid["rewards"].map(best)].reset_index(drop=True)


@step(1)
def leak_gains(chosen: pd.DataFrame) -> pd.DataFrame:
    """What the other choices in ``chosen`` (``choose_settings``) gain over that held out, prompt by prompt."""
    held_out = chosen["choice"] == HELD_OUT
    return paired_gains(chosen[~held_out], chosen[held_out])


@step(1)
def paired_gains(after: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """``after`` with ap and auroc less those of ``before``, on the prompts of both.

    Both have rewards, set, prompt, ap, auroc, of which ``before`` has one row each; other columns of ``after`` stay.
    """
    keys = ["rewards", *PROMPT]
    both = after.merge(before[[*keys, *VALUES]], on=keys, suffixes=("", "_before"), validate="many_to_one")
    gains = {name: both[name] - both[f"{name}_before"] for name in VALUES}
    return both.assign(**gains).drop(columns=[f"{name}_before" for name in VALUES])


@step(1)
def mean_values(
    frame: pd.DataFrame,
    *,
    by: Sequence[str],
    values: Sequence[str] = VALUES,
    where: Mapping[str, Sequence[Any]] | None = None,
    resamples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """The mean over prompts of some columns in each group: by..., metric, mean, low, high, n_prompts.

    ``where`` lists for some columns the values of the rows that count. Intervals draw whole prompts again; groups with
    the same prompts share the draws.
    """
    for column, wanted in (where or {}).items():
        frame = frame[frame[column].isin(list(wanted))]
    rows = []
    for key, group in frame.groupby(list(by), sort=False, dropna=False):
        table = group[list(values)].to_numpy()

        def means(counts: np.ndarray, table: np.ndarray = table) -> np.ndarray:
            return (counts @ table / counts.sum(axis=1, keepdims=True)).T

        low, high = prompt_bootstrap(means, len(table), resamples=resamples, confidence=confidence, seed=seed)
        rows += [(*key, *one, len(table)) for one in zip(values, table.mean(axis=0), low, high, strict=True)]
    return pd.DataFrame(rows, columns=[*by, "metric", "mean", "low", "high", "n_prompts"])


@step(1)
def compare_pairs(
    per_prompt: pd.DataFrame,
    *,
    pairs: Sequence[Sequence[str]],
    metrics: Sequence[str],
    resamples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """``metrics.compare`` of each pair (reward, reference), the reference minus the reward, as one family of tests.

    Holm's adjustment is over pairs x metrics of a set, not over each pair's own.
    """
    options = {"metrics": metrics, "resamples": resamples, "confidence": confidence, "seed": seed}
    frames = []
    for reference in dict.fromkeys(reference for _, reference in pairs):
        rewards = [reference, *(reward for reward, other in pairs if other == reference)]
        frames.append(compare(per_prompt[per_prompt["reward"].isin(rewards)], reference=reference, **options))
    found = pd.concat(frames, ignore_index=True)
    found["p_holm"] = found.groupby("set")["p_wilcoxon"].transform(lambda p_values: holm(p_values.to_numpy()))
    return found


@step(1)
def alternative_metrics(
    images: pd.DataFrame, contrastive: pd.DataFrame, *scored: Path, names: Sequence[str]
) -> pd.DataFrame:
    """Simpler ways to compare a prompt with its contrasts, reward by reward: rewards, form, set, prompt, ap, auroc.

    None has a temperature. The first two are what TextNorm tends to, up to a monotone map, as the temperature grows
    (mean) or goes to zero (best).
    """
    table = score_table(images, contrastive, names, scored)
    frames = []
    for form, function in ALTERNATIVES.items():
        values = np.stack([function(matrix[:, 0], matrix[:, 1:]) for matrix in table.scores.values()])
        settings = [Setting((name,), np.nan, np.nan) for name in table.scores]
        frames.append(judge_values(table, settings, values).assign(form=form))
    return pd.concat(frames, ignore_index=True)[["rewards", "form", *PROMPT, "ap", "auroc"]]


@step(1)
def softmax_shares(
    images: pd.DataFrame, contrastive: pd.DataFrame, *scored: Path, names: Sequence[str], temperature: float
) -> pd.DataFrame:
    """How much of the contrasts' part of the softmax each kind of contrast makes up, prompt by prompt.

    Section 4.1 says that a prompt that differs in both syntax and meaning adds next to nothing to the denominator of
    equation 1. For every image, each contrast's exp(r / temperature) is a share of the sum over all contrasts; a kind's
    share is the mean over the prompt's images. ``temperature`` counts in units of each reward. Returns reward, kind,
    set, prompt, share, and expected: the kind's share of the number of contrasts.
    """
    table = score_table(images, contrastive, names, scored)
    present, kinds = table.mask[:, 1:], table.kinds[:, 1:]
    unit, frames = units(table), []
    for name, matrix in table.scores.items():
        logits = np.where(present, matrix[:, 1:], -np.inf) / (temperature * unit[name])
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        for kind in sorted(set(kinds[present])):
            of_kind = (kinds == kind) & present
            values = {"share": (shares * of_kind).sum(axis=1), "expected": of_kind.sum(axis=1) / present.sum(axis=1)}
            by_prompt = table.images[PROMPT].assign(**values).groupby(PROMPT, sort=False).mean()
            frames.append(by_prompt[by_prompt["expected"] > 0].reset_index().assign(kind=kind, reward=name))
    return pd.concat(frames, ignore_index=True)[["reward", "kind", *PROMPT, "share", "expected"]]


@step(1)
def risk_coverage(
    images: pd.DataFrame,
    *,
    rewards: Sequence[str],
    coverages: Sequence[float],
    resamples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Of the images that a reward is most sure of, over all prompts, the share that is bad (El-Yaniv and Wiener 2010).

    Each of ``rewards`` (columns) ranks all images together; at a coverage c in (0, 1] the best c of them are kept, and
    the risk is the share of bad ones, ties at the edge counting in part. Returns reward, coverage, risk, low, high.
    """
    codes, prompts = pd.factorize(images["prompt"])
    bad, frames = 1 - images["label"].astype(float), []
    for reward in rewards:
        order = np.argsort(-images[reward].to_numpy(), kind="stable")
        share_bad = bad.groupby(images[reward]).transform("mean")  # of the images that the reward does not tell apart
        ranked = share_bad.to_numpy()[order]

        def risks(counts: np.ndarray, ranked: np.ndarray = ranked, of: np.ndarray = codes[order]) -> np.ndarray:
            drawn = counts[:, of]  # how often each image, best first
            kept, lost = (np.c_[np.zeros(len(drawn)), part.cumsum(axis=1)] for part in (drawn, drawn * ranked))
            wanted = np.outer(kept[:, -1], coverages)
            return np.array([np.interp(w, k, b) for w, k, b in zip(wanted, kept, lost, strict=True)]).T / wanted.T

        low, high = prompt_bootstrap(risks, len(prompts), resamples=resamples, confidence=confidence, seed=seed)
        risk = risks(np.ones((1, len(prompts))))[:, 0]
        frames.append(pd.DataFrame({"reward": reward, "coverage": coverages, "risk": risk, "low": low, "high": high}))
    return pd.concat(frames, ignore_index=True)


@step(1)
def gains_by_group(metrics: pd.DataFrame, *, pairs: Sequence[Sequence[str]], metric: str) -> pd.DataFrame:
    """What TextNorm changes, prompt by prompt, beside what the prompt names.

    ``metrics``: as ``prompt_metrics`` gives it; ``pairs``: (a reward, the same under TextNorm). Returns reward, set,
    prompt, before, after, gain and class: a row for each class that the prompt names.
    """
    wide = metrics[metrics["metric"] == metric].pivot(index=PROMPT, columns="reward", values="value")
    frames = []
    for before, after in pairs:
        if missing := {before, after} - set(wide):
            raise DataError(f"metrics has no reward {min(missing)!r}; it has {', '.join(map(str, wide))}")
        pair = wide[[before, after]].dropna().set_axis(["before", "after"], axis=1).reset_index()
        frames.append(pair.assign(reward=before, gain=pair["after"] - pair["before"]))
    gains = pd.concat(frames, ignore_index=True)
    gains["class"] = gains["prompt"].map(classes_of)
    return gains.explode("class", ignore_index=True)
