"""Comparisons that are blind, balanced and the same from both sides; votes that are complete; results by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from textnorm_lib.judging.comparisons import ask, blind, gold_judge, make_comparisons
from textnorm_lib.judging.verdicts import comparisons_needed, majority, sign_test_power, sign_tests, win_tie_loss
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.store import Store

NAMES = ("judge_1", "judge_2", "judge_3")


def images(model: str, *, prompts: int = 6, per_prompt: int = 8) -> pd.DataFrame:
    """Images of one model, whose name is in their paths as well."""
    rows = [
        (model, "ab"[p % 2], f"prompt {p}", f"runs/{model}/image_{p}_{i}.png")
        for p in range(prompts)
        for i in range(per_prompt)
    ]
    return pd.DataFrame(rows, columns=["model", "set", "prompt", "image"])


def gold_of(*frames: pd.DataFrame, seed: int = 0) -> dict[str, float]:
    """A good or bad for each image, TextNorm's being better."""
    rng = np.random.default_rng(seed)
    table = pd.concat(frames)
    return dict(zip(table["image"], rng.random(len(table)) < 0.4 + 0.2 * (table["model"] == "textnorm"), strict=True))


def judged(comparisons: pd.DataFrame, judge, *, see, question: str = "alignment") -> pd.DataFrame:
    return pd.concat([ask(judge, comparisons, name=name, question=question, see=see) for name in NAMES])


@pytest.fixture
def comparisons() -> pd.DataFrame:
    return make_comparisons(images("textnorm"), images("clip"), seed=1)


def test_every_image_is_shown_once_the_first_four_first(comparisons):
    assert len(comparisons) == 6 * 2 and comparisons["comparison"].is_unique
    assert comparisons[["model", "opponent", "seed"]].drop_duplicates().to_numpy().tolist() == [["textnorm", "clip", 1]]
    for row in comparisons.itertuples():
        other = {"textnorm": "clip", "clip": "textnorm"}[row.left_model]
        for model, shown in ((row.left_model, row.left), (other, row.right)):
            own = images(model).query("prompt == @row.prompt")
            assert shown == own["image"].tolist()[4 * row.number - 4 : 4 * row.number] and (own["set"] == row.set).all()


@pytest.mark.parametrize("seed", range(5))
def test_each_model_is_left_in_half_of_a_prompts_comparisons(seed):
    table = make_comparisons(images("textnorm"), images("clip"), seed=seed)
    assert (table.groupby("prompt")["left_model"].nunique() == 2).all()
    first = table[table["number"] == 1]["left_model"]
    many = make_comparisons(images("textnorm", prompts=60), images("clip", prompts=60), seed=seed)
    assert 15 < (many.query("number == 1")["left_model"] == "clip").sum() < 45 and len(first) == 6
    odd = make_comparisons(images("textnorm", per_prompt=4), images("clip", per_prompt=4), sets_per_prompt=1, seed=seed)
    assert odd["left_model"].value_counts().to_dict() == {"textnorm": 3, "clip": 3}


def test_a_seed_gives_the_same_sides_in_any_order_of_rows_and_another_seed_others(comparisons):
    shuffled = [images(model).sample(frac=1, random_state=0).sort_values("image") for model in ("textnorm", "clip")]
    pd.testing.assert_frame_equal(make_comparisons(*shuffled, seed=1), comparisons)
    others = [make_comparisons(images("textnorm"), images("clip"), seed=seed)["left_model"] for seed in range(2, 6)]
    assert any(not other.equals(comparisons["left_model"]) for other in others)


def test_a_judge_never_learns_which_models_there_are(comparisons):
    seen = []

    def curious(shown):
        seen.append((repr(shown), vars(shown).keys()))
        return "tie"

    rng = np.random.default_rng(0)
    pixels = {
        image: rng.integers(0, 9, 3).tolist() for row in comparisons.itertuples() for image in row.left + row.right
    }
    ask(curious, comparisons, name="judge_1", question="quality", see=pixels)
    assert len(seen) == 12
    for text, fields in seen:
        assert fields == {"comparison", "prompt", "left", "right"}
        assert "textnorm" not in text and "clip" not in text and ".png" not in text
    order = [shown.comparison for shown in blind(comparisons, see=pixels)]
    assert order == sorted(order) and order != comparisons["comparison"].tolist()


