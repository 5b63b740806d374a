"""TIA2, the benchmark of the paper's section 3: prompts, images, three votes an image, released scores."""

from textnorm_lib.tia2.labels import consolidate
from textnorm_lib.tia2.official import OfficialSet, load_official

__all__ = ["OfficialSet", "consolidate", "load_official"]
