"""Figures and tables of notebook 03, continued: why TextNorm helps, where it hurts, and how raw rewards compare."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from textnorm_lib.confidence.tuning import CHOICES
from textnorm_lib.figures import style
from textnorm_lib.prompts.grammar import parse
from textnorm_lib.prompts.templates import CLASSES
from textnorm_lib.stats.intervals import prompt_bootstrap
from textnorm_lib.stats.metrics import ALL_SETS
from textnorm_lib.stats.names import (
    ENSEMBLES,
    FOUR,
    PAIR,
    REWARD_NAMES,
    SET_ORDER,
    UNDER_TEXTNORM,
    ensemble_name,
    judged_name,
)
from textnorm_lib.study.drawing import new_panels
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.items import of_notebook
from textnorm_lib.study.printed import STAR, interval, short
from textnorm_lib.tia2.released import grid

figure, table = of_notebook("03_textnorm_ablations", needs="labels")

JUDGED = tuple(f"{before}{name}" for name in ENSEMBLES for before in ("", UNDER_TEXTNORM))  # raw, then TextNorm


# ---- where the gain comes from

_RANDOM = "random"
_EXPECTED = {"color": "black", "marker": "|", "markersize": 8, "linestyle": "none"}
_FILLS = {"own score": style.HOLLOW, "TextNorm, held out": style.FULL}


@style.sentence("Share of the softmax over contrasts by kind of contrast: {}.")
def _describe_shares(frame: pd.DataFrame) -> Iterator[str]:
    for reward in FOUR:
        rows = frame[frame["reward"] == reward].pivot(index="kind", columns="metric", values="mean")
        top = rows["share"].idxmax()
        yield (
            f"{REWARD_NAMES[reward]} random {rows.loc[_RANDOM, 'share']:.2f} where its number gives "
            f"{rows.loc[_RANDOM, 'expected']:.2f}, largest {top} {rows.loc[top, 'share']:.2f}"
        )


@figure(
    "fig44_softmax_shares",
    "How much of the softmax over a prompt's contrasts each kind makes up, beside its share of their number (prompts "
    "with such contrasts in brackets); mean and 95% bootstrap interval over prompts. Shaded: random contrasts, other "
    "prompts that differ in both syntax and meaning, about as many as all others together.",
    alt=_describe_shares,
    paper_item="Section 4.1",
    paper_value="prompts that differ in both syntax and meaning add next to nothing to the denominator",
)
def softmax_shares(frame: pd.DataFrame) -> Figure:
    """Each kind's share of the softmax over contrasts beside its share of their number, one panel per reward."""
    prompts = frame.groupby("kind")["n_prompts"].max().sort_values(ascending=False, kind="stable")
    kinds = [*prompts.index.drop(_RANDOM), _RANDOM]
    figure, panels = new_panels(2.8, 1, len(FOUR), sharex=True, sharey=True)
    for axes, reward in zip(panels, FOUR, strict=True):
        rows = frame[frame["reward"] == reward].set_index(["kind", "metric"])
        axes.axhspan(len(kinds) - 1.5, len(kinds) - 0.5, color="0.92", linewidth=0)
        for place, kind in enumerate(kinds):
            style.draw_dot(axes, rows.loc[(kind, "share")], place, **style.look_of_ensemble(reward, markersize=3.5))
        expected = rows.loc[[(kind, "expected") for kind in kinds], "mean"]
        axes.plot(expected, range(len(kinds)), **_EXPECTED)
        style.label_lines(axes, [f"{kind} ({prompts[kind]})" for kind in kinds])
        axes.set(title=REWARD_NAMES[reward], xlabel="share", xlim=(0, None))
    words = "share of the softmax over contrasts", "share of the number of contrasts"
    dot = Line2D([], [], color="0.3", marker="o", linestyle="none")
    figure.legend([dot, Line2D([], [], **_EXPECTED)], words, ncols=2, **style.ABOVE)
    return figure


