"""Tables of notebook 02: rewards against people."""

from functools import partial

import pandas as pd

from textnorm_lib.items import Item
from textnorm_lib.names import HINDSIGHT, METRIC_NAMES, REWARD_NAMES, SET_ORDER
from textnorm_lib.tables.style import MINUS, STAR, describe, interval, short


def metric_comparison(summary: pd.DataFrame, comparison: pd.DataFrame | None = None) -> pd.DataFrame:
    """Sets x rewards against metrics; a star where TextNorm is better, a minus where it is worse (Holm, .05).

    Without ``comparison`` nothing is marked.
    """
    cells = summary.assign(cell=summary.apply(interval, axis=1, digits=2))
    if comparison is not None:
        cells["cell"] += _marks(cells, comparison)
    wide = cells.pivot(index=["set", "reward"], columns="metric", values="cell")[list(METRIC_NAMES)]
    rows = [(name, reward) for name in SET_ORDER for reward in REWARD_NAMES]
    table = wide.reindex([row for row in rows if row in wide.index]).rename(columns=METRIC_NAMES).reset_index()
    prompts = summary.groupby("set")["n_prompts"].max()
    table["set"] = [f"{name} ({prompts[name]})" for name in table["set"]]
    return table.assign(reward=table["reward"].map(REWARD_NAMES)).rename_axis(columns=None)


def _marks(cells: pd.DataFrame, comparison: pd.DataFrame) -> list[str]:
    """What stands behind each cell."""
    tested = comparison.set_index(["set", "reward", "metric"])
    marks = []
    for key in zip(cells["set"], cells["reward"], cells["metric"], strict=True):
        test = tested.loc[key] if key in tested.index else None
        marks.append("" if test is None or test["p_holm"] >= 0.05 else STAR if test["difference"] > 0 else MINUS)
    return marks


def ablation(summary: pd.DataFrame) -> pd.DataFrame:
    """The paper's table 1: its rows, what the release gives for them, the paper's values."""
    rows = summary.query("set == 'all'").set_index(["reward", "metric"])
    paper = (
        ("none", "no", "pickscore", ".764", ".669"),
        ("random prompts", "no", None, ".641", ".540"),
        ("LLM prompts", "no", None, ".780", ".704"),
        ("LLM prompts", "ensemble", "textnorm", ".822", ".752"),
    )
    lines = []
    for prompts, ensemble, reward, auroc, auprc in paper:
        ours = [interval(rows.loc[(reward, m)]) if reward else "not in the release" for m in ("auroc", "auprc")]
        lines.append((prompts, ensemble, *ours, auroc, auprc))
    columns = ["contrastive prompts", "ensemble", "AUROC", "AUPRC", "AUROC (paper)", "AUPRC (paper)"]
    return pd.DataFrame(lines, columns=columns)


def tuning(frame: pd.DataFrame) -> pd.DataFrame:
    """``tuning_shares`` as printed: a row a set and parameter."""
    rows = []
    for (name, parameter), group in frame.groupby(["set", "parameter"], sort=False):
        used = ", ".join(f"{row.value:g}: {row.prompts}" for row in group.itertuples())
        rows.append((name, parameter, int(group["prompts"].sum()), used))
    return pd.DataFrame(rows, columns=["set", "parameter", "prompts", "prompts by value"])


def differences(comparison: pd.DataFrame, *, names: dict[str, str]) -> pd.DataFrame:
    """TextNorm minus each of the named others on the same prompts, per set and metric; a star: p < .05 after Holm."""
    marked = comparison.apply(
        lambda row: interval(row, "difference", 3) + (STAR if row["p_holm"] < 0.05 else ""), axis=1
    )
    wide = comparison.assign(cell=marked).pivot(index=["reward", "set"], columns="metric", values="cell")
    wide = wide.reindex([(reward, name) for reward in names for name in SET_ORDER])[list(METRIC_NAMES)]
    table = wide.rename(columns=METRIC_NAMES).reset_index().rename_axis(columns=None)
    return table.assign(reward=table["reward"].map(names)).rename(columns={"reward": "TextNorm minus"})


def by_class(frame: pd.DataFrame) -> pd.DataFrame:
    """``differences_by_class`` as printed: the difference, and the interval by what is drawn again."""
    columns = {f"{drawn} drawn": group for drawn, group in frame.groupby("drawn", sort=False)}
    first = next(iter(columns.values()))
    table = {
        "TextNorm minus": list(first["reward"].map(REWARD_NAMES)),
        "difference": list(first["difference"].map(short)),
    }
    for name, group in columns.items():
        table[name] = [f"[{short(low)}, {short(high)}]" for low, high in zip(group["low"], group["high"], strict=True)]
    return pd.DataFrame(table)


ITEMS = (
    Item(
        name="tab01_ablation",
        notebook="02_benchmark_rewards",
        caption="The paper's ablation (table 1), averages over the 525 prompts that have both labels; 95% bootstrap "
        "interval over prompts. The release holds the first and the last row only.",
        build=ablation,
        describe=describe("PickScore and released TextNorm against the paper's four ablation rows."),
        needs="tia2",
        paper_item="Table 1",
        paper_value="AUROC/AUPRC .764/.669 (PickScore), .641/.540, .780/.704, .822/.752 (TextNorm, ensemble)",
    ),
    Item(
        name="tab04_metric_comparison",
        notebook="02_benchmark_rewards",
        caption="Rewards against people, from the released per-prompt metrics: mean over the prompts (their number in "
        "brackets) and 95% bootstrap interval over prompts. A star: released TextNorm is better on the same prompts "
        "(Wilcoxon, Holm within the set, .05); a minus: it is worse. TextNorm's settings differ from prompt to prompt.",
        build=metric_comparison,
        describe=describe("Five rewards on three sets and all prompts by seven metrics, each with its interval."),
        needs="tia2",
        paper_item="Main metric table (section 4.3)",
    ),
    Item(
        name="tab11_released_tuning",
        notebook="02_benchmark_rewards",
        caption="The settings behind the released TextNorm scores differ from prompt to prompt: prompts by value.",
        build=tuning,
        describe=describe("Scale and penalty of the released TextNorm scores per set."),
        needs="tia2",
    ),
    Item(
        name="tab12_hindsight",
        notebook="02_benchmark_rewards",
        caption="Released TextNorm minus a choice between untouched rewards that peeks at the same labels; 95% paired "
        "bootstrap interval over prompts; a star: p < .05 (Wilcoxon, Holm within the set).",
        build=partial(differences, names=HINDSIGHT),
        describe=describe("Differences per set and metric to the best of two and of four rewards in hindsight."),
        needs="tia2",
    ),
    Item(
        name="tab13_paired_differences",
        notebook="02_benchmark_rewards",
        caption="Released TextNorm minus each other reward on the same prompts; 95% paired bootstrap interval over "
        "prompts; a star: p < .05 (Wilcoxon, Holm within the set).",
        build=partial(differences, names={name: REWARD_NAMES[name] for name in list(REWARD_NAMES)[:-1]}),
        describe=describe("Differences per set and metric to CLIP, BLIP-2, ImageReward and PickScore."),
        needs="tia2",
        paper_item="Section 4.3: improvements in all measured metrics",
    ),
    Item(
        name="tab14_composition_by_class",
        notebook="02_benchmark_rewards",
        caption="Composition set, AUROC: released TextNorm minus each other reward, with 95% intervals from drawing "
        "prompts and from drawing the 25 classes again.",
        build=by_class,
        describe=describe("Two intervals for each of the four differences."),
        needs="tia2",
    ),
)
