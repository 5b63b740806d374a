"""Contrastive prompts for a whole benchmark, as steps: a row a text."""

import pandas as pd

from textnorm_lib.contrastive.controls import random_prompts
from textnorm_lib.contrastive.rules import rule_contrasts
from textnorm_lib.store import step
from textnorm_lib.tia2.official import OfficialSet


@step(1)
def rule_sets(prompts: pd.DataFrame, *, most: int) -> pd.DataFrame:
    """The rules' first ``most`` contrastive prompts of each of ``prompts`` (set, prompt): set, prompt, text, kind."""
    rows = [
        (name, prompt, *contrast)
        for name, prompt in prompts[["set", "prompt"]].itertuples(index=False)
        for contrast in rule_contrasts(prompt)[:most]
    ]
    return pd.DataFrame(rows, columns=["set", "prompt", "text", "kind"])


@step(1)
def random_sets(contrastive: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """The control: as many random prompts of the other prompts' sets for each prompt: set, prompt, text, kind."""
    pool = sorted(set(contrastive["text"]) | set(contrastive["prompt"]))
    rows = [
        (name, prompt, text, "random")
        for (name, prompt), own in contrastive.groupby(["set", "prompt"], sort=False)
        for text in random_prompts(prompt, pool, len(own), seed)
    ]
    return pd.DataFrame(rows, columns=["set", "prompt", "text", "kind"])


@step(1)
def released_sets(prompts: pd.DataFrame, *sets: OfficialSet) -> pd.DataFrame:
    """The paper's own contrastive prompts, of those of ``prompts`` (set, prompt) that it has: set, prompt, text, kind.

    A language model wrote them, or people and rules (the paper does not say of which prompts).
    """
    released = pd.concat([official.contrastive for official in sets]).rename(columns={"contrastive_prompt": "text"})
    return prompts[["set", "prompt"]].merge(released[["prompt", "text"]], on="prompt").assign(kind="released")


@step(1)
def first_contrasts(contrastive: pd.DataFrame, *, most: int) -> pd.DataFrame:
    """The first ``most`` contrastive prompts of each prompt."""
    return contrastive.groupby("prompt", sort=False).head(most).reset_index(drop=True)
