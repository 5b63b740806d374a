"""Figures and tables of tuned models: over training in images, at their chosen checkpoints judged, in numbers.

The same functions make those of reward-weighted regression (notebook 05) and of DDPO (06).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from textnorm_lib.figures import style
from textnorm_lib.figures.best_of_n import one_prompt_per_set, with_files
from textnorm_lib.figures.finetuning import DDPO, RWR
from textnorm_lib.judging.verdicts import OUTCOMES
from textnorm_lib.stats.metrics import ALL_SETS
from textnorm_lib.stats.names import BASE, MODEL_NAMES, REWARD_NAMES, pairs_in_order
from textnorm_lib.stats.names import PROMPT as _PROMPT
from textnorm_lib.study.drawing import new_panels
from textnorm_lib.study.printed import interval, short
from textnorm_lib.study.store import step
from textnorm_lib.tia2.labels import or_unlabelled

MODEL_COLOURS = {**style.COLOURS, BASE: (0.25, 0.25, 0.25)}

# ---- the same prompt and seed over training

_BESIDE, _BETWEEN, _ABOVE = 1.7, 0.3, 0.95  # room left of the rows, between two seeds, above a prompt; images' sides
_NARROWEST = 13.5  # so many images' sides is the sheet wide at least: larger images would make it too high


@step(1)
def pick_tuned_images(made: Path, judged: pd.DataFrame, *, checkpoints: int, seeds: int) -> pd.DataFrame:
    """Images over training for one prompt of each set (figures 1 and 5), of the first run of each model.

    ``made`` is the folder of the images. By rule: the prompt of ``one_prompt_per_set`` by the base's images, its
    ``seeds`` lowest seeds, and ``checkpoints`` of the run's, evenly spread up to the last; where nobody has voted label
    is nan. Returns tuned_on ("base", too), checkpoint, set, prompt, seed, label, image, png.
    """
    judged = or_unlabelled(judged)
    base, tuned = judged[judged["tuned_on"] == BASE], judged[judged["tuned_on"] != BASE]
    shown = [base]
    for _, rows in tuned[tuned["run"] == tuned.groupby("tuned_on")["run"].transform("min")].groupby("tuned_on"):
        known = np.sort(rows["checkpoint"].unique())
        places = np.linspace(-1, len(known) - 1, min(checkpoints, len(known)) + 1)[1:].round().astype(int)
        shown.append(rows[rows["checkpoint"].isin(known[places])])
    shown = pd.concat(shown)
    shown = shown[pd.MultiIndex.from_frame(shown[_PROMPT]).isin(one_prompt_per_set(base))]
    shown = shown[shown.groupby("prompt")["seed"].rank(method="dense") <= seeds]
    columns = ["tuned_on", "checkpoint", *_PROMPT, "seed", "label", "image"]
    return with_files(shown[columns], made).reset_index(drop=True)


def _describe_samples(samples: pd.DataFrame) -> str:
    if samples["label"].isna().all():
        return f"The same prompts and seeds over training: {', '.join(samples['prompt'].unique())}."
    words = []
    for prompt, rows in samples.groupby("prompt", sort=False):
        labels = rows[rows["checkpoint"].isin([0, rows["checkpoint"].max()])].groupby("tuned_on")["label"]
        good = labels.sum().astype(str) + " of " + labels.size().astype(str)
        told = [f"{REWARD_NAMES[name]} {good[name]}" for name in style.rewards_of(rows, "tuned_on")]
        words.append(f"{prompt}: base {good[BASE]}, {', '.join(told)}")
    return f"The same prompts and seeds over training. Good at first and at last: {'; '.join(words)}."


def _draw_samples(samples: pd.DataFrame, *, unit: str) -> Figure:
    """``pick_tuned_images``: a block for each prompt, a row for each reward; by seed the base and the checkpoints."""
    rewards, prompts = style.rewards_of(samples, "tuned_on"), samples["prompt"].unique()
    checkpoints = sorted(samples["checkpoint"].unique())
    seeds = samples.groupby("prompt")["seed"].rank(method="dense").astype(int) - 1  # the first, the second, of a prompt
    width = max(_BESIDE + (seeds.max() + 1) * (len(checkpoints) + _BETWEEN) - _BETWEEN, _NARROWEST)
    figure, axes = style.new_sheet(width, len(prompts) * (_ABOVE + len(rewards)))
    for block, prompt in enumerate(prompts):
        top = block * (_ABOVE + len(rewards)) + _ABOVE
        axes.text(0, top - 0.4, prompt, size=7, va="bottom")
        axes.text(0, top - 0.03, unit, size=6, va="bottom")
        for row, reward in enumerate(rewards):
            axes.text(0, top + row + 0.5, REWARD_NAMES[reward], size=6, va="center")
        for seed in range(seeds.max() + 1):
            start = _BESIDE + seed * (len(checkpoints) + _BETWEEN)
            shown = samples[(samples["prompt"] == prompt) & (seeds == seed)]
            for column, checkpoint in enumerate(checkpoints):
                name = BASE if checkpoint == 0 else checkpoint
                axes.text(start + column + 0.5, top - 0.03, name, size=6, ha="center", va="bottom")
                for one in shown[shown["checkpoint"] == checkpoint].itertuples():
                    for row in range(len(rewards)) if one.tuned_on == BASE else [rewards.index(one.tuned_on)]:
                        style.draw_image(axes, start + column, top + row, one.png, framed=one.label == 1)
    return figure


rwr_samples, ddpo_samples = (
    method.figure(
        name,
        f"Images over {method.name}'s training on each reward, for one prompt of each set (that of which nearest to "
        "half of the base's images is good, or the first where nobody votes), the same seeds throughout, of each model "
        "the first run. Framed: good by the majority of the annotators.",
        alt=_describe_samples,
        paper_item="Figures 1 and 5",
        needs="prompts",
    )(partial(_draw_samples, unit=method.unit))
    for method, name in ((RWR, "fig58_rwr_samples"), (DDPO, "fig63_ddpo_samples"))
)


# ---- models side by side: who wins

_APART = 0.6  # bars' heights between the first model's comparisons and the others'


def _describe_judged(outcomes: pd.DataFrame) -> str:
    rows = outcomes[outcomes["set"] == ALL_SETS]
    share = rows.set_index(["model", "opponent", "question", "outcome"])["share"].sort_index()
    words = [
        f"{MODEL_NAMES[model]} against {MODEL_NAMES[opponent]}: {style.wins_and_losses(share[model, opponent])}"
        for model, opponent in pairs_in_order(rows)
    ]
    return f"Wins and losses of the models of the chosen checkpoints. {'; '.join(words)}."


def _draw_judged(outcomes: pd.DataFrame) -> Figure:
    """``outcomes_by_size`` of ``judge_tuned``'s votes, all sets together: by question, a bar for each pair."""
    rows = outcomes[outcomes["set"] == ALL_SETS]
    pairs = pairs_in_order(rows)
    places = [place + _APART * (model != pairs[0][0]) for place, (model, _) in enumerate(pairs)]
    figure, panels = new_panels(0.8 + 0.24 * len(pairs), 1, 2, sharey=True)
    for axes, question in zip(panels, style.QUESTIONS, strict=True):
        shown = rows[rows["question"] == question].set_index(["model", "opponent", "outcome"]).sort_index()
        for place, pair in zip(places, pairs, strict=True):
            style.draw_bar(axes, place, shown.loc[pair], *(MODEL_COLOURS[model] for model in pair))
        axes.set_title(question)
        axes.set_xlabel(style.compared(rows), size=7)
        style.frame_bars(axes, places, [f"{MODEL_NAMES[one]} : {MODEL_NAMES[other]}" for one, other in pairs])
    handles = [Patch(color="0.5"), Patch(color=style.TIE), Patch(color="0.5", alpha=0.75)]
    names = ["from the left: the first wins", "tie", "from the right: the second wins"]
    figure.legend(handles, names, ncols=3, **style.ABOVE)
    return figure


