"""Figures and tables of TextNorm's ablations: what is drawn, where, and with which labels, on made-up frames."""

from itertools import combinations, pairwise, product

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from toys import draw, judged_images

from textnorm_lib.confidence.ablations import gains_by_group, risk_coverage
from textnorm_lib.confidence.tuning import CHOICES
from textnorm_lib.figures.style import COLOURS, rows_of
from textnorm_lib.prompts.linter import as_frame, lint, lint_summary
from textnorm_lib.prompts.templates import CLASSES, counting_prompt
from textnorm_lib.stats.calibration import calibration_errors, out_of_fold_probabilities, reliability_curves
from textnorm_lib.stats.metrics import prompt_metrics, summarise
from textnorm_lib.stats.names import (
    ALL_FOUR,
    ENSEMBLES,
    FOUR,
    METRIC_NAMES,
    PAIR,
    UNDER_TEXTNORM,
    ensemble_name,
    judged_name,
)
from textnorm_lib.study.items import FIGURES, TABLES
from textnorm_lib.study.printed import NO_BREAK, STAR, short
from textnorm_lib.tia2 import released

PRINTED = ["CLIP", "BLIP-2", "ImageReward", "PickScore"]
BOOTSTRAP = {"resamples": 100, "confidence": 0.95, "seed": 0}
JUDGED = [*FOUR, *(f"{UNDER_TEXTNORM}{name}" for name in ENSEMBLES)]
EVERY = ["+".join(some) for size in range(1, 5) for some in combinations(FOUR, size)]
PER_PROMPT = 12


def _means(*, n_prompts=31, metrics=("ap", "auroc"), **columns):
    """A made-up ``mean_values``: every combination of ``columns``, each with its own mean and a lopsided interval."""
    rows = list(product(*columns.values(), metrics))
    frame = pd.DataFrame(rows, columns=[*columns, "metric"])
    mean = np.random.default_rng(0).uniform(0.5, 0.9, len(frame))
    return frame.assign(mean=mean, low=mean - 0.03, high=mean + 0.05, n_prompts=n_prompts)


@pytest.fixture(scope="module")
def images():
    """Four counting prompts (one has one label only), three composition and four comprehensive ones."""
    counting = [counting_prompt("deer", count) for count in (1, 3)] + [counting_prompt("cup", n) for n in (2, 3)]
    return judged_images(counting, ("dog", "cup", "vase"), JUDGED, each=PER_PROMPT)


@pytest.fixture(scope="module")
def metrics(images):
    return prompt_metrics(images, JUDGED)


@pytest.fixture(scope="module")
def confident(images):
    """The reliability curves, the calibration errors and the risks."""
    probabilities = out_of_fold_probabilities(images, rewards=JUDGED, seed=0, folds=5)
    risks = risk_coverage(images, rewards=JUDGED, coverages=[0.25, 0.5, 0.75, 1.0], **BOOTSTRAP)
    return (
        reliability_curves(probabilities, bins=4, **BOOTSTRAP),
        calibration_errors(probabilities, **BOOTSTRAP),
        risks,
    )


def _dots(axes):
    """(x, y, colour, face) of each dot with an interval, in order of drawing."""
    lines = [container.lines[0] for container in axes.containers]
    return [(line.get_xdata()[0], line.get_ydata()[0], line.get_color(), line.get_markerfacecolor()) for line in lines]


def _interval(axes, index):
    """The two ends of an errorbar that lies."""
    (segment,) = axes.containers[index].lines[2][0].get_segments()
    return segment[:, 0].tolist()


def _labels(ticks):
    return [label.get_text() for label in ticks]


def test_each_item_belongs_to_notebook_03_and_says_what_it_needs():
    figures = {name: item for name, item in FIGURES.items() if "fig37" <= name < "fig50"}
    tables = {name: item for name, item in TABLES.items() if "tab20" <= name < "tab26"}
    assert (len(figures), len(tables)) == (13, 6)
    assert {item.notebook for item in (*figures.values(), *tables.values())} == {"03_textnorm_ablations"}
    needs = {name: item.needs for name, item in (figures | tables).items() if item.needs != "labels"}
    assert needs == {"fig39_contrastive_sources": "tia2 labels", "tab20_released_lint": "tia2"}


