"""What the settings of both methods of fine-tuning are checked for; without torch, for profiles are checked with it."""

import math
from typing import Any

from textnorm_lib.errors import ConfigError

DTYPES = ("float32", "bfloat16", "float16")


def require(holds: bool, name: str, settings: Any, needed: str) -> None:
    """Raise ``ConfigError`` with the setting's name, its value and what is ``needed``, unless it ``holds``."""
    if not holds:
        raise ConfigError(f"{name} is {getattr(settings, name)!r}: {needed}")


def require_counts(settings: Any, *names: str) -> None:
    """Each of these settings is 1 or more."""
    for name in names:
        require(getattr(settings, name) >= 1, name, settings, "1 or more is needed")


def require_optimisation(settings: Any) -> None:
    """Precision, AdamW's settings and the KL coefficient are in their ranges."""
    for name in ("learning_rate", "epsilon", "max_gradient_norm"):
        require(0 < getattr(settings, name) < math.inf, name, settings, "a finite number above 0 is needed")
    for name in ("weight_decay", "kl_coefficient"):
        require(0 <= getattr(settings, name) < math.inf, name, settings, "a finite number of 0 or more is needed")
    for name in ("beta_1", "beta_2"):
        require(0 <= getattr(settings, name) < 1, name, settings, "a number of 0 or more, below 1, is needed")
    require(settings.dtype in DTYPES, "dtype", settings, f"known: {', '.join(DTYPES)}")