rwr_judged, ddpo_judged = (
    method.figure(
        name,
        f"Models tuned by {method.name}, at the checkpoints that the paper's rule chooses: four images against four of "
        "the same seeds, two such sets a prompt, from two runs where there are two. TextNorm's against each other and "
        "the base, and the others against the base: wins, ties and losses by the majority of three blind judges, with "
        "95% intervals in which prompts are the unit.",
        alt=_describe_judged,
        paper_item="Figure 6",
    )(partial(_draw_judged))
    for method, name in ((RWR, "fig59_rwr_judged"), (DDPO, "fig64_ddpo_judged"))
)


# ---- tables

_DIGITS = {"proxy": 2, "gold": 3, "quality": 2, "late": 3}


def _verdicts(found: pd.DataFrame) -> pd.DataFrame:
    """A row for each model: its last checkpoint's gains in proxy, gold and quality, and the verdict."""
    rows = []
    for one in _in_order(found[found["set"] == ALL_SETS], "beta"):
        gains = []
        for what, digits in _DIGITS.items():
            gain = one[[what, f"{what}_low", f"{what}_high"]].set_axis(["mean", "low", "high"])
            error = f" ± {short(one[f'{what}_image_error'], digits)}" if what in ("proxy", "gold") else ""
            gains.append(interval(gain, digits=digits) + error)
        rests_on = f"{one['n_prompts']} / {one['n_runs']} / {one['n_images']}"
        about = (REWARD_NAMES[one["tuned_on"]], f"{one['beta']:g}", rests_on, f"{one['kl']:.3g}")
        rows.append((*about, *gains, one["verdict"]))
    columns = ["tuned on", "beta", "prompts / runs / images", "KL", *_DIGITS, "verdict"]
    return pd.DataFrame(rows, columns=columns).rename(columns={"late": "gold since its best"})