@figure(
    "fig45_alternatives",
    "Simpler ways to compare a prompt's score with those of its contrasts, none of which has a temperature; mean AUROC "
    "and 95% bootstrap interval over prompts. Dashed: the raw reward.",
    alt=lambda frame: (
        "AUROC of simpler ways to compare a prompt with its contrasts: "
        f"{style.means_in_words(frame, 'form', ensembles=FOUR)}."
    ),
)
def alternatives(frame: pd.DataFrame) -> Figure:
    """AUROC of a reward's own score, of three simpler comparisons with the contrasts, and of TextNorm."""
    rows = frame[frame["metric"] == "auroc"]
    forms = list(rows["form"].unique())
    figure, panels = new_panels(2.1, 1, len(FOUR), sharex=True, sharey=True)
    for axes, reward in zip(panels, FOUR, strict=True):
        mine = rows[rows["rewards"] == reward].set_index("form")
        axes.axvline(mine.loc["own score", "mean"], color=style.COLOURS[reward], **style.RAW_LINE)
        for place, form in enumerate(forms):
            style.draw_dot(axes, mine.loc[form], place, **style.look_of_ensemble(reward, _FILLS.get(form, style.PALE)))
        style.label_lines(axes, forms)
        axes.set(title=REWARD_NAMES[reward], xlabel=f"AUROC (n = {style.prompts_of(mine)})")
    return figure


# ---- what TextNorm's confidence is worth

_CONFIDENT = ("pickscore", f"{UNDER_TEXTNORM}pickscore", f"{UNDER_TEXTNORM}{PAIR}")


@style.sentence("Reliability, and risk against coverage. {}.")
def _describe_confidence(curves: pd.DataFrame, risks: pd.DataFrame) -> Iterator[str]:
    for reward in _CONFIDENT:
        rows = curves[(curves["reward"] == reward) & (curves["set"] == ALL_SETS)]["probability"]
        risk = risks[risks["reward"] == reward].set_index("coverage")["risk"]
        half = risk.iloc[np.abs(risk.index - 0.5).argmin()]
        yield (
            f"{', '.join(judged_name(reward))}: bins from {rows.min():.2f} to {rows.max():.2f}, risk "
            f"{risk.iloc[0]:.2f} among the surest {risk.index[0]:.0%}, {half:.2f} among the surer half, "
            f"{risk.iloc[-1]:.2f} among all"
        )


@figure(
    "fig46_confidence",
    "Left: reliability of raw rewards and of TextNorm as probabilities of a good image, by one logistic map each, "
    "fitted to other prompts; ten bins of equally many images, all sets together. Right: share of bad images among "
    "those that each ranks highest over all prompts; dotted: among all. 95% bootstrap intervals over prompts.",
    alt=_describe_confidence,
)
def reliability_and_risk(curves: pd.DataFrame, risks: pd.DataFrame) -> Figure:
    """Left: reliability after the logistic map, all sets; right: share of bad images among the surest."""
    figure, (left, right) = new_panels(3.0, 1, 2)
    left.axline((0, 0), slope=1, **style.DOTTED)
    for reward in _CONFIDENT:
        name, form = judged_name(reward)
        rewards, raw = reward.removeprefix(UNDER_TEXTNORM), form == "raw"
        line = style.RAW_LINE if raw else {"linestyle": "-"}
        look = style.look_of_ensemble(rewards, style.HOLLOW if raw else style.FULL, markersize=3.5, **line)
        rows = curves[(curves["reward"] == reward) & (curves["set"] == ALL_SETS)]
        style.errorbar(left, rows["probability"], rows, "share_good", label=f"{name}, {form}", **look)
        rows = risks[risks["reward"] == reward]
        right.fill_between(rows["coverage"], rows["low"], rows["high"], color=look["color"], alpha=0.15, linewidth=0)
        right.plot(rows["coverage"], rows["risk"], markevery=2, **look)
    right.axhline(rows["risk"].iloc[-1], **style.DOTTED)
    left.set(xlabel="probability of a good image", ylabel="share of good images", xlim=(0, 1), ylim=(0, 1))
    images = f"{curves.loc[curves['set'] == ALL_SETS].groupby('reward')['n_images'].sum().max():,}"
    right.set(xlabel=f"coverage: share of {images} images", ylabel="risk: share of bad ones among them")
    right.set(xlim=(0, 1.02), ylim=(0, None))
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), columnspacing=1.2, **style.ABOVE)
    return figure


# ---- where TextNorm helps and where it hurts, prompt by prompt

