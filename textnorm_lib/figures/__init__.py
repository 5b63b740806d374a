"""The study's figures: one registry, one module a subject."""

import textnorm_lib.tables  # noqa: F401  first: it takes its tables from the modules below
from textnorm_lib.figures import (
    ablations,
    best_of_n,
    finetuning,
    gallery,
    heatmaps,
    human_evaluation,
    mechanism,
    mini,
    release,
    rewards,
    start_here,
    tuned_models,
)
from textnorm_lib.items import FIGURES, entered, register

FIGURES |= register(
    *start_here.ITEMS,
    *heatmaps.ITEMS,
    *release.ITEMS,
    *mini.ITEMS,
    *gallery.ITEMS,
    *rewards.ITEMS,
    *entered(FIGURES, ablations, mechanism),
    *entered(FIGURES, best_of_n),
    *entered(FIGURES, finetuning, tuned_models),
    *human_evaluation.ITEMS,
)
