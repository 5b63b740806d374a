"""Contrastive prompts, the set X of TextNorm (the paper's section 4.1).

    rule_based("a realistic photo of three deer")   # "... two deer", "... three dogs", "... three deer and a dog", ...
    random_prompts(prompt, pool, m, seed)           # the control: as many that have nothing to do with it
    lint(contrastive)                               # duplicates, the prompt itself, paraphrases, nothing in common

``rules.rule_contrasts`` names the kind of each contrast; ``llm`` has a language model write them for any prompt.
"""

from textnorm_lib.contrastive.controls import random_prompts
from textnorm_lib.contrastive.linter import lint
from textnorm_lib.contrastive.rules import rule_based

__all__ = ["lint", "random_prompts", "rule_based"]
