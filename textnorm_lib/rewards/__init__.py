"""Reward models: images and prompts in, scores out.

    reward = load_reward("pickscore", folder=folder)
    reward.score_matrix(images, prompts)    # (n images, n prompts) float32
    reward.scores(images, prompts)          # (n,): image i with prompt i

The same classes score with the miniature and with the published weights; the folder decides.
"""

import inspect
from pathlib import Path

import torch

from textnorm_lib.rewards import blip2, clip, imagereward, pretrained
from textnorm_lib.rewards.base import Reward
from textnorm_lib.study.errors import ConfigError, DataError, StudyError

__all__ = ["Reward", "load_reward"]

# What makes the reward of a folder, and the files that the folder has to hold.
_REWARDS = {
    "clip": (clip.ClipReward, clip.FILES),
    "blip2": (blip2.load_blip2, pretrained.FILES),
    "imagereward": (imagereward.ImageRewardReward, pretrained.FILES),
    "pickscore": (clip.PickScoreReward, pretrained.FILES),
}


def load_reward(
    name: str,
    *,
    folder: Path | str,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int | None = None,
    **options,
) -> Reward:
    """The reward ``name`` with the weights in ``folder``; arithmetic on ``device`` in ``dtype``, scores in float32.

    ``batch_size`` bounds memory: so many images, or pairs of an image and a prompt, are computed at once; None: as many
    as a quarter of the free memory holds, 128 at most. A batch that does not fit after all is halved. ``options`` are
    the class's own: ``head="itm" | "itc"`` for "blip2". Raises ``ConfigError`` for an unknown name or option value,
    ``DataError`` where a file is missing or cannot be read.
    """
    if name not in _REWARDS:
        raise ConfigError(f"load_reward: {name!r} is no reward; known: {', '.join(_REWARDS)}")
    load, files = _REWARDS[name]
    folder, remedy = Path(folder), "restore that folder, or write it again with save_reward"
    for file in files:
        if not (folder / file).is_file():
            raise DataError(f"{name}: {folder / file} is missing; {remedy}")
    if unknown := [option for option in options if option not in inspect.signature(load).parameters]:
        raise ConfigError(f"load_reward: {name} has no option {unknown[0]!r}; leave it out")
    try:
        reward = load(folder, batch_size=batch_size, **options)
    except (StudyError, ImportError, MemoryError):
        raise
    except Exception as error:  # of a dozen kinds, by what is missing or damaged
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{name}: {folder} cannot be read ({reason}); {remedy}") from error
    return reward.to(device, dtype)
