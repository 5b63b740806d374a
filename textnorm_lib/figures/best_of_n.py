"""Figures and tables of notebook 04: the best of n in images, how it is judged, and gold against proxy."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import setp
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from textnorm_lib.figures import style
from textnorm_lib.judging.verdicts import OUTCOMES
from textnorm_lib.optimise.pool import check_choosers
from textnorm_lib.prompts.templates import PREFIX
from textnorm_lib.stats.metrics import ALL_SETS
from textnorm_lib.stats.names import CHOOSER_NAMES, REWARD_NAMES, SET_ORDER, choosers_of
from textnorm_lib.stats.names import PROMPT as _PROMPT
from textnorm_lib.stats.rankings import RATING
from textnorm_lib.study.drawing import new_figure, new_panels
from textnorm_lib.study.items import of_notebook
from textnorm_lib.study.printed import interval, ordinal, short
from textnorm_lib.study.store import step
from textnorm_lib.tia2.labels import VOTES, or_unlabelled

figure, table = of_notebook("04_best_of_n", needs="annotators")

CHOOSER_COLOURS = {**style.COLOURS, RATING: (0.0, 0.0, 0.0)}
CHOOSER_MARKERS = {**style.MARKERS, RATING: "*"}


# ---- who wins, in the judges' eyes


def _describe_judged(outcomes: pd.DataFrame) -> str:
    n = outcomes["n"].max()
    rows = outcomes[(outcomes["set"] == ALL_SETS) & (outcomes["n"] == n)]
    share = rows.set_index(["opponent", "question", "outcome"])["share"]
    opponents = choosers_of(rows["opponent"], CHOOSER_NAMES)
    words = [f"{CHOOSER_NAMES[one]} {style.wins_and_losses(share[one])}" for one in opponents]
    return f"TextNorm's wins and losses against each other way to choose, best of {n}: {'; '.join(words)}."


@figure(
    "fig51_best_of_n_judged",
    "TextNorm's best four of n against those of each other reward, and against those that the annotators themselves "
    "would choose: wins, ties and losses by the majority of three blind judges, with 95% intervals in which prompts "
    "are the unit.",
    alt=_describe_judged,
    paper_item="Figure 9",
)
def judged_choices(outcomes: pd.DataFrame) -> Figure:
    """``outcomes_by_size``, all sets together: by n and question, a bar for each opponent."""
    rows = outcomes[outcomes["set"] == ALL_SETS]
    sizes, opponents = sorted(rows["n"].unique()), choosers_of(rows["opponent"], CHOOSER_NAMES)
    figure, panels = new_panels(
        0.6 + (0.35 + 0.2 * len(opponents)) * len(sizes), len(sizes), 2, sharex=True, sharey=True, squeeze=False
    )
    for line, n in zip(panels, sizes, strict=True):
        for axes, question in zip(line, style.QUESTIONS, strict=True):
            shown = rows[(rows["n"] == n) & (rows["question"] == question)]
            for place, opponent in enumerate(opponents):
                shares = shown[shown["opponent"] == opponent].set_index("outcome")
                style.draw_bar(axes, place, shares, style.COLOURS["textnorm"], CHOOSER_COLOURS[opponent])
            axes.set_title(f"best of {n}: {question}")
            style.frame_bars(axes, range(len(opponents)), [CHOOSER_NAMES[name] for name in opponents])
    setp(panels[-1], xlabel=style.compared(rows))
    handles = [Patch(color=style.COLOURS["textnorm"]), Patch(color=style.TIE), Patch(color="0.5")]
    figure.legend(handles, ["TextNorm wins", "tie", "it loses (the other's colour)"], ncols=3, **style.ABOVE)
    return figure


# ---- gold against proxy


def peak_as_printed(row: pd.Series, never: str) -> str:
    """Where gold peaks, with its interval; ``never`` where nothing turns it down."""
    middle, low, high = (never if np.isinf(row[key]) else short(row[key], 1) for key in ("value", "low", "high"))
    return f"{middle} [{low}, {high}]"


def _describe_gold_and_proxy(means: pd.DataFrame, fits: pd.DataFrame) -> str:
    n = means["n"].max()
    last = means[(means["n"] == n) & (means["set"] == ALL_SETS)].set_index(["reward", "what"])["mean"]
    peaks = fits[(fits["set"] == ALL_SETS) & (fits["term"] == "peak")].set_index("reward")["value"]
    words = []
    for name in choosers_of(means["reward"], CHOOSER_NAMES):
        proxy = f"proxy {last[name, 'proxy']:+.2f}, " if (name, "proxy") in last else ""
        words.append(f"{CHOOSER_NAMES[name]} {proxy}gold {last[name, 'gold']:+.3f}, peak at {peaks[name]:.2f}")
    return (
        f"Gain of the best of n over one image, against the square root of the divergence; at n = {n}, with the fit's "
        f"peak: {'; '.join(words)}."
    )


@figure(
    "fig52_gold_and_proxy",
    "Gold against proxy as n grows. Proxy: what the reward that chooses thinks of its choice, in its pool's standard "
    "deviations; gold: the annotators' rating. Means over prompts of the gain over one image, with 95% bootstrap "
    "intervals; dashed: d (a - b d) with d = √KL, fitted. Annotators: chosen by the rating itself, the most that can "
    "be had.",
    alt=_describe_gold_and_proxy,
)
def gold_and_proxy(means: pd.DataFrame, fits: pd.DataFrame) -> Figure:
    """``mean_curves`` and ``fit_gold``. Above: proxy and gold of all prompts; below: the gold of each set."""
    figure = new_figure(4.8)
    grid = figure.add_gridspec(2, 6)
    above = [figure.add_subplot(grid[0, :3]), figure.add_subplot(grid[0, 3:])]
    first = figure.add_subplot(grid[1, :2])
    below = [first, *(figure.add_subplot(grid[1, place : place + 2], sharey=first) for place in (2, 4))]
    _draw_curves(above[0], means[(means["what"] == "proxy") & (means["set"] == ALL_SETS)], None)
    above[0].set(title="proxy, all sets", ylabel="gain, standard deviations")
    for axes, name in zip([above[1], *below], [ALL_SETS, *style.SETS], strict=True):
        rows = means[(means["what"] == "gold") & (means["set"] == name)]
        _draw_curves(axes, rows, fits[fits["set"] == name])
        label = "gold, all sets" if name == ALL_SETS else name
        axes.set_title(f"{label} ({rows['n_prompts'].max()} prompts)")
        axes.axhline(0, **style.DOTTED)
    for axes in (above[1], below[0]):
        axes.set_ylabel("gain in rating")
    for axes in (*above, *below):
        _label_distance(axes, means, every=1 if axes in above else 2)
    names = choosers_of(means["reward"], CHOOSER_NAMES)
    handles = [Line2D([], [], color=CHOOSER_COLOURS[name], marker=CHOOSER_MARKERS[name]) for name in names]
    handles.append(Line2D([], [], color="0.4", linestyle="--", linewidth=0.8))
    labels = [*(CHOOSER_NAMES[name] for name in names), "fit"]
    figure.legend(handles, labels, ncols=len(labels), columnspacing=1.0, **style.ABOVE)
    return figure


def _draw_curves(axes: Axes, rows: pd.DataFrame, fits: pd.DataFrame | None) -> None:
    """Each chooser's means with intervals over the distance; ``fits`` are dashed lines."""
    last = rows["distance"].max()
    for index, name in enumerate(choosers_of(rows["reward"], CHOOSER_NAMES)):
        own = rows[rows["reward"] == name].sort_values("distance")
        shift = (index - 2.5) * 0.008 * last
        look = {"color": CHOOSER_COLOURS[name], "marker": CHOOSER_MARKERS[name], "markersize": 3}
        look["linestyle"] = "-" if fits is None else "none"
        style.errorbar(axes, own["distance"] + shift, own, **look)
        if fits is not None:
            a, b = fits[fits["reward"] == name].set_index("term").loc[["a", "b"], "value"]
            d = np.linspace(0, last, 60)
            axes.plot(d, d * (a - b * d), color=CHOOSER_COLOURS[name], linestyle="--", linewidth=0.8)