@pytest.mark.parametrize(
    ("name", "by", "values", "ensembles", "titles"),
    [
        ("fig37_temperature", "temperature", (0.1, 1.0, 5.0), (*FOUR, PAIR), [*PRINTED, "ImageReward\n+ PickScore"]),
        ("fig38_penalty", "penalty", (0.0, 0.1, 4.0), (PAIR, ALL_FOUR), ["ImageReward + PickScore", "all four"]),
    ],
)
def test_a_setting_is_drawn_with_its_band_and_the_raw_value_with_its_interval(name, by, values, ensembles, titles):
    frame, raw = _means(rewards=EVERY, **{by: values}), _means(rewards=EVERY)
    figure = draw(name, frame.sample(frac=1, random_state=0), raw)
    panels = figure.axes
    assert [axes.get_title() for axes in panels] == [*titles, *[""] * len(titles)]
    assert [axes.get_ylabel() for axes in panels if axes.get_ylabel()] == ["AUROC", "AP"]
    places = list(product(("auroc", "ap"), ensembles))
    for axes, (metric, rewards) in zip(panels, places, strict=True):
        rows = rows_of(frame, metric, rewards)
        curve, dashed, point = axes.lines[:3]
        assert (curve.get_xdata().tolist(), curve.get_ydata().tolist()) == (list(values), rows["mean"].tolist())
        band = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert band.min() == rows["low"].min() and band.max() == rows["high"].max()
        one = rows_of(raw, metric, rewards).iloc[0]
        assert dashed.get_linestyle() == "--" and dashed.get_ydata()[0] == one["mean"] == point.get_ydata()[0]
        assert (curve.get_markerfacecolor(), point.get_markerfacecolor()) == (curve.get_color(), "white")
        (ends,) = axes.containers[0].lines[2][0].get_segments()
        assert ends[:, 1].tolist() == pytest.approx([one["low"], one["high"]])
    ticks = _labels(panels[-1].get_xticklabels())
    assert ticks[0] == "raw" and ticks[1:] == sorted(ticks[1:], key=float)
    assert panels[-1].get_xticks()[0] == point.get_xdata()[0] < min(values)
    assert _labels(figure.legends[0].get_texts()) == ["TextNorm (n = 31 prompts)", "raw"]
    best = frame.query("metric == 'auroc' and rewards == @PAIR").set_index(by)["mean"]
    text = FIGURES[name].describe(frame, raw)
    assert f"ImageReward + PickScore {best.min():.3f} to {best.max():.3f} (best at {best.idxmax():g}), raw" in text


def test_the_temperature_counts_in_units_of_the_reward_on_a_logarithmic_axis():
    figure = draw("fig37_temperature", _means(rewards=EVERY, temperature=(0.1, 1.0)), _means(rewards=EVERY))
    axes = figure.axes[5]
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "temperature\n(reward's units)"


def test_set_sizes_double_along_the_axis_and_share_one_scale():
    frame, raw = _means(rewards=ENSEMBLES, most=(1, 2, 4, 8, 16)), _means(rewards=EVERY)
    panels = draw("fig40_set_size", frame, raw).axes
    names = [*PRINTED, "ImageReward + PickScore", "all four"]
    assert [axes.get_title() for axes in panels] == names
    assert _labels(panels[3].get_xticklabels()) == ["raw", "1", "2", "4", "8", "16"]
    steps = np.diff(panels[0].transData.transform([(x, 0.6) for x in (1, 2, 4, 8, 16)])[:, 0])
    assert steps == pytest.approx([steps[0]] * 4)
    assert len({axes.get_ylim() for axes in panels}) == 1
    assert all(axes.get_ylabel() == ("AUROC" if place % 3 == 0 else "") for place, axes in enumerate(panels))


