"""What several test modules make: a small diffusion pipeline, the study of a profile, a figure as a run draws it."""

import json
import os
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from pydantic import TypeAdapter

from textnorm_lib.mini import generator
from textnorm_lib.pipeline import Pipeline
from textnorm_lib.prompts.templates import composition_prompt, counting_prompt
from textnorm_lib.study.config import Profile, as_dict, load_profile
from textnorm_lib.study.drawing import house_style, settle, stamp
from textnorm_lib.study.items import FIGURES
from textnorm_lib.study.run import Run
from textnorm_lib.study.store import Artifact, Store
from textnorm_lib.study.weights import Weights
from textnorm_lib.tia2.labels import consolidate


def toy_pipeline(prompts: Sequence[str] = ("a deer", "two frogs"), channels: tuple[int, int] = (16, 16)):
    """The mini world's architecture, smaller, with random weights."""
    torch.manual_seed(0)
    tokenizer = generator.build_tokenizer(list(prompts))
    parts = (generator.build_autoencoder((8, 8, 8)), generator.build_text_encoder(len(tokenizer)), tokenizer)
    return generator.build_pipeline(*parts, generator.build_unet(channels))


def importable(folder: Path) -> dict[str, str]:
    """The environment of a script that imports the library, this module and the test modules in ``folder``."""
    places = Path(__file__).parents[1], Path(__file__).parent, folder
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, places))}


def profile_with(name: str, changes: Mapping[str, Any]) -> Profile:
    """A profile with single values replaced, e.g. ``{"bootstrap.resamples": 200}``."""
    values = as_dict(load_profile(name))
    for key, value in changes.items():
        *sections, last = key.split(".")
        reduce(getitem, sections, values)[last] = value
    return TypeAdapter(Profile).validate_json(json.dumps(values))


def study_of(root: Path, profile: str, changes: Mapping[str, Any] | None = None) -> Pipeline:
    """The study of a profile, single values replaced, whose results lie or would lie below ``root``."""
    return Pipeline(Run("00_toy", profile_with(profile, changes or {}), Store(root)))


def bundled_reward(name: str) -> Path:
    """The folder of a reward of the mini world, as the profiles have it."""
    return Weights(getattr(load_profile("smoke").rewards, name).weights).path


def rests_on(*artifacts: Artifact) -> list[Artifact]:
    """The artifacts and all that they rest on; no key is asked for, so that weights need not be on this machine."""
    found, waiting = {}, list(artifacts)
    while waiting:
        artifact = waiting.pop()
        if id(artifact) not in found:
            found[id(artifact)] = artifact
            waiting += [one for one in artifact.inputs if isinstance(one, Artifact)]
    return list(found.values())


def draw(name: str, *frames) -> Figure:
    """The registered figure, as a run draws it; it is as wide as a page's text."""
    with house_style():
        figure = FIGURES[name].build(*frames)
        stamp(figure, "smoke")
        settle(figure)
    assert figure.get_size_inches()[0] == 5.5
    return figure


def judged_images(counting: Sequence[str], others: Sequence[str], rewards: Sequence[str], *, each: int) -> pd.DataFrame:
    """Images with votes and scores, ``each`` of a prompt: four comprehensive, ``counting``, cats beside ``others``.

    Those of two cups have one label only. A reward is the rating and noise.
    """
    rng = np.random.default_rng(0)
    prompts = {
        "comprehensive": ["a red bird", "a neon sign of a cup", "a cake in the desert", "an oil painting of a ship"],
        "counting": counting,
        "composition": [composition_prompt("cat", other) for other in others],
    }
    keys = [(name, prompt) for name, some in prompts.items() for prompt in some for _ in range(each)]
    frame = pd.DataFrame(keys, columns=["set", "prompt"])
    votes = rng.choice([0, 1], (len(frame), 3))
    votes[frame["prompt"] == counting_prompt("cup", 2)] = 0
    frame[["vote_1", "vote_2", "vote_3"]] = votes
    frame["label"], frame["rating"] = consolidate(votes)
    frame["image"] = [f"{index}.png" for index in range(len(frame))]
    return frame.assign(**{name: frame["rating"] + rng.normal(size=len(frame)) for name in rewards})
