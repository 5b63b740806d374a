"""How rewards, metrics and sets are written in print, and their order."""

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