def test_sources_are_dots_from_none_down_to_released_and_the_left_panel_has_no_released():
    sources = ("none", "rules", "random", "released")
    every, shared = _means(source=sources, rewards=ENSEMBLES), _means(source=sources, rewards=ENSEMBLES, n_prompts=17)
    figure = draw("fig39_contrastive_sources", every, shared)
    left, right = figure.axes
    assert [axes.get_title() for axes in (left, right)] == [
        "prompts: all (n = 31)",
        "prompts: with released sets (n = 17)",
    ]
    assert _labels(left.get_yticklabels()) == [*PRINTED, "ImageReward\n+ PickScore", "all four"]
    for axes, frame, shown in ((left, every, 3), (right, shared, 4)):
        means = frame.query("metric == 'auroc'").set_index(["rewards", "source"])["mean"]
        expected = [
            means[name, source] for name in ENSEMBLES for source in ("none", "random", "rules", "released")[:shown]
        ]
        dots = _dots(axes)
        assert [x for x, *_ in dots] == expected
        assert all(a < b for (_, a, *_), (_, b, *_) in pairwise(dots))
        assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top
        assert _interval(axes, 0) == pytest.approx([expected[0] - 0.03, expected[0] + 0.05])
    assert dots[0][2:] == (COLOURS["clip"], "white") and dots[2][2:] == (COLOURS["clip"], COLOURS["clip"])
    assert _labels(figure.legends[0].get_texts()) == ["none", "random", "rules", "released"]
    text = FIGURES["fig39_contrastive_sources"].describe(every, shared)
    assert f"random {means[PAIR, 'random']:.3f}" in text and text.count("released 0.") == 1


def test_kinds_stand_from_the_most_frequent_down_with_their_prompts():
    frame = _means(kind=("colour", "count"), use=("only", "without"), rewards=ENSEMBLES)
    frame["n_prompts"] = np.where(frame["kind"] == "count", 60, 5)
    frame = frame[(frame["kind"] == "count") | (frame["use"] == "only") | (frame["rewards"] != PAIR)]
    figure = draw("fig41_kinds", frame)
    assert _labels(figure.axes[0].get_yticklabels()) == ["count (60)", "colour (5)"]
    assert len(figure.axes) == 6 and len(figure.axes[4].containers) == 3  # one combination has no prompt
    means = frame.query("metric == 'auroc' and rewards == 'clip'").set_index(["kind", "use"])["mean"]
    expected = [means[kind, use] for kind in ("count", "colour") for use in ("only", "without")]
    assert [x for x, *_ in _dots(figure.axes[0])] == expected
    assert _labels(figure.legends[0].get_texts()) == ["only this kind", "all kinds but this"]
    assert "colour (5 prompts) +" in FIGURES["fig41_kinds"].describe(frame)


def test_ensembles_are_sorted_by_size_and_a_reward_alone_has_no_penalty():
    frame = _means(form=("raw", "mean", "uncertainty"), rewards=EVERY[::-1])
    figure = draw("fig42_ensembles", frame)
    names = _labels(figure.axes[0].get_yticklabels())
    assert names[:6] == [*PRINTED, "CLIP + BLIP-2", "CLIP + ImageReward"] and names[-1] == "all four"
    assert len(names) == 15 and names[9] == "ImageReward + PickScore"
    for axes, metric in zip(figure.axes, ("auroc", "ap"), strict=True):
        dots = _dots(axes)
        assert len(dots) == 4 * 2 + 11 * 3
        means = frame[frame["metric"] == metric].set_index(["rewards", "form"])["mean"]
        assert [dots[0][0], dots[1][0]] == [means["clip", "raw"], means["clip", "mean"]]
        assert dots[-1][0] == means[ALL_FOUR, "uncertainty"]
    text = FIGURES["fig42_ensembles"].describe(frame)
    raw = frame.query("metric == 'auroc' and form == 'raw'").set_index("rewards")["mean"]
    assert f"raw: best {ensemble_name(raw.idxmax())} {raw.max():.3f}, all four {raw[ALL_FOUR]:.3f}" in text


