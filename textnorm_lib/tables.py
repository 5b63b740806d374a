"""The study's tables: from tidy results to what is printed, as CSV (every digit), Markdown and TeX (rounded)."""

from functools import partial

import pandas as pd

from textnorm_lib.items import Item, register
from textnorm_lib.names import HINDSIGHT, METRIC_NAMES, REWARD_NAMES, SET_ORDER

NO_BREAK = "\u00a0"
STAR, MINUS = f"{NO_BREAK}*", f"{NO_BREAK}-"


def as_csv(frame: pd.DataFrame) -> bytes:
    """The tidy numbers behind a table, every digit."""
    return frame.to_csv(index=False, lineterminator="\n").encode()


def as_markdown(table: pd.DataFrame, caption: str, profile: str) -> bytes:
    """The printed table with its caption and profile."""
    return f"{table.to_markdown(index=False, disable_numparse=True)}\n\n{caption} (Profile: {profile}.)\n".encode()


def as_tex(table: pd.DataFrame, caption: str, profile: str) -> bytes:
    """A booktabs table at footnote size, shrunk to the text's width where it is wider; needs booktabs and graphicx."""
    body = table.to_latex(index=False, escape=True).rstrip()
    text = f"{caption} (Profile: {profile}.)".replace("%", r"\%").replace("_", r"\_").replace("&", r"\&")
    text = text.replace("<", r"$<$")
    fitted = f"\\resizebox{{\\ifdim\\width>\\textwidth\\textwidth\\else\\width\\fi}}{{!}}{{%\n{body}}}"
    return f"\\begin{{table}}\n\\footnotesize\n\\caption{{{text}}}\n{fitted}\n\\end{{table}}\n".encode()


def short(value: float, digits: int = 3) -> str:
    """.764 for 0.7641, -.02 for -0.0200: the habit of the field for numbers between -1 and 1."""
    if pd.isna(value):
        return "–"
    text = f"{round(value, digits) + 0.0:.{digits}f}"  # adding 0.0 turns -0.0 into 0.0
    return text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text


def percent(value: float) -> str:
    """45.6% for 0.456."""
    return "–" if pd.isna(value) else f"{value:.1%}"


def interval(row: pd.Series, middle: str = "mean", digits: int = 3) -> str:
    """.764 [.750, .778], which a narrow column breaks before the bracket only."""
    return f"{short(row[middle], digits)} [{short(row['low'], digits)},{NO_BREAK}{short(row['high'], digits)}]"


