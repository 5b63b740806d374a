"""Tables of evaluation by people: results with and without slips, and how many prompts a result needs (notebook 07)."""

import pandas as pd

from textnorm_lib.items import Item
from textnorm_lib.judging import OUTCOMES
from textnorm_lib.names import CHOOSER_NAMES
from textnorm_lib.tables.style import describe, interval, short

_NOTEBOOK = "07_human_evaluation"


def by_slip(outcomes: pd.DataFrame, agreement: pd.DataFrame) -> pd.DataFrame:
    """``outcomes_by_slip`` and ``agreement_by_slip`` as printed: a row an opponent, question and slip."""
    told = outcomes.assign(cell=outcomes.apply(interval, axis=1, middle="share", digits=2))
    keys = ["opponent", "question", "slip"]
    cells, tests = told.pivot(index=keys, columns="outcome", values="cell"), told.drop_duplicates(keys).set_index(keys)
    alike = agreement.set_index(["slip", "question"])
    rows = []
    for opponent, question, slip in sorted(cells.index, key=lambda key: ([*CHOOSER_NAMES].index(key[0]), *key[1:])):
        test, about = tests.loc[(opponent, question, slip)], alike.loc[(slip, question)]
        decided = f"{test['prompts_won']} / {test['prompts_tied']} / {test['prompts_lost']}"
        shares = [cells.loc[(opponent, question, slip), outcome] for outcome in OUTCOMES]
        coefficients = [short(about[name], 2) for name in ("alpha", "kappa_of_majorities")]
        about = (CHOOSER_NAMES[opponent], question, f"{slip:.0%}")
        rows.append((*about, *shares, decided, short(test["p_sign"]), *coefficients))
    columns = ["TextNorm against", "question", "slips", *OUTCOMES, "prompts won / tied / lost", "p (sign test)"]
    return pd.DataFrame(rows, columns=[*columns, "alpha", "kappa with the judges"])


def needed(prompts: pd.DataFrame) -> pd.DataFrame:
    """``prompts_needed`` as printed: a row a ratio, a column a share of ties."""
    wide = prompts.pivot(index="ratio", columns="ties", values="prompts")
    wide.columns = [f"{tied:.0%} tied" for tied in wide]
    ratios = pd.Series([f"{ratio:g}" for ratio in wide.index], name="wins for each loss")
    return pd.concat([ratios, wide.reset_index(drop=True)], axis=1)


ITEMS = (
    Item(
        name="tab41_human_evaluation",
        notebook=_NOTEBOOK,
        caption="Simulated people who slip in a share of their answers: TextNorm's wins, ties and losses by the "
        "majority of three, with 95% intervals; prompts won, tied and lost with the two-sided sign test; "
        "Krippendorff's alpha among the three over both opponents' comparisons, and Cohen's kappa of their majorities "
        "with the judges'.",
        build=by_slip,
        describe=describe("A row for each opponent, question and share of slips."),
        needs="annotators",
        paper_item="Figure 6",
    ),
    Item(
        name="tab42_prompts_needed",
        notebook=_NOTEBOOK,
        caption="Prompts that the two-sided sign test at .05 needs for a power of .8, by the ratio of prompts won to "
        "prompts lost and the share of ties.",
        build=needed,
        describe=describe("A row for each ratio of wins to losses, a column for each share of ties."),
    ),
)
