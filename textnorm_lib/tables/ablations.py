"""Tables of notebook 03: TextNorm's ablations, what leaks are worth, and how it stands beside raw rewards."""

from collections.abc import Callable

import pandas as pd

from textnorm_lib.figures.style import STAR, describe, interval, short
from textnorm_lib.items import Item
from textnorm_lib.metrics import ALL_SETS
from textnorm_lib.names import ENSEMBLES, METRIC_NAMES, SET_ORDER, UNDER_TEXTNORM, ensemble_name, judged_name
from textnorm_lib.tuning import CHOICES

LEVEL = 0.05
SOURCES = {"none": "", "random": "random:", "rules": UNDER_TEXTNORM}  # and the prefix of their columns
JUDGED = tuple(f"{before}{name}" for name in ENSEMBLES for before in ("", UNDER_TEXTNORM))  # raw, then TextNorm


def released_lint(frame: pd.DataFrame) -> pd.DataFrame:
    """``lint_summary`` as printed: a row a fault, a column a set."""
    entries = frame["entries"].map("{:,}".format) + frame["entries"].div(frame["all_entries"]).map(" ({:.1%})".format)
    cells = frame.assign(cell=entries + " in " + frame["prompts"].map("{:,}".format))
    sizes = frame.drop_duplicates("set").set_index("set")
    names = {
        name: f"{name} ({sizes.loc[name, 'all_entries']:,} in {sizes.loc[name, 'all_prompts']:,})"
        for name in SET_ORDER
        if name in sizes.index
    }
    wide = cells.pivot(index="fault", columns="set", values="cell").reindex(index=frame["fault"].unique())
    return wide[list(names)].rename(columns=names).reset_index().rename_axis(columns=None)


def ablation(frame: pd.DataFrame, sealed: pd.DataFrame) -> pd.DataFrame:
    """A row an ensemble and source of its contrastive prompts: on development prompts, and on the ``sealed`` ones."""
    cells = frame.assign(cell=frame.apply(interval, axis=1)).set_index(["rewards", "source", "metric"])
    once = sealed[sealed["set"] == ALL_SETS].set_index(["reward", "metric"])
    rows = []
    for rewards in ENSEMBLES:
        for source, prefix in SOURCES.items():
            auroc, ap = (cells.loc[(rewards, source, metric)] for metric in ("auroc", "ap"))
            found = [
                once.loc[(prefix + rewards, metric)] for metric in ("auroc", "auprc") if prefix + rewards in once.index
            ]
            later = [interval(row) for row in found] or ["–", "–"]
            rows.append((ensemble_name(rewards), source, auroc["cell"], ap["cell"], *later))
    shown = frame.loc[frame["source"] == "none", "n_prompts"].max(), once["n_prompts"].max()
    names = [f"{metric}, development ({shown[0]})" for metric in ("AUROC", "AP")]
    names += [f"{metric}, sealed ({shown[1]})" for metric in ("AUROC", "AUPRC")]
    return pd.DataFrame(rows, columns=["rewards", "contrastive prompts", *names])


def textnorm_rewards(summary: pd.DataFrame) -> pd.DataFrame:
    """Sets x rewards, raw and under TextNorm, against metrics."""
    cells = summary.assign(cell=summary.apply(interval, axis=1, digits=2))
    wide = cells.pivot(index=["set", "reward"], columns="metric", values="cell")[list(METRIC_NAMES)]
    keys = [(name, reward) for name in SET_ORDER for reward in JUDGED if (name, reward) in wide.index]
    table = wide.loc[keys].rename(columns=METRIC_NAMES).reset_index(drop=True).rename_axis(columns=None)
    prompts = summary.groupby("set")["n_prompts"].max()
    who = [(f"{name} ({prompts[name]})", *judged_name(reward)) for name, reward in keys]
    return pd.concat([pd.DataFrame(who, columns=["set", "rewards", "score"]), table], axis=1)