def _label_distance(axes: Axes, means: pd.DataFrame, *, every: int) -> None:
    """The square root of the divergence below, n above it in the same tick."""
    ticks = means[["n", "distance"]].drop_duplicates().sort_values("n")
    ticks = ticks[::-1][::every][::-1]
    axes.set_xticks(ticks["distance"], [f"{row.distance:.1f}\n{row.n:.0f}" for row in ticks.itertuples()], size=6)
    axes.set_xlabel("√KL, and n below", size=7)


def _describe_share_realised(gains: pd.DataFrame) -> str:
    n = gains["n"].max()
    rows = gains[(gains["set"] == ALL_SETS) & (gains["n"] == n)].set_index("reward")
    words = []
    for name in style.rewards_of(gains):
        share, low, high = (short(rows.loc[name, key], 2) for key in ("share", "low", "high"))
        words.append(f"{REWARD_NAMES[name]} {share} [{low}, {high}]")
    return f"Share of the gain that choosing by the annotators would bring, best of {n}: {', '.join(words)}."


@figure(
    "fig53_gain_realised",
    "How much of the possible gain in rating each reward realises: 1 chooses as the annotators would, 0 is no better "
    "than chance. Means over prompts (their number in brackets) with 95% bootstrap intervals.",
    alt=_describe_share_realised,
)
def share_realised(gains: pd.DataFrame) -> Figure:
    """``gain_realised``: left over n for all sets, right by set at the largest n."""
    figure, (left, right) = new_panels(2.5, 1, 2, sharey=True)
    last, sets = gains["n"].max(), choosers_of(gains["set"], SET_ORDER)
    for index, reward in enumerate(style.rewards_of(gains)):
        look = style.look_of(reward)
        own = gains[(gains["reward"] == reward) & (gains["n"] > 1)]
        all_sets = own[own["set"] == ALL_SETS]
        places = np.log2(all_sets["n"]) + (index - 2) * 0.08
        style.errorbar(left, places, all_sets, "share", label=REWARD_NAMES[reward], **look)
        at_last = own[own["n"] == last].set_index("set").loc[sets]
        style.errorbar(right, np.arange(len(sets)) + (index - 2) * 0.13, at_last, "share", linestyle="none", **look)
    sizes = sorted(gains.loc[gains["n"] > 1, "n"].unique())
    left.set_xticks(np.log2(sizes), [str(n) for n in sizes])
    prompts = gains.groupby("set")["n_prompts"].max()
    left.set(xlabel="n", ylabel="share of the possible gain", title=f"all sets ({prompts[ALL_SETS]} prompts)")
    right.set_xticks(range(len(sets)), [f"{name}\n({prompts[name]})" for name in sets], size=6.5)
    right.set_title(f"best of {last}")
    for axes in (left, right):
        for height in (0, 1):
            axes.axhline(height, **style.DOTTED)
    figure.legend(*left.get_legend_handles_labels(), ncols=5, **style.ABOVE)
    return figure


