"""Figures and tables of the mini rewards: what is drawn, where, and with which labels, on a made-up benchmark."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toys import draw, judged_images

from textnorm_lib.figures.mini_benchmark import HIGH, LOW
from textnorm_lib.figures.style import COLOURS
from textnorm_lib.prompts.templates import CLASSES, counting_prompt
from textnorm_lib.stats.calibration import calibration_errors, out_of_fold_probabilities, reliability_curves
from textnorm_lib.stats.metrics import prompt_metrics, summarise
from textnorm_lib.stats.names import METRIC_NAMES
from textnorm_lib.stats.rankings import rank_correlations, scores_by_rating
from textnorm_lib.study.items import FIGURES, TABLES
from textnorm_lib.study.printed import NO_BREAK, ordinal, short
from textnorm_lib.tia2 import released

REWARDS = ["clip", "blip2", "imagereward", "pickscore"]
PRINTED = ["CLIP", "BLIP-2", "ImageReward", "PickScore"]
BOOTSTRAP = {"resamples": 100, "confidence": 0.95, "seed": 0}
PER_PROMPT = 12


@pytest.fixture(scope="module")
def images():
    """Seven counting prompts (one has one label only), four composition and four comprehensive ones."""
    counting = [counting_prompt("deer", count) for count in range(1, 7)] + [counting_prompt("cup", 2)]
    return judged_images(counting, ("dog", "cup", "vase", "ship"), REWARDS, each=PER_PROMPT)


@pytest.fixture(scope="module")
def metrics(images):
    return prompt_metrics(images, REWARDS)


@pytest.fixture(scope="module")
def calibrated(images):
    """The curves and the errors."""
    probabilities = out_of_fold_probabilities(images, rewards=REWARDS, seed=0, folds=5)
    return reliability_curves(probabilities, bins=4, **BOOTSTRAP), calibration_errors(probabilities, **BOOTSTRAP)


@pytest.fixture(scope="module")
def agreement(images):
    return summarise(rank_correlations(images, rewards=REWARDS), **BOOTSTRAP)


@pytest.fixture
def picked():
    """Two images of CLIP's first kind, one of its second, four of PickScore's first: one too many."""
    rows = [("clip", HIGH, "a photo of a cat", 1, (0, 0, 0))] * 2 + [("clip", LOW, "two dogs", 30, (1, 1, 1))]
    rows += [("pickscore", HIGH, f"a realistic photo of thing {index}", 2, (0, 0, 0)) for index in range(4)]
    frame = pd.DataFrame(rows, columns=["reward", "kind", "prompt", "rank", "votes"])
    frame[["vote_1", "vote_2", "vote_3"]] = frame.pop("votes").tolist()
    ranks = {"clip": 11, "blip2": 12, "imagereward": 13, "pickscore": 14}
    return frame.assign(n_images=30, **ranks, png=[_png(30 * index) for index in range(len(frame))])


def _png(red):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_each_item_belongs_to_notebook_02_and_needs_labels():
    figures = [item for name, item in FIGURES.items() if "fig30" <= name < "fig37"]
    tables = [item for name, item in TABLES.items() if "tab17" <= name < "tab20"]
    assert (len(figures), len(tables)) == (7, 3)
    for item in figures + tables:
        assert (item.notebook, item.needs) == ("02b_benchmark_mini_rewards", "labels") and "_mini_" in item.name


def test_scores_by_rating_are_drawn_with_their_mean_interval_and_spread(images):
    frame = scores_by_rating(images, rewards=REWARDS, **BOOTSTRAP)
    panels = draw("fig30_mini_scatter", frame).axes
    assert [axes.get_title() for axes in panels] == PRINTED
    for axes, reward in zip(panels, REWARDS, strict=True):
        rows = frame[frame["reward"] == reward]
        (container,) = axes.containers
        assert container.lines[0].get_ydata().tolist() == rows["mean"].tolist()
        assert container.lines[0].get_color() == COLOURS[reward]
        long, short_ones = (
            [path.vertices[:, 1].tolist() for path in drawn.get_paths()] for drawn in axes.collections[:2]
        )
        assert long == rows[["p5", "p95"]].to_numpy().tolist()
        assert short_ones == rows[["p25", "p75"]].to_numpy().tolist()
    ticks = [label.get_text() for label in panels[2].get_xticklabels()]
    counts = images[images["prompt"] != counting_prompt("cup", 2)].groupby("rating").size()
    assert ticks == [f"{name}\n({n})" for name, n in zip(("0", "1/3", "2/3", "1"), counts, strict=True)]
    text = FIGURES["fig30_mini_scatter"].describe(frame)
    ends = frame[frame["reward"] == "clip"]["mean"]
    assert f"CLIP {ends.iloc[0]:+.2f} (" in text and f" and {ends.iloc[-1]:+.2f} (" in text


def test_the_gallery_has_a_row_a_reward_and_says_rank_votes_and_prompt(picked):
    (axes,) = draw("fig31_mini_disagreements", picked).axes
    reds = [round(255 * image.get_array()[0, 0, 0]) for image in axes.images]
    assert reds == [0, 30, 90, 120, 150, 60]  # a fourth of one kind has no room
    columns = [int(image.get_extent()[0]) for image in axes.images]
    rows = [image.get_extent()[3] for image in axes.images]
    assert columns == [0, 1, 0, 1, 2, 3] and rows[0] == rows[1] == rows[-1] < rows[2]
    written = [text.get_text() for text in axes.texts]
    assert "1st of 30   ✗ ✗ ✗\nothers 12, 13, 14\na photo of a cat" in written
    assert "30th of 30   ✓ ✓ ✓\nothers 12, 13, 14\ntwo dogs" in written
    assert "2nd of 30   ✗ ✗ ✗\nothers 11, 12, 13\nthing 0" in written
    assert written.count("none") == 5 and written[-4:] == PRINTED
    text = FIGURES["fig31_mini_disagreements"].describe(picked)
    assert f"CLIP, {LOW}: two dogs (30th of 30)" in text and "thing 2 (2nd of 30)." in text and "thing 3" not in text


def test_the_gallery_of_no_disagreement_at_all_says_so(picked):
    (axes,) = draw("fig31_mini_disagreements", picked.iloc[:0]).axes
    assert not axes.images and [text.get_text() for text in axes.texts].count("none") == 8


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (13, "13th"), (21, "21st")]
)
def test_ordinals(number, text):
    assert ordinal(number) == text


def test_reliability_diagrams_show_all_and_each_set_and_the_error(calibrated):
    curves, errors = calibrated
    figure = draw("fig32_mini_reliability", curves, errors)
    assert [axes.get_title() for axes in figure.axes] == PRINTED
    ece = errors.query("set == 'all' and metric == 'ece'").set_index("reward")
    for axes, reward in zip(figure.axes, REWARDS, strict=True):
        rows = curves[curves["reward"] == reward]
        points = axes.containers[0].lines[0].get_xydata()
        assert np.array_equal(points, rows.loc[rows["set"] == "all", ["probability", "share_good"]])
        lines = [line for line in axes.lines if line.get_label() in set(curves["set"])]
        assert [line.get_label() for line in lines] == ["comprehensive", "counting", "composition"]
        assert np.array_equal(lines[1].get_ydata(), rows.loc[rows["set"] == "counting", "share_good"])
        assert axes.get_xlim() == axes.get_ylim() == (0, 1)
        one = ece.loc[reward]
        assert axes.texts[0].get_text().startswith(f"ECE {short(one['value'])} [{short(one['low'])},")
        assert axes.texts[0].get_text().endswith(f"by chance up to {short(one['reference'])}")
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["comprehensive (n = 48)", "counting (n = 84)", "composition (n = 48)"]
    text = FIGURES["fig32_mini_reliability"].describe(curves, errors)
    assert f"ECE {ece.loc['pickscore', 'value']:.3f} (by chance" in text


def test_the_triangle_of_agreement_has_each_pair_once_in_its_place(agreement):
    axes = draw("fig33_mini_reward_agreement", agreement).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == PRINTED
    assert [label.get_text() for label in axes.get_yticklabels()] == [*PRINTED[1:], "rating"]
    rows = agreement[agreement["set"] == "all"].set_index(["reward", "metric"])
    values = axes.images[0].get_array()
    assert values[3, 0] == rows.loc[("clip", "rating"), "mean"]
    assert values[2, 1] == rows.loc[("blip2", "pickscore"), "mean"]
    assert np.ma.count(np.ma.masked_invalid(values)) == len(axes.texts) == 10
    cell = next(text for text in axes.texts if text.get_position() == (0, 3)).get_text()
    assert cell.startswith(f"{short(values[3, 0], 2)}\n[")
    assert "14 prompts" in axes.get_title()
    text = FIGURES["fig33_mini_reward_agreement"].describe(agreement)
    assert f"CLIP and rating {values[3, 0]:.2f}" in text


def test_auroc_by_count_says_how_many_prompts_each_count_has(metrics):
    summary = summarise(released.scores_by_count(metrics), **BOOTSTRAP)
    (axes,) = draw("fig34_mini_auroc_by_count", summary).axes
    assert [container.get_label() for container in axes.containers] == PRINTED
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"{count}\n(1)" for count in range(1, 7)]
    drawn = axes.containers[3].lines[0].get_ydata()
    own = metrics.query("metric == 'auroc' and reward == 'pickscore'").set_index("prompt")["value"]
    assert drawn.tolist() == [own[counting_prompt("deer", count)] for count in range(1, 7)]
    text = FIGURES["fig34_mini_auroc_by_count"].describe(summary)
    assert f"PickScore {drawn[0]:.2f} at one object and {drawn[-1]:.2f} at six" in text


def test_a_count_without_any_value_is_undefined_in_the_text(metrics):
    without = metrics.assign(value=metrics["value"].where(metrics["prompt"] != counting_prompt("deer", 6)))
    summary = summarise(released.scores_by_count(without), **BOOTSTRAP)
    (axes,) = draw("fig34_mini_auroc_by_count", summary).axes
    assert axes.get_xticklabels()[-1].get_text() == "6\n(0)"
    assert "undefined at six" in FIGURES["fig34_mini_auroc_by_count"].describe(summary)


def test_heat_maps_of_pairs_show_what_was_asked_and_count_a_pair_once(metrics):
    frame = released.auroc_by_pair(metrics)
    panels = draw("fig35_mini_auroc_by_pair", frame).axes[:4]
    rows = metrics.query("set == 'composition' and metric == 'auroc'")
    for axes, reward, name in zip(panels, REWARDS, PRINTED, strict=True):
        matrix = axes.images[0].get_array()
        values = rows.loc[rows["reward"] == reward, "value"]
        assert sorted(matrix.compressed()) == sorted([*values, *values])
        assert axes.get_title() == f"{name}\n{short(values.mean())} (n = 4)"
        assert not axes.texts and (axes.images[0].norm.vmin, axes.images[0].norm.vmax) == (0.5, 1.0)
    text = FIGURES["fig35_mini_auroc_by_pair"].describe(frame)
    assert f"CLIP mean {panels[0].get_title().split()[1]} over 4 prompts" in text


def test_heat_maps_of_counts_mark_a_prompt_whose_images_have_one_label(metrics):
    frame = released.auroc_by_class_and_count(metrics)
    panels = draw("fig36_mini_auroc_by_class_and_count", frame).axes[:4]
    for axes, name in zip(panels, PRINTED, strict=True):
        assert axes.images[0].get_array().count() == 6 and axes.get_title().startswith(f"{name}\n")
        (dash,) = [text for text in axes.texts if text.get_text() == "–"]
        assert dash.get_position() == (1, sorted(CLASSES).index("cup"))  # two cups
        assert len(axes.texts) == 7 and axes.get_title().endswith("(n = 6)")


def test_the_metric_table_has_four_rewards_on_each_set_without_a_mark(metrics):
    summary = summarise(metrics, **BOOTSTRAP)
    table = TABLES["tab17_mini_metric_comparison"].build(summary)
    assert list(table) == ["set", "reward", *METRIC_NAMES.values()]
    assert table["reward"].tolist() == PRINTED * 4
    assert table["set"].unique().tolist() == ["comprehensive (4)", "counting (6)", "composition (4)", "all (14)"]
    row = summary.set_index(["set", "reward", "metric"]).loc[("all", "clip", "auroc")]
    expected = f"{short(row['mean'], 2)} [{short(row['low'], 2)},{NO_BREAK}{short(row['high'], 2)}]"
    assert table.query("set == 'all (14)' and reward == 'CLIP'")["AUROC"].item() == expected


def test_the_calibration_table_gives_each_error_beside_its_reference(calibrated):
    _, errors = calibrated
    table = TABLES["tab18_mini_calibration"].build(errors).set_index(["set", "reward"])
    assert len(table) == 16 and table.loc[("all (15)", "CLIP"), "images"] == "180"
    one = errors.set_index(["set", "reward", "metric"])
    ece, brier = (one.loc[("counting", "blip2", metric)] for metric in ("ece", "brier"))
    row = table.loc[("counting (7)", "BLIP-2")]
    assert row["ECE"].startswith(f"{short(ece['value'])} [") and row["by chance up to"] == short(ece["reference"])
    assert row["Brier score"].startswith(f"{short(brier['value'])} [")
    assert row["one probability for all"] == short(brier["reference"])


def test_the_agreement_table_has_a_row_a_pair_and_a_column_a_set(agreement):
    table = TABLES["tab19_mini_reward_agreement"].build(agreement)
    assert list(table) == ["pair", "comprehensive (4)", "counting (6)", "composition (4)", "all (14)"]
    assert len(table) == 10 and table["pair"].tolist()[0] == "CLIP and BLIP-2"
    row = agreement.query("set == 'counting' and reward == 'pickscore' and metric == 'rating'").iloc[0]
    cell = table.set_index("pair").loc["PickScore and rating", "counting (6)"]
    assert cell == f"{short(row['mean'], 2)} [{short(row['low'], 2)},{NO_BREAK}{short(row['high'], 2)}]"
