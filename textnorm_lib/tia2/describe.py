"""What TIA2 is: statistics, labels and agreement of the released sets.

Every function is a step. ``images`` is one row an image (set, image, prompt, vote_1, vote_2, vote_3, label, rating; see
``labels.py``); a vote is 1 good, 0 bad, -1 skip.
"""

import numpy as np
import pandas as pd

from textnorm_lib.prompts.templates import CATEGORIES, categorise, parse_counting
from textnorm_lib.stats.agreement import alpha_interval, cohen_kappas, dawid_skene, fleiss_kappa
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
    """A row a set and one for all: prompts, images, contrastive prompts, good images, skips, one-label prompts.

    Without ``contrastive`` the columns that count its prompts are left out.
    """
    rows = []
    for name in [*images["set"].unique(), "all"]:
        chosen = images if name == "all" else images[images["set"] == name]
        share = chosen.groupby(["set", "prompt"], sort=False)["label"].mean()
        votes = chosen[VOTES].to_numpy()
        rows.append(
            {
                "set": name,
                "prompts": len(share),
                "images": len(chosen),
                "votes": votes.size,
                **_contrastive_sizes(contrastive, share.index),
                "share_good": chosen["label"].mean(),
                "share_skipped": (votes == -1).mean(),
                "images_with_skip": (votes == -1).any(axis=1).mean(),
                "prompts_all_bad": (share == 0).sum(),
                "prompts_all_good": (share == 1).sum(),
            }
        )
    return pd.DataFrame(rows)


def _contrastive_sizes(contrastive: pd.DataFrame | None, prompts: pd.MultiIndex) -> dict[str, float]:
    """The least, mean and largest number of contrastive prompts of these (set, prompt); nothing without any."""
    if contrastive is None:
        return {}
    sizes = contrastive.groupby(["set", "prompt"], sort=False).size().loc[prompts]
    return {"contrastive_least": sizes.min(), "contrastive_mean": sizes.mean(), "contrastive_most": sizes.max()}


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
    share = images.groupby(["set", "prompt"], sort=False)["label"].mean()
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
    means = shares.groupby(["set", "prompt"], sort=False).mean().reset_index()
    return means.melt(["set", "prompt"], var_name="reward").dropna().assign(metric="share_good").reset_index(drop=True)


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
    """Agreement of the three slots, a row a set: Krippendorff's alpha with interval, Fleiss' and Cohen's kappas."""
    rows = []
    groups = list(images.groupby("set", sort=False))
    for name, group in progress(groups, "agreement", unit="set"):
        votes = group[VOTES].to_numpy()
        alpha, low, high = alpha_interval(
            votes, group["prompt"].to_numpy(), resamples=resamples, confidence=confidence, seed=seed
        )
        pairs = cohen_kappas(votes)
        complete = votes[(votes != -1).all(axis=1)]
        unanimous = (complete == complete[:, :1]).all(axis=1).mean()
        kappas = dict(zip(("cohen_12", "cohen_13", "cohen_23"), pairs, strict=True))
        row = {"set": name, "alpha": alpha, "low": low, "high": high, "fleiss": fleiss_kappa(votes)}
        rows.append({**row, **kappas, "unanimous": unanimous, "images": len(votes), "complete": len(complete)})
    return pd.DataFrame(rows)


@step(1)
def other_labels(images: pd.DataFrame) -> pd.DataFrame:
    """Labels by other rules against the majority's, per set: share of good, share of labels that change, and which way.

    Dawid-Skene estimates each slot's own error rates from the votes of the set and weighs its votes by them.
    """
    rows = []
    groups = list(images.groupby("set", sort=False))
    for name, group in progress(groups, "Dawid-Skene", unit="set"):
        votes = group[VOTES].to_numpy()
        majority = group["label"].to_numpy() == 1
        posterior = dawid_skene(votes)
        rules = {
            "majority": majority,
            "Dawid-Skene": posterior > 0.5,
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
    rows = share[share["value"].isin([0.0, 1.0])]
    label = rows["value"].map({0.0: "all bad", 1.0: "all good"})
    return pd.DataFrame({"set": rows["set"], "prompt": rows["prompt"], "label": label}).reset_index(drop=True)