def metric_comparison(summary: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """Sets x rewards against metrics; a star where TextNorm is better, a minus where it is worse (Holm, .05)."""
    cells = summary.assign(cell=summary.apply(interval, axis=1, digits=2))
    tested = comparison.set_index(["set", "reward", "metric"])
    marks = []
    for key in zip(cells["set"], cells["reward"], cells["metric"], strict=True):
        test = tested.loc[key] if key in tested.index else None
        marks.append("" if test is None or test["p_holm"] >= 0.05 else STAR if test["difference"] > 0 else MINUS)
    cells = cells.assign(cell=cells["cell"] + marks)
    wide = cells.pivot(index=["set", "reward"], columns="metric", values="cell")[list(METRIC_NAMES)]
    wide = wide.reindex([(name, reward) for name in SET_ORDER for reward in REWARD_NAMES])
    table = wide.rename(columns=METRIC_NAMES).reset_index()
    prompts = summary.groupby("set")["n_prompts"].max()
    table["set"] = [f"{name} ({prompts[name]})" for name in table["set"]]
    return table.assign(reward=table["reward"].map(REWARD_NAMES)).rename_axis(columns=None)


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


def statistics(frame: pd.DataFrame) -> pd.DataFrame:
    """``set_statistics`` as printed."""
    sizes = {}
    if "contrastive_mean" in frame:
        sizes["contrastive prompts"] = frame.apply(
            lambda row: f"{row['contrastive_mean']:.1f} ({row['contrastive_least']}–{row['contrastive_most']})", axis=1
        )
    return pd.DataFrame(
        {
            "set": frame["set"],
            "prompts": frame["prompts"].map("{:,}".format),
            "images": frame["images"].map("{:,}".format),
            "votes": frame["votes"].map("{:,}".format),
            **sizes,
            "good images": frame["share_good"].map(percent),
            "votes skipped": frame["share_skipped"].map(percent),
            "images with a skip": frame["images_with_skip"].map(percent),
            "prompts all bad / all good": frame["prompts_all_bad"].astype(str)
            + " / "
            + frame["prompts_all_good"].astype(str),
        }
    )


def category_table(frame: pd.DataFrame) -> pd.DataFrame:
    """``categories`` as printed."""
    return frame.assign(share_good=frame["share_good"].map(percent)).rename(
        columns={"prompts": "prompts (first category)", "mentions": "prompts (any)", "share_good": "good images"}
    )


def slots(frame: pd.DataFrame) -> pd.DataFrame:
    """``slot_influence`` as printed."""
    shares = frame.drop(columns=["set", "slot"]).map(percent)
    names = {
        "share_good": "good votes",
        "share_skipped": "skipped",
        "with_label": "equals the label",
        "decides": "decides the label",
        "share_good_label": "good by majority",
        "share_good_without": "good without this slot",
    }
    return pd.concat([frame[["set", "slot"]], shares.rename(columns=names)], axis=1)


def agreement_table(frame: pd.DataFrame) -> pd.DataFrame:
    """``agreement`` as printed."""
    kappas = frame[["fleiss", "cohen_12", "cohen_13", "cohen_23"]].map(short, digits=2)
    kappas.columns = ["Fleiss' kappa", "Cohen 1–2", "Cohen 1–3", "Cohen 2–3"]
    alpha = frame.apply(interval, axis=1, middle="alpha", digits=2).rename("Krippendorff's alpha")
    return pd.concat([frame["set"], alpha, kappas, frame["unanimous"].map(percent)], axis=1)


def labels_table(frame: pd.DataFrame) -> pd.DataFrame:
    """``other_labels`` as printed."""
    shares = frame[["share_good", "changed", "to_good", "to_bad"]].map(percent)
    shares.columns = ["good images", "labels changed", "to good", "to bad"]
    return pd.concat([frame[["set", "rule"]], shares], axis=1)


def one_label(frame: pd.DataFrame) -> pd.DataFrame:
    """``one_label_prompts`` as printed."""
    return frame


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


def _describe(text: str):
    return lambda *frames: text


TABLES = register(
    Item(
        name="tab01_ablation",
        notebook="02_benchmark_rewards",
        caption="The paper's ablation (table 1), averages over the 525 prompts that have both labels; 95% bootstrap "
        "interval over prompts. The release holds the first and the last row only.",
        build=ablation,
        describe=_describe("PickScore and released TextNorm against the paper's four ablation rows."),
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
        describe=_describe("Five rewards on three sets and all prompts by seven metrics, each with its interval."),
        needs="tia2",
        paper_item="Main metric table (section 4.3)",
    ),
    Item(
        name="tab05_tia2_statistics",
        notebook="01_build_tia2",
        caption="TIA2 in numbers. Good: at least two of three votes are good. Contrastive prompts: mean (least–most).",
        build=statistics,
        describe=_describe("A row for each set and one for all."),
        needs="tia2",
        paper_item="Section 3.1, statistics of the benchmark",
        paper_value="100, 150 and 300 prompts, 50 images each, three labels an image",
    ),
    Item(
        name="tab06_categories",
        notebook="01_build_tia2",
        caption="The comprehensive prompts by the paper's eight categories, assigned by the study's own rule: the "
        "release does not carry them.",
        build=category_table,
        describe=_describe("Eight categories: number of prompts, share of good images, examples."),
        needs="tia2",
        paper_item="Appendix 8.1, statistics of each subcategory",
    ),
    Item(
        name="tab07_vote_slots",
        notebook="01_build_tia2",
        caption="What each vote slot does to the label. Decides: the other two disagree. Without: by the other two, an "
        "image on which they disagree counting half.",
        build=slots,
        describe=_describe("A row for each set and vote slot."),
        needs="tia2",
    ),
    Item(
        name="tab08_agreement",
        notebook="01_build_tia2",
        caption="Agreement of the three vote slots; 95% bootstrap interval over prompts; kappas without skips.",
        build=agreement_table,
        describe=_describe("Krippendorff's alpha, Fleiss' and Cohen's kappas and unanimity per set."),
        needs="tia2",
    ),
    Item(
        name="tab09_other_labels",
        notebook="01_build_tia2",
        caption="Labels by other rules than the majority: share of good images and of labels that change.",
        build=labels_table,
        describe=_describe("Majority, Dawid-Skene, unanimous and any-good labels per set."),
        needs="tia2",
    ),
    Item(
        name="tab10_one_label_prompts",
        notebook="01_build_tia2",
        caption="The prompts whose 50 images all have one label: no metric is defined, they leave the averages.",
        build=one_label,
        describe=_describe("Set, prompt and label of each such prompt."),
        needs="tia2",
    ),
    Item(
        name="tab11_released_tuning",
        notebook="02_benchmark_rewards",
        caption="The settings behind the released TextNorm scores differ from prompt to prompt: prompts by value.",
        build=tuning,
        describe=_describe("Scale and penalty of the released TextNorm scores per set."),
        needs="tia2",
    ),
    Item(
        name="tab13_paired_differences",
        notebook="02_benchmark_rewards",
        caption="Released TextNorm minus each other reward on the same prompts; 95% paired bootstrap interval over "
        "prompts; a star: p < .05 (Wilcoxon, Holm within the set).",
        build=partial(differences, names={name: REWARD_NAMES[name] for name in list(REWARD_NAMES)[:-1]}),
        describe=_describe("Differences per set and metric to CLIP, BLIP-2, ImageReward and PickScore."),
        needs="tia2",
        paper_item="Section 4.3: improvements in all measured metrics",
    ),
    Item(
        name="tab14_composition_by_class",
        notebook="02_benchmark_rewards",
        caption="Composition set, AUROC: released TextNorm minus each other reward, with 95% intervals from drawing "
        "prompts and from drawing the 25 classes again.",
        build=by_class,
        describe=_describe("Two intervals for each of the four differences."),
        needs="tia2",
    ),
    Item(
        name="tab15_mini_statistics",
        notebook="01_build_tia2",
        caption="TIA2 in miniature in numbers, as the table of the released sets: images of the mini world's "
        "generator, votes of its annotators.",
        build=statistics,
        describe=_describe("A row for each built set and one for all."),
        needs="annotators",
    ),
    Item(
        name="tab16_mini_agreement",
        notebook="01_build_tia2",
        caption="Agreement of the mini world's three annotators, as the table of the released vote slots; 95% "
        "bootstrap interval over prompts; kappas without skips.",
        build=agreement_table,
        describe=_describe("Krippendorff's alpha, Fleiss' and Cohen's kappas and unanimity per built set."),
        needs="annotators",
    ),
    Item(
        name="tab12_hindsight",
        notebook="02_benchmark_rewards",
        caption="Released TextNorm minus a choice between untouched rewards that peeks at the same labels; 95% paired "
        "bootstrap interval over prompts; a star: p < .05 (Wilcoxon, Holm within the set).",
        build=partial(differences, names=HINDSIGHT),
        describe=_describe("Differences per set and metric to the best of two and of four rewards in hindsight."),
        needs="tia2",
    ),
)
