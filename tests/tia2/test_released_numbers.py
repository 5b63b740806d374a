"""The paper's numbers from the released data, and the committed figures' provenance."""

import json

import pandas as pd
import pytest

from textnorm_lib.mini.training.plan import RELEASED_AUROC
from textnorm_lib.stats.metrics import METRICS, prompt_metrics, summarise
from textnorm_lib.study.store import CHECKOUT
from textnorm_lib.tia2 import describe, load_official, released
from textnorm_lib.tia2.official import SETS, release_available

FIGURES = CHECKOUT / "papers_figures"
# Table 1 of the paper, over all 525 prompts: AUROC, AUPRC.
PAPER = {"pickscore": (0.764, 0.669), "textnorm": (0.822, 0.752)}

needs_release = pytest.mark.skipif(not release_available()[0], reason=f"not attempted: {release_available()[1]}")


@pytest.fixture(scope="module")
def official() -> list:
    return [load_official(name) for name in SETS]


@needs_release
def test_averages_over_525_prompts_equal_the_papers_ablation_rows(official):
    summary = summarise(released.collect_scores(*official), resamples=200, confidence=0.95, seed=0)
    rows = summary.query("set == 'all'").set_index(["reward", "metric"])
    for reward, (auroc, auprc) in PAPER.items():
        assert round(rows.loc[(reward, "auroc"), "mean"], 3) == auroc
        assert round(rows.loc[(reward, "auprc"), "mean"], 3) == auprc
        assert rows.loc[(reward, "auroc"), "n_prompts"] == 525


@needs_release
def test_statistics_of_the_sets(official):
    images = describe.collect_images(*official)
    statistics = describe.set_statistics(images, describe.collect_contrastive(*official)).set_index("set")
    assert list(statistics["prompts"]) == [100, 150, 300, 550]
    assert statistics.loc["all", ["images", "votes"]].to_list() == [27_500, 82_500]
    one_label = describe.one_label_prompts(describe.share_good(images))
    assert len(one_label) == 25 == (statistics["prompts_all_bad"] + statistics["prompts_all_good"])["all"]
    assert describe.categories(images)["prompts"].sum() == 100


@needs_release
def test_a_prompt_has_released_scores_exactly_where_our_metrics_are_defined(official):
    images = describe.collect_images(*official).assign(reward=lambda frame: frame["rating"])
    ours = prompt_metrics(images, ["reward"]).query("metric == 'auroc'").set_index(["set", "prompt"])["value"]
    scored = released.collect_scores(*official).groupby(["set", "prompt"]).size().index
    assert set(ours.index[ours.notna()]) == set(scored)


def test_committed_figures_rest_on_the_pinned_release_and_hold_the_papers_numbers():
    manifest = json.loads((FIGURES / "manifest.json").read_text())
    steps = manifest["items"]["tab04_metric_comparison"]["steps"]
    assert {step["step"] for step in steps} == {"summarise", "compare", "collect_scores"}
    if release_available()[0]:
        keys = [load_official(name).key for name in SETS]
        assert next(step for step in steps if step["step"] == "collect_scores")["inputs"] == keys
    table = pd.read_csv(FIGURES / "tab04_metric_comparison.csv").set_index(["set", "reward", "metric"])["mean"]
    for reward, expected in PAPER.items():
        assert tuple(round(table["all", reward, metric], 3) for metric in METRICS[:2]) == expected
    assert len(list(FIGURES.glob("*_heatmap_*.pdf"))) == len(list(FIGURES.glob("*_heatmap_*.png"))) == 10


@needs_release
def test_the_mini_world_is_matched_to_the_released_auroc(official):
    summary = summarise(released.collect_scores(*official), resamples=200, confidence=0.95, seed=0)
    means = summary.query("metric == 'auroc'").set_index(["reward", "set"])["mean"]
    for reward, aims in RELEASED_AUROC.items():
        assert aims == {name: round(means[reward, name], 2) for name in ("counting", "composition")}