def test_leaks_are_gains_over_held_out_for_six_of_all_ensembles():
    frame = _means(choice=CHOICES[1:], rewards=EVERY)
    figure = draw("fig43_leaks", frame)
    assert [axes.get_xlabel() for axes in figure.axes] == [
        f"gain in {metric} over held out (n = 31)" for metric in ("AUROC", "AP")
    ]
    means = frame[frame["metric"] == "ap"].set_index(["rewards", "choice"])["mean"]
    expected = [means[name, choice] for name in ENSEMBLES for choice in CHOICES[1:]]
    assert [x for x, *_ in _dots(figure.axes[1])] == expected
    assert _labels(figure.legends[0].get_texts()) == list(CHOICES[1:])
    assert f"a setting a prompt {expected[2]:+.3f}; BLIP-2" in FIGURES["fig43_leaks"].describe(frame)


def test_random_contrasts_stand_last_on_grey_beside_the_share_of_their_number():
    frame = _means(reward=FOUR, kind=("random", "count", "style"), metrics=("share", "expected"))
    frame["n_prompts"] = frame["kind"].map({"random": 31, "count": 20, "style": 3})
    figure = draw("fig44_softmax_shares", frame)
    assert [axes.get_title() for axes in figure.axes] == PRINTED
    assert _labels(figure.axes[0].get_yticklabels()) == ["count (20)", "style (3)", "random (31)"]
    for axes, reward in zip(figure.axes, FOUR, strict=True):
        rows = frame[frame["reward"] == reward].set_index(["metric", "kind"])["mean"]
        assert [x for x, *_ in _dots(axes)] == [rows["share", kind] for kind in ("count", "style", "random")]
        (expected,) = [line for line in axes.lines if line.get_marker() == "|"]
        assert expected.get_xdata().tolist() == [rows["expected", kind] for kind in ("count", "style", "random")]
        (shade,) = axes.patches
        assert (shade.get_y(), shade.get_y() + shade.get_height()) == (1.5, 2.5)
    text = FIGURES["fig44_softmax_shares"].describe(frame)
    assert (
        f"PickScore random {rows['share', 'random']:.2f} where its number gives {rows['expected', 'random']:.2f}"
        in text
    )


def test_alternatives_stand_between_the_raw_reward_and_textnorm():
    forms = ("own score", "minus mean contrast", "rank among contrasts", "TextNorm, held out")
    frame = _means(form=forms, rewards=FOUR)
    panels = draw("fig45_alternatives", frame).axes
    assert _labels(panels[0].get_yticklabels()) == list(forms)
    rows = frame.query("metric == 'auroc' and rewards == 'blip2'")
    dots = _dots(panels[1])
    assert [x for x, *_ in dots] == rows["mean"].tolist()
    faces = [to_rgb(face) for *_, face in dots]
    assert (
        faces[0] == (1, 1, 1)
        and faces[-1] == to_rgb(COLOURS["blip2"])
        and faces[1] == faces[2] not in (faces[0], faces[-1])
    )
    assert panels[1].lines[0].get_xdata()[0] == rows["mean"].iloc[0] and panels[1].lines[0].get_linestyle() == "--"
    assert panels[1].get_xlabel() == "AUROC (n = 31)"
    assert f"BLIP-2 own score {rows['mean'].iloc[0]:.3f}, minus" in FIGURES["fig45_alternatives"].describe(frame)


