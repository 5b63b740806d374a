"""TextNorm: confidence-aware rewards for text-to-image models, and the study of them.

    import numpy as np
    from textnorm_lib import mean_ensemble, rule_based, textnorm

    prompt = "a realistic photo of three deer"
    texts = [prompt, *rule_based(prompt)[:8]]               # the prompt, then its contrastive prompts
    rewards = np.random.default_rng(0).normal(size=(4, 9))  # your reward of four images with the nine texts
    confident = textnorm(rewards, temperature=1.0)          # (4,): equation 1, a softmax over the texts
    both = mean_ensemble(np.stack([confident, textnorm(rewards, temperature=0.2)]))     # equation 2
    assert ((0 <= both) & (both <= 1)).all()

The names below are the public face; each is imported when it is first used. The rooms of the house, from left to right,
each of which imports from those before it only: ``study``, ``stats``, ``prompts``, ``images``, ``tia2``, ``rewards``,
``confidence``, ``optimise``, ``judging``, ``figures``, ``pipeline``; beside them ``mini``, the toy world.

    rewards            load_reward, textnorm, mean_ensemble, uncertainty_ensemble, TextNormReward
    prompts            rule_based, random_prompts, LLMWriter
    the benchmark      load_official, consolidate, alignment_metrics, METRICS
    optimisation       expected_gold, kl_best_of_n, train_rwr, train_ddpo, train_direct
    people             Session, win_tie_loss
    the study          load_profile
"""

# ruff: noqa: F401 (of the names below, type checkers and editors know where they are defined)
from importlib import import_module
from typing import TYPE_CHECKING, Any

from textnorm_lib.study.compat import watch_imports

if TYPE_CHECKING:
    from textnorm_lib.confidence.textnorm import TextNormReward, mean_ensemble, textnorm, uncertainty_ensemble
    from textnorm_lib.judging.labelling import Session
    from textnorm_lib.judging.verdicts import win_tie_loss
    from textnorm_lib.optimise.best_of_n import expected_gold, kl_best_of_n
    from textnorm_lib.optimise.ddpo import train_ddpo
    from textnorm_lib.optimise.direct import train_direct
    from textnorm_lib.optimise.rwr import train_rwr
    from textnorm_lib.prompts.llm import LLMWriter
    from textnorm_lib.prompts.random import random_prompts
    from textnorm_lib.prompts.rules import rule_based
    from textnorm_lib.rewards import load_reward
    from textnorm_lib.stats.metrics import METRICS, alignment_metrics
    from textnorm_lib.study.config import load_profile
    from textnorm_lib.tia2.labels import consolidate
    from textnorm_lib.tia2.official import load_official

__version__ = "0.2.0"

_HOME = {
    "textnorm": "confidence.textnorm",
    "mean_ensemble": "confidence.textnorm",
    "uncertainty_ensemble": "confidence.textnorm",
    "TextNormReward": "confidence.textnorm",
    "load_reward": "rewards",
    "rule_based": "prompts.rules",
    "random_prompts": "prompts.random",
    "LLMWriter": "prompts.llm",
    "load_official": "tia2.official",
    "consolidate": "tia2.labels",
    "alignment_metrics": "stats.metrics",
    "METRICS": "stats.metrics",
    "expected_gold": "optimise.best_of_n",
    "kl_best_of_n": "optimise.best_of_n",
    "train_rwr": "optimise.rwr",
    "train_ddpo": "optimise.ddpo",
    "train_direct": "optimise.direct",
    "win_tie_loss": "judging.verdicts",
    "load_profile": "study.config",
    "Session": "judging.labelling",
}
__all__ = list(_HOME)

watch_imports()


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