@pytest.mark.parametrize("kind", ["gold", "left", "moody"])
def test_swapping_the_models_turns_wins_into_losses(kind, comparisons):
    swapped = make_comparisons(images("clip"), images("textnorm"), seed=1)
    gold = gold_of(images("textnorm"), images("clip"))
    judge = {
        "gold": gold_judge(tie_within=0.1),
        "left": lambda shown: "left",
        "moody": lambda shown: ["left", "tie", "right", None][int(shown.comparison, 16) % 4],
    }[kind]
    assert list(blind(swapped, see=gold)) == list(blind(comparisons, see=gold))
    ours, theirs = (win_tie_loss(judged(table, judge, see=gold)) for table in (comparisons, swapped))
    mirrored = theirs.assign(outcome=theirs["outcome"].map({"win": "loss", "tie": "tie", "loss": "win"}))
    mirrored = mirrored.rename(columns={"model": "opponent", "opponent": "model"})
    keys = ["set", "outcome"]
    pd.testing.assert_frame_equal(
        ours.set_index(keys).sort_index(), mirrored.set_index(keys).sort_index()[ours.columns.drop(keys)]
    )
    tests = [sign_tests(judged(table, judge, see=gold)) for table in (comparisons, swapped)]
    assert tests[0]["prompts_won"].to_list() == tests[1]["prompts_lost"].to_list()
    assert tests[0]["p_sign"].to_list() == tests[1]["p_sign"].to_list()


@pytest.mark.parametrize(("judge", "outcome"), [("left", "win"), ("right", "loss")])
def test_a_judge_who_looks_at_one_side_only_finds_the_models_equal(judge, outcome, comparisons):
    table = win_tie_loss(judged(comparisons, lambda shown: judge, see=str)).set_index(["set", "outcome"])
    for name in ("a", "b", "all"):
        assert table.loc[(name, "win"), "count"] == table.loc[(name, "loss"), "count"]
        assert table.loc[(name, outcome), "share"] == 0.5
    assert (sign_tests(judged(comparisons, lambda shown: judge, see=str))["p_sign"] == 1).all()


@pytest.mark.parametrize(
    ("left", "right", "answer"),
    [
        ([1, 1, 0, 0], [1, 0, 0, 0], "left"),
        ([0, 0, 0, 0], [1, 0, 0, 0], "right"),
        ([1, 0, 0, 0], [0, 0, 0, 1], "tie"),
        ([0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1], "tie"),  # the sums differ in the last bit
    ],
)
def test_gold_decides_by_the_mean_of_each_side(left, right, answer):
    table = pd.DataFrame({"comparison": ["x"], "prompt": ["p"], "left": [range(4)], "right": [range(4, 8)]})
    (shown,) = blind(table, see=[*left, *right].__getitem__)
    assert gold_judge(tie_within=0)(shown) == answer
    assert gold_judge(tie_within=0.25)(shown) == "tie"


