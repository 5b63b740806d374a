"""Notebook 01 in print: what TIA2 holds, how its annotators agree, and the same for TIA2 in miniature."""

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from textnorm_lib.figures import style
from textnorm_lib.prompts.templates import CATEGORIES, PREFIX
from textnorm_lib.study.drawing import new_figure, new_panels
from textnorm_lib.study.items import of_notebook
from textnorm_lib.study.printed import interval, percent, short
from textnorm_lib.study.store import step
from textnorm_lib.tia2.labels import VOTES

figure, table = of_notebook("01_build_tia2", needs="tia2")

ABREAST, PER_PROMPT = 2, 4  # the samples: two prompts per row, four images each
CAPTION, MARKS_BELOW, GAP = 0.2, 0.2, 0.2  # above and below a prompt's images, between two prompts; in images' sides
SHEET_COLUMNS, SHEET_PITCH = 6, 1.32  # other sheets: images per row; from one row to the next, in images' sides
WORLDS = {  # name -> how it is drawn
    "released": {"color": "black", "marker": "o", "linestyle": "none"},
    "mini": {"color": "0.5", "marker": "s", "linestyle": "none"},
}


# ---- what the benchmark is made of


@table(
    "tab05_tia2_statistics",
    "TIA2 in numbers. Good: at least two of three votes are good. Contrastive prompts: mean (least–most).",
    paper_item="Section 3.1, statistics of the benchmark",
    paper_value="100, 150 and 300 prompts, 50 images each, three labels an image",
)
def statistics_table(statistics: pd.DataFrame) -> pd.DataFrame:
    """A row for each set and one for all."""
    counts = ["prompts", "images", "votes"]
    table = statistics[["set"]].join(statistics[counts].map("{:,}".format))
    if "contrastive_mean" in statistics:
        ends = statistics["contrastive_least"].astype(str) + "–" + statistics["contrastive_most"].astype(str)
        table["contrastive prompts"] = statistics["contrastive_mean"].map("{:.1f}".format) + " (" + ends + ")"
    table["good images"] = statistics["share_good"].map(percent)
    table["votes skipped"] = statistics["share_skipped"].map(percent)
    table["images with a skip"] = statistics["images_with_skip"].map(percent)
    bad, good = statistics["prompts_all_bad"].astype(str), statistics["prompts_all_good"].astype(str)
    return table.assign(**{"prompts all bad / all good": bad + " / " + good})


@table(
    "tab06_categories",
    "The comprehensive prompts by the paper's eight categories, assigned by the study's own rule: the release does not "
    "carry them.",
    paper_item="Appendix 8.1, statistics of each subcategory",
)
def category_table(categories: pd.DataFrame) -> pd.DataFrame:
    """Eight categories: number of prompts, share of good images, examples."""
    return categories.assign(share_good=categories["share_good"].map(percent)).rename(
        columns={"prompts": "prompts (first category)", "mentions": "prompts (any)", "share_good": "good images"}
    )


def _describe_share_good(share: pd.DataFrame, by_count: pd.DataFrame) -> str:
    medians = share.groupby("set")["value"].median()
    counts = by_count.set_index("set")["mean"]
    return (
        "Left: cumulative share of prompts by share of good images; medians "
        + ", ".join(f"{medians[name]:.2f} ({name})" for name in style.SETS)
        + f". Right: its mean by the count asked for, from {counts['1']:.2f} for one to {counts['6']:.2f} for six."
    )


@figure(
    "fig21_share_good",
    "Left: prompts by their share of good images, with 95% bands. Right: the counting set by the count asked for, mean "
    "and 95% bootstrap interval over 25 prompts.",
    alt=_describe_share_good,
)
def share_good(share: pd.DataFrame, by_count: pd.DataFrame) -> Figure:
    """Left: how the share of good images is spread over prompts; right: its mean by the count asked for."""
    figure, (left, right) = new_panels(2.3, 1, 2)
    for name in style.SETS:
        values = share.loc[share["set"] == name, "value"]
        curve = stats.ecdf(values).cdf
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # at the last step, where the band has no width
            band = curve.confidence_interval(0.95)
        x, look = curve.quantiles, style.SET_LOOKS[name]
        low, high = band.low.evaluate(x), band.high.evaluate(x)
        left.fill_between(x, low, high, step="post", color=look["color"], alpha=0.15, linewidth=0)
        left.step(x, curve.probabilities, where="post", label=f"{name} (n = {len(values)})", **look)
    left.set(xlabel="share of good images", ylabel="cumulative share of prompts", xlim=(0, 1), ylim=(0, 1))
    figure.legend(*left.get_legend_handles_labels(), ncols=3, frameon=False, loc="outside upper left")
    rows = by_count[by_count["set"] != "all"]
    style.errorbar(right, rows["set"].astype(int), rows, color="black", marker="o")
    right.set(xlabel="count asked for (25 prompts each)", ylabel="share of good images", ylim=(0, 1))
    return figure