_INTERVAL = {"resamples": 2000, "confidence": 0.95, "seed": 0}


@style.sentence("Change in AUROC under TextNorm, prompt by prompt: {}.")
def _describe_gains(gains: pd.DataFrame) -> Iterator[str]:
    for reward in FOUR:
        rows = gains[gains["reward"] == reward]
        prompts = rows.drop_duplicates(["set", "prompt"])["gain"]
        classes = rows.groupby("class")["gain"].mean()
        yield (
            f"{REWARD_NAMES[reward]} mean {prompts.mean():+.3f}, worse on {(prompts < 0).sum()} of {len(prompts)} "
            f"prompts, lowest class {classes.idxmin()} {classes.min():+.3f}"
        )


@figure(
    "fig47_where_textnorm_hurts",
    "What TextNorm changes in each prompt's AUROC (dots; grey side: worse than raw), and the mean with its 95% "
    "bootstrap interval over prompts: by set, by the number of objects asked for, and by class, a prompt counting for "
    "each class that it names (prompts in brackets; no interval for one).",
    alt=_describe_gains,
)
def where_textnorm_hurts(gains: pd.DataFrame) -> Figure:
    """Each prompt's change in AUROC and the mean by set, objects asked for and class, one panel per reward."""
    blocks = list(_blocks(gains))
    labels = [label for block in blocks for label in block["label"].unique()]
    figure, panels = new_panels(0.9 + 0.175 * len(labels), 1, len(FOUR), sharex=True, sharey=True)
    reach = 1.05 * gains["gain"].abs().max()
    for axes, reward in zip(panels, FOUR, strict=True):
        axes.axvspan(-reach, 0, color="0.93", linewidth=0)
        for block in blocks:
            for label, rows in block[block["reward"] == reward].groupby("label", sort=False):
                _draw_group(axes, rows["gain"].to_numpy(), labels.index(label), style.COLOURS[reward])
        for end in np.cumsum([block["label"].nunique() for block in blocks])[:-1]:
            axes.axhline(end - 0.5, color="0.7", linewidth=0.6)
        style.label_lines(axes, labels)
        axes.set(title=f"{REWARD_NAMES[reward]}\nworse     better", xlabel="change in AUROC", xlim=(-reach, reach))
    return figure


