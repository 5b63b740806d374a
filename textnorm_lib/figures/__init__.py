"""The study's figures and tables, one or two modules per notebook; a module that is imported enters its own."""

# ruff: noqa: F401 (importing them is all that is wanted)
from textnorm_lib.figures import (
    ablations,
    benchmark,
    best_of_n,
    claims,
    finetuning,
    human_evaluation,
    mechanism,
    mini_benchmark,
    start_here,
    tia2,
    tuned_models,
)
