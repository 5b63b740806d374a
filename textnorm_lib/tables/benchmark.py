"""Tables of notebook 01: what a benchmark is made of, how its annotators agree."""

import pandas as pd

from textnorm_lib.items import Item
from textnorm_lib.tables.style import describe, interval, percent, short


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


ITEMS = (
    Item(
        name="tab05_tia2_statistics",
        notebook="01_build_tia2",
        caption="TIA2 in numbers. Good: at least two of three votes are good. Contrastive prompts: mean (least–most).",
        build=statistics,
        describe=describe("A row for each set and one for all."),
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
        describe=describe("Eight categories: number of prompts, share of good images, examples."),
        needs="tia2",
        paper_item="Appendix 8.1, statistics of each subcategory",
    ),
    Item(
        name="tab07_vote_slots",
        notebook="01_build_tia2",
        caption="What each vote slot does to the label. Decides: the other two disagree. Without: by the other two, an "
        "image on which they disagree counting half.",
        build=slots,
        describe=describe("A row for each set and vote slot."),
        needs="tia2",
    ),
    Item(
        name="tab08_agreement",
        notebook="01_build_tia2",
        caption="Agreement of the three vote slots; 95% bootstrap interval over prompts; kappas without skips.",
        build=agreement_table,
        describe=describe("Krippendorff's alpha, Fleiss' and Cohen's kappas and unanimity per set."),
        needs="tia2",
    ),
    Item(
        name="tab09_other_labels",
        notebook="01_build_tia2",
        caption="Labels by other rules than the majority: share of good images and of labels that change.",
        build=labels_table,
        describe=describe("Majority, Dawid-Skene, unanimous and any-good labels per set."),
        needs="tia2",
    ),
    Item(
        name="tab10_one_label_prompts",
        notebook="01_build_tia2",
        caption="The prompts whose 50 images all have one label: no metric is defined, they leave the averages.",
        build=one_label,
        describe=describe("Set, prompt and label of each such prompt."),
        needs="tia2",
    ),
    Item(
        name="tab15_mini_statistics",
        notebook="01_build_tia2",
        caption="TIA2 in miniature in numbers, as the table of the released sets: images of the mini world's "
        "generator, votes of its annotators.",
        build=statistics,
        describe=describe("A row for each built set and one for all."),
        needs="labels",
    ),
    Item(
        name="tab16_mini_agreement",
        notebook="01_build_tia2",
        caption="Agreement of the mini world's three annotators, as the table of the released vote slots; 95% "
        "bootstrap interval over prompts; kappas without skips.",
        build=agreement_table,
        describe=describe("Krippendorff's alpha, Fleiss' and Cohen's kappas and unanimity per built set."),
        needs="labels",
    ),
)