@table(
    "tab10_one_label_prompts",
    "The prompts whose 50 images all have one label: no metric is defined, they leave the averages.",
)
def one_label_table(prompts: pd.DataFrame) -> pd.DataFrame:
    """Set, prompt and label of each such prompt."""
    return prompts


# ---- how the votes agree


@table(
    "tab08_agreement",
    "Agreement of the three vote slots; 95% bootstrap interval over prompts; kappas without skips.",
)
def agreement_table(agreement: pd.DataFrame) -> pd.DataFrame:
    """Krippendorff's alpha, Fleiss' and Cohen's kappas and unanimity per set."""
    kappas = agreement[["fleiss", "cohen_12", "cohen_13", "cohen_23"]].map(short, digits=2)
    kappas.columns = ["Fleiss' kappa", "Cohen 1–2", "Cohen 1–3", "Cohen 2–3"]
    alpha = agreement.apply(interval, axis=1, middle="alpha", digits=2).rename("Krippendorff's alpha")
    return pd.concat([agreement["set"], alpha, kappas, agreement["unanimous"].map(percent)], axis=1)


def _describe_vote_slots(slots: pd.DataFrame) -> str:
    wide = (
        slots[slots["reward"] != "majority"].pivot(index="set", columns="reward", values="mean").loc[list(style.SETS)]
    )
    spread = ", ".join(f"{name} {row.min():.2f} to {row.max():.2f}" for name, row in wide.iterrows())
    return (
        f"Share of good votes by vote slot, the majority's as a star. From the strictest slot to the mildest: {spread}."
    )


@figure(
    "fig22_vote_slots",
    "Share of good votes by vote slot and by the majority label, mean and 95% bootstrap interval over prompts.",
    alt=_describe_vote_slots,
)
def vote_slots(slots: pd.DataFrame) -> Figure:
    """Share of good votes of each slot and of the majority label, per set."""
    figure, axes = new_panels(2.2)
    for index, kind in enumerate(slots["reward"].unique()):
        rows = slots[slots["reward"] == kind].set_index("set").loc[list(style.SETS)]
        look = {"color": "black", "marker": "*", "markersize": 8}
        if kind != "majority":
            look = {"color": "0.5", "marker": "o^s"[index]}
        style.errorbar(axes, np.arange(3) + (index - 1.5) * 0.2, rows, label=kind, linestyle="none", **look)
    axes.set_xticks(range(3), style.SETS)
    axes.set(ylabel="share of good votes", ylim=(0, 1))
    axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.18))
    return figure


@table(
    "tab07_vote_slots",
    "What each vote slot does to the label. Decides: the other two disagree. Without: by the other two, an image on "
    "which they disagree counting half.",
)
def vote_slot_table(slot_influence: pd.DataFrame) -> pd.DataFrame:
    """A row for each set and vote slot."""
    names = {
        "share_good": "good votes",
        "share_skipped": "skipped",
        "with_label": "equals the label",
        "decides": "decides the label",
        "share_good_label": "good by majority",
        "share_good_without": "good without this slot",
    }
    shares = slot_influence.drop(columns=["set", "slot"]).map(percent)
    return pd.concat([slot_influence[["set", "slot"]], shares.rename(columns=names)], axis=1)


@table(
    "tab09_other_labels",
    "Labels by other rules than the majority: share of good images and of labels that change.",
)
def other_labels_table(other_labels: pd.DataFrame) -> pd.DataFrame:
    """Majority, Dawid-Skene, unanimous and any-good labels per set."""
    shares = other_labels[["share_good", "changed", "to_good", "to_bad"]].map(percent)
    shares.columns = ["good images", "labels changed", "to good", "to bad"]
    return pd.concat([other_labels[["set", "rule"]], shares], axis=1)


# ---- in miniature: images, not chosen by their looks


