"""The study's tables: one registry, one module a subject."""

from textnorm_lib.figures import claims
from textnorm_lib.items import TABLES, register
from textnorm_lib.tables import (
    ablations,
    benchmark,
    best_of_n,
    finetuning,
    human_evaluation,
    mini,
    paper_items,
    rewards,
    start_here,
)

TABLES |= register(
    *start_here.ITEMS,
    *benchmark.ITEMS,
    *rewards.ITEMS,
    *mini.ITEMS,
    *ablations.ITEMS,
    *best_of_n.ITEMS,
    *finetuning.ITEMS,
    *human_evaluation.ITEMS,
    *claims.ITEMS,
    *paper_items.ITEMS,
)
