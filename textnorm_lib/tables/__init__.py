"""The study's tables: one registry, one module a subject."""

from textnorm_lib.items import register
from textnorm_lib.tables import ablations, benchmark, claims, mini, rewards

TABLES = register(*benchmark.ITEMS, *rewards.ITEMS, *mini.ITEMS, *ablations.ITEMS, *claims.ITEMS)
