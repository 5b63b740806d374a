"""The study's tables: those of notebooks 03 to 06; the others stand beside their notebook's figures."""

from textnorm_lib.items import TABLES, register
from textnorm_lib.tables import ablations, best_of_n, finetuning

TABLES |= register(*ablations.ITEMS, *best_of_n.ITEMS, *finetuning.ITEMS)
