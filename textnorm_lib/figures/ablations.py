"""Figures and tables of notebook 03: TextNorm under other settings, contrastive prompts and ensembles.

One colour and marker stands for each reward and for each ensemble, hollow for the raw score, filled under TextNorm.
``mechanism`` has the notebook's second half: why TextNorm helps, where it hurts, how it stands beside raw rewards.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product

import pandas as pd
from matplotlib.artist import setp
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from textnorm_lib.confidence.tuning import BY_PROMPT, CLASSES_HELD_OUT, HINDSIGHT
from textnorm_lib.figures import style
from textnorm_lib.stats.metrics import ALL_SETS
from textnorm_lib.stats.names import ALL_FOUR, ENSEMBLES, FOUR, PAIR, REWARD_NAMES, UNDER_TEXTNORM, ensemble_name
from textnorm_lib.study.drawing import new_panels
from textnorm_lib.study.items import of_notebook
from textnorm_lib.study.printed import interval

figure, table = of_notebook("03_textnorm_ablations", needs="labels")

METRICS = {"auroc": "AUROC", "ap": "AP"}

_MEAN = "mean and 95% bootstrap interval over prompts"


# ---- dots with intervals, a line of the panel for each group


def _draw_dots(
    axes: Axes, frame: pd.DataFrame, *, form: str, fills: Mapping[str, str], by: str, groups: Mapping[str, str]
) -> None:
    """A line for each of ``groups`` (with its label), in it from the top a dot for each of ``fills`` that there is.

    ``frame``: rewards, mean, low, high; its columns ``by`` and ``form`` say which group and which of ``fills``.
    """
    rows = frame.set_index([by, form])
    for place, group in enumerate(groups):
        for index, (name, fill) in enumerate(fills.items()):
            if (group, name) in rows.index:
                row = rows.loc[(group, name)]
                rewards = group if by == "rewards" else row["rewards"]
                offset = (index - (len(fills) - 1) / 2) * 0.72 / len(fills)
                style.draw_dot(axes, row, place + offset, **style.look_of_ensemble(rewards, fill, markersize=3.5))
    style.label_lines(axes, list(groups.values()))


def _broken(rewards: str) -> str:
    """The name of an ensemble, broken where it is long."""
    return ensemble_name(rewards).replace(" + ", "\n+ ", 1)


_draw_ensembles = partial(_draw_dots, by="rewards", groups={name: _broken(name) for name in ENSEMBLES})


# ---- TextNorm against its temperature, its penalty and the number of contrastive prompts


def _draw_settings(
    frame: pd.DataFrame, raw: pd.DataFrame, by: str, lines: Sequence, height: float, label: str, scale: Mapping
) -> Figure:
    """Each of ``lines`` (metric, ensembles) is a row of panels, an ensemble each, against the setting in column ``by``.

    ``scale``: what ``_arrange`` takes.
    """
    share = "row" if len({metric for metric, _ in lines}) > 1 else "all"
    figure, panels = new_panels(height, len(lines), len(lines[0][1]), sharex=True, sharey=share)
    titled = set()
    for line, (metric, ensembles) in zip(panels, lines, strict=True):
        line[0].set_ylabel(METRICS[metric])
        for axes, rewards in zip(line, ensembles, strict=True):
            _arrange(axes, **scale)
            rows, one = (style.rows_of(some, metric, rewards) for some in (frame, raw))
            _draw_curve(axes, by, rows.sort_values(by), one.iloc[0], scale["raw"])
            name = ensemble_name(rewards) if len(ensembles) < 4 else _broken(rewards)
            axes.set_title("" if rewards in titled else name)
            titled.add(rewards)
    setp(panels[-1], xlabel=label)
    line = Line2D([], [], color="0.3", marker="o", markersize=3)
    dashed = Line2D([], [], color="0.3", marker="o", markersize=3.5, markerfacecolor="white", **style.RAW_LINE)
    figure.legend([line, dashed], [f"TextNorm (n = {style.prompts_of(frame)} prompts)", "raw"], ncols=2, **style.ABOVE)
    return figure


def _arrange(axes: Axes, *, kind: str, limits: tuple, raw: float, ticks: Sequence[float], **options: float) -> None:
    """A setting's axis: matplotlib's ``kind`` of scale with its ``options``; the raw value stands at ``raw``."""
    axes.set_xscale(kind, **options)
    axes.set_xlim(limits)
    axes.set_xticks([raw, *ticks], ["raw", *(f"{value:g}" for value in ticks)], size=6.5)
    axes.set_xticks([], minor=True)


def _draw_curve(axes: Axes, by: str, rows: pd.DataFrame, raw: pd.Series, raw_at: float) -> None:
    """TextNorm's means with their band against column ``by``; the raw value with its interval, dashed across.

    ``rows`` and ``raw``: rewards (one only), mean, low, high; ``raw_at``: where on the axis the raw value stands.
    """
    look = style.look_of_ensemble(raw["rewards"])
    axes.fill_between(rows[by], rows["low"], rows["high"], color=look["color"], alpha=0.2, linewidth=0)
    axes.plot(rows[by], rows["mean"], markersize=3, **look)
    axes.axhline(raw["mean"], color=look["color"], **style.RAW_LINE)
    hollow = style.look_of_ensemble(raw["rewards"], style.HOLLOW, markersize=3.5, linestyle="none")
    style.errorbar(axes, raw_at, raw, capsize=0, **hollow)


@style.sentence("TextNorm against {what}, beside the raw reward. AUROC: {}.")
def _describe_settings(
    frame: pd.DataFrame, raw: pd.DataFrame, *, by: str, what: str, ensembles: Sequence[str]
) -> Iterator[str]:
    for rewards in ensembles:
        rows, one = (style.rows_of(some, "auroc", rewards) for some in (frame, raw))
        best = rows.loc[rows["mean"].idxmax()]
        yield (
            f"{ensemble_name(rewards)} {rows['mean'].min():.3f} to {best['mean']:.3f} (best at {best[by]:g}), raw "
            f"{one['mean'].item():.3f}"
        )


@figure(
    "fig37_temperature",
    "TextNorm against its temperature, counted in units of the reward: the standard deviation of its scores of one "
    f"prompt's images. AUROC and AP (mean of AP@5, 10 and 25), {_MEAN}; dashed: the raw reward.",
    alt=partial(_describe_settings, by="temperature", what="its temperature", ensembles=(*FOUR, PAIR)),
)
def temperatures(frame: pd.DataFrame, raw: pd.DataFrame) -> Figure:
    """AUROC and AP of five ensembles against the temperature, on a logarithmic axis."""
    lines = [(metric, (*FOUR, PAIR)) for metric in METRICS]
    scale = {"kind": "log", "limits": (0.008, 14), "raw": 0.015, "ticks": [0.1, 1, 10]}
    return _draw_settings(frame, raw, "temperature", lines, 3.6, "temperature\n(reward's units)", scale)


@figure(
    "fig38_penalty",
    "TextNorm of two ensembles against the penalty on their disagreement (equation 3; 0 is equation 2), each at its "
    f"best temperature. AUROC and AP (mean of AP@5, 10 and 25), {_MEAN}; dashed: the raw rewards' mean.",
    alt=partial(_describe_settings, by="penalty", what="its penalty", ensembles=(PAIR, ALL_FOUR)),
)
def penalties(frame: pd.DataFrame, raw: pd.DataFrame) -> Figure:
    """AUROC and AP of two ensembles against the penalty, on an axis linear up to 0.1, then logarithmic."""
    lines = [(metric, (PAIR, ALL_FOUR)) for metric in METRICS]
    scale = {"kind": "symlog", "linthresh": 0.1, "linscale": 0.6}
    scale |= {"limits": (-0.17, 5.5), "raw": -0.1, "ticks": [0, 0.1, 0.5, 1, 2, 4]}
    return _draw_settings(frame, raw, "penalty", lines, 3.4, "penalty", scale)


@figure(
    "fig40_set_size",
    f"AUROC against the number of contrastive prompts; {_MEAN}, settings held out; dashed: the raw reward.",
    alt=partial(_describe_settings, by="most", what="the number of contrastive prompts", ensembles=ENSEMBLES),
)
def set_sizes(frame: pd.DataFrame, raw: pd.DataFrame) -> Figure:
    """AUROC of six ensembles against the number of contrastive prompts, which doubles along the axis."""
    lines = [("auroc", ENSEMBLES[:3]), ("auroc", ENSEMBLES[3:])]
    scale = {"kind": "log", "base": 2, "limits": (0.36, 21), "raw": 0.5, "ticks": [1, 2, 4, 8, 16]}
    return _draw_settings(frame, raw, "most", lines, 3.6, "contrastive prompts", scale)


# ---- other contrastive prompts, other ensembles, settings chosen in other ways

_SOURCES = {"none": style.HOLLOW, "random": style.HALF, "rules": style.FULL}
_WITH_RELEASED = {**_SOURCES, "released": style.PALE}
_PREFIXES = {"none": "", "random": "random:", "rules": UNDER_TEXTNORM}  # of the columns of sealed scores
_USE_NAMES = {"only": "only this kind", "without": "all kinds but this"}
_USES = dict(zip(_USE_NAMES.values(), (style.PALE, style.FULL), strict=True))
_FORM_NAMES = {"raw": "raw", "mean": "TextNorm, mean", "uncertainty": "TextNorm, penalty"}
_FORMS = dict(zip(_FORM_NAMES.values(), (style.HOLLOW, style.PALE, style.FULL), strict=True))
_LEAKS = {CLASSES_HELD_OUT: style.HALF, HINDSIGHT: style.PALE, BY_PROMPT: style.FULL}


def _describe_sources(every: pd.DataFrame, shared: pd.DataFrame) -> str:
    left = style.means_in_words(every[every["source"].isin(_SOURCES)], "source")
    right = style.means_in_words(shared, "source", ensembles=[PAIR])
    return f"AUROC by source of the contrastive prompts. All prompts: {left}. Prompts with released sets: {right}."


@figure(
    "fig39_contrastive_sources",
    "AUROC by where the contrastive prompts come from: none (the raw reward), random prompts, rules, and on the right "
    f"the released sets; {_MEAN}, settings held out. In each group from the top in the legend's order.",
    alt=_describe_sources,
    needs="tia2 labels",
    paper_item="Table 1, rows by contrastive prompts",
    paper_value="AUROC .764 none (PickScore), .641 random, .780 by a language model",
)
def contrastive_sources(every: pd.DataFrame, shared: pd.DataFrame) -> Figure:
    """AUROC by source of the contrastive prompts: of all prompts, and of those that have released sets."""
    figure, panels = new_panels(3.7, 1, 2, sharey=True)
    for axes, frame, fills, whose in (
        (panels[0], every[every["source"].isin(_SOURCES)], _SOURCES, "all"),
        (panels[1], shared, _WITH_RELEASED, "with released sets"),
    ):
        rows = frame[frame["metric"] == "auroc"]
        _draw_ensembles(axes, rows, form="source", fills=fills)
        axes.set(title=f"prompts: {whose} (n = {style.prompts_of(rows)})", xlabel="AUROC")
    style.explain_fills(figure, _WITH_RELEASED)
    return figure


def _describe_kinds(frame: pd.DataFrame) -> str:
    words = []
    for kind, rows in style.rows_of(frame, "auroc", PAIR).groupby("kind", sort=False):
        gains = (f"{mean:+.3f} {_USE_NAMES[use]}" for mean, use in zip(rows["mean"], rows["use"], strict=True))
        words.append(f"{kind} ({rows['n_prompts'].max()} prompts) {' and '.join(gains)}")
    return f"Gain in AUROC over the raw reward by kind of contrast; {ensemble_name(PAIR)}: {'; '.join(words)}."


@figure(
    "fig41_kinds",
    "What each kind of contrast is worth: gain in AUROC over the raw reward with contrasts of that kind only, and with "
    "all others, on the prompts that have the kind (in brackets), under the setting that is best with all contrasts; "
    "mean and 95% paired bootstrap interval over prompts.",
    alt=_describe_kinds,
)
def kinds_of_contrast(frame: pd.DataFrame) -> Figure:
    """Gain in AUROC by kind of contrast, the most frequent kind first, one panel per ensemble."""
    rows = frame[frame["metric"] == "auroc"].assign(form=frame["use"].map(_USE_NAMES))
    prompts = rows.groupby("kind")["n_prompts"].max().sort_values(ascending=False, kind="stable")
    groups = {kind: f"{kind} ({n})" for kind, n in prompts.items()}
    figure, panels = new_panels(4.4, 2, 3, sharex=True, sharey=True)
    for axes, rewards in zip(panels.flat, ENSEMBLES, strict=True):
        axes.axvline(0, **style.DOTTED)
        mine = rows[rows["rewards"] == rewards]
        _draw_dots(axes, mine, form="form", fills=_USES, by="kind", groups=groups)
        axes.set_title(ensemble_name(rewards))
    for axes in panels[1]:
        axes.set_xlabel("gain in AUROC over raw")
        axes.locator_params(axis="x", nbins=5)
    style.explain_fills(figure, _USES)
    return figure


@style.sentence("AUROC and AP of every subset of the four rewards. AUROC, {}.")
def _describe_ensembles(frame: pd.DataFrame) -> Iterator[str]:
    for form, name in _FORM_NAMES.items():
        rows = frame[(frame["form"] == form) & (frame["metric"] == "auroc")].set_index("rewards")["mean"]
        best = rows.idxmax()
        yield f"{name}: best {ensemble_name(best)} {rows[best]:.3f}, all four {rows[ALL_FOUR]:.3f}"


@figure(
    "fig42_ensembles",
    "Every subset of the four rewards: the mean of the raw rewards, the mean of their TextNorms (equation 2), and with "
    f"a penalty on their disagreement (equation 3). AUROC and AP (mean of AP@5, 10 and 25), {_MEAN}, settings held "
    "out. A reward alone has no penalty.",
    alt=_describe_ensembles,
    paper_item="Table 1, last row (ensemble)",
    paper_value="AUROC .822 with the ensemble, .780 without",
)
def every_ensemble(frame: pd.DataFrame) -> Figure:
    """All subsets of the rewards, small ones first: raw, mean and penalised, AUROC and AP."""
    order = list(REWARD_NAMES)
    groups = sorted(frame["rewards"].unique(), key=lambda some: [some.count("+"), *map(order.index, some.split("+"))])
    sizes = pd.Series([name.count("+") for name in groups])
    rows = frame[(frame["form"] != "uncertainty") | frame["rewards"].str.contains("+", regex=False)]
    rows = rows.assign(form=rows["form"].map(_FORM_NAMES))
    figure, panels = new_panels(4.9, 1, 2, sharey=True)
    for axes, (metric, printed) in zip(panels, METRICS.items(), strict=True):
        mine = rows[rows["metric"] == metric]
        names = {name: ensemble_name(name) for name in groups}
        _draw_dots(axes, mine, form="form", fills=_FORMS, by="rewards", groups=names)
        axes.set_xlabel(f"{printed} (n = {style.prompts_of(rows)})")
        for place in sizes.index[sizes.diff() > 0]:
            axes.axhline(place - 0.5, color="0.85", linewidth=0.6)
    panels[0].tick_params(axis="y", labelsize=6.5)
    style.explain_fills(figure, _FORMS)
    return figure


@figure(
    "fig43_leaks",
    "What it is worth to choose temperature and penalty on the labels that they are judged on: gain over a choice that "
    "is held out. The released TextNorm scores have a setting a prompt. AUROC and AP (mean of AP@5, 10 and 25), mean "
    "and 95% paired bootstrap interval over prompts.",
    alt=lambda frame: (
        "Gain over a setting that is held out, AUROC and AP. AP: "
        f"{style.means_in_words(frame, 'choice', metric='ap', sign='+')}."
    ),
)
def gains_from_leaks(frame: pd.DataFrame) -> Figure:
    """What each choice of a setting gains over one that is held out."""
    figure, panels = new_panels(3.3, 1, 2, sharey=True, sharex=True)
    for axes, (metric, printed) in zip(panels, METRICS.items(), strict=True):
        axes.axvline(0, **style.DOTTED)
        rows = frame[frame["metric"] == metric]
        _draw_ensembles(axes, rows, form="choice", fills=_LEAKS)
        axes.set_xlabel(f"gain in {printed} over held out (n = {style.prompts_of(rows)})")
    style.explain_fills(figure, _LEAKS)
    return figure


# ---- tables


@table(
    "tab20_released_lint",
    "What is wrong with the released contrastive sets, by rules: entries with a fault, their share of all, and the "
    "number of prompts whose set has one; in the heading all entries and prompts. Nothing in common is a hint rather "
    "than a fault.",
    needs="tia2",
    paper_item="Section 4.2, contrastive prompt sets",
)
def released_faults(summary: pd.DataFrame) -> pd.DataFrame:
    """Five faults of the released contrastive sets, a column for each set."""
    share = (summary["entries"] / summary["all_entries"]).map(" ({:.1%})".format)
    entries, prompts = (summary[column].map("{:,}".format) for column in ("entries", "prompts"))
    cells = summary.assign(cell=entries + share + " in " + prompts)
    sizes = summary.drop_duplicates("set").set_index("set")
    names = {one.Index: f"{one.Index} ({one.all_entries:,} in {one.all_prompts:,})" for one in sizes.itertuples()}
    return style.by_set(cells, "fault", names)


@table(
    "tab21_ablation",
    "The paper's ablation (table 1) in the mini world: rewards and ensembles by where the contrastive prompts come "
    "from (none: raw). Development prompts: AUROC and AP (mean of AP@5, 10 and 25), settings held out. Sealed prompts, "
    "scored once: AUROC and AUPRC, settings chosen on development prompts. Mean over prompts and 95% bootstrap "
    "interval; number of prompts in the heading.",
    paper_item="Table 1",
    paper_value="AUROC/AUPRC .764/.669 (PickScore), .641/.540 random, .780/.704 by a language model, .822/.752 "
    "(ensemble)",
)
def papers_ablation(development: pd.DataFrame, sealed: pd.DataFrame) -> pd.DataFrame:
    """AUROC and AP of six ensembles without contrastive prompts, with random ones and with those by rules."""
    cells = style.with_cells(development).set_index(["rewards", "source", "metric"])["cell"]
    once = sealed[sealed["set"] == ALL_SETS].set_index(["reward", "metric"])
    rows = []
    for rewards, (source, prefix) in product(ENSEMBLES, _PREFIXES.items()):
        shown = [cells[rewards, source, metric] for metric in ("auroc", "ap")]
        keys = [(prefix + rewards, metric) for metric in ("auroc", "auprc")]
        later = [interval(once.loc[key]) for key in keys if key in once.index] or ["–", "–"]
        rows.append((ensemble_name(rewards), source, *shown, *later))
    known = development.loc[development["source"] == "none", "n_prompts"].max()
    names = [f"{metric}, development ({known})" for metric in ("AUROC", "AP")]
    names += [f"{metric}, sealed ({once['n_prompts'].max()})" for metric in ("AUROC", "AUPRC")]
    return pd.DataFrame(rows, columns=["rewards", "contrastive prompts", *names])
