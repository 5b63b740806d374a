"""What TIA2 is: statistics, labels and agreement of the released sets.

Every function is a step; ``images`` has one row per image, as ``labels.image_table`` makes them, and set.
"""

import numpy as np
import pandas as pd

from textnorm_lib.prompts.templates import CATEGORIES, categorise, parse_counting
from textnorm_lib.stats.agreement import alpha_interval, cohen_kappas, dawid_skene, fleiss_kappa
from textnorm_lib.stats.metrics import each_set_and_all
from textnorm_lib.stats.names import PROMPT
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import step
from textnorm_lib.tia2.labels import VOTES, image_table
from textnorm_lib.tia2.official import OfficialSet

SLOTS = ["slot 1", "slot 2", "slot 3"]


@step(1)
def collect_images(*sets: OfficialSet) -> pd.DataFrame:
    """Every image of the given sets with its votes, label and rating."""
    return pd.concat([image_table(official.votes).assign(set=official.name) for official in sets], ignore_index=True)


@step(1)
def collect_contrastive(*sets: OfficialSet) -> pd.DataFrame:
    """Every contrastive prompt: set, prompt, position, contrastive_prompt."""
    return pd.concat([official.contrastive.assign(set=official.name) for official in sets], ignore_index=True)


@step(1)
def set_statistics(images: pd.DataFrame, contrastive: pd.DataFrame | None = None) -> pd.DataFrame:
    """A row for each set and one for all: prompts, images, contrastive prompts, good images, skips, one-label prompts.

    Without ``contrastive`` the columns that count its prompts are left out.
    """
    rows = []
    for name, chosen in each_set_and_all(images):
        share = chosen.groupby(PROMPT, sort=False)["label"].mean()
        votes = chosen[VOTES].to_numpy()
        row = {"set": name, "prompts": len(share), "images": len(chosen), "votes": votes.size}
        if contrastive is not None:
            sizes = contrastive.groupby(PROMPT, sort=False).size().loc[share.index]
            row |= {"contrastive_least": sizes.min(), "contrastive_mean": sizes.mean(), "contrastive_most": sizes.max()}
        row |= {
            "share_good": chosen["label"].mean(),
            "share_skipped": (votes == -1).mean(),
            "images_with_skip": (votes == -1).any(axis=1).mean(),
            "prompts_all_bad": (share == 0).sum(),
            "prompts_all_good": (share == 1).sum(),
        }
        rows.append(row)
    return pd.DataFrame(rows)


@step(2)
def categories(images: pd.DataFrame) -> pd.DataFrame:
    """The comprehensive prompts by category: category, prompts (first category), mentions (any), share_good (first).

    A category that is no prompt's first has no row.
    """
    share = images.query("set == 'comprehensive'").groupby("prompt", sort=False)["label"].mean()
    assigned = [categorise(prompt) for prompt in share.index]
    rows = []
    for name in CATEGORIES:
        first = np.array([names[0] == name for names in assigned])
        if not first.any():
            continue
        mentions = sum(name in names for names in assigned)
        example = min(share.index[first], key=len)
        rows.append((name, int(first.sum()), mentions, share[first].mean(), example))
    return pd.DataFrame(rows, columns=["category", "prompts", "mentions", "share_good", "example"])


@step(1)
def share_good(images: pd.DataFrame) -> pd.DataFrame:
    """Share of good images per prompt, as per-prompt values: set, prompt, reward ("people"), metric, value."""
    share = images.groupby(PROMPT, sort=False)["label"].mean()
    return share.rename("value").reset_index().assign(reward="people", metric="share_good")


@step(1)
def share_good_by_count(share: pd.DataFrame) -> pd.DataFrame:
    """The counting set's rows of ``share_good`` with the count asked for, "1" to "6", as the set."""
    rows = share.query("set == 'counting'")
    return rows.assign(set=[str(parse_counting(prompt)[1]) for prompt in rows["prompt"]]).reset_index(drop=True)


@step(1)
def share_good_by_group(share: pd.DataFrame) -> pd.DataFrame:
    """``share_good`` by what is asked for: "set: counting", "count: 3" and "category: style" as the set.

    Counts are those of the counting set, categories those of the comprehensive set.
    """
    by_count = share_good_by_count(share)
    comprehensive = share.query("set == 'comprehensive'")
    names = ["category: " + categorise(prompt)[0] for prompt in comprehensive["prompt"]]
    groups = [share.assign(set="set: " + share["set"]), by_count.assign(set="count: " + by_count["set"])]
    return pd.concat([*groups, comprehensive.assign(set=names)], ignore_index=True)