def leaks(choices: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """A row an ensemble and choice of its setting: AUROC and AP, and each one's gain over the choice held out."""
    cells, more = (
        frame.assign(cell=frame.apply(interval, axis=1)).set_index(["rewards", "choice", "metric"])
        for frame in (choices, gains)
    )
    rows = []
    for rewards in ENSEMBLES:
        for choice in CHOICES:
            row = [ensemble_name(rewards), choice]
            for metric in ("auroc", "ap"):
                key = (rewards, choice, metric)
                row += [cells.loc[key, "cell"], more.loc[key, "cell"] if key in more.index else "–"]
            rows.append((*row, cells.loc[key, "n_prompts"]))
    columns = ["rewards", "setting", "AUROC", "gain in AUROC", "AP", "gain in AP", "prompts"]
    return pd.DataFrame(rows, columns=columns)


def confidence(errors: pd.DataFrame, risks: pd.DataFrame) -> pd.DataFrame:
    """A row a reward, raw and under TextNorm: ECE by set, Brier score, and the risk among its surer half of images."""
    cells = errors.assign(cell=errors.apply(interval, axis=1, middle="value")).set_index(["reward", "metric", "set"])
    half = risks.loc[(risks["coverage"] - 0.5).abs().round(9) == 0].set_index("reward")
    sizes = errors.drop_duplicates("set").set_index("set")["n_prompts"]
    rows = []
    for reward in [reward for reward in JUDGED if (reward, "ece", "all") in cells.index]:
        row = dict(zip(("rewards", "score"), judged_name(reward), strict=True))
        for name in [name for name in SET_ORDER if name in sizes.index]:
            ece = cells.loc[(reward, "ece", name)]
            mark = STAR if ece["value"] > ece["reference"] else ""
            row[f"ECE, {name} ({sizes[name]})"] = f"{ece['cell']}{mark}"
        brier = cells.loc[(reward, "brier", "all")]
        row[f"Brier score ({short(brier['reference'])})"] = brier["cell"]
        row["bad in the surer half"] = interval(half.loc[reward], middle="risk")
        rows.append(row)
    return pd.DataFrame(rows)


def tests(frame: pd.DataFrame) -> pd.DataFrame:
    """Differences of AUROC and AP@10 over all prompts, a row a pair; a star: p < .05 after Holm."""
    found = frame[frame["set"] == ALL_SETS]
    rows = []
    for (reward, reference), pair in found.groupby(["reward", "reference"], sort=False):
        names = [", ".join(judged_name(name)) for name in (reference, reward)]
        cells = []
        for metric in ("auroc", "ap10"):
            row = pair[pair["metric"] == metric].iloc[0]
            counts = f"{row['wins']} / {row['ties']} / {row['losses']}"
            cells += [interval(row, "difference") + (STAR if row["p_holm"] < LEVEL else ""), counts]
        rows.append((*names, *cells))
    counted = "prompts won / tied / lost"
    return pd.DataFrame(rows, columns=["this", "minus this", "AUROC", counted, "AP@10", f"{counted} (AP@10)"])


def _item(name: str, caption: str, build: Callable, alt: str, **more: str) -> Item:
    return Item(name, "03_textnorm_ablations", caption, build, describe(alt), **{"needs": "labels", **more})


ITEMS = (
    _item(
        "tab20_released_lint",
        "What is wrong with the released contrastive sets, by rules: entries with a fault, their share of all, and the "
        "number of prompts whose set has one; in the heading all entries and prompts. Nothing in common is a hint "
        "rather than a fault.",
        released_lint,
        "Five faults of the released contrastive sets, a column for each set.",
        needs="tia2",
        paper_item="Section 4.2, contrastive prompt sets",
    ),
    _item(
        "tab21_ablation",
        "The paper's ablation (table 1) in the mini world: rewards and ensembles by where the contrastive prompts come "
        "from (none: raw). Development prompts: AUROC and AP (mean of AP@5, 10 and 25), settings held out. Sealed "
        "prompts, scored once: AUROC and AUPRC, settings chosen on development prompts. Mean over prompts and 95% "
        "bootstrap interval; number of prompts in the heading.",
        ablation,
        "AUROC and AP of six ensembles without contrastive prompts, with random ones and with those by rules.",
        paper_item="Table 1",
        paper_value="AUROC/AUPRC .764/.669 (PickScore), .641/.540 random, .780/.704 by a language model, .822/.752 "
        "(ensemble)",
    ),
    _item(
        "tab22_textnorm_rewards",
        "The mini world's rewards, raw and under TextNorm, against its annotators: mean over the prompts with both "
        "labels (their number in brackets) and 95% bootstrap interval over prompts.",
        textnorm_rewards,
        "Rewards raw and under TextNorm on three sets and all prompts by seven metrics, each with its interval.",
        paper_item="Main metric table (section 4.3)",
    ),
    _item(
        "tab23_leaks",
        "Temperature and penalty chosen in four ways: on other prompts (held out), on prompts of other classes, on all "
        "prompts at once, and on each prompt's own labels, as the released TextNorm scores most likely were. AUROC "
        "and AP (mean of "
        "AP@5, 10 and 25) with 95% bootstrap intervals over prompts, those of the gains over held out paired.",
        leaks,
        "AUROC and AP of six ensembles under four ways to choose settings, with their gains over held out.",
    ),
    _item(
        "tab24_confidence",
        "Raw rewards and TextNorm as probabilities of a good image, by one logistic map each, fitted to other prompts: "
        "expected calibration error by set (prompts in brackets; a star: more than chance alone gives), Brier score "
        "over all (in brackets: were one probability given to all), and the share of bad images in the half that is "
        "ranked higher over all prompts. 95% bootstrap intervals over prompts.",
        confidence,
        "Calibration error on three sets and all, Brier score and risk at half coverage, raw and under TextNorm.",
    ),
    _item(
        "tab25_textnorm_tests",
        "TextNorm against what it is made from, on the sealed prompts: differences of AUROC and AP@10 over all prompts "
        "with 95% bootstrap intervals, prompts won, tied and lost. A star: p < .05 by Wilcoxon's signed-rank test "
        "after Holm's adjustment over all rows and both metrics.",
        tests,
        "Differences between rewards, TextNorm of each, the ensemble, and TextNorm over random prompts.",
    ),
)