def test_confidence_shows_raw_dashed_and_textnorm_filled_in_both_panels(confident):
    curves, _, risks = confident
    figure = draw("fig46_confidence", curves, risks)
    left, right = figure.axes
    shown = ["pickscore", "textnorm:pickscore", f"textnorm:{PAIR}"]
    assert _labels(figure.legends[0].get_texts()) == [", ".join(judged_name(name)) for name in shown]
    for container, line, reward in zip(left.containers, right.lines, shown, strict=False):
        rows = curves.query("reward == @reward and set == 'all'")
        assert np.array_equal(container.lines[0].get_xydata(), rows[["probability", "share_good"]])
        risk = risks[risks["reward"] == reward]
        assert np.array_equal(line.get_xydata(), risk[["coverage", "risk"]])
        raw = reward == "pickscore"
        assert line.get_linestyle() == container.lines[0].get_linestyle() == ("--" if raw else "-")
        assert (line.get_markerfacecolor() == "white") == raw
    assert len(right.collections) == 3 and "132 images" in right.get_xlabel()
    assert right.lines[-1].get_ydata()[0] == risk["risk"].iloc[-1]  # dotted: all images
    half = risk.set_index("coverage").loc[0.5, "risk"]
    assert f"{half:.2f} among the surer half" in FIGURES["fig46_confidence"].describe(curves, risks)


def test_gains_are_grouped_by_set_by_number_of_objects_and_by_class(metrics):
    gains = gains_by_group(metrics, pairs=[(name, f"{UNDER_TEXTNORM}{name}") for name in FOUR], metric="auroc")
    panels = draw("fig47_where_textnorm_hurts", gains).axes
    labels = _labels(panels[0].get_yticklabels())
    assert labels[:6] == [
        "comprehensive (4)",
        "counting (3)",
        "composition (3)",
        "1 object (5)",
        "2 objects (3)",
        "3 objects (2)",
    ]
    classes = ["bird (1)", "cake (1)", "cat (3)", "cup (3)", "deer (2)", "dog (1)", "ship (1)", "vase (1)"]
    assert labels[6:] == classes
    mine = gains[gains["reward"] == "imagereward"]
    dots = {round(scatter.get_offsets()[0, 1]): scatter.get_offsets()[:, 0] for scatter in panels[2].collections}
    assert sorted(dots[labels.index("cat (3)")]) == sorted(mine.loc[mine["class"] == "cat", "gain"])
    assert sorted(dots[0]) == sorted(mine.loc[mine["set"] == "comprehensive", "gain"].tolist())
    bars = {int(line.get_ydata()[0]): line.get_xdata()[0] for line in panels[2].lines if line.get_marker() == "|"}
    assert bars[1] == pytest.approx(mine.loc[mine["set"] == "counting", "gain"].mean())
    assert all(axes.get_xlim()[0] == -axes.get_xlim()[1] < gains["gain"].min() for axes in panels)
    assert (
        panels[0].get_title() == "CLIP\nworse     better"
        and panels[0].patches[0].get_width() == panels[0].get_xlim()[1]
    )
    lost = (mine.drop_duplicates("prompt")["gain"] < 0).sum()
    assert f"worse on {lost} of 10 prompts" in FIGURES["fig47_where_textnorm_hurts"].describe(gains)


def test_a_prompt_that_the_grammar_cannot_read_counts_in_its_set_only(metrics):
    unread = metrics.assign(prompt=metrics["prompt"].replace("a red bird", "liberty in the wind"))
    gains = gains_by_group(unread, pairs=[(name, f"{UNDER_TEXTNORM}{name}") for name in FOUR], metric="auroc")
    labels = _labels(draw("fig47_where_textnorm_hurts", gains).axes[0].get_yticklabels())
    assert labels[0] == "comprehensive (4)" and labels[3] == "1 object (4)" and "bird (1)" not in labels
    assert not any("liberty" in label for label in labels)