@step(2)
def slots_by_prompt(images: pd.DataFrame) -> pd.DataFrame:
    """Per prompt, each vote slot's and the majority's share of good among those who answered."""
    votes = images[VOTES].where(images[VOTES] != -1)
    shares = votes.set_axis(SLOTS, axis=1).assign(majority=images["label"], set=images["set"], prompt=images["prompt"])
    means = shares.groupby(PROMPT, sort=False).mean().reset_index()
    return means.melt(PROMPT, var_name="reward").dropna().assign(metric="share_good").reset_index(drop=True)


@step(2)
def slot_influence(images: pd.DataFrame) -> pd.DataFrame:
    """What each vote slot does to the label, per set.

    ``decides``: share of images whose label would change with this slot's vote (the two others disagree, a skip
    counting as not good). ``with_label``: share of its answers that equal the label. ``share_good_without``: share of
    good images by the other two slots, an image on which they disagree counting half.
    """
    rows = []
    for name, group in images.groupby("set", sort=False):
        good = group[VOTES].to_numpy() == 1
        answered = group[VOTES].to_numpy() != -1
        label = group["label"].to_numpy() == 1
        for slot, slot_name in enumerate(SLOTS):
            others = np.delete(good, slot, axis=1)
            rows.append(
                {
                    "set": name,
                    "slot": slot_name,
                    "share_good": good[answered[:, slot], slot].mean(),
                    "share_skipped": 1 - answered[:, slot].mean(),
                    "with_label": (good[:, slot] == label)[answered[:, slot]].mean(),
                    "decides": (others.sum(axis=1) == 1).mean(),
                    "share_good_label": label.mean(),
                    "share_good_without": others.mean(),
                }
            )
    return pd.DataFrame(rows)


@step(1)
def agreement(images: pd.DataFrame, *, resamples: int, confidence: float, seed: int) -> pd.DataFrame:
    """Agreement of the three slots in each set: Krippendorff's alpha with interval, Fleiss' and Cohen's kappas."""
    rows = []
    options = {"resamples": resamples, "confidence": confidence, "seed": seed}
    for name, group in progress(list(images.groupby("set", sort=False)), "agreement", unit="set"):
        votes = group[VOTES].to_numpy()
        coefficients = (*alpha_interval(votes, group["prompt"].to_numpy(), **options), fleiss_kappa(votes))
        complete = votes[(votes != -1).all(axis=1)]
        unanimous = (complete == complete[:, :1]).all(axis=1).mean()
        rows.append((name, *coefficients, *cohen_kappas(votes), unanimous, len(votes), len(complete)))
    kappas = ["fleiss", "cohen_12", "cohen_13", "cohen_23"]
    return pd.DataFrame(rows, columns=["set", "alpha", "low", "high", *kappas, "unanimous", "images", "complete"])


@step(1)
def other_labels(images: pd.DataFrame) -> pd.DataFrame:
    """Labels by other rules against the majority's, per set: share of good, share of labels that change, and which way.

    Dawid-Skene estimates each slot's own error rates from the votes of the set and weighs its votes by them.
    """
    rows = []
    for name, group in progress(list(images.groupby("set", sort=False)), "Dawid-Skene", unit="set"):
        votes, majority = group[VOTES].to_numpy(), group["label"].to_numpy() == 1
        rules = {
            "majority": majority,
            "Dawid-Skene": dawid_skene(votes) > 0.5,
            "unanimous": (votes == 1).all(axis=1),
            "any good": (votes == 1).any(axis=1),
        }
        for rule, label in rules.items():
            more, fewer = (label & ~majority).mean(), (~label & majority).mean()
            rows.append((name, rule, label.mean(), more + fewer, more, fewer))
    return pd.DataFrame(rows, columns=["set", "rule", "share_good", "changed", "to_good", "to_bad"])


@step(1)
def one_label_prompts(share: pd.DataFrame) -> pd.DataFrame:
    """The prompts whose 50 images all have one label, so that no metric is defined: set, prompt, label."""
    labels = share["value"].map({0.0: "all bad", 1.0: "all good"})
    return share[PROMPT].assign(label=labels).dropna(ignore_index=True)
