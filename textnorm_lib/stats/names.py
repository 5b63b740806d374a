"""How rewards, metrics and sets are written in print, and their order."""

import pandas as pd

PROMPT = ["set", "prompt"]  # the columns that say which prompt a row is about: two sets may share one

REWARD_NAMES = {
    "clip": "CLIP",
    "blip2": "BLIP-2",
    "imagereward": "ImageReward",
    "pickscore": "PickScore",
    "textnorm": "TextNorm",
}
METRIC_NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "ap5": "AP@5",
    "ap10": "AP@10",
    "ap25": "AP@25",
    "spearman": "Spearman",
    "kendall": "Kendall",
}
SET_ORDER = ("comprehensive", "counting", "composition", "all")
CHOOSER_NAMES = {**REWARD_NAMES, "rating": "annotators"}  # whoever may choose among images, the ceiling last
BASE = "base"  # the model that nothing was tuned on
MODEL_NAMES = {**REWARD_NAMES, BASE: "base model"}  # tuned models by the reward that they were tuned on
HINDSIGHT = {"hindsight2": "best of two in hindsight", "hindsight4": "best of four in hindsight"}

FOUR = ("clip", "blip2", "imagereward", "pickscore")
PAIR, ALL_FOUR = "imagereward+pickscore", "+".join(FOUR)  # the paper's ensemble, and the largest
ENSEMBLES = (*FOUR, PAIR, ALL_FOUR)  # those that a figure with room for a few only shows
UNDER_TEXTNORM = "textnorm:"  # before an ensemble's name where raw rewards stand beside it
FORMS = {"": "raw", "textnorm": "TextNorm", "random": "TextNorm, random prompts"}  # by such prefixes


def ensemble_name(rewards: str) -> str:
    """CLIP + BLIP-2 for "clip+blip2"; the largest is "all four"."""
    return "all four" if rewards == ALL_FOUR else " + ".join(REWARD_NAMES[name] for name in rewards.split("+"))


def judged_name(reward: str) -> tuple[str, str]:
    """CLIP and raw for "clip", CLIP and TextNorm for "textnorm:clip"."""
    prefix, _, rewards = reward.rpartition(":")
    return ensemble_name(rewards), FORMS[prefix]


def choosers_of(column: pd.Series, names: dict[str, str]) -> list[str]:
    """Those of ``names`` that occur, in print's order."""
    return [name for name in names if name in set(column)]


def pairs_in_order(comparisons: pd.DataFrame) -> list[tuple[str, str]]:
    """Model and opponent of each pair of models, the first row's model first, the others in print's order."""
    reference, order = comparisons["model"].iloc[0], list(MODEL_NAMES)
    pairs = comparisons[["model", "opponent"]].drop_duplicates().itertuples(index=False, name=None)
    return sorted(pairs, key=lambda pair: (pair[0] != reference, *map(order.index, pair)))
