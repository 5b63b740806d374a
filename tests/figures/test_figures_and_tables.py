"""Figures and tables of the released data: their numbers, ticks and labels, on small made-up frames."""

import numpy as np
import pandas as pd
import pytest

from textnorm_lib.figures import benchmark, style
from textnorm_lib.prompts.templates import CLASSES, composition_prompts, counting_prompts
from textnorm_lib.stats.metrics import METRICS, compare, summarise
from textnorm_lib.stats.names import REWARD_NAMES
from textnorm_lib.study import drawing, printed
from textnorm_lib.study.items import FIGURES
from textnorm_lib.tia2 import released
from textnorm_lib.tia2.official import REWARDS

BOOTSTRAP = {"resamples": 200, "confidence": 0.95, "seed": 0}


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    """Made-up metrics of five rewards on a few prompts of each set; one counting prompt has none."""
    rng = np.random.default_rng(0)
    prompts = {"comprehensive": ["a red car", "two cats"], "counting": counting_prompts()[:149]}
    prompts["composition"] = composition_prompts()[:40]
    rows = [
        (name, prompt, reward, metric, rng.uniform(0.3, 1.0))
        for name, some in prompts.items()
        for prompt in some
        for reward in REWARDS
        for metric in METRICS
    ]
    return pd.DataFrame(rows, columns=["set", "prompt", "reward", "metric", "value"])


def test_pair_grid_is_symmetric_and_holds_the_released_number(scores):
    matrix = released.grid(released.auroc_by_pair(scores), "clip")
    assert list(matrix.index) == list(matrix.columns) == sorted(CLASSES)
    assert matrix.equals(matrix.T)
    expected = scores.query("prompt == 'a realistic photo of an airplane and a cat' and reward == 'clip'")
    assert matrix.loc["cat", "airplane"] == expected.query("metric == 'auroc'")["value"].item()
    assert np.isnan(np.diag(matrix)).all() and matrix.notna().sum().sum() == 80


def test_count_grid_has_six_columns_and_a_gap_where_a_prompt_has_one_label(scores):
    matrix = released.grid(released.auroc_by_class_and_count(scores), "textnorm")
    assert list(matrix.columns) == [1, 2, 3, 4, 5, 6] and len(matrix) == 25
    assert matrix.isna().sum().sum() == 1 and np.isnan(matrix.loc["vase", 6])


def test_heat_map_is_centred_at_the_papers_value_and_labels_every_class(scores):
    with drawing.house_style():
        figure = FIGURES["fig11_heatmap_pairs_clip"].build(released.auroc_by_pair(scores))
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == sorted(CLASSES)
    norm = axes.images[0].norm
    assert (norm.vmin, norm(style.CENTRE), norm.vmax) == (0.5, 0.5, 1.0)
    colours = axes.images[0].cmap
    assert colours(norm(0.95))[2] > colours(norm(0.95))[0]  # blue above
    assert colours(norm(0.55))[0] > colours(norm(0.55))[2]  # red below
    assert "mean" in axes.get_title() and "40 prompts" in axes.get_title()
    written = [text.get_text() for text in axes.texts]
    assert len(written) == 80 and all(text == "1.0" or text.startswith(".") for text in written)


def test_all_heat_maps_share_one_scale(scores):
    pairs, counts = released.auroc_by_pair(scores), released.auroc_by_class_and_count(scores)
    drawn = [draw(pairs) for draw in benchmark.heatmap_pairs.values()]
    drawn += [draw(counts) for draw in benchmark.heatmap_counts.values()]
    norms = [figure.axes[0].images[0].norm for figure in drawn]
    assert len(norms) == 10 and {(norm.vmin, norm.vmax) for norm in norms} == {(0.5, 1.0)}


def test_every_figure_wears_its_profile_and_keeps_no_date(scores):
    with drawing.house_style():
        figure = FIGURES["fig16_heatmap_counts_clip"].build(released.auroc_by_class_and_count(scores))
        drawing.stamp(figure, "smoke")
        drawing.settle(figure)
        assert figure.get_supxlabel() == "profile: smoke"
        pdf = drawing.render(figure, "pdf")
        assert pdf == drawing.render(figure, "pdf") and b"CreationDate" not in pdf
        assert drawing.render(figure, "png") == drawing.render(figure, "png")


def test_each_reward_has_one_colour_and_one_marker():
    assert list(style.COLOURS) == list(style.MARKERS) == list(REWARD_NAMES) == list(REWARDS)
    assert len(set(style.COLOURS.values())) == len(set(style.MARKERS.values())) == 5


def test_by_count_draws_each_reward_and_leaves_the_reference_out_of_the_differences(scores):
    split = released.scores_by_count(scores)
    figure = FIGURES["fig23_auroc_by_count"].build(
        summarise(split, **BOOTSTRAP), compare(split, reference="textnorm", metrics=["auroc"], **BOOTSTRAP)
    )
    left, right = figure.axes
    assert len(left.containers) == 5 and len(right.containers) == 4
    assert [label.get_text() for label in left.get_xticklabels()][-1] == "6\n(24)"


