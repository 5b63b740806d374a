"""``results/``: what notebooks read is taken whole, compared within rounding, computed again from itself."""

import json

import numpy as np
import pandas as pd
import pytest

from textnorm_lib.__main__ import main
from textnorm_lib.study import results as module
from textnorm_lib.study import store as store_module
from textnorm_lib.study.config import DEFAULT_PROFILE, as_dict, load_profile
from textnorm_lib.study.errors import StoreError
from textnorm_lib.study.results import Compared, agree, collect, compare, recompute, report
from textnorm_lib.study.store import Store, read_result, step


@step(1)
def numbers_drawn(*, n):
    return pd.DataFrame({"number": np.random.default_rng(0).normal(size=n), "name": [f"n{one}" for one in range(n)]})


@step(1)
def numbers_positive(numbers):
    return numbers[numbers["number"] > 0]  # with the rows' numbers of before, which the store does not keep


@step(1)
def numbers_split(numbers, positive, *, by):
    return {"small": numbers[numbers["number"] < by], "rest": positive[positive["number"] >= by]}


@step(1)
def numbers_pictures(*, folder):
    (folder / "picture.png").write_bytes(b"a picture")


FUNCTIONS = {one.__name__: one for one in (numbers_drawn, numbers_positive, numbers_split)}


@pytest.fixture
def made(tmp_path):
    """Four computed results, one of them a folder; the first nobody has to have read."""
    store = Store(tmp_path / "artifacts" / "steps")
    drawn = store.step(numbers_drawn, n=20)
    positive = store.step(numbers_positive, drawn)
    made = [drawn, positive, store.step(numbers_split, drawn, positive, by=1.0), store.step(numbers_pictures)]
    for one in made:
        _ = one.value
    return made


@pytest.fixture
def results(made, tmp_path, monkeypatch):
    """A folder ``results`` with all three frames."""
    folder = tmp_path / "results"
    monkeypatch.setattr(store_module, "RESULTS", folder)
    collect(made[0].store.root, {one.key for one in made}, folder)
    return folder


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def place_of(artifact, folder):
    return folder / artifact.identity["step"] / artifact.key


def test_what_was_asked_for_is_taken_without_folders_of_files_and_with_the_profile(made, results):
    drawn, positive, split, _ = (f"{one.identity['step']}/{one.key}" for one in made)
    expected = {f"{one}/{file}" for one in (drawn, positive) for file in ("data.parquet", "meta.json")}
    expected |= {f"{split}/{file}" for file in ("small.parquet", "rest.parquet", "meta.json")}
    assert names(results) == {*expected, "profile.json"}
    told = json.loads((results / "profile.json").read_text())
    assert told == json.loads(json.dumps(as_dict(load_profile(DEFAULT_PROFILE))))
    assert names(results.parent) == {f"results/{name}" for name in names(results)} | {
        f"artifacts/{name}" for name in names(results.parent / "artifacts")
    }, "nothing half-written is left"


def test_what_nobody_reads_any_more_goes_and_what_is_there_already_need_not_be_computed_again(made, results, tmp_path):
    key = made[0].key
    size = collect(tmp_path / "elsewhere", {key}, results)
    assert names(results) == {f"numbers_drawn/{key}/data.parquet", f"numbers_drawn/{key}/meta.json", "profile.json"}
    assert size == sum((place_of(made[0], results) / name).stat().st_size for name in ("data.parquet", "meta.json"))


@pytest.mark.parametrize(
    ("keys", "largest", "said"),
    [
        (set(), 10**9, "no notebook has read any result; run ./run_all.sh refresh first"),
        ({"0" * 20}, 10**9, f"has no result {'0' * 20}, which a notebook read; run ./run_all.sh refresh again"),
        (None, 100, "bytes are more than 100; let notebooks read smaller tables"),
    ],
)
def test_what_cannot_be_collected_is_one_line_and_results_stay_as_they_are(
    made, results, monkeypatch, keys, largest, said
):
    before = names(results)
    monkeypatch.setattr(module, "LARGEST", largest)
    with pytest.raises(StoreError, match=said):
        collect(made[0].store.root, {made[1].key} if keys is None else keys, results)
    assert names(results) == before


def test_a_run_is_compared_result_by_result(made, results):
    drawn, positive, split = (f"{one.identity['step']}/{one.key}" for one in made[:3])
    assert compare(made[0].store.root, results) == Compared([drawn, positive, split], [], [])
    frame = made[1].value.assign(number=1.0)
    frame.to_parquet(made[1].folder / "data.parquet", write_page_checksum=True)
    (made[2].folder / "meta.json").unlink()
    assert compare(made[0].store.root, results) == Compared([drawn], [positive], [split])


