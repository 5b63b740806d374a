"""The study's figures: one registry, one module a subject."""

from textnorm_lib.figures import (
    ablations,
    benchmark,
    best_images,
    best_of_n,
    finetuned_images,
    finetuned_judged,
    finetuning,
    finetuning_kl,
    gains,
    gallery,
    heatmaps,
    human_evaluation,
    mechanism,
    mini_benchmark,
    mini_heatmaps,
    settings,
    start_here,
    tia2,
)
from textnorm_lib.items import FIGURES, register

FIGURES |= register(
    *start_here.ITEMS,
    *heatmaps.ITEMS,
    *benchmark.ITEMS,
    *tia2.ITEMS,
    *gallery.ITEMS,
    *mini_benchmark.ITEMS,
    *settings.ITEMS,
    *ablations.ITEMS,
    *mechanism.ITEMS,
    *gains.ITEMS,
    *mini_heatmaps.ITEMS,
    *best_of_n.ITEMS,
    *best_images.ITEMS,
    *finetuning.ITEMS,
    *finetuning_kl.ITEMS,
    *finetuned_images.ITEMS,
    *finetuned_judged.ITEMS,
    *human_evaluation.ITEMS,
)
