"""The study's figures: one registry, one module a subject."""

from textnorm_lib.figures import gallery, heatmaps, mini, release, rewards
from textnorm_lib.items import register

FIGURES = register(*heatmaps.ITEMS, *release.ITEMS, *mini.ITEMS, *gallery.ITEMS, *rewards.ITEMS)
