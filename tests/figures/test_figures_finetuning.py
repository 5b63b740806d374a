"""Figures and tables of fine-tuning: what is drawn, where, and with which labels, on made-up images of tuned models."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toys import draw

from textnorm_lib.figures.style import COLOURS
from textnorm_lib.figures.tuned_models import MODEL_COLOURS, pick_tuned_images
from textnorm_lib.judging import selection as sets
from textnorm_lib.judging.selection import QUALITY_TIE, outcomes_by_size, sign_tests_by_size
from textnorm_lib.optimise import outcomes
from textnorm_lib.optimise.best_of_n import fit_gold
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.items import FIGURES, TABLES
from textnorm_lib.study.printed import NO_BREAK

REWARDS = ["clip", "blip2", "imagereward", "pickscore", "textnorm"]
PRINTED = ["CLIP", "BLIP-2", "ImageReward", "PickScore", "TextNorm"]
BOOTSTRAP = {"resamples": 200, "confidence": 0.95, "seed": 0}
SETS, CHECKPOINTS, SEEDS = ("comprehensive", "counting", "composition"), (20, 40, 80, 160), 8
VOTES, QUALITY = [f"vote_{judge}" for judge in (1, 2, 3)], [f"quality_{judge}" for judge in (1, 2, 3)]


def make_judged(runs=2) -> pd.DataFrame:
    """Two prompts a set; proxies rise, gold rises and falls, the more the less the reward is TextNorm."""
    rng, blocks = np.random.default_rng(0), []
    pairs = [(reward, 0.0) for reward in REWARDS] + [(reward, beta) for reward in REWARDS[::4] for beta in (0.5, 1.0)]
    models = [(reward, beta, run, last) for reward, beta in pairs for run in range(runs) for last in CHECKPOINTS]
    images = pd.DataFrame(
        [(name, f"{name} prompt {number}", seed) for name in SETS for number in (1, 2) for seed in range(SEEDS)],
        columns=["set", "prompt", "seed"],
    )
    for number, (reward, beta, run, checkpoint) in enumerate([("base", 0.0, 0, 0), *models]):
        far = checkpoint / CHECKPOINTS[-1] / (1 + 2 * beta)
        bend = 1.4 - 0.3 * REWARDS.index(reward) if reward != "base" else 0
        share = np.clip(0.5 + far * (1 - bend * far) * 0.6 + rng.normal(0, 0.03), 0, 1)
        votes = (rng.random((len(images), 1)) < share).astype(int) * np.ones((1, 3), int)
        block = images.assign(tuned_on=reward, beta=beta, run=run, checkpoint=checkpoint)
        block[VOTES], block["label"], block["rating"] = votes, votes[:, 0], votes.mean(axis=1)
        block[QUALITY] = rng.normal(-0.5 * far, 1, (len(images), 3))
        for name in REWARDS:
            block[name] = rng.normal((name == reward) * 2 * np.sqrt(far), 1, len(images))
        blocks.append(block.assign(image=[f"{number}_{index}.png" for index in range(len(images))]))
    return pd.concat(blocks, ignore_index=True)


def divergences_of(judged: pd.DataFrame) -> pd.DataFrame:
    keys = ["tuned_on", "beta", "run", "checkpoint", "set", "prompt"]
    cells = judged.loc[judged["tuned_on"] != "base", keys].drop_duplicates()
    return cells.assign(kl=cells["checkpoint"] / 10 / (1 + cells["beta"]) * (1 + cells["run"] / 5))


def make_curves() -> pd.DataFrame:
    rng, blocks = np.random.default_rng(0), []
    for reward in REWARDS:
        for run in (0, 1):
            epoch = np.arange(40)
            frame = pd.DataFrame({"tuned_on": reward, "beta": 0.0, "run": run, "epoch": epoch})
            frame["reward"], frame["reward_std"] = 20 + epoch / 20 + rng.normal(0, 0.2, 40), 0.5
            frame["gold"] = 0.5 - epoch / 200 + rng.normal(0, 0.05, 40)
            blocks.append(frame.assign(kl=np.where(epoch % 10 == 0, epoch / 4.0, np.nan)))
    return pd.concat(blocks, ignore_index=True)


@pytest.fixture(scope="module")
def everything():
    return make_judged()


@pytest.fixture(scope="module")
def judged(everything):
    return outcomes.with_beta(everything, beta=0.0)


@pytest.fixture(scope="module")
def all_cells(everything):
    return outcomes.prompt_gains(everything, divergences_of(everything))


@pytest.fixture(scope="module")
def cells(all_cells):
    return outcomes.with_beta(all_cells, beta=0.0)


@pytest.fixture(scope="module")
def all_gains(all_cells):
    return outcomes.tuning_gains(all_cells, confidence=0.95)


@pytest.fixture(scope="module")
def gains(cells):
    return outcomes.tuning_gains(cells, confidence=0.95)


@pytest.fixture(scope="module")
def runs(cells):
    return outcomes.run_gains(cells)


@pytest.fixture(scope="module")
def fits(cells):
    return fit_gold(outcomes.gold_over_kl(cells), form="rl", **BOOTSTRAP)


@pytest.fixture(scope="module")
def choices(judged):
    return sets.choose_checkpoints(judged, **BOOTSTRAP)


@pytest.fixture(scope="module")
def votes(judged, choices):
    shown = sets.tuned_sets(judged, choices)
    return sets.judge_tuned(shown, judged, reference="textnorm", quality_tie=QUALITY_TIE, seed=0)


@pytest.fixture(scope="module")
def shares(votes):
    return outcomes_by_size(votes, confidence=0.95)


@pytest.fixture(scope="module")
def samples(judged, tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    for name in judged["image"]:
        buffer = io.BytesIO()
        Image.new("RGB", (64, 64), tuple(rng.integers(90, 255, 3).tolist())).save(buffer, "PNG")
        (folder / name).write_bytes(buffer.getvalue())
    return pick_tuned_images(folder, judged, checkpoints=5, seeds=2)


def _panels(figure, *, rows, columns):
    assert len(figure.axes) == rows * columns
    return np.array(figure.axes).reshape(rows, columns)


def _legend(figure):
    (legend,) = figure.legends
    return legend.get_title().get_text(), [text.get_text() for text in legend.get_texts()]


def test_each_item_belongs_to_its_notebook_and_says_what_it_stands_for():
    names = {
        "05_rwr_finetuning": [*(f"fig{number}" for number in range(55, 60)), "tab33", "tab34", "tab35"],
        "06_ddpo_finetuning": [*(f"fig{number}" for number in range(60, 65)), "tab36", "tab37", "tab38"],
    }
    papers = {"fig58": "Figures 1 and 5", "fig63": "Figures 1 and 5", "fig59": "Figure 6", "fig64": "Figure 6"}
    papers |= {"tab35": "Figure 6", "tab38": "Figure 6"}
    for notebook, expected in names.items():
        items = [item for item in (*FIGURES.values(), *TABLES.values()) if item.notebook == notebook]
        assert sorted(item.name[:5] for item in items) == expected
        assert all(item.paper_item == papers.get(item.name[:5]) for item in items)
        without_votes = {item.name[:5] for item in items if item.needs == "prompts"}
        assert without_votes == {"fig58", "fig60", "fig63"} & set(expected)
        assert {item.needs for item in items} == {"annotators", "prompts"}
        method = "rwr" if "rwr" in notebook else "ddpo"
        assert all(f"_{method}_" in item.name and item.caption.find(method.upper()) >= 0 for item in items)


@pytest.mark.parametrize(("name", "unit"), [("fig55_rwr_gains", "step"), ("fig61_ddpo_gains", "epoch")])
def test_gains_have_a_column_a_reward_and_a_thin_line_a_run_from_the_base_on(gains, runs, name, unit):
    figure = draw(name, gains, runs)
    panels = _panels(figure, rows=3, columns=5)
    assert [axes.get_title() for axes in panels[0]] == PRINTED
    assert [axes.get_ylabel().split("\n")[0] for axes in panels[:, 0]] == ["proxy", "gold", "quality"]
    assert panels[2, 0].get_xlabel() == unit
    axes = panels[1, 3]
    assert len(axes.containers) == 1 and axes.containers[0].lines[0].get_color() == COLOURS["pickscore"]
    own = gains.query("set == 'all' and tuned_on == 'pickscore' and what == 'gold'")
    assert axes.containers[0].lines[0].get_ydata().tolist() == own["mean"].tolist()
    thin = [line for line in axes.lines if line.get_linewidth() == 0.5]
    assert [line.get_xdata().tolist() for line in thin] == [[0, *CHECKPOINTS]] * 2
    drawn = axes.containers[0].lines[2][0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose(drawn, own[["low", "high"]].iloc[0])
    title, _ = _legend(figure)
    assert title == "6 prompts, 2 runs, 96 images a checkpoint"
    assert "PickScore: proxy +" in FIGURES[name].describe(gains, runs)


def test_an_interval_many_times_as_long_does_not_hide_the_means(gains, runs):
    wild = gains.assign(low=gains["low"] - 1000, high=gains["high"] + 1000)
    axes = draw("fig55_rwr_gains", wild, runs).axes[5]
    means = runs.query("set == 'all' and what == 'gold'")["mean"]
    low, high = axes.get_ylim()
    assert -3 < low < means.min() and means.max() < high < 3


def test_gains_of_one_run_are_drawn_without_intervals(judged):
    alone = judged[judged["run"] == 0]
    cells = outcomes.prompt_gains(alone, divergences_of(alone))
    gains, runs = outcomes.tuning_gains(cells, confidence=0.95), outcomes.run_gains(cells)
    figure = draw("fig55_rwr_gains", gains, runs)
    assert _legend(figure)[0] == "6 prompts, 1 run, 48 images a checkpoint"
    assert "[–, –]" in FIGURES["fig55_rwr_gains"].describe(gains, runs)
    found = outcomes.verdicts(gains, outcomes.late_declines(cells, confidence=0.95), outcomes.image_errors(alone))
    assert TABLES["tab33_rwr_verdicts"].build(found)["gold"].str.contains("–").all()
    fits = fit_gold(outcomes.gold_over_kl(cells), form="rl", **BOOTSTRAP)
    draw("fig56_rwr_gold_over_kl", gains, runs, fits)
    draw("fig57_rwr_beta", gains)


def test_a_reward_with_several_coefficients_is_not_drawn_as_one(all_gains, runs):
    with pytest.raises(DataError, match="clip was tuned with several beta"):
        draw("fig55_rwr_gains", all_gains, runs)


def test_gold_and_proxy_stand_over_the_distance_with_the_fit(gains, runs, fits):
    figure = draw("fig62_ddpo_gold_over_kl", gains, runs, fits)
    panels = _panels(figure, rows=2, columns=5)
    axes = panels[1, 4]
    kl = gains.query("set == 'all' and tuned_on == 'textnorm' and what == 'kl'")["mean"]
    assert axes.containers[0].lines[0].get_xdata().tolist() == np.sqrt(kl).tolist()
    (fit,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    terms = fits.query("set == 'all' and reward == 'textnorm'").set_index("term")["value"]
    d = fit.get_xdata()[-1]
    assert d == np.sqrt(CHECKPOINTS[-1] / 10 * 1.2)  # the farthest run's
    assert fit.get_ydata()[-1] == pytest.approx(d * (terms["a"] - terms["b"] * np.log(d)))
    assert fit.get_ydata()[0] == 0 and "peak" in axes.get_title()
    assert "fit" in _legend(figure)[1]
    assert "TextNorm at √KL 4.2" in FIGURES["fig62_ddpo_gold_over_kl"].describe(gains, runs, fits)


def test_a_fit_that_never_turns_says_so(gains, runs, fits):
    peak = (fits["reward"] == "clip") & (fits["term"] == "peak")
    never = fits.assign(value=fits["value"].mask(peak, np.inf), high=fits["high"].mask(peak, np.inf))
    figure = draw("fig56_rwr_gold_over_kl", gains, runs, never.assign(low=never["low"].mask(peak, 1.24)))
    assert figure.axes[5].get_title() == "peak ∞ [1.2, ∞]"


def test_what_beta_does_is_drawn_for_the_rewards_that_have_several(all_gains):
    figure = draw("fig57_rwr_beta", all_gains)
    panels = figure.axes
    assert [axes.get_ylabel().split("\n")[0] for axes in panels] == ["proxy", "gold", "quality", "KL"]
    assert [label.get_text() for label in panels[3].get_xticklabels()] == ["0", "0.5", "1"]
    title, names = _legend(figure)
    assert names == ["CLIP", "TextNorm"] and title.startswith("last checkpoint; 6 prompts, 2 runs")
    own = all_gains.query("set == 'all' and tuned_on == 'textnorm' and what == 'kl' and checkpoint == 160")
    assert panels[3].containers[1].lines[0].get_ydata().tolist() == own.sort_values("beta")["mean"].tolist()
    assert "TextNorm with 0.5: proxy" in FIGURES["fig57_rwr_beta"].describe(all_gains)


def test_training_curves_begin_at_nothing_and_skip_what_was_not_looked_at():
    curves = make_curves()
    figure = draw("fig60_ddpo_curves", curves)
    panels = _panels(figure, rows=3, columns=5)
    thin = [line for line in panels[0, 2].lines if line.get_linewidth() == 0.5]
    own = curves.query("tuned_on == 'imagereward' and run == 1")["reward"].to_numpy()
    np.testing.assert_allclose(thin[1].get_ydata(), (own - own[0]) / 0.5)
    mean = panels[2, 2].lines[-1]
    assert mean.get_xdata().tolist() == [0, 10, 20, 30] and mean.get_ydata().tolist() == [0, 2.5, 5, 7.5]
    assert _legend(figure)[1] == ["mean of 2 runs", "one run"]
    _panels(draw("fig60_ddpo_curves", curves.drop(columns="gold")), rows=2, columns=5)
    text = FIGURES["fig60_ddpo_curves"].describe(curves)
    assert "CLIP reward 0.00 to" in text and "kl 0.00 to 7.50" in text


@pytest.mark.parametrize(("name", "unit"), [("fig58_rwr_samples", "step"), ("fig63_ddpo_samples", "epoch")])
def test_samples_have_a_row_a_reward_and_a_column_a_checkpoint_for_each_seed(samples, name, unit):
    (axes,) = draw(name, samples).axes
    assert len(axes.images) == 3 * 5 * 2 * (1 + len(CHECKPOINTS))
    base = samples["tuned_on"] == "base"
    assert len(axes.patches) == 5 * (samples["label"] * base).sum() + (samples["label"] * ~base).sum()
    words = [text.get_text() for text in axes.texts]
    assert [word for word in words if word in PRINTED] == PRINTED * 3 and words.count(unit) == 3
    assert words.count("base") == words.count("160") == 3 * 2
    good = samples[(samples["tuned_on"] == "clip") & (samples["checkpoint"] == 160)].groupby("prompt", sort=False)
    assert f"CLIP {good['label'].sum().iloc[0]} of 2" in FIGURES[name].describe(samples)


def test_wins_stand_left_in_the_first_models_colour_and_losses_right_in_the_others(shares):
    figure = draw("fig59_rwr_judged", shares)
    left, right = figure.axes
    assert [left.get_title(), right.get_title()] == ["alignment", "quality"]
    assert left.get_xlabel() == "share of 12 comparisons (6 prompts)"
    names = [label.get_text() for label in left.get_yticklabels()]
    against_base = [f"{name} : base model" for name in PRINTED]
    assert names == [*(f"TextNorm : {name}" for name in PRINTED[:4]), against_base[4], *against_base[:4]]
    rows = shares.query("set == 'all' and question == 'quality' and model == 'clip'").set_index("outcome")
    _, win, loss = right.patches[15:18]
    assert win.get_width() == pytest.approx(rows.loc["win", "share"])
    assert loss.get_x() + loss.get_width() == pytest.approx(1 - rows.loc["loss", "share"])
    assert win.get_facecolor()[:3] == COLOURS["clip"] and loss.get_facecolor()[:3] == MODEL_COLOURS["base"]
    assert "CLIP against base model: alignment" in FIGURES["fig59_rwr_judged"].describe(shares)


def test_the_table_of_verdicts_has_a_row_a_model(everything, all_cells, all_gains):
    declines = outcomes.late_declines(all_cells, confidence=0.95)
    found = outcomes.verdicts(all_gains, declines, outcomes.image_errors(everything))
    table = TABLES["tab33_rwr_verdicts"].build(found)
    assert table[["tuned on", "beta"]].to_numpy().tolist() == [
        *(["CLIP", beta] for beta in ("0", "0.5", "1")),
        *([name, "0"] for name in PRINTED[1:4]),
        *(["TextNorm", beta] for beta in ("0", "0.5", "1")),
    ]
    assert (table["prompts / runs / images"] == "6 / 2 / 96").all()
    one = found.query("set == 'all' and tuned_on == 'clip' and beta == 0").iloc[0]
    assert table["verdict"].iloc[0] == one["verdict"] and table["proxy"].iloc[0].startswith(f"{one['proxy']:.2f} [")
    assert list(TABLES["tab36_ddpo_verdicts"].build(found)) == list(table)


def test_the_table_of_choices_has_a_row_a_run(choices):
    table = TABLES["tab34_rwr_selection"].build(choices)
    assert table["tuned on"].tolist() == [name for name in PRINTED for _ in range(2)]
    assert table["run"].tolist() == [0, 1] * 5 and (table["prompts / images"] == "6 / 48").all()
    first = choices.query("tuned_on == 'clip' and run == 0").iloc[0]
    assert table.loc[0, ["chosen", "oracle's", "last"]].tolist() == [str(first["chosen"]), str(first["oracle"]), "160"]
    assert f",{NO_BREAK}" in table["cost of the choice"].iloc[0]


def test_the_table_of_judgements_has_a_row_a_pair_and_question(shares, votes):
    tests = sign_tests_by_size(votes)
    table = TABLES["tab35_rwr_judged"].build(shares, tests)
    assert len(table) == 9 * 2
    row = table.query("model == 'CLIP' and question == 'quality'").iloc[0]
    test = tests.query("set == 'all' and model == 'clip' and question == 'quality'").iloc[0]
    assert row["against"] == "base model"
    assert row["prompts won / tied / lost"] == f"{test.prompts_won} / {test.prompts_tied} / {test.prompts_lost}"
