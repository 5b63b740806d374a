"""The study's figures and tables: a module that is imported enters its own; one module per notebook."""

from textnorm_lib.figures import (
    ablations,
    benchmark,  # noqa: F401
    best_images,
    best_of_n,
    claims,  # noqa: F401
    finetuned_images,
    finetuned_judged,
    finetuning,
    finetuning_kl,
    gains,
    human_evaluation,  # noqa: F401
    mechanism,
    mini_benchmark,  # noqa: F401
    mini_heatmaps,
    settings,
    start_here,  # noqa: F401
    tia2,  # noqa: F401
)
from textnorm_lib.items import FIGURES, register

FIGURES |= register(
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
)
