"""Tables of fine-tuning (notebooks 05 and 06): verdicts, checkpoints chosen, models side by side."""

from collections.abc import Callable

import pandas as pd

from textnorm_lib.figures.style import STAR, describe, interval, short
from textnorm_lib.items import Item
from textnorm_lib.judging import OUTCOMES
from textnorm_lib.metrics import ALL_SETS
from textnorm_lib.names import MODEL_NAMES, REWARD_NAMES, pairs_in_order

QUESTIONS = ("alignment", "quality")
GAINS = {"proxy": 2, "gold": 3, "quality": 2, "late": 3}  # digits


def verdicts(found: pd.DataFrame) -> pd.DataFrame:
    """``verdicts``, all sets together: a row a model."""
    found = found[found["set"] == ALL_SETS]
    rows = []
    for reward in REWARD_NAMES:
        for _, one in found[found["tuned_on"] == reward].sort_values("beta").iterrows():
            told = {what: _gain(one, what, digits) for what, digits in GAINS.items()}
            for what in ("proxy", "gold"):
                told[what] += f" ± {short(one[f'{what}_image_error'], GAINS[what])}"
            about = (
                REWARD_NAMES[reward],
                f"{one['beta']:g}",
                f"{one['n_prompts']} / {one['n_runs']} / {one['n_images']}",
            )
            rows.append((*about, f"{one['kl']:.3g}", *told.values(), one["verdict"]))
    columns = ["tuned on", "beta", "prompts / runs / images", "KL"]
    columns += ["proxy", "gold", "quality", "gold since its best"]
    return pd.DataFrame(rows, columns=[*columns, "verdict"])


def _gain(one: pd.Series, what: str, digits: int) -> str:
    row = one[[what, f"{what}_low", f"{what}_high"]].set_axis(["mean", "low", "high"])
    return interval(row, digits=digits)


def selection(choices: pd.DataFrame) -> pd.DataFrame:
    """``choose_checkpoints``: a row a run."""
    rows = []
    for reward in REWARD_NAMES:
        for _, one in choices[choices["tuned_on"] == reward].sort_values(["beta", "run"]).iterrows():
            checkpoints = [str(one[key]) for key in ("chosen", "oracle", "last")]
            gold = [short(one[f"gold_{key}"]) for key in ("base", "chosen", "oracle", "last")]
            about = (REWARD_NAMES[reward], f"{one['beta']:g}", one["run"], f"{one['n_prompts']} / {one['n_images']}")
            rows.append((*about, *checkpoints, *gold, interval(one, middle="cost")))
    about, rated = ["tuned on", "beta", "run", "prompts / images"], ["base", "chosen", "oracle's", "last"]
    columns = [*about, "chosen", "oracle's", "last", *(f"rating, {name}" for name in rated), "cost of the choice"]
    return pd.DataFrame(rows, columns=columns)


def judged(outcomes: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """``outcomes_by_size`` and ``sign_tests_by_size``, all sets together: a row a pair of models and question."""
    keys = ["model", "opponent", "question"]
    shares = outcomes[outcomes["set"] == ALL_SETS].copy()
    shares["cell"] = shares.apply(interval, axis=1, middle="share", digits=2)
    cells = shares.pivot(index=keys, columns="outcome", values="cell")
    tested = tests[tests["set"] == ALL_SETS].set_index(keys)
    rows = []
    for model, opponent in pairs_in_order(shares):
        for question in QUESTIONS:
            key = (model, opponent, question)
            test = tested.loc[key]
            won = f"{test['prompts_won']} / {test['prompts_tied']} / {test['prompts_lost']}"
            p_value = f"{short(test['p_sign'])} / {short(test['p_holm'])}{STAR if test['p_holm'] < 0.05 else ''}"
            told = [cells.loc[key, outcome] for outcome in OUTCOMES]
            about = (MODEL_NAMES[model], MODEL_NAMES[opponent], question)
            rows.append((*about, *told, won, p_value, short(test["power"], 2)))
    columns = ["model", "against", "question", *OUTCOMES, "prompts won / tied / lost", "p / Holm", "power"]
    return pd.DataFrame(rows, columns=columns)


def _item(method: str, slug: str, caption: str, build: Callable, alt: str, **paper: str) -> Item:
    return Item(
        name=slug,
        notebook="05_rwr_finetuning" if method == "RWR" else "06_ddpo_finetuning",
        caption=f"{method}. {caption}",
        build=build,
        describe=describe(alt),
        needs="annotators",
        **paper,
    )


def _items(method: str, first: int, papers_finding: str) -> list[Item]:
    """The three tables of a method, numbered from ``first``."""
    slug = method.lower()
    return [
        _item(
            method,
            f"tab{first}_{slug}_verdicts",
            "Gains of the last checkpoint over the base: proxy (the own reward) and quality in standard deviations of "
            "the base's images of a prompt, gold (the rating), with 95% intervals in which prompts and runs are drawn "
            "from many (none with one run), and ± the standard error over images alone, for these prompts and runs; KL "
            "in nats an image; gold minus that of the run's best earlier checkpoint, which is looked up in the other "
            "runs. Overoptimised: the proxy rises by two errors over images or more, and gold falls below the base's, "
            "or since its best, by an interval below 0.",
            verdicts,
            "A row for each model: its last checkpoint's gains in proxy, gold and quality, and the verdict.",
        ),
        _item(
            method,
            f"tab{first + 1}_{slug}_selection",
            "The checkpoint of each run by the paper's rule with its own reward (the earliest with the most images "
            "above the base's; 0 is the base) and by an oracle that knows the ratings; mean ratings of the base, there "
            "and at the end; what the choice by the reward costs, with its 95% bootstrap interval over prompts (both "
            "choices as they are).",
            selection,
            "A row for each run: checkpoints chosen by the reward and by the oracle, ratings, the cost of the choice.",
        ),
        _item(
            method,
            f"tab{first + 2}_{slug}_judged",
            "Models at their chosen checkpoints, sets of four images against sets of four: shares of comparisons by "
            "the majority of three blind judges, with 95% intervals; prompts won, tied and lost; the sign test over "
            "prompts (two-sided; with Holm's adjustment for all rows, a star: below .05); its power if the model won "
            "twice as many prompts as it lost.",
            judged,
            "A row for each pair of models and question: wins, ties, losses, prompts, p-value, power.",
            paper_item="Figure 6",
            paper_value=papers_finding,
        ),
    ]


ITEMS = (
    *_items("RWR", 33, "TextNorm's alignment wins about twice as often as it loses, its quality is as good or better"),
    *_items("DDPO", 36, "TextNorm's alignment wins more clearly still, and its quality is somewhat worse"),
)
