"""The prompts that images are made of and their contrastive prompts: the mini world's, or all of the release's.

    prompts = choose_prompts(run.step, run.profile, run.profile.tia2.prompts_per_set)  # set, prompt
    sealed = choose_prompts(run.step, run.profile, run.profile.best_of_n.prompts_per_set, only=SEALED)
    contrastive = contrast_sets(run.step, run.profile, prompts)  # set, prompt, text, kind

``prompts`` in a profile says which. The mini world has prompts that its sprites can show, and contrasts by rule; the
release has the paper's 550 prompts, and for each the contrastive prompts that the paper used.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from itertools import chain, islice, zip_longest

import pandas as pd

from textnorm_lib.config import Profile, PromptsPerSet
from textnorm_lib.contrastive.rules import rule_sets
from textnorm_lib.contrastive.sets import first_contrasts, released_sets
from textnorm_lib.errors import DataError
from textnorm_lib.mini import prompts as mini
from textnorm_lib.store import Artifact, step
from textnorm_lib.tia2.official import SETS, OfficialSet, load_official
from textnorm_lib.tia2.split import DEVELOPMENT, SEALED, side_of


def choose_prompts(
    compute: Callable[..., Artifact], profile: Profile, per_set: PromptsPerSet, *, only: str | None = None
) -> Artifact:
    """So many prompts of each set, of one side only if asked for: set, prompt. Fewer are always among more.

    ``compute`` is a ``Run``'s ``step``. Raises ``DataError`` for a set that has not so many.
    """
    if profile.prompts == "released":
        return compute(released_prompts, *_release(), only=only, **asdict(per_set))
    return compute(mini_prompts, only=only, **asdict(per_set))


def contrast_sets(compute: Callable[..., Artifact], profile: Profile, prompts: Artifact) -> Artifact:
    """At most ``contrastive_prompts`` contrastive prompts of each of ``prompts``: set, prompt, text, kind."""
    if profile.prompts == "released":
        return compute(first_contrasts, compute(released_sets, prompts, *_release()), most=profile.contrastive_prompts)
    return compute(rule_sets, prompts, most=profile.contrastive_prompts)


def _release() -> list[OfficialSet]:
    return [load_official(name) for name in SETS]


@step(1)
def mini_prompts(*, only: str | None, **per_set: int) -> pd.DataFrame:
    """So many of the mini world's prompts: set, prompt."""
    chosen = {name: mini.choose_prompts(name, number, only=only) for name, number in per_set.items()}
    return _table(chosen.items())


@step(1)
def released_prompts(*sets: OfficialSet, only: str | None, **per_set: int) -> pd.DataFrame:
    """So many of the released prompts, the first of development and of sealed classes in turn: set, prompt."""
    chosen = []
    for official in sets:
        prompts, number = official.votes["prompt"].drop_duplicates(), per_set[official.name]
        sides = [list(prompts[prompts.map(side_of) == side]) for side in (DEVELOPMENT, SEALED) if only in (None, side)]
        in_turn = filter(None, chain.from_iterable(zip_longest(*sides)))
        taken = set(prompts) if only is None and number == len(prompts) else set(islice(in_turn, number))
        if len(taken) < number:
            raise DataError(f"{number} prompts of the released {official.name} set; it has {len(taken)} to choose from")
        chosen.append((official.name, [prompt for prompt in prompts if prompt in taken]))
    return _table(chosen)


def _table(chosen: Iterable[tuple[str, Iterable[str]]]) -> pd.DataFrame:
    rows = [(name, prompt) for name, prompts in chosen for prompt in prompts]
    return pd.DataFrame(rows, columns=["set", "prompt"])