def test_a_share_is_computed_again_from_what_is_stored_alone(made, results):
    told = recompute(FUNCTIONS, 1.0, seed=0, results=results)
    assert sorted(told.same) == sorted(f"{one.identity['step']}/{one.key}" for one in made[1:3])
    assert (told.different, told.not_computed) == ([], [])
    least = recompute(FUNCTIONS, 0.01, seed=0, results=results)
    assert len(least.same) == 1 and least == recompute(FUNCTIONS, 0.01, seed=0, results=results)
    other = {**FUNCTIONS, "numbers_positive": lambda numbers: numbers[numbers["number"] > 0.1]}
    assert recompute(other, 1.0, seed=0, results=results).different == [f"numbers_positive/{made[1].key}"]


ONE = pd.DataFrame(
    {
        "number": [0.0, 1.0, np.nan, 3.0],
        "count": [1, 2, 3, 4],
        "name": ["a", "b", None, "d"],
        "list": [np.array([1.0, 2.0]), np.array([]), np.array([3.0]), np.array([4.0])],
        "words": [np.array(["clip", "blip2"]), np.array(["clip"]), np.array([]), np.array(["clip"])],
        "png": [b"a", b"b", b"c", b"d"],
    }
)


@pytest.mark.parametrize(
    ("column", "values", "same"),
    [
        ("number", [1e-4, 1.0005, np.nan, 3.0], True),
        ("number", [0.01, 1.0, np.nan, 3.0], False),
        ("number", [0.0, 1.0, 2.0, 3.0], False),
        ("count", [1, 2, 3, 5], False),
        ("name", ["a", "b", None, "c"], False),
        ("name", ["a", "b", "c", "d"], False),
        ("list", [[1.0, 2.0], [], [3.0001], [4.0]], True),
        ("list", [[1.0, 2.0], [], [3.1], [4.0]], False),
        ("list", [[1.0], [2.0], [3.0], [4.0]], False),
        ("words", [["clip", "blip2"], ["clip"], [], ["blip2"]], False),
        ("png", [b"a", b"b", b"c", b"another"], True),
    ],
)
def test_results_agree_in_words_and_labels_and_within_rounding_in_numbers(column, values, same):
    other = ONE.assign(**{column: pd.Series(values)})
    assert agree(ONE, ONE) and agree(ONE, other) is same
    assert agree({"a": ONE, "b": ONE}, {"a": ONE, "b": other}) is same


def test_results_of_another_form_do_not_agree():
    assert not agree(ONE, ONE.iloc[:3]) and not agree(ONE, ONE.drop(columns="png"))
    assert not agree({"a": ONE}, {"b": ONE})
    assert agree(ONE, ONE.set_index(pd.Index([7, 3, 1, 2]))), "the store keeps no row names"


def test_the_report_counts_and_names_some():
    assert report(Compared(["a/1", "b/2"], [], [])) == "results: 2 of 2 stored results were reproduced within rounding"
    first, second, third = report(Compared(["a/1"], ["b/2"], ["c/3", "c/4"])).splitlines()
    assert first.startswith("results: 1 of 4 ") and "1 came out differently: b/2" in second
    assert third.startswith("results: 2 were not computed here and taken as stored (c")


@pytest.mark.parametrize("file", ["data.parquet", "meta.json"])
def test_a_damaged_file_that_came_with_the_repository_is_one_line_with_gits_remedy(made, results, file):
    path = place_of(made[1], results) / file
    path.write_bytes(path.read_bytes()[:50])
    for read in (
        lambda: read_result(path.parent),
        lambda: Store(results.parent / "empty", results, prefer=True).step(numbers_positive, made[0]).value,
        lambda: compare(made[0].store.root, results),
        lambda: recompute(FUNCTIONS, 1.0, seed=0, results=results),
    ):
        with pytest.raises(StoreError) as caught:
            read()
        told = str(caught.value)
        assert told.startswith(f"{path}: cannot be read (") and told.endswith("; git checkout -- results")
        assert "\n" not in told


def test_the_command_takes_what_the_runs_records_say(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TEXTNORM_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setattr(module.collect, "__defaults__", (tmp_path / "results",))
    monkeypatch.setattr(module.compare, "__defaults__", (tmp_path / "results",))
    assert main(["results", "collect"]) == 2
    assert capsys.readouterr().err.startswith(f"results: {tmp_path}") and not (tmp_path / "results").exists()
    records = tmp_path / "artifacts" / "runs" / DEFAULT_PROFILE
    records.mkdir(parents=True)
    for number, one in enumerate(made[:2]):
        (records / f"0{number}.json").write_text(json.dumps({"asked": [one.key]}))
    assert main(["results", "collect"]) == 0 and main(["results", "compare"]) == 0
    assert len(list((tmp_path / "results").glob("*/*/meta.json"))) == 2
    assert capsys.readouterr().out.endswith("results: 2 of 2 stored results were reproduced within rounding\n")