def test_comparisons_come_back_from_the_store_as_they_were(tmp_path, comparisons):
    class Given(pd.DataFrame):
        key = "k"

    stored = Store(tmp_path).compute(make_comparisons, Given(images("textnorm")), Given(images("clip")), seed=1).value
    assert list(blind(stored, see=str)) == list(blind(comparisons, see=str))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda t: t.drop(columns="image"),
            "images_b: every image needs model, set, prompt, image; 'image' is missing",
        ),
        (lambda t: t.assign(prompt=None), "images_b: every image needs .* 'prompt' is missing"),
        (lambda t: t.assign(model="textnorm"), "both of model 'textnorm'"),
        (lambda t: pd.concat([t, t.assign(model="blip2")]), r"images_b has the models \['clip', 'blip2'\]"),
        (lambda t: t[t["prompt"] != "prompt 3"], "prompt 'prompt 3' has images of one model only"),
        (lambda t: t.iloc[1:], "images_b: prompt 'prompt 0' has 7 images, 7 of them different; 2 x 4"),
        (lambda t: pd.concat([t, t.tail(1)]), "images_b: prompt 'prompt 5' has 9 images"),
        (
            lambda t: t.assign(image=t["image"].str[:-6]),
            "images_b: prompt 'prompt 0' has 8 images, 1 of them different",
        ),
        (lambda t: t.iloc[:0], r"images_b has the models \[\]"),
    ],
)
def test_images_that_do_not_fit_are_named(damage, message):
    with pytest.raises(DataError, match=message) as raised:
        make_comparisons(images("textnorm"), damage(images("clip")), seed=0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"judge": lambda shown: "model a"}, "judge 'judge_1' answers 'model a'; known are left, tie, right and None"),
        ({"question": "beauty"}, "question is 'beauty'; known are alignment, quality"),
        ({"see": {}}, "image 'runs/.*png' is in no entry of see"),
        ({"judge": gold_judge(tie_within=0), "see": lambda image: np.nan}, "an image's gold is not finite"),
    ],
)
def test_answers_that_are_none_are_named(options, message, comparisons):
    options = {"judge": lambda shown: "tie", "question": "alignment", "see": str, **options}
    with pytest.raises(DataError, match=message):
        ask(options.pop("judge"), comparisons, name="judge_1", **options)


def test_a_comparison_given_twice_and_a_negative_threshold_are_refused(comparisons):
    with pytest.raises(DataError, match="occurs twice"):
        ask(lambda shown: "tie", pd.concat([comparisons] * 2), name="judge_1", question="alignment", see=str)
    with pytest.raises(DataError, match="tie_within is -1"):
        gold_judge(tie_within=-1)


def votes_of(outcomes: dict[str, list[str]], *, set_name: str = "counting", opponent: str = "clip") -> pd.DataFrame:
    """Three like votes on each of a prompt's comparisons, such that they come out as told; textnorm is on the right."""
    answer = {"win": "right", "tie": "tie", "loss": "left"}
    rows = [
        (
            f"{opponent} {prompt} {i}",
            set_name,
            prompt,
            "textnorm",
            opponent,
            opponent,
            judge,
            "alignment",
            answer[outcome],
        )
        for prompt, told in outcomes.items()
        for i, outcome in enumerate(told)
        for judge in NAMES
    ]
    about = ["comparison", "set", "prompt", "model", "opponent", "left_model"]
    return pd.DataFrame(rows, columns=[*about, "judge", "question", "answer"])


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        (("left", "left", "left"), "win"),
        (("left", "left", "right"), "win"),
        (("left", "left", "skip"), "win"),
        (("right", "tie", "right"), "loss"),
        (("tie", "tie", "left"), "tie"),
        (("left", "tie", "right"), "tie"),  # 1-1-1
        (("left", "right", "skip"), "tie"),
        (("left", "skip", "skip"), "tie"),
        (("skip", "skip", "skip"), "tie"),
    ],
)
def test_the_majority_of_three_decides(answers, outcome):
    for order in set(itertools.permutations(answers)):
        votes = votes_of({"p": ["tie"]}).assign(answer=order, left_model="textnorm")
        assert majority(votes)["outcome"].item() == outcome
        mirrored = {"win": "loss", "tie": "tie", "loss": "win"}[outcome]
        assert majority(votes.assign(left_model="clip"))["outcome"].item() == mirrored


def test_questions_are_decided_apart():
    votes = pd.concat([votes_of({"p": ["win"]}), votes_of({"p": ["loss"]}).assign(question="quality")])
    assert majority(votes).set_index("question")["outcome"].to_dict() == {"alignment": "win", "quality": "loss"}


