"""Notebook 02b in print: the mini world's rewards against its annotators, as probabilities, and against each other."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import setp
from matplotlib.figure import Figure

from textnorm_lib.figures import style
from textnorm_lib.figures.benchmark import at_both_ends, draw_counts, label_counts, metric_table
from textnorm_lib.prompts.templates import PREFIX
from textnorm_lib.stats.names import PROMPT as _PROMPT
from textnorm_lib.stats.names import REWARD_NAMES, SET_ORDER, choosers_of
from textnorm_lib.stats.rankings import RATING, check_scores
from textnorm_lib.study.drawing import new_panels
from textnorm_lib.study.items import of_notebook
from textnorm_lib.study.printed import interval, ordinal, short
from textnorm_lib.study.store import step
from textnorm_lib.tia2.labels import VOTES
from textnorm_lib.tia2.released import grid

figure, table = of_notebook("02b_benchmark_mini_rewards", needs="labels")

HIGH, LOW = "bad, ranked high", "good, ranked low"
HEADS = {HIGH: "three votes for bad, but ranked high", LOW: "three votes for good, but ranked low"}
PER_KIND = 3
BESIDE, BETWEEN, HEAD, BELOW = 0.25, 0.25, 0.2, 0.75  # room left of a row, between the kinds, and so on; images' sides

_NAMES = {**REWARD_NAMES, RATING: RATING}


# ---- metrics


@table(
    "tab17_mini_metric_comparison",
    "The mini world's rewards against its annotators: mean over the prompts with both labels (their number in "
    "brackets) and 95% bootstrap interval over prompts. To be read beside the table of the released scores.",
)
def mini_metric_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Four rewards on three sets and all prompts by seven metrics, each with its interval."""
    return metric_table(summary)


@figure(
    "fig34_mini_auroc_by_count",
    "AUROC on the mini counting set by the count asked for (prompts with both labels); mean and 95% bootstrap interval "
    "over prompts, where there are enough for one.",
    alt=lambda summary: f"AUROC by the count asked for, mini rewards: {at_both_ends(summary)}.",
)
def mini_auroc_by_count(summary: pd.DataFrame) -> Figure:
    """AUROC of each reward by the count asked for."""
    rows = summary.query("metric == 'auroc' and set != 'all'")
    figure, axes = new_panels(2.6)
    draw_counts(axes, rows, "mean", "AUROC", chance=0.5)
    label_counts([axes], rows)
    figure.legend(*axes.get_legend_handles_labels(), ncols=4, **style.ABOVE)
    return figure


