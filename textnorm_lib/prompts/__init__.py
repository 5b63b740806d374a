"""Contrastive prompts, the set X of TextNorm (the paper's section 4.1).

rule_based("a realistic photo of three deer")   # "... two deer", "... three dogs", "... three deer and a dog", ...
random_prompts(prompt, pool, m, seed)           # the control: as many that have nothing to do with it
LLMWriter(cache=folder)(prompt, categories)     # by a language model, for any prompt
lint(contrastive)                               # duplicates, the prompt itself, paraphrases, nothing in common
"""

from textnorm_lib.prompts.linter import lint
from textnorm_lib.prompts.llm import LLMWriter
from textnorm_lib.prompts.random import random_prompts
from textnorm_lib.prompts.rules import rule_based

__all__ = ["LLMWriter", "lint", "random_prompts", "rule_based"]