def test_shares_by_hand():
    counting = votes_of({"p": ["win", "win"], "q": ["win", "tie"], "r": ["loss", "tie"]})
    composition = votes_of({"s": ["loss", "loss"]}, set_name="composition")
    table = win_tie_loss(pd.concat([counting, composition])).set_index(["set", "outcome"])
    assert table["count"].to_dict() == {
        **{("counting", "win"): 3, ("counting", "tie"): 2, ("counting", "loss"): 1},
        **{("composition", "win"): 0, ("composition", "tie"): 0, ("composition", "loss"): 2},
        **{("all", "win"): 3, ("all", "tie"): 2, ("all", "loss"): 3},
    }
    assert table.loc["counting", "share"].to_list() == pytest.approx([3 / 6, 2 / 6, 1 / 6])
    assert table.loc["all", "share"].to_list() == pytest.approx([3 / 8, 2 / 8, 3 / 8])
    assert table[["n_comparisons", "n_prompts"]].drop_duplicates().to_numpy().tolist() == [[6, 3], [2, 1], [8, 4]]
    assert table.loc["composition", ["low", "high"]].isna().all(axis=None)  # one prompt has no spread
    # Wins of p, q, r: 2, 1, 0 of 2, so v = 3 / 2 * (1 + 0 + 1) / 36 = 1 / 12 and n* = (1 / 4) / v = 3.
    exact = stats.beta.ppf(0.025, 1.5, 2.5), stats.beta.ppf(0.975, 2.5, 1.5)
    assert table.loc[("counting", "win"), ["low", "high"]].to_list() == pytest.approx(exact)


def exact_interval(hits: int, size: int) -> list[float]:
    return list(stats.binomtest(hits, size).proportion_ci(0.95, "exact"))


def interval_of(outcomes: list[list[str]]) -> list[float]:
    table = win_tie_loss(votes_of({str(p): told for p, told in enumerate(outcomes)})).set_index(["set", "outcome"])
    return table.loc[("all", "win"), ["low", "high"]].to_list()


def test_a_confidence_in_per_cent_is_refused():
    with pytest.raises(DataError, match="confidence is 95: a number between 0 and 1 is needed"):
        win_tie_loss(votes_of({"p": ["win"]}), confidence=95)


def test_two_comparisons_that_always_agree_tell_no_more_than_one():
    once = interval_of([["win"]] * 7 + [["loss"]] * 12)
    assert interval_of([["win"] * 2] * 7 + [["loss"] * 2] * 12) == pytest.approx(once)
    assert once[1] - once[0] > np.diff(exact_interval(14, 38)).item()


def test_two_comparisons_that_never_agree_tell_as_much_as_two():
    assert interval_of([["win", "loss"]] * 19) == pytest.approx(exact_interval(19, 38))


def test_what_never_happens_and_what_always_does_are_exact_over_prompts():
    assert interval_of([["loss", "tie"]] * 19) == pytest.approx(exact_interval(0, 19))
    assert interval_of([["win", "win"]] * 19) == pytest.approx(exact_interval(19, 19))