# ---- the best of n in images


def one_prompt_per_set(images: pd.DataFrame) -> list[tuple[str, str]]:
    """Set and prompt of the prompt of each set of which nearest to half of the images is good: there is most to choose.

    Where nobody has voted (label is nan) it is the set's first.
    """
    good = images.groupby(_PROMPT, sort=False)["label"].mean().sub(0.5).abs().fillna(0.0)
    return good.groupby("set", sort=False).idxmin().tolist()


@step(1)
def pick_grids(made: Path, images: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """The first set of every chooser and n for one prompt of each set (figure 4), with votes, label and png.

    The prompt is ``one_prompt_per_set``'s. Where nobody has voted, votes and label are nan.
    """
    images = or_unlabelled(images)
    prompts = [prompt for _, prompt in one_prompt_per_set(images)]
    shown = chosen[(chosen["number"] == 1) & chosen["prompt"].isin(prompts)]
    shown = shown.merge(images[["image", *VOTES, "label"]], on="image", how="left")
    return with_files(shown, made)


def with_files(shown: pd.DataFrame, made: Path) -> pd.DataFrame:
    """``shown`` with the bytes of each row's image, a file in the folder ``made``, as png."""
    return shown.assign(png=[(made / name).read_bytes() for name in shown["image"]])


_BESIDE, _BETWEEN, _ABOVE = 1.7, 0.3, 1.15  # room left of the rows, between the sets, above a prompt; images' sides
_MOST_SETS, _PER_SET = 3, 4  # sets abreast, for which the sheet's width is made, and the images of each


def _describe_grids(frame: pd.DataFrame) -> str:
    if frame["label"].isna().all():
        return f"The four best of n images by each reward, of {', '.join(frame['prompt'].unique())}."
    sizes, words = frame["n"].agg(["min", "max"]), []
    for prompt, rows in frame.groupby("prompt", sort=False):
        good = rows.pivot_table(index="model", columns="n", values="label", aggfunc="sum")
        good = good[sizes].astype(str).agg(" and ".join, axis=1)
        words.append(
            f"{prompt}: {', '.join(f'{REWARD_NAMES[one]} {good[one]}' for one in style.rewards_of(rows, 'model'))}"
        )
    return (
        f"The four best of n images by each reward. Good by the majority of the four at n = {sizes['min']} and "
        f"{sizes['max']}. {'; '.join(words)}."
    )


@figure(
    "fig50_best_of_n_images",
    "The four best of n images by each of five rewards, for one prompt of each set: that of which nearest to half of "
    "the pool is good, or the first where nobody votes. Framed: good by the majority of the annotators.",
    alt=_describe_grids,
    needs="prompts",
    paper_item="Figure 4",
)
def chosen_images(frame: pd.DataFrame) -> Figure:
    """``pick_grids``: a block for each prompt, a row for each reward, four images for each n; framed if good."""
    rewards = style.rewards_of(frame, "model")
    prompts, sizes = frame["prompt"].unique(), sorted(frame["n"].unique())
    width = _BESIDE + _MOST_SETS * _PER_SET + (_MOST_SETS - 1) * _BETWEEN
    figure, axes = style.new_sheet(width, len(prompts) * (_ABOVE + len(rewards)))
    for block, prompt in enumerate(prompts):
        top = block * (_ABOVE + len(rewards)) + _ABOVE
        axes.text(0, top - 0.5, prompt, size=7, va="bottom")
        for column, n in enumerate(sizes):
            left = _BESIDE + column * (_PER_SET + _BETWEEN)
            axes.text(left + 0.03, top - 0.03, f"best of {n}", size=6, va="bottom")
            of_n = frame[(frame["prompt"] == prompt) & (frame["n"] == n)]
            for row, reward in enumerate(rewards):
                for one in of_n[of_n["model"] == reward].itertuples():
                    style.draw_image(axes, left + one.place - 1, top + row, one.png, framed=one.label == 1)
        for row, reward in enumerate(rewards):
            axes.text(0, top + row + 0.5, REWARD_NAMES[reward], size=6, va="center")
    return figure


@step(1)
def pick_loved(made: Path, images: pd.DataFrame, *, rewards: Sequence[str], number: int, within: int) -> pd.DataFrame:
    """Images that a reward loves and the annotators reject, by rule: ``number`` of each reward, of as many prompts.

    All three annotators call the image bad, the reward ranks it among the first ``within`` of its prompt's pool, and a
    fifth of that pool or more is good, so that it could have chosen better. First come those furthest above the pool's
    mean, of each set in turn. Returns reward, set, prompt, image, rank, n_images, share_good, the votes, every reward's
    score in standard deviations of the pool, and png.
    """
    images = check_choosers(images, rewards)
    pools = images.groupby(_PROMPT, sort=False)
    scores = images[list(rewards)]
    scores = (scores - pools[list(rewards)].transform("mean")) / pools[list(rewards)].transform("std", ddof=0)
    told = images[[*_PROMPT, "image", *VOTES]].assign(
        share_good=pools["label"].transform("mean"), n_images=pools["label"].transform("size")
    )
    rejected = (images[VOTES] == 0).all(axis=1) & (told["share_good"] >= 0.2)
    picked = []
    for reward in rewards:
        rank = pools[reward].rank(ascending=False, method="max")  # equal scores do not count against a reward
        found = told.join(scores)[rejected & (rank <= within)].sort_values(reward, ascending=False, kind="stable")
        first = found.drop_duplicates(_PROMPT)
        turn = first.groupby("set", sort=False).cumcount().sort_values(kind="stable").index[:number]
        picked.append(first.loc[turn].assign(reward=reward, rank=rank[turn].astype(int)))
    return with_files(pd.concat(picked, ignore_index=True), made)


_ABREAST, _LOVED_BESIDE, _PITCH = 6, 0.2, 1.62  # images in a row; in images' sides the room left and the rows' distance


@style.sentence("Images that a reward loves and all three annotators reject. {}.")
def _describe_loved(frame: pd.DataFrame) -> Iterator[str]:
    for reward in choosers_of(frame.columns, REWARD_NAMES):
        shown = [
            f"{one['prompt'].removeprefix(PREFIX)} ({one[reward]:+.1f}, {ordinal(one['rank'])} of {one['n_images']})"
            for _, one in frame[frame["reward"] == reward].head(_ABREAST).iterrows()
        ]
        yield f"{REWARD_NAMES[reward]}: {', '.join(shown) or 'none'}"


@figure(
    "fig54_loved_and_rejected",
    "Images that a reward loves and all three annotators reject, though a fifth of the pool or more is good; found by "
    "rule. Below: the reward's score in the pool's standard deviations, its rank in the pool and the votes; in "
    "brackets the other rewards' scores, in the order of the rows.",
    alt=_describe_loved,
)
def loved_and_rejected(frame: pd.DataFrame) -> Figure:
    """``pick_loved``: a row for each reward."""
    rewards = choosers_of(frame.columns, REWARD_NAMES)
    figure, axes = style.new_sheet(_LOVED_BESIDE + _ABREAST, len(rewards) * _PITCH)
    for row, reward in enumerate(rewards):
        axes.text(0, row * _PITCH + 0.5, REWARD_NAMES[reward], size=7, va="center", rotation=90)
        shown = frame[frame["reward"] == reward].head(_ABREAST)
        for column, (_, one) in enumerate(shown.iterrows()):
            rank = f"{one[reward]:+.1f}, {ordinal(one['rank'])}   {style.votes_as_marks(one)}"
            others = " ".join(f"{round(one[name], 1) + 0.0:.1f}" for name in rewards if name != reward)  # 0.0, not -0.0
            style.draw_told(axes, _LOVED_BESIDE + column, row * _PITCH, one, rank, f"({others})")
        if shown.empty:
            axes.text(_LOVED_BESIDE + 0.03, row * _PITCH + 0.5, "none found", size=6.5)
    return figure


# ---- tables


@table(
    "tab30_best_of_n_judged",
    "TextNorm's best four of n against those of others: shares of comparisons by the majority of three blind judges, "
    "with 95% intervals; prompts won, tied and lost; the sign test over prompts (two-sided, Holm within n; a star: "
    "below .05); its power if TextNorm won twice as many prompts as it lost.",
    paper_item="Figure 9",
    paper_value="two to three times as many wins as losses in alignment against ImageReward and PickScore",
)
def judgements(outcomes: pd.DataFrame, tests: pd.DataFrame) -> pd.DataFrame:
    """A row for each n, opponent and question: wins, ties, losses, prompts, p-value, power."""
    opponents = choosers_of(outcomes["opponent"], CHOOSER_NAMES)
    keys = list(product(sorted(outcomes["n"].unique()), opponents, style.QUESTIONS))
    printed = style.verdicts_as_printed(outcomes, tests, keys, ["n", "opponent", "question"]).drop(columns="p_sign")
    columns = ["n", "TextNorm against", "question", *OUTCOMES, style.COUNTED, "p (Holm)", "power"]
    return printed.replace({"opponent": CHOOSER_NAMES}).set_axis(columns, axis=1)


@table(
    "tab31_gold_fits",
    "The gain in gold over one image fitted by d (a - b d), d being the square root of the KL divergence (Gao et al. "
    "2023), and the d at which it peaks (beyond the largest d that was tried it is extrapolated); and, without a fit, "
    "what the last quadrupling of n did to gold. 95% bootstrap intervals over prompts (their number in brackets).",
)
def gold_fits(frame: pd.DataFrame, late: pd.DataFrame) -> pd.DataFrame:
    """Coefficients, peak and the gain by the last quadrupling for each set and way to choose."""
    cells = style.with_cells(frame, "value")
    peaks = frame[frame["term"] == "peak"]
    cells.loc[peaks.index, "cell"] = peaks.apply(peak_as_printed, axis=1, never="never")
    cells = cells.pivot(index=["set", "reward"], columns="term", values="cell")[["a", "b", "peak"]]
    cells["gained"] = late.set_index(["set", "reward"]).apply(interval, axis=1)
    gained = f"gold from n = {late['before'].iloc[0]} to {late['after'].iloc[0]}"
    columns = ["set", "chosen by", "a", "b", "gold peaks at √KL", gained]
    return _by_set_and_chooser(cells, frame).set_axis(columns, axis=1)


def _by_set_and_chooser(cells: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """``cells`` by set and reward in print's order and under print's names, a set with its prompts in ``frame``."""
    table = cells.loc[[key for key in product(SET_ORDER, CHOOSER_NAMES) if key in cells.index]].reset_index()
    return table.replace({"set": style.with_prompts(frame), "reward": CHOOSER_NAMES})


@table(
    "tab32_gain_realised",
    "The best of the largest n: gain in rating over one image, share of the gain that choosing by the rating itself "
    "brings, and TextNorm's gain minus each other's (a star: p < .05, Wilcoxon, Holm within the set). Means over "
    "prompts (their number in brackets) with 95% bootstrap intervals.",
)
def gains_at_the_end(means: pd.DataFrame, realised: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """Gain, share and difference to TextNorm for each set and each way to choose."""
    n, keys = means["n"].max(), ["set", "reward"]
    last = means[(means["n"] == n) & (means["what"] == "gold")].set_index(keys)
    cells = last.apply(interval, axis=1).to_frame("gain")
    shares = realised[realised["n"] == n].set_index(keys)
    cells["share"] = shares.apply(interval, axis=1, middle="share", digits=2)
    cells["minus"] = comparison.set_index(keys).apply(style.starred, axis=1)
    columns = ["set", "chosen by", f"gain in rating, best of {n}", "share of the possible", "TextNorm minus it"]
    return _by_set_and_chooser(cells.fillna("–"), last).set_axis(columns, axis=1)