@step(1)
def pick_samples(made: Path, labels: pd.DataFrame, *, prompts_per_set: int, images_per_prompt: int) -> pd.DataFrame:
    """In each set prompts at even distances, of each prompt the first images.

    ``made`` is the folder of the images. Returns set, prompt, vote_1, vote_2, vote_3, label and png, the file's bytes.
    """
    rows = []
    for _, group in labels.groupby("set", sort=False):
        prompts = group["prompt"].unique()
        for prompt in prompts[_even_places(len(prompts), prompts_per_set)]:
            rows.append(group[group["prompt"] == prompt].head(images_per_prompt))
    return _with_files(pd.concat(rows, ignore_index=True), made)


@step(1)
def pick_failures(made: Path, labels: pd.DataFrame, *, number: int) -> pd.DataFrame:
    """Images that the majority calls bad, one per prompt, at even distances; columns as of ``pick_samples``."""
    bad = labels[labels["label"] == 0].drop_duplicates(["set", "prompt"])
    return _with_files(bad.iloc[_even_places(len(bad), number)], made)


def _even_places(there: int, wanted: int) -> np.ndarray:
    return np.linspace(0, there - 1, min(wanted, there)).round().astype(int)


def _with_files(chosen: pd.DataFrame, made: Path) -> pd.DataFrame:
    files = [(made / name).read_bytes() for name in chosen["image"]]
    return chosen[["set", "prompt", *VOTES, "label"]].assign(png=files).reset_index(drop=True)


def _describe_samples(samples: pd.DataFrame) -> str:
    shown = samples.groupby("prompt", sort=False).head(PER_PROMPT).groupby("prompt", sort=False)["label"]
    words = "; ".join(f"{prompt}: {labels.sum()} of {len(labels)}" for prompt, labels in shown)
    return f"Generated images in rows, a prompt each, with three votes below each image. Good by the majority: {words}."