def test_hindsight_takes_the_better_ap_and_shares_ties():
    rows = []
    for reward, ap, auroc in (("imagereward", 0.9, 0.2), ("pickscore", 0.5, 0.8), ("clip", 0.95, 0.1)):
        rows += [("counting", "p", reward, metric, ap) for metric in released.AP_METRICS]
        rows += [("counting", "p", reward, "auroc", auroc)]
        rows += [("counting", "q", reward, metric, 0.7) for metric in (*released.AP_METRICS,)]
        rows += [("counting", "q", reward, "auroc", auroc)]
    for prompt in "pq":
        rows += [("counting", prompt, "textnorm", metric, 0.6) for metric in (*released.AP_METRICS, "auroc")]
        rows += [("counting", prompt, "blip2", metric, 0.0) for metric in (*released.AP_METRICS, "auroc")]
    chosen = released.choose_in_hindsight(pd.DataFrame(rows, columns=["set", "prompt", "reward", "metric", "value"]))
    auroc = chosen.query("metric == 'auroc'").set_index(["reward", "prompt"])["value"]
    assert auroc["hindsight2", "p"] == 0.2  # ImageReward's AP is higher, whatever its AUROC
    assert auroc["hindsight4", "p"] == 0.1
    assert auroc["hindsight2", "q"] == pytest.approx(0.5)  # a tie in AP: the mean of both
    assert auroc["textnorm", "p"] == 0.6


def test_drawing_classes_again_sees_what_a_class_does_to_all_its_pairs():
    """A gain that hangs on one class only: drawing prompts does not see how uncertain that is, drawing classes does."""
    pairs = composition_prompts()
    scores = pd.DataFrame({"set": "composition", "prompt": [*pairs, *pairs], "metric": "auroc", "value": 0.5})
    scores["reward"] = ["clip"] * 300 + ["textnorm"] * 300
    scores.loc[(scores["reward"] == "textnorm") & scores["prompt"].str.contains("airplane"), "value"] = 0.9
    frame = released.differences_by_class(scores, **BOOTSTRAP).set_index(["drawn", "reward"])
    assert frame.loc[("prompts", "clip"), "difference"] == pytest.approx(0.4 * 24 / 300)
    width = frame["high"] - frame["low"]
    assert (width["classes"] > 1.5 * width["prompts"]).all()
    assert frame.loc[("classes", "clip"), "low"] == pytest.approx(0.0)


def test_tuning_shares_count_each_value():
    tuning = pd.DataFrame({"set": "counting", "scale": [0.1, 0.1, 3.0, 10.0], "penalty": [1.0, 0.5, 0.5, np.nan]})
    shares = released.tuning_shares(tuning).set_index(["parameter", "value"])
    assert shares.loc[("scale", 0.1), "prompts"] == 2 and shares.loc[("scale", 5.0), "prompts"] == 0
    assert shares.loc["scale", "share"].sum() == shares.loc["penalty", "share"].sum() == 1.0
    with pytest.raises(ValueError, match="not on the grid"):
        released.tuning_shares(tuning.assign(scale=7.0))


def test_metric_table_marks_only_what_the_test_supports(scores):
    better = scores.copy()
    textnorm = better["reward"] == "textnorm"
    better.loc[textnorm, "value"] = 1.0
    table = benchmark.metric_table(
        summarise(better, **BOOTSTRAP), compare(better, reference="textnorm", **BOOTSTRAP)
    ).set_index(["set", "reward"])
    assert table.loc[("counting (149)", "CLIP"), "AUROC"].endswith(printed.STAR)
    assert not table.loc[("comprehensive (2)", "CLIP"), "AUROC"].endswith("*")  # two prompts cannot show it
    assert table.loc[("all (191)", "TextNorm"), "AUROC"] == f"1.00 [1.00,{printed.NO_BREAK}1.00]"


@pytest.mark.parametrize(
    ("value", "text"), [(0.7641, ".764"), (-0.02, "-.020"), (-0.0001, ".000"), (1.0, "1.000"), (0.9999, "1.000")]
)
def test_numbers_are_written_as_the_field_writes_them(value, text):
    assert printed.short(value) == text


def test_tables_are_escaped_for_tex_and_keep_every_digit_in_csv():
    frame = pd.DataFrame({"share_good": ["45.6%"], "value": [1 / 3]})
    tex = printed.as_tex(frame, "95% of a_b", "smoke").decode()
    assert r"45.6\%" in tex and r"95\% of a\_b" in tex and "share\\_good" in tex
    assert repr(1 / 3) in printed.as_csv(frame).decode()
    assert "(Profile: smoke.)" in printed.as_markdown(frame, "c", "smoke").decode()