@pytest.mark.parametrize(("share", "same"), [(0.1, 0.7), (0.5, 0.0), (0.5, 1.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(share, same):
    from textnorm_lib.judging.verdicts import _interval  # through votes it would take a minute

    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        common, own = rng.random((30, 1)) < share, rng.random((30, 2)) < share
        hits = np.where(rng.random((30, 2)) < same, common, own).sum(axis=1)
        low, high = _interval(hits, np.full(30, 2), 0.9)
        held += low <= share <= high
    assert held / 400 > 0.9 - 3 * np.sqrt(0.9 * 0.1 / 400)


def test_sign_tests_by_hand_and_holm_over_the_opponents():
    clip = {f"won {p}": ["win", "tie"] for p in range(8)} | {"lost": ["loss", "loss"], "even": ["win", "loss"]}
    blip2 = {f"won {p}": ["win", "win"] for p in range(10)}
    same = {f"even {p}": ["tie", "tie"] for p in range(10)}
    votes = [votes_of(o, opponent=name) for name, o in (("clip", clip), ("blip2", blip2), ("same", same))]
    table = sign_tests(pd.concat(votes)).query("set == 'all'").set_index("opponent")
    assert table.loc["clip", ["prompts_won", "prompts_tied", "prompts_lost"]].to_list() == [8, 1, 1]
    # 8 of 9: 2 (1 + 9) / 2^9; 10 of 10: 2 / 2^10. Holm: twice the first, three times the second.
    assert table["p_sign"].to_dict() == pytest.approx({"clip": 20 / 512, "blip2": 2 / 1024, "same": 1})
    assert table["p_holm"].to_dict() == pytest.approx({"clip": 40 / 512, "blip2": 6 / 1024, "same": 1})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda votes: votes.drop(columns="judge"), "votes: every vote needs .* 'judge' is missing"),
        (lambda votes: votes.assign(answer=None), "'answer' is missing"),
        (lambda votes: votes.iloc[:0], "votes has no rows"),
        (
            lambda votes: votes.replace({"answer": {"right": "win"}}),
            "votes: row 0 has the answer 'win'; known are left",
        ),
        (lambda votes: votes.assign(left_model="blip2"), "votes: row 0 has a left_model that is neither"),
        (lambda votes: pd.concat([votes, votes.tail(1)]), "votes: row 12 repeats a judge's answer"),
        (lambda votes: votes.iloc[1:], "comparison clip p 0 has 2 votes on alignment; 3 judges are needed"),
        (
            lambda votes: pd.concat([votes, votes.iloc[:3].assign(question="quality")]),
            "comparison clip p 1 has 0 votes on quality",
        ),
        (lambda votes: pd.concat([votes, votes.head(1).assign(judge="judge_4")]), "clip p 0 has 4 votes on alignment"),
    ],
)
@pytest.mark.parametrize("function", [majority, win_tie_loss, sign_tests])
def test_bad_votes_are_named(function, damage, message):
    with pytest.raises(DataError, match=message) as raised:
        function(damage(votes_of({"p": ["win", "tie"], "q": ["loss", "loss"]})))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("n", "win", "loss"), [(1, 0.5, 0.2), (9, 0.6, 0.1), (14, 0.5, 0.5), (14, 0.9, 0.1)])
def test_power_is_the_sum_over_all_results(n, win, loss):
    expected, ties = 0.0, max(0.0, 1 - win - loss)
    for wins in range(n + 1):
        for losses in range(n + 1 - wins):
            if wins + losses and stats.binomtest(wins, wins + losses).pvalue <= 0.05:
                expected += stats.multinomial.pmf([wins, losses, n - wins - losses], n, [win, loss, ties])
    assert sign_test_power(n, win=win, loss=loss) == pytest.approx(expected, abs=1e-12)
    assert sign_test_power(n, win=loss, loss=win) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("win", "loss"), [(0.4, 0.2), (0.2, 0.4), (0.6, 0.4), (0.75, 0.25), (1.0, 0.0)])
def test_the_number_needed_is_just_enough(win, loss):
    n = comparisons_needed(win, loss)
    powers = [sign_test_power(smaller, win=win, loss=loss) for smaller in range(1, n)]
    assert sign_test_power(n, win=win, loss=loss) >= 0.8 > max(powers)
    decided, difference = win + loss, win - loss  # what the normal approximation asks for
    normal = (1.96 * np.sqrt(decided) + 0.8416 * np.sqrt(decided - difference**2)) ** 2 / difference**2
    assert n == pytest.approx(normal, rel=0.1, abs=5)
    assert comparisons_needed(win, loss, power=0.95) > n or win == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: comparisons_needed(0.3, 0.3), "win is 0.3, loss 0.3"),
        (lambda: comparisons_needed(0.5, 0.3, power=1), "power 1"),
        (lambda: comparisons_needed(0.8, 0.3), "win 0.8, loss 0.3"),
        (lambda: sign_test_power(0, win=0.5, loss=0.2), "n is 0"),
        (lambda: sign_test_power(5, win=np.nan, loss=0.2), "win nan"),
        (lambda: sign_test_power(5, win=0.0, loss=0.0), "win 0.0"),
        (lambda: sign_test_power(5, win=0.5, loss=0.2, alpha=0), "alpha 0"),
    ],
)
def test_rates_that_are_none_are_named(call, message):
    with pytest.raises(DataError, match=message):
        call()