def _draw_grids(
    frame: pd.DataFrame, *, rows: int, height: float, size: float | None, labels: float, axis: str = ""
) -> Figure:
    """The heat maps of all rewards side by side; a dash where all images of a prompt have one label."""
    figure, panels = new_panels(height, rows, 4 // rows, sharex=True, sharey=True, squeeze=False)
    for axes, reward in zip(panels.flat, style.rewards_of(frame), strict=True):
        mesh = style.draw_matrix(axes, frame, reward, grid(frame, reward), size=size)
        axes.tick_params(labelsize=labels)
    setp(panels[-1], xlabel=axis)
    style.draw_scale(figure, mesh, list(panels.flat))
    return figure


@figure(
    "fig35_mini_auroc_by_pair",
    "AUROC of the mini rewards by pair of classes; in the titles the mean and the number of prompts. Colours as in the "
    "released heat maps: white .75, blue above, red below; grey: not asked, or (–) all images have one label.",
    alt=partial(style.describe_grids, what="pair of classes"),
)
def mini_auroc_by_pair(frame: pd.DataFrame) -> Figure:
    """A matrix of classes against classes for each reward."""
    return _draw_grids(frame, rows=2, height=5.6, size=None, labels=4.5)


@figure(
    "fig36_mini_auroc_by_class_and_count",
    "AUROC of the mini rewards by class and count; in the titles the mean and the number of prompts. Colours as in the "
    "released heat maps: white .75, blue above, red below; grey: not asked, or (–) all images have one label.",
    alt=partial(style.describe_grids, what="class and count"),
)
def mini_auroc_by_class_and_count(frame: pd.DataFrame) -> Figure:
    """A matrix of classes against counts for each reward."""
    return _draw_grids(frame, rows=1, height=4.6, size=5, labels=6, axis="count")


# ---- against the rating


@style.sentence(
    "Scores in their prompt's standard deviations by the image's rating. Mean and middle half of the images at the "
    "lowest and at the highest rating: {}."
)
def _describe_by_rating(frame: pd.DataFrame) -> Iterator[str]:
    for reward in style.rewards_of(frame):
        ends = frame[frame["reward"] == reward].sort_values("rating").iloc[[0, -1]]
        low, high = (f"{row.mean:+.2f} ({row.p25:+.2f} to {row.p75:+.2f})" for row in ends.itertuples())
        yield f"{REWARD_NAMES[reward]} {low} and {high}"


@figure(
    "fig30_mini_scatter",
    "Mini rewards against the annotators' rating (number of images below it), on prompts with both labels. A score is "
    "counted from its prompt's mean in its prompt's standard deviations. Grey: the middle half and nine tenths of the "
    "images; coloured: mean over prompts with 95% bootstrap interval.",
    alt=_describe_by_rating,
)
def mini_scores_by_rating(frame: pd.DataFrame) -> Figure:
    """``scores_by_rating``, a panel per reward: middle half and nine tenths of the images in grey, and the mean."""
    figure, panels = new_panels(3.9, 2, 2, sharex=True, sharey=True)
    for axes, reward in zip(panels.flat, style.rewards_of(frame), strict=True):
        rows = frame[frame["reward"] == reward].sort_values("rating")
        axes.vlines(rows["rating"], rows["p5"], rows["p95"], color="0.7", linewidth=0.8, zorder=1)
        axes.vlines(rows["rating"], rows["p25"], rows["p75"], color="0.85", linewidth=10, zorder=1)
        style.errorbar(axes, rows["rating"], rows, **style.look_of(reward, linestyle="none"))
        axes.axhline(0, **style.DOTTED)
        thirds = [Fraction(rating).limit_denominator(6) for rating in rows["rating"]]
        ticks = [f"{third}\n({images:,})" for third, images in zip(thirds, rows["n_images"], strict=True)]
        axes.set_xticks(rows["rating"], ticks, size=6.5)
        axes.set(title=REWARD_NAMES[reward], xlim=(-0.08, 1.08))
    figure.supylabel("score, in its prompt's standard deviations", size=8)
    setp(panels[1], xlabel="rating (images)")
    return figure


# ---- where rewards and annotators disagree


@step(1)
def pick_disagreements(
    made: Path, images: pd.DataFrame, *, rewards: Sequence[str], number: int, within: int
) -> pd.DataFrame:
    """The images on which each reward and all three annotators disagree most (the paper's figures 2 and 8).

    ``made`` is the folder of the images, ``images`` as in ``rankings``. Two kinds for each reward, ``number`` of each
    or as many as there are: images that all three call bad and the reward has among the ``within`` first of its
    prompt, and images that all call good among the last. Those come first that stand on the wrong side of the most
    images of the other label: a bad image on top is no mistake where there is no good one. At most one per prompt and
    reward, the sets in turn. Equal scores never count against a reward: a tie takes its last place in ``HIGH``, its
    first in ``LOW``.

    Returns reward, kind, set, prompt, image, rank (1 is the best), n_images (of the prompt), vote_1, vote_2, vote_3,
    one column per reward with its rank of the image, and png, the file's bytes. Raises ``DataError`` as
    ``check_scores`` does.
    """
    images = check_scores(images, rewards)
    prompts = images.groupby(_PROMPT, sort=False)
    votes, size = images[VOTES], prompts["image"].transform("size")
    chosen = []
    for reward in rewards:
        wrong = pd.concat([_misordered(group[reward], group["label"]) for _, group in prompts])
        taken = images.iloc[:0]
        for kind, vote, method in ((HIGH, 0, "max"), (LOW, 1, "min")):
            ranks = prompts[list(rewards)].rank(ascending=False, method=method).astype(int)
            rows = images[[*_PROMPT, "image", *VOTES]].join(ranks)
            rows = rows.assign(reward=reward, kind=kind, rank=ranks[reward], n_images=size, wrong=wrong)
            outside = ranks[reward] <= within if kind == HIGH else ranks[reward] > size - within
            found = rows[(votes == vote).all(axis=1) & outside & (wrong > 0) & ~rows["prompt"].isin(taken["prompt"])]
            taken = found.loc[_most_wrong(found, number)]
            chosen.append(taken)
    columns = ["reward", "kind", *_PROMPT, "image", "rank", "n_images", *VOTES, *rewards]
    picked = pd.concat(chosen, ignore_index=True)[columns]
    return picked.assign(png=[(made / name).read_bytes() for name in picked["image"]])


def _misordered(scores: pd.Series, labels: pd.Series) -> pd.Series:
    """Of each image of a prompt, how many of the other label the scores put on the wrong side of it."""
    pairs = np.subtract.outer(scores.to_numpy(), scores.to_numpy()) * np.subtract.outer(*[labels.to_numpy()] * 2)
    return pd.Series((pairs < 0).sum(axis=1), scores.index)


def _most_wrong(found: pd.DataFrame, number: int) -> pd.Index:
    """The rows with the most ``wrong``, one per prompt; of each set the first, then of each the second, and so on."""
    best = found.sort_values("wrong", ascending=False, kind="stable").drop_duplicates(_PROMPT)
    turn = best.groupby("set", sort=False).cumcount()
    return turn.sort_index().sort_values(kind="stable").index[:number]


@style.sentence("Images on which a reward and all three annotators disagree. {}.")
def _describe_disagreements(frame: pd.DataFrame) -> Iterator[str]:
    for reward in choosers_of(frame.columns, REWARD_NAMES):
        for kind, rows in frame[frame["reward"] == reward].groupby("kind", sort=False):
            shown = [
                f"{row.prompt.removeprefix(PREFIX)} ({ordinal(row.rank)} of {row.n_images})"
                for row in rows.head(PER_KIND).itertuples()
            ]
            yield f"{REWARD_NAMES[reward]}, {kind}: {', '.join(shown)}"


@figure(
    "fig31_mini_disagreements",
    "Where mini rewards and annotators disagree most, found by a rule: images that all three annotators call bad among "
    "a reward's first of the prompt, and images that all call good among its last. Below: rank and votes, the other "
    'rewards\' ranks, the prompt ("a realistic photo of" left out).',
    alt=_describe_disagreements,
    paper_item="Figures 2 and 8",
)
def mini_disagreements(frame: pd.DataFrame) -> Figure:
    """``pick_disagreements``, a row for each reward: bad images that it ranks high, good ones that it ranks low."""
    rewards = choosers_of(frame.columns, REWARD_NAMES)
    width, height = BESIDE + 2 * PER_KIND + BETWEEN, HEAD + len(rewards) * (1 + BELOW)
    figure, axes = style.new_sheet(width, height, room=0)
    for left, kind in ((BESIDE, HIGH), (BESIDE + PER_KIND + BETWEEN, LOW)):
        axes.text(left + 0.03, HEAD - 0.05, HEADS[kind], size=7, va="bottom")
        for row, reward in enumerate(rewards):
            top = HEAD + row * (1 + BELOW)
            shown = frame[(frame["reward"] == reward) & (frame["kind"] == kind)].head(PER_KIND)
            for column, (_, one) in enumerate(shown.iterrows()):
                rank = f"{ordinal(one['rank'])} of {one['n_images']}   {style.votes_as_marks(one)}"
                others = ", ".join(str(one[name]) for name in rewards if name != reward)
                style.draw_told(axes, left + column, top, one, rank, f"others {others}")
            if shown.empty:
                axes.text(left + 0.03, top + 0.5, "none", size=6.5)
    for row, reward in enumerate(rewards):
        axes.text(0, HEAD + row * (1 + BELOW) + 0.5, REWARD_NAMES[reward], size=8, va="center", rotation=90)
    return figure


# ---- against each other


def _describe_agreement(summary: pd.DataFrame) -> str:
    rows = summary[summary["set"] == "all"]
    words = [f"{_NAMES[row.reward]} and {_NAMES[row.metric]} {row.mean:.2f}" for row in rows.itertuples()]
    return f"Spearman's rho within a prompt, mean over prompts: {'; '.join(words)}."


@figure(
    "fig33_mini_reward_agreement",
    "Agreement of the mini rewards with each other and with the rating: Spearman's rho within a prompt, mean over the "
    "prompts with both labels and 95% bootstrap interval.",
    alt=_describe_agreement,
)
def mini_reward_agreement(summary: pd.DataFrame) -> Figure:
    """Spearman's rho within a prompt of each two, all sets together: a triangle of numbers with their intervals."""
    rows = summary[summary["set"] == "all"].set_index(["reward", "metric"])
    across = style.rewards_of(summary)
    down = [*across[1:], RATING]
    figure, axes = new_panels(2.6)
    values = rows["mean"].unstack().T.reindex(index=down, columns=across)
    mesh = axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for (reward, other), row in rows.iterrows():
        text = f"{short(row['mean'], 2)}\n[{short(row['low'], 2)}, {short(row['high'], 2)}]"
        colour = "white" if abs(row["mean"]) > 0.65 else "black"
        axes.text(across.index(reward), down.index(other), text, size=7, color=colour, ha="center", va="center")
    axes.set_xticks(range(len(across)), [_NAMES[name] for name in across])
    axes.set_yticks(range(len(down)), [_NAMES[name] for name in down])
    style.bare(axes)
    axes.set_title(f"Spearman's rho within a prompt, mean over {rows['n_prompts'].max()} prompts")
    bar = figure.colorbar(mesh, ax=axes, shrink=0.8, aspect=30, pad=0.01, ticks=[-1, 0, 1])
    bar.outline.set_visible(False)
    return figure


@table(
    "tab19_mini_reward_agreement",
    "Agreement within a prompt of the mini world's rewards with each other and with the rating: Spearman's rho, mean "
    "over the prompts with both labels (their number in brackets) and 95% bootstrap interval.",
)
def reward_agreement_table(correlations: pd.DataFrame) -> pd.DataFrame:
    """A row for each two of the four rewards and the rating, a column for each set."""
    pairs = correlations["reward"].map(_NAMES) + " and " + correlations["metric"].map(_NAMES)
    cells = style.with_cells(correlations, digits=2).assign(pair=pairs)
    return style.by_set(cells, "pair", style.with_prompts(correlations))


# ---- as probabilities


def _describe_reliability(curves: pd.DataFrame, errors: pd.DataFrame) -> str:
    ece = _calibration_of_all(errors)
    means = curves[curves["set"] == "all"].groupby("reward")["probability"]
    words = [
        f"{REWARD_NAMES[reward]} bins from {means.min()[reward]:.2f} to {means.max()[reward]:.2f}, ECE "
        f"{ece.loc[reward, 'value']:.3f} (by chance up to {ece.loc[reward, 'reference']:.3f})"
        for reward in style.rewards_of(curves)
    ]
    return f"Share of good images against the probability that a reward gives them: {'; '.join(words)}."


@figure(
    "fig32_mini_reliability",
    "Mini rewards as probabilities of a good image, by one logistic map a reward fitted to other prompts: ten bins of "
    "equally many images, all sets together with 95% bootstrap intervals over prompts; lines: each set by the same "
    "map. ECE: expected calibration error of all, and how far chance alone takes it.",
    alt=_describe_reliability,
)
def mini_reliability(curves: pd.DataFrame, errors: pd.DataFrame) -> Figure:
    """Share of good images against their probability: of all with intervals, of each set as a line; the ECE of all."""
    figure, panels = new_panels(5.0, 2, 2, sharex=True, sharey=True)
    ece = _calibration_of_all(errors)
    for axes, reward in zip(panels.flat, style.rewards_of(curves), strict=True):
        axes.axline((0, 0), slope=1, **style.DOTTED)
        rows = curves[curves["reward"] == reward].set_index("set")
        for name in style.SETS:
            own = rows.loc[[name]]
            axes.plot(own["probability"], own["share_good"], linewidth=0.7, label=name, **style.SET_LOOKS[name])
        whole, dots = rows.loc["all"], style.look_of(reward, linestyle="none")
        style.errorbar(axes, whole["probability"], whole, "share_good", **dots)
        one = ece.loc[reward]
        text = f"ECE {interval(one, middle='value')},\nby chance up to {short(one['reference'])}"
        axes.text(0.98, 0.02, text, size=6.5, ha="right", va="bottom", transform=axes.transAxes)
        axes.set(title=REWARD_NAMES[reward], xlim=(0, 1), ylim=(0, 1), aspect="equal")
    setp(panels[1], xlabel="probability of a good image")
    for axes in panels[:, 0]:
        axes.set_ylabel("share of good images")
    sets = errors[errors["metric"] == "ece"].drop_duplicates("set").set_index("set")
    names = [f"{name} (n = {sets.loc[name, 'n_images']:,})" for name in style.SETS]
    figure.legend(panels[0, 0].lines[1 : 1 + len(style.SETS)], names, ncols=3, **style.ABOVE)
    return figure


def _calibration_of_all(errors: pd.DataFrame) -> pd.DataFrame:
    return errors.query("set == 'all' and metric == 'ece'").set_index("reward")


@table(
    "tab18_mini_calibration",
    "The mini world's rewards as probabilities of a good image, by one logistic map a reward fitted to other prompts: "
    "expected calibration error (ten bins of equally many images) and Brier score, with 95% bootstrap intervals over "
    "prompts (their number in brackets). Beside them: up to where chance takes the ECE of a calibrated reward, and the "
    "Brier score of the share of good images as everybody's probability.",
)
def calibration_table(errors: pd.DataFrame) -> pd.DataFrame:
    """ECE and Brier score of four rewards on three sets and all prompts, with their references."""
    cells = style.with_cells(errors, "value").set_index(["set", "reward", "metric"])
    rows = []
    for name, reward in product(SET_ORDER, REWARD_NAMES):
        if (name, reward, "ece") in cells.index:
            ece, brier = (cells.loc[(name, reward, metric)] for metric in ("ece", "brier"))
            row = [f"{name} ({ece['n_prompts']})", f"{ece['n_images']:,}", REWARD_NAMES[reward]]
            rows.append([*row, ece["cell"], short(ece["reference"]), brier["cell"], short(brier["reference"])])
    columns = ["set", "images", "reward", "ECE", "by chance up to", "Brier score", "one probability for all"]
    return pd.DataFrame(rows, columns=columns)