@pytest.mark.parametrize(
    ("name", "arrange", "cells", "columns"),
    [
        ("fig48_mini_heatmaps_counting", released.auroc_by_class_and_count, 3, [*map(str, range(1, 7))]),
        ("fig49_mini_heatmaps_composition", released.auroc_by_pair, 6, sorted(CLASSES)),
    ],
)
def test_heat_maps_keep_the_released_layout_and_say_what_an_empty_cell_is(metrics, name, arrange, cells, columns):
    frame = arrange(metrics)
    figure = draw(name, frame)
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title().split("\n")[0] for axes in panels] == [*PRINTED, "TextNorm"]
    assert _labels(panels[0].get_yticklabels()) == sorted(CLASSES)
    for axes in panels:
        assert _labels(axes.get_xticklabels()) == columns
        assert axes.images[0].get_array().count() == cells
        assert (axes.images[0].norm.vmin, axes.images[0].norm.vmax) == (0.5, 1.0)
        assert axes.get_title().endswith("(n = 3)")
    pair = frame[(frame["reward"] == f"{UNDER_TEXTNORM}{PAIR}")]["auroc"].dropna()
    assert sorted(panels[-1].images[0].get_array().compressed()) == sorted(pair)
    legend = next(legend for axes in (figure, *figure.axes) for legend in _legends(axes))
    assert _labels(legend.get_texts()) == ["no such prompt judged in this profile", "–  all images have one label"]
    assert "TextNorm mean" in FIGURES[name].describe(frame)


def _legends(owner):
    return owner.legends if hasattr(owner, "legends") else [owner.get_legend()] if owner.get_legend() else []


def test_a_counting_prompt_whose_images_have_one_label_is_a_dash(metrics):
    panels = draw("fig48_mini_heatmaps_counting", released.auroc_by_class_and_count(metrics)).axes[:5]
    for axes in panels:
        (dash,) = [text for text in axes.texts if text.get_text() == "–"]
        assert dash.get_position() == (1, sorted(CLASSES).index("cup"))


def test_the_linters_table_has_a_row_a_fault_and_a_column_a_set():
    sets = [
        as_frame("counting", {"two dogs": ["three dogs", "two dogs", "three dogs", "four dogs"]}),
        as_frame("composition", {"a cat and a dog": ["a cat", "a ship"], "a cup": ["two cups", "two cups"]}),
    ]
    contrastive = pd.concat(sets, ignore_index=True)
    table = TABLES["tab20_released_lint"].build(lint_summary(contrastive, lint(contrastive)))
    assert list(table) == ["fault", "counting (4 in 1)", "composition (4 in 2)"]
    table = table.set_index("fault")
    assert table.loc["prompt itself"].tolist() == ["1 (25.0%) in 1", "0 (0.0%) in 0"]
    assert table.loc["duplicate"].tolist() == ["1 (25.0%) in 1", "1 (25.0%) in 1"]
    assert table.index.tolist()[-1] == "nothing in common"


def _cell(row, middle="mean", digits=3):
    return f"{short(row[middle], digits)} [{short(row['low'], digits)},{NO_BREAK}{short(row['high'], digits)}]"


def test_the_ablation_table_crosses_ensembles_with_sources(metrics):
    frame = _means(source=("none", "rules", "random", "released"), rewards=ENSEMBLES)
    sealed = summarise(metrics, **BOOTSTRAP)
    table = TABLES["tab21_ablation"].build(frame, sealed)
    assert list(table)[:4] == ["rewards", "contrastive prompts", "AUROC, development (31)", "AP, development (31)"]
    assert list(table)[4:] == ["AUROC, sealed (10)", "AUPRC, sealed (10)"]
    assert table["contrastive prompts"].tolist() == ["none", "random", "rules"] * 6
    assert table["rewards"].unique().tolist() == [*PRINTED, "ImageReward + PickScore", "all four"]
    row = frame.query("source == 'random' and rewards == @PAIR and metric == 'ap'").iloc[0]
    assert table.loc[13, "AP, development (31)"] == _cell(row)
    once = sealed.set_index(["set", "reward", "metric"])
    assert table.loc[14, "AUROC, sealed (10)"] == _cell(once.loc[("all", f"textnorm:{PAIR}", "auroc")])
    assert table.loc[13, "AUROC, sealed (10)"] == "–"  # no random ones among these metrics


