"""The study's tables: one registry, one module a subject."""

from textnorm_lib.figures import ablations, best_of_n, mechanism, tuned_models
from textnorm_lib.items import TABLES, entered, register
from textnorm_lib.tables import (
    benchmark,
    claims,
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
    *entered(TABLES, ablations, mechanism),
    *entered(TABLES, best_of_n),
    *entered(TABLES, tuned_models),
    *human_evaluation.ITEMS,
    *claims.ITEMS,
    *paper_items.ITEMS,
)