@figure(
    "fig26_mini_samples",
    "Images of the mini world's generator with the votes of its three annotators (✓ good, ✗ bad, – skip); framed: good "
    "by the majority. Prompts at even distances in each set, of each the first images.",
    alt=_describe_samples,
    needs="labels",
)
def mini_samples(samples: pd.DataFrame) -> Figure:
    """``pick_samples``: the first four images of each prompt with their votes, framed if the label is good."""
    prompts = samples["prompt"].unique()
    width, pitch = ABREAST * (PER_PROMPT + GAP) - GAP, CAPTION + 1 + MARKS_BELOW
    figure, axes = style.new_sheet(width, pitch * -(-len(prompts) // ABREAST))
    for index, prompt in enumerate(prompts):
        left, top = index % ABREAST * (PER_PROMPT + GAP), index // ABREAST * pitch + CAPTION
        axes.text(left + 0.03, top - 0.03, prompt, size=6.5, va="bottom")
        shown = samples[samples["prompt"] == prompt].head(PER_PROMPT)
        for column, (_, one) in enumerate(shown.iterrows()):
            style.draw_image(axes, left + column, top, one["png"], framed=one["label"] == 1)
            axes.text(left + column + 0.5, top + 1.0, style.votes_as_marks(one), size=6.5, ha="center", va="top")
    return figure


def _draw_sheet(images: pd.DataFrame) -> Figure:
    """Images in rows of six with the prompt below each; ``images``: prompt, png."""
    rows = -(-len(images) // SHEET_COLUMNS)
    figure, axes = style.new_sheet(SHEET_COLUMNS, rows * SHEET_PITCH)
    for index, one in enumerate(images.itertuples()):
        left, top = index % SHEET_COLUMNS, index // SHEET_COLUMNS * SHEET_PITCH
        style.draw_image(axes, left, top, one.png)
        text = textwrap.fill(one.prompt.removeprefix(PREFIX), 20)
        axes.text(left + 0.04, top + 1.0, text, size=5.5, va="top", linespacing=0.95)
    return figure


def _describe_sheet(images: pd.DataFrame) -> str:
    return "Images in rows of six. In order: " + "; ".join(images["prompt"].str.removeprefix(PREFIX)) + "."


@figure(
    "fig28_mini_scenes",
    'Scenes of the mini world as the generator and the rewards learn from them, with their captions ("a realistic '
    'photo of" left out).',
    alt=_describe_sheet,
    needs=None,
)
def mini_scenes(scenes: pd.DataFrame) -> Figure:
    """``sample_scenes``, each with its caption."""
    return _draw_sheet(scenes)


@figure(
    "fig29_mini_failures",
    "Where the mini world's generator fails: images that the majority of its annotators calls bad for the prompt below "
    '("a realistic photo of" left out), a prompt each, the prompts at even distances.',
    alt=_describe_sheet,
    needs="labels",
)
def mini_failures(failures: pd.DataFrame) -> Figure:
    """``pick_failures``, each with its prompt."""
    return _draw_sheet(failures)


# ---- in miniature: the same numbers as of the released sets


@table(
    "tab15_mini_statistics",
    "TIA2 in miniature in numbers, as the table of the released sets: images of the mini world's generator, votes of "
    "its annotators.",
    needs="labels",
)
def mini_statistics_table(statistics: pd.DataFrame) -> pd.DataFrame:
    """A row for each built set and one for all."""
    return statistics_table(statistics)


@table(
    "tab16_mini_agreement",
    "Agreement of the mini world's three annotators, as the table of the released vote slots; 95% bootstrap interval "
    "over prompts; kappas without skips.",
    needs="labels",
)
def mini_agreement_table(agreement: pd.DataFrame) -> pd.DataFrame:
    """Krippendorff's alpha, Fleiss' and Cohen's kappas and unanimity per built set."""
    return agreement_table(agreement)


def _describe_beside(
    released: pd.DataFrame, mini: pd.DataFrame, released_agreement: pd.DataFrame, mini_agreement: pd.DataFrame
) -> str:
    shares = [frame.set_index("set")["mean"] for frame in (released, mini)]
    alphas = [frame.set_index("set")["alpha"] for frame in (released_agreement, mini_agreement)]
    good = ", ".join(
        f"{name} {shares[0][f'set: {name}']:.2f} and {shares[1][f'set: {name}']:.2f}" for name in style.SETS
    )
    alpha = ", ".join(f"{name} {alphas[0][name]:.2f} and {alphas[1][name]:.2f}" for name in style.SETS)
    return (
        f"Released and mini beside each other, with intervals. Share of good images, released and mini: {good}. "
        f"Krippendorff's alpha: {alpha}."
    )


@figure(
    "fig27_mini_beside_released",
    "TIA2 as released and in miniature: share of good images and agreement, with 95% bootstrap intervals over prompts "
    "(in brackets: prompts released, prompts built; no interval where they are too few for one).",
    alt=_describe_beside,
    needs="tia2 labels",
)
def mini_beside_released(
    released: pd.DataFrame, mini: pd.DataFrame, released_agreement: pd.DataFrame, mini_agreement: pd.DataFrame
) -> Figure:
    """The released and the built benchmark: share of good images by set, count and category; agreement by set."""
    figure = new_figure(4.4)
    panels = dict(zip(("set", "count", "category", "alpha"), figure.subplots(2, 2).flat, strict=True))
    categories = [name for name in CATEGORIES if f"category: {name}" in set(mini["set"])]  # the mini world has few
    for kind, names in (("set", style.SETS), ("count", "123456"), ("category", categories)):
        worlds = [frame.set_index("set").reindex([f"{kind}: {name}" for name in names]) for frame in (released, mini)]
        prompts = [frame["n_prompts"].fillna(0).astype(int) for frame in worlds]
        ticks = [f"{name} ({old}, {new})" for name, old, new in zip(names, *prompts, strict=True)]
        _draw_worlds(panels[kind], worlds, "mean", ticks, f"good images by {kind}")
    worlds = [frame.set_index("set").reindex(style.SETS) for frame in (released_agreement, mini_agreement)]
    _draw_worlds(panels["alpha"], worlds, "alpha", style.SETS, "Krippendorff's alpha")
    panels["alpha"].set_xlim(min(0.0, *(frame["low"].min() for frame in worlds)), 1)
    figure.legend(*panels["set"].get_legend_handles_labels(), ncols=2, **style.ABOVE)
    return figure


def _draw_worlds(axes: Axes, worlds: list[pd.DataFrame], middle: str, ticks: Sequence[str], title: str) -> None:
    """The two worlds' values with their intervals, a line of the panel for each of ``ticks``."""
    for shift, frame, (world, look) in zip((-0.14, 0.14), worlds, WORLDS.items(), strict=True):
        places = np.arange(len(frame)) + shift
        style.errorbar(
            axes, places, frame, middle, lying=True, label=world, clip_on=False, **look
        )  # a share of 0 is seen
    axes.set_yticks(range(len(ticks)), ticks)
    axes.set(title=title, xlim=(0, 1), ylim=(len(ticks) - 0.5, -0.5))