def test_the_table_of_tests_stars_what_is_below_the_level():
    columns = ["set", "metric", "reward", "reference", "difference", "low", "high", "wins", "ties", "losses", "p_holm"]
    rows = [
        (name, metric, "random:clip", "textnorm:clip", 0.1, 0.05, 0.15, 7, 2, 1, p)
        for name in ("counting", "all")
        for metric, p in (("auroc", 0.01), ("ap10", 0.2))
    ]
    table = TABLES["tab25_textnorm_tests"].build(pd.DataFrame(rows, columns=columns))
    assert table["this"].tolist() == ["CLIP, TextNorm"]
    assert table["minus this"].tolist() == ["CLIP, TextNorm, random prompts"]
    assert table.loc[0, "AUROC"] == f".100 [.050,{NO_BREAK}.150]{STAR}" and table.loc[0, "AP@10"].endswith("]")
    assert table.iloc[0, 3] == "7 / 2 / 1"


def test_the_main_table_has_raw_and_textnorm_of_each_on_each_set(metrics):
    summary = summarise(metrics, **BOOTSTRAP)
    table = TABLES["tab22_textnorm_rewards"].build(summary)
    assert list(table) == ["set", "rewards", "score", *METRIC_NAMES.values()] and len(table) == 4 * 10
    assert table["set"].unique().tolist() == ["comprehensive (4)", "counting (3)", "composition (3)", "all (10)"]
    assert list(zip(table["rewards"], table["score"], strict=True))[:3] == [
        ("CLIP", "raw"),
        ("CLIP", "TextNorm"),
        ("BLIP-2", "raw"),
    ]
    assert table["rewards"].tolist()[8:10] == ["ImageReward + PickScore", "all four"]
    row = summary.set_index(["set", "reward", "metric"]).loc[("all", f"textnorm:{ALL_FOUR}", "ap5")]
    assert table.iloc[-1]["AP@5"] == _cell(row, digits=2)


def test_the_table_of_leaks_leaves_the_gain_of_held_out_empty():
    choices, gains = _means(choice=CHOICES, rewards=EVERY), _means(choice=CHOICES[1:], rewards=EVERY)
    table = TABLES["tab23_leaks"].build(choices, gains).set_index(["rewards", "setting"])
    assert len(table) == 6 * 4
    assert table.loc[("CLIP", "held out"), ["gain in AUROC", "gain in AP"]].tolist() == ["–", "–"]
    key = "rewards == @ALL_FOUR and choice == 'a setting a prompt' and metric == 'auroc'"
    row = table.loc[("all four", "a setting a prompt")]
    assert row["AUROC"] == _cell(choices.query(key).iloc[0])
    assert row["gain in AUROC"] == _cell(gains.query(key).iloc[0])


def test_the_table_of_confidence_marks_what_is_more_than_chance(confident):
    _, errors, risks = confident
    table = TABLES["tab24_confidence"].build(errors, risks)
    assert len(table) == 10 and table["score"].tolist()[:3] == ["raw", "TextNorm", "raw"]
    one = errors.set_index(["reward", "metric", "set"])
    for name, sets in (("counting", 4), ("all", 11)):
        for row, reward in zip(table.to_dict("records"), _order(), strict=True):
            ece = one.loc[(reward, "ece", name)]
            star = STAR if ece["value"] > ece["reference"] else ""
            assert row[f"ECE, {name} ({sets})"] == _cell(ece, "value") + star
    brier = one.loc[("clip", "brier", "all")]
    assert table.loc[0, f"Brier score ({short(brier['reference'])})"] == _cell(brier, "value")
    risk = risks.query("reward == 'clip' and coverage == 0.5").iloc[0]
    assert table.loc[0, "bad in the surer half"] == _cell(risk, "risk")


def _order():
    """The rewards as the tables have them."""
    pairs = [(name, f"{UNDER_TEXTNORM}{name}") for name in FOUR]
    return [name for pair in pairs for name in pair] + [f"{UNDER_TEXTNORM}{name}" for name in (PAIR, ALL_FOUR)]
