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
HINDSIGHT = {"hindsight2": "best of two in hindsight", "hindsight4": "best of four in hindsight"}