def _blocks(gains: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """By set, by number of objects, by class: reward, gain, label (with the number of prompts)."""
    prompts = gains.drop_duplicates(["reward", "set", "prompt"])
    asked = prompts["prompt"].map(_objects)
    for frame, groups, order in (
        (prompts, prompts["set"], [name for name in style.SETS if name in set(prompts["set"])]),
        (prompts, asked, sorted(asked.dropna().unique())),
        (gains, gains["class"], sorted(set(gains["class"]) & set(CLASSES))),
    ):
        for_reward = frame[frame["reward"] == FOUR[0]]
        sizes = groups[for_reward.index].value_counts()
        names = {group: f"{_words(group)} ({sizes[group]})" for group in order}
        block = frame.assign(label=groups.map(names), place=groups.map({group: i for i, group in enumerate(order)}))
        yield block.dropna(subset="label").sort_values("place", kind="stable")


def _objects(prompt: str) -> float:
    """How many objects a prompt asks for; nan where the grammar cannot read it."""
    try:
        return sum(asked.count for asked in parse(prompt).objects)
    except DataError:
        return np.nan


def _words(group: str | float) -> str:
    return group if isinstance(group, str) else f"{group:.0f} object{'s' if group > 1 else ''}"


def _draw_group(axes: Axes, values: np.ndarray, place: int, colour: Sequence[float]) -> None:
    """Every prompt as a pale dot, their mean as a black bar with its 95% bootstrap interval."""
    axes.scatter(values, np.full(len(values), place), s=6, color=colour, alpha=0.6, linewidth=0)
    low, high = prompt_bootstrap(lambda counts: counts @ values / counts.sum(1), len(values), **_INTERVAL)
    axes.plot([low, high], [place, place], color="black", linewidth=0.8)
    axes.plot(values.mean(), place, color="black", marker="|", markersize=6)


# ---- the heat maps of appendix 8.3 for the mini world and for TextNorm, in the layout of the released ones

_SCALE = (
    "in the titles the mean and the number of prompts. TextNorm is that of ImageReward + PickScore. Colours as in the "
    "released heat maps: white .75, blue above, red below."
)


def _five_rewards(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the four rewards and of the pair's TextNorm, here "textnorm", and the rewards that there are."""
    named = frame.assign(reward=frame["reward"].replace(f"{UNDER_TEXTNORM}{PAIR}", "textnorm"))
    rewards = style.rewards_of(named)
    return named[named["reward"].isin(rewards)], rewards


def _describe_heatmaps(frame: pd.DataFrame, *, what: str) -> str:
    return style.describe_grids(_five_rewards(frame)[0], what=what)


@figure(
    "fig48_mini_heatmaps_counting",
    f"AUROC by class and count for the mini world, as in appendix 8.3; {_SCALE}",
    alt=partial(_describe_heatmaps, what="class and count"),
    paper_item="Appendix 8.3",
)
def heatmaps_by_count(frame: pd.DataFrame) -> Figure:
    """Five matrices of classes against counts one to six, abreast."""
    frame, rewards = _five_rewards(frame)
    figure, panels = new_panels(4.9, 1, len(rewards), sharex=True, sharey=True, squeeze=False)
    for axes, reward in zip(panels.flat, rewards, strict=True):
        mesh = _draw_grid(axes, frame, reward, grid(frame, reward).reindex(columns=range(1, 7)), size=4.6)
        axes.tick_params(labelsize=6)
        axes.set_xlabel("count")
    style.draw_scale(figure, mesh, list(panels.flat))
    figure.legend(handles=_empty_cells(), ncols=2, **style.ABOVE)
    return figure


@figure(
    "fig49_mini_heatmaps_composition",
    f"AUROC by pair of classes for the mini world, as in appendix 8.3; {_SCALE}",
    alt=partial(_describe_heatmaps, what="pair of classes"),
    paper_item="Appendix 8.3",
)
def heatmaps_by_pair(frame: pd.DataFrame) -> Figure:
    """Five matrices of classes against classes, two abreast; what colours and empty cells mean in the sixth place."""
    frame, rewards = _five_rewards(frame)
    figure, panels = new_panels(7.6, 3, 2)
    for axes, reward in zip(panels.flat, rewards, strict=False):
        mesh = _draw_grid(axes, frame, reward, grid(frame, reward), size=None)
        axes.tick_params(labelsize=4.8, pad=1)
    for axes in panels.flat[len(rewards) :]:
        axes.set_axis_off()
    panels[-1, -1].legend(handles=_empty_cells(), frameon=False, loc="center")
    style.draw_scale(figure, mesh, panels[-1, -1])
    return figure


def _draw_grid(axes: Axes, frame: pd.DataFrame, reward: str, matrix: pd.DataFrame, *, size: float | None) -> AxesImage:
    """``draw_matrix`` with white lines between the cells."""
    mesh = style.draw_matrix(axes, frame, reward, matrix, size=size)
    axes.hlines(np.arange(len(matrix) - 1) + 0.5, -0.5, matrix.shape[1] - 0.5, color="white", linewidth=0.4)
    axes.vlines(np.arange(matrix.shape[1] - 1) + 0.5, -0.5, len(matrix) - 0.5, color="white", linewidth=0.4)
    return mesh


def _empty_cells() -> list[Patch]:
    return [
        Patch(color="0.88", label="no such prompt judged in this profile"),
        Patch(fill=False, linewidth=0, label=f"{style.ONE_LABEL}  all images have one label"),
    ]


# ---- tables


@table(
    "tab22_textnorm_rewards",
    "The mini world's rewards, raw and under TextNorm, against its annotators: mean over the prompts with both labels "
    "(their number in brackets) and 95% bootstrap interval over prompts.",
    paper_item="Main metric table (section 4.3)",
)
def textnorm_rewards(summary: pd.DataFrame) -> pd.DataFrame:
    """Rewards raw and under TextNorm on three sets and all prompts by seven metrics, each with its interval."""
    table = style.by_metric(style.with_cells(summary, digits=2), ["set", "reward"], product(SET_ORDER, JUDGED))
    rewards, scores = zip(*table.pop("reward").map(judged_name), strict=True)
    table.insert(1, "rewards", rewards)
    table.insert(2, "score", scores)
    return table.replace({"set": style.with_prompts(summary)})


@table(
    "tab23_leaks",
    "Temperature and penalty chosen in four ways: on other prompts (held out), on prompts of other classes, on all "
    "prompts at once, and on each prompt's own labels, as the released TextNorm scores most likely were. AUROC and AP "
    "(mean of AP@5, 10 and 25) with 95% bootstrap intervals over prompts, those of the gains over held out paired.",
)
def ways_to_choose(choices: pd.DataFrame, gains: pd.DataFrame) -> pd.DataFrame:
    """AUROC and AP of six ensembles under four ways to choose settings, with their gains over held out."""
    cells, more = (style.with_cells(frame).set_index(["rewards", "choice", "metric"]) for frame in (choices, gains))
    rows = []
    for rewards, choice in product(ENSEMBLES, CHOICES):
        row = [ensemble_name(rewards), choice]
        for metric in ("auroc", "ap"):
            key = (rewards, choice, metric)
            row += [cells.loc[key, "cell"], more.loc[key, "cell"] if key in more.index else "–"]
        rows.append((*row, cells.loc[key, "n_prompts"]))
    columns = ["rewards", "setting", "AUROC", "gain in AUROC", "AP", "gain in AP", "prompts"]
    return pd.DataFrame(rows, columns=columns)


@table(
    "tab24_confidence",
    "Raw rewards and TextNorm as probabilities of a good image, by one logistic map each, fitted to other prompts: "
    "expected calibration error by set (prompts in brackets; a star: more than chance alone gives), Brier score over "
    "all (in brackets: were one probability given to all), and the share of bad images in the half that is ranked "
    "higher over all prompts. 95% bootstrap intervals over prompts.",
)
def confidence(errors: pd.DataFrame, risks: pd.DataFrame) -> pd.DataFrame:
    """Calibration error on three sets and all, Brier score and risk at half coverage, raw and under TextNorm."""
    cells = style.with_cells(errors, "value").set_index(["reward", "metric", "set"])
    half = risks.loc[(risks["coverage"] - 0.5).abs().round(9) == 0].set_index("reward")
    sizes = errors.drop_duplicates("set").set_index("set")["n_prompts"]
    rows = []
    for reward in [reward for reward in JUDGED if (reward, "ece", ALL_SETS) in cells.index]:
        row = dict(zip(("rewards", "score"), judged_name(reward), strict=True))
        for name in [name for name in SET_ORDER if name in sizes.index]:
            ece = cells.loc[(reward, "ece", name)]
            mark = STAR if ece["value"] > ece["reference"] else ""
            row[f"ECE, {name} ({sizes[name]})"] = f"{ece['cell']}{mark}"
        brier = cells.loc[(reward, "brier", ALL_SETS)]
        row[f"Brier score ({short(brier['reference'])})"] = brier["cell"]
        row["bad in the surer half"] = interval(half.loc[reward], middle="risk")
        rows.append(row)
    return pd.DataFrame(rows)


@table(
    "tab25_textnorm_tests",
    "TextNorm against what it is made from, on the sealed prompts: differences of AUROC and AP@10 over all prompts "
    "with 95% bootstrap intervals, prompts won, tied and lost. A star: p < .05 by Wilcoxon's signed-rank test after "
    "Holm's adjustment over all rows and both metrics.",
)
def paired_tests(tests: pd.DataFrame) -> pd.DataFrame:
    """Differences between rewards, TextNorm of each, the ensemble, and TextNorm over random prompts."""
    found = tests[tests["set"] == ALL_SETS]
    rows = []
    for (reward, reference), pair in found.groupby(["reward", "reference"], sort=False):
        cells = [", ".join(judged_name(name)) for name in (reference, reward)]
        for metric in ("auroc", "ap10"):
            row = pair[pair["metric"] == metric].iloc[0]
            cells += [style.starred(row), f"{row['wins']} / {row['ties']} / {row['losses']}"]
        rows.append(cells)
    return pd.DataFrame(
        rows, columns=["this", "minus this", "AUROC", style.COUNTED, "AP@10", f"{style.COUNTED} (AP@10)"]
    )