def _in_order(frame: pd.DataFrame, *by: str) -> Iterator[pd.Series]:
    """The rows, in print's order of the rewards tuned on and then by the columns ``by``."""
    for reward in REWARD_NAMES:
        yield from (row for _, row in frame[frame["tuned_on"] == reward].sort_values(list(by)).iterrows())


rwr_verdicts, ddpo_verdicts = (
    method.table(
        name,
        f"{method.name}. Gains of the last checkpoint over the base: proxy (the own reward) and quality in standard "
        "deviations of the base's images of a prompt, gold (the rating), with 95% intervals in which prompts and runs "
        "are drawn from many (none with one run), and ± the standard error over images alone, for these prompts and "
        "runs; KL in nats an image; gold minus that of the run's best earlier checkpoint, which is looked up in the "
        "other runs. Overoptimised: the proxy rises by two errors over images or more, and gold falls below the "
        "base's, or since its best, by an interval below 0.",
    )(partial(_verdicts))
    for method, name in ((RWR, "tab33_rwr_verdicts"), (DDPO, "tab36_ddpo_verdicts"))
)


def _selection(choices: pd.DataFrame) -> pd.DataFrame:
    """A row for each run: checkpoints chosen by the reward and by the oracle, ratings, the cost of the choice."""
    rows = []
    for one in _in_order(choices, "beta", "run"):
        checkpoints = [str(one[key]) for key in ("chosen", "oracle", "last")]
        gold = [short(one[f"gold_{key}"]) for key in ("base", "chosen", "oracle", "last")]
        rests_on = f"{one['n_prompts']} / {one['n_images']}"
        about = (REWARD_NAMES[one["tuned_on"]], f"{one['beta']:g}", one["run"], rests_on)
        rows.append((*about, *checkpoints, *gold, interval(one, middle="cost")))
    about, rated = ["tuned on", "beta", "run", "prompts / images"], ["base", "chosen", "oracle's", "last"]
    columns = [*about, *rated[1:], *(f"rating, {name}" for name in rated), "cost of the choice"]
    return pd.DataFrame(rows, columns=columns)


rwr_selection, ddpo_selection = (
    method.table(
        name,
        f"{method.name}. The checkpoint of each run by the paper's rule with its own reward (the earliest with the "
        "most images above the base's; 0 is the base) and by an oracle that knows the ratings; mean ratings of the "
        "base, there and at the end; what the choice by the reward costs, with its 95% bootstrap interval over prompts "
        "(both choices as they are).",
    )(partial(_selection))
    for method, name in ((RWR, "tab34_rwr_selection"), (DDPO, "tab37_ddpo_selection"))
)


def _judgements(outcomes: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """A row for each pair of models and question: wins, ties, losses, prompts, p-value, power."""
    pairs = pairs_in_order(outcomes[outcomes["set"] == ALL_SETS])
    keys = [(*pair, question) for pair in pairs for question in style.QUESTIONS]
    printed = style.verdicts_as_printed(outcomes, tests, keys, ["model", "opponent", "question"])
    printed["p_holm"] = printed.pop("p_sign") + " / " + printed["p_holm"]
    columns = ["model", "against", "question", *OUTCOMES, style.COUNTED, "p / Holm", "power"]
    return printed.replace({"model": MODEL_NAMES, "opponent": MODEL_NAMES}).set_axis(columns, axis=1)


rwr_judgements, ddpo_judgements = (
    method.table(
        name,
        f"{method.name}. Models at their chosen checkpoints, sets of four images against sets of four: shares of "
        "comparisons by the majority of three blind judges, with 95% intervals; prompts won, tied and lost; the sign "
        "test over prompts (two-sided; with Holm's adjustment for all rows, a star: below .05); its power if the model "
        "won twice as many prompts as it lost.",
        paper_item="Figure 6",
        paper_value=f"TextNorm's alignment wins {value}",
    )(partial(_judgements))
    for method, name, value in (
        (RWR, "tab35_rwr_judged", "about twice as often as it loses, its quality is as good or better"),
        (DDPO, "tab38_ddpo_judged", "more clearly still, and its quality is somewhat worse"),
    )
)
