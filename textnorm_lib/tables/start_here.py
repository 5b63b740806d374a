"""The table of notebook 00: how often a favourite is good."""

import pandas as pd

from textnorm_lib.items import Item
from textnorm_lib.names import REWARD_NAMES
from textnorm_lib.tables.style import describe, interval

_NAMES = {"random": "chance", **REWARD_NAMES}


def by_chooser(shares: pd.DataFrame) -> pd.DataFrame:
    """``start_here.share_of_favourites`` as printed: a row a chooser."""
    cells = shares.apply(interval, axis=1, middle="share", digits=2)
    return pd.DataFrame({"chosen by": shares["chooser"].map(_NAMES), "good": cells, "prompts": shares["n_prompts"]})


ITEMS = (
    Item(
        name="tab39_start_here",
        notebook="00_start_here",
        caption="How often one image of sixteen is good, chosen by chance, by CLIP, and by the same CLIP under "
        "TextNorm, with 95% intervals: exact for the two rewards, by drawing prompts again for chance.",
        build=by_chooser,
        describe=describe("A row for each way to choose: chance, CLIP, TextNorm."),
        needs="annotators",
    ),
)
