"""The release is found, downloaded and read as its authors made it; each defect is named in one line.

A fake release of two scored prompts and one unscored prompt stands in; only the last tests read the real one.
"""

import hashlib
import json
import os
from pathlib import Path

import pandas as pd
import pooch
import pytest
import requests

from textnorm_lib.study.errors import DataError, DataUnavailable
from textnorm_lib.tia2 import load_official, official

SET = "counting"
VOTES, CONTRASTIVE, SCORES = (path.format(SET) for path in official.FOLDERS.values())
SCORED, ALSO_SCORED, ALL_BAD = "a realistic photo of two cats", "a realistic photo of two dogs", "six forks"
FIRST = "image_0_0_0.jpg"


def fake_objects(textnorm="textnorm_ur"):
    """The three objects of a small valid set: 50 images a prompt, 20 and 1 of them good for the scored prompts."""
    votes, scores = {}, {}
    for number, (prompt, good) in enumerate({SCORED: 20, ALSO_SCORED: 1, ALL_BAD: 0}.items()):
        for i in range(50):
            name = f"image_{number}_{i // 10}_{i % 10}.jpg"
            votes[name] = {"image": name, "caption": prompt, "human_labels": [1, 1, -1] if i < good else [0, 1, -1]}
        if good:
            metrics = dict.fromkeys(official.SCORE_RANGES, 0.5) | {"spearman": -0.25, "ap25": 1.0000000000000002}
            knobs = {"scale": 3.0, "lambda": 0.5} if textnorm == "textnorm_ur" else {"scale": 3.0}
            rewards = {reward: dict(metrics) for reward in official.REWARDS[:-1]}
            scores[prompt] = {"human": good / 50, **rewards, textnorm: metrics | knobs}
    contrastive = {prompt: [f"not {prompt}", "something else"] for prompt in (ALSO_SCORED, SCORED, ALL_BAD)}
    return {VOTES: votes, CONTRASTIVE: contrastive, SCORES: scores}


def write(folder, objects):
    for relative, content in objects.items():
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=4), encoding="utf-8")
    return folder


def fault_of(folder):
    """The message of loading a defective folder: one line that ends with the remedy."""
    with pytest.raises(DataError) as caught:
        load_official(SET, folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert "restore the released file" in message and official.VARIABLE in message
    assert not isinstance(caught.value, DataUnavailable)
    return message


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- a valid release --------------------------------------------------------------------------------------------------


def test_frames_of_a_valid_set(tmp_path):
    found = load_official(SET, write(tmp_path, fake_objects()))
    assert found.name == SET
    assert list(found.votes.columns) == ["image", "prompt", "annotator", "vote"]
    assert len(found.votes) == 3 * 50 * 3
    assert found.votes.iloc[:3].values.tolist() == [
        [FIRST, SCORED, 1, 1],
        [FIRST, SCORED, 2, 1],
        [FIRST, SCORED, 3, -1],
    ]
    assert found.contrastive.values.tolist()[:2] == [
        [ALSO_SCORED, 0, f"not {ALSO_SCORED}"],
        [ALSO_SCORED, 1, "something else"],
    ]
    assert list(found.contrastive.columns) == ["prompt", "position", "contrastive_prompt"]
    assert list(found.scores.columns) == ["prompt", "reward", "metric", "value"]
    assert len(found.scores) == 2 * 5 * 7
    assert tuple(found.scores["reward"].unique()) == official.REWARDS
    assert set(found.scores["metric"]) == set(official.SCORE_RANGES)
    assert found.tuning.values.tolist() == [[p, "uncertainty", 3.0, 0.5] for p in (SCORED, ALSO_SCORED)]
    assert found.share_good.values.tolist() == [[SCORED, 0.4], [ALSO_SCORED, 0.02]]


def test_the_mean_ensemble_has_no_penalty(tmp_path):
    found = load_official(SET, write(tmp_path, fake_objects("textnorm_mean")))
    assert list(found.tuning.columns) == ["prompt", "ensemble", "scale", "penalty"]
    assert found.tuning["ensemble"].unique().tolist() == ["mean"]
    assert found.tuning["penalty"].isna().all()
    assert "textnorm" in set(found.scores["reward"])


def test_key_and_files_identify_the_bytes(tmp_path):
    folder = write(tmp_path / "one", fake_objects())
    first = load_official(SET, folder)
    assert dict(first.files) == {relative: digest(folder / relative) for relative in (VOTES, CONTRASTIVE, SCORES)}
    assert len(first.key) == 64 and int(first.key, 16)
    assert load_official(SET, write(tmp_path / "two", fake_objects())).key == first.key
    path = folder / CONTRASTIVE
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert load_official(SET, folder).key != first.key


def test_unknown_set():
    with pytest.raises(DataError, match="unknown set 'colours'; choose one of comprehensive, counting, composition"):
        load_official("colours")


# --- defects of an entry ----------------------------------------------------------------------------------------------


def put(relative, *keys_and_value):
    """A change: follow the keys in one file's object, set the last one to the value."""
    *keys, last, value = keys_and_value

    def change(objects):
        entry = objects[relative]
        for key in keys:
            entry = entry[key]
        entry[last] = value

    return change


def drop(relative, *keys):
    *keys, last = keys

    def change(objects):
        entry = objects[relative]
        for key in keys:
            entry = entry[key]
        del entry[last]

    return change


def one_label_only(objects):
    for entry in objects[VOTES].values():
        if entry["caption"] == ALSO_SCORED:
            entry["human_labels"] = [0, 0, 0]


def caption_everywhere(objects):
    """A prompt renamed in the votes only."""
    for entry in objects[VOTES].values():
        entry["caption"] = entry["caption"].replace(ALL_BAD, "seven forks")


def both_ensembles(objects):
    objects[SCORES][SCORED]["textnorm_mean"] = objects[SCORES][SCORED]["textnorm_ur"]


NAN, INF = float("nan"), float("inf")
DEFECTS = {
    "no image key": (drop(VOTES, FIRST, "image"), VOTES, [FIRST, "lacks 'image'"]),
    "no caption key": (drop(VOTES, FIRST, "caption"), VOTES, [FIRST, "lacks 'caption'"]),
    "no human_labels key": (drop(VOTES, FIRST, "human_labels"), VOTES, [FIRST, "lacks 'human_labels'"]),
    "unknown image key": (put(VOTES, FIRST, "votes", []), VOTES, [FIRST, "unknown 'votes'"]),
    "image entry a list": (put(VOTES, FIRST, [1]), VOTES, [FIRST, "not an object"]),
    "wrong image name": (put(VOTES, FIRST, "image", "other.jpg"), VOTES, [FIRST, "calls itself 'other.jpg'"]),
    "empty caption": (put(VOTES, FIRST, "caption", " "), VOTES, [FIRST, "no caption"]),
    "caption null": (put(VOTES, FIRST, "caption", None), VOTES, [FIRST, "no caption but None"]),
    "two votes": (put(VOTES, FIRST, "human_labels", [1, 0]), VOTES, [FIRST, "three votes but [1, 0]"]),
    "four votes": (put(VOTES, FIRST, "human_labels", [1, 0, 1, 1]), VOTES, [FIRST, "three votes"]),
    "votes no list": (put(VOTES, FIRST, "human_labels", "110"), VOTES, [FIRST, "three votes"]),
    "a vote of 2": (put(VOTES, FIRST, "human_labels", 1, 2), VOTES, [FIRST, "vote 2 is 2,"]),
    "a vote of true": (put(VOTES, FIRST, "human_labels", 2, True), VOTES, [FIRST, "vote 3 is True"]),
    "a vote of 1.0": (put(VOTES, FIRST, "human_labels", 0, 1.0), VOTES, [FIRST, "vote 1 is 1.0"]),
    "a vote of NaN": (put(VOTES, FIRST, "human_labels", 0, NAN), VOTES, [FIRST, "vote 1 is nan"]),
    "49 images": (drop(VOTES, FIRST), VOTES, [SCORED, "49 images, not 50"]),
    "no contrastive set": (drop(CONTRASTIVE, ALL_BAD), CONTRASTIVE, [ALL_BAD, "no contrastive set"]),
    "empty contrastive set": (put(CONTRASTIVE, SCORED, []), CONTRASTIVE, [SCORED, "empty contrastive set"]),
    "contrastive no list": (put(CONTRASTIVE, SCORED, "x"), CONTRASTIVE, [SCORED, "empty contrastive set"]),
    "contrastive number": (put(CONTRASTIVE, SCORED, 0, 7), CONTRASTIVE, [SCORED, "no text: 7"]),
    "contrastive blank": (put(CONTRASTIVE, SCORED, 0, ""), CONTRASTIVE, [SCORED, "no text: ''"]),
    "contrastive stranger": (put(CONTRASTIVE, "zzz", ["x"]), CONTRASTIVE, ["zzz", "no images"]),
    "renamed caption": (caption_everywhere, CONTRASTIVE, ["seven forks", "no contrastive set"]),
    "score NaN": (put(SCORES, SCORED, "clip", "ap5", NAN), SCORES, [SCORED, "clip, ap5 is nan"]),
    "score inf": (put(SCORES, SCORED, "blip2", "auroc", INF), SCORES, [SCORED, "blip2, auroc is inf"]),
    "score null": (put(SCORES, SCORED, "clip", "ap5", None), SCORES, [SCORED, "ap5 is None, not a number"]),
    "score text": (put(SCORES, SCORED, "clip", "ap5", "0.5"), SCORES, [SCORED, "ap5 is '0.5', not a number"]),
    "score true": (put(SCORES, SCORED, "clip", "ap5", True), SCORES, [SCORED, "ap5 is True, not a number"]),
    "score huge": (put(SCORES, SCORED, "clip", "ap5", 10**400), SCORES, [SCORED, "ap5 is 1000", "between 0 and 1"]),
    "score above 1": (put(SCORES, SCORED, "clip", "ap5", 1.01), SCORES, [SCORED, "ap5 is 1.01", "between 0 and 1"]),
    "AUROC below 0": (put(SCORES, SCORED, "clip", "auroc", -0.1), SCORES, [SCORED, "auroc is -0.1"]),
    "correlation": (put(SCORES, SCORED, "clip", "kendall", -1.1), SCORES, [SCORED, "kendall is -1.1", "-1 and 1"]),
    "metric missing": (drop(SCORES, SCORED, "clip", "ap5"), SCORES, [SCORED, "clip lacks 'ap5'"]),
    "metric unknown": (put(SCORES, SCORED, "clip", "f1", 0.5), SCORES, [SCORED, "clip has an unknown 'f1'"]),
    "reward missing": (drop(SCORES, SCORED, "pickscore"), SCORES, [SCORED, "lacks 'pickscore'"]),
    "reward unknown": (put(SCORES, SCORED, "hps", {}), SCORES, [SCORED, "unknown 'hps'"]),
    "reward a number": (put(SCORES, SCORED, "clip", 0.5), SCORES, [SCORED, "clip is 0.5, not an object"]),
    "textnorm missing": (drop(SCORES, SCORED, "textnorm_ur"), SCORES, [SCORED, "lacks 'textnorm_ur'"]),
    "textnorm twice": (both_ensembles, SCORES, [SCORED, "unknown 'textnorm_mean'"]),
    "no scale": (drop(SCORES, SCORED, "textnorm_ur", "scale"), SCORES, [SCORED, "textnorm_ur lacks 'scale'"]),
    "lambda NaN": (put(SCORES, SCORED, "textnorm_ur", "lambda", NAN), SCORES, [SCORED, "lambda is nan"]),
    "share missing": (drop(SCORES, SCORED, "human"), SCORES, [SCORED, "lacks 'human'"]),
    "share NaN": (put(SCORES, SCORED, "human", NAN), SCORES, [SCORED, "human is nan"]),
    "share differs": (
        put(SCORES, SCORED, "human", 0.42),
        SCORES,
        [SCORED, "human is 0.42", "share of good images is 0.4"],
    ),
    "scores a list": (put(SCORES, SCORED, []), SCORES, [SCORED, "not an object"]),
    "scores of a stranger": (
        lambda objects: objects[SCORES].update(zzz=objects[SCORES][SCORED]),
        SCORES,
        ["zzz", "no images"],
    ),
    "scores missing": (drop(SCORES, SCORED), SCORES, [SCORED, "no scores although its images carry both labels"]),
    "scores of one label": (one_label_only, SCORES, [ALSO_SCORED, "scores although its images carry one label only"]),
}


@pytest.mark.parametrize("case", DEFECTS)
def test_a_defective_entry_is_named(tmp_path, case):
    change, relative, fragments = DEFECTS[case]
    objects = fake_objects()
    change(objects)
    message = fault_of(write(tmp_path, objects))
    assert message.startswith(str(tmp_path / relative))
    for fragment in fragments:
        assert fragment in message


def test_a_long_or_broken_name_stays_on_one_short_line(tmp_path):
    objects = fake_objects()
    objects[CONTRASTIVE]["line one\nline two " + "x" * 5000] = ["x"]
    assert "line one" in fault_of(write(tmp_path, objects))


# --- defects of a whole file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("relative", [VOTES, CONTRASTIVE, SCORES])
def test_a_missing_file_is_named(tmp_path, relative):
    folder = write(tmp_path, fake_objects())
    (folder / relative).unlink()
    assert f"{folder / relative}: the file is missing" in fault_of(folder)


@pytest.mark.parametrize("relative", [VOTES, CONTRASTIVE, SCORES])
def test_a_truncated_file_is_named_with_its_line(tmp_path, relative):
    folder = write(tmp_path, fake_objects())
    text = (folder / relative).read_text(encoding="utf-8")
    half = text[: len(text) // 2]
    (folder / relative).write_text(half, encoding="utf-8")
    message = fault_of(folder)
    assert message.startswith(f"{folder / relative}: not valid JSON at line ") and ", column " in message
    assert half.count("\n") - 1 <= int(message.split("at line ")[1].split(",")[0]) <= half.count("\n") + 1


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "not valid JSON at line 1, column 1"),
        (b'{"a": 1,\n oops}', "not valid JSON at line 2, column 2"),
        (b"<!DOCTYPE html>", "not valid JSON at line 1, column 1"),
        (b"\xff\xfe\x00{", "not valid JSON"),
        (b'{"a": "\xe9"}', "not valid JSON (UnicodeDecodeError"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not valid JSON (ValueError"),
        (b"[1, 2]", "top level is a list"),
        (b"null", "top level is a NoneType"),
        (b"NaN", "top level is a float"),
        (b"{}", "or empty"),
        (b'{"a": [1], "a": [2]}', "the entry 'a' occurs twice"),
    ],
)
def test_a_file_that_is_no_object(tmp_path, raw, says):
    folder = write(tmp_path, fake_objects())
    (folder / CONTRASTIVE).write_bytes(raw)
    message = fault_of(folder)
    assert message.startswith(str(folder / CONTRASTIVE)) and says in message


def test_a_folder_in_place_of_a_file(tmp_path):
    folder = write(tmp_path, fake_objects())
    (folder / SCORES).unlink()
    (folder / SCORES).mkdir()
    assert str(folder / SCORES) in fault_of(folder)


# --- where the data come from -----------------------------------------------------------------------------------------


class Site:
    """Stands in for the network: serves files as pooch's downloader would, and counts the calls."""

    def __init__(self, source):
        self.source, self.calls, self.fail, self.spoil, self.options = source, [], None, None, {}

    def __call__(self, **options):
        self.options = options
        return self.fetch

    def fetch(self, url, output_file, pooch, check_only=False):
        remote = url.removeprefix(f"{official.BASE_URL}/")
        assert remote != url
        self.calls.append(remote)
        content = (self.source / remote).read_bytes()
        if self.fail:
            Path(output_file).write_bytes(content[:100])
            raise self.fail
        Path(output_file).write_bytes(b"<html>log in</html>" if remote == self.spoil else content)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """No variable, an empty cache, and a site that holds nine files whose digests are the pinned ones."""
    source = tmp_path / "site"
    for name in official.SETS:
        write(source, {relative.replace(SET, name): content for relative, content in fake_objects().items()})
    monkeypatch.setattr(official, "DIGESTS", {name: digest(source / name) for name in official.DIGESTS})
    monkeypatch.setattr(official, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv(official.VARIABLE, raising=False)
    site = Site(source)
    monkeypatch.setattr(pooch, "HTTPDownloader", site)
    official._download_failure.cache_clear()
    yield site
    official._download_failure.cache_clear()


def test_the_variable_comes_first(site, monkeypatch):
    monkeypatch.setenv(official.VARIABLE, str(site.source))
    assert official.locate_release() == site.source
    assert official.release_available() == (True, "")
    assert len(load_official(SET).votes) == 450
    assert site.calls == []


@pytest.mark.parametrize("kind", ["no such folder", "a file missing"])
def test_a_wrong_variable_is_an_error_not_a_fall_through(site, monkeypatch, tmp_path, kind):
    folder = tmp_path / "elsewhere"
    if kind == "a file missing":
        (site.source / SCORES).unlink()
        folder = site.source
    monkeypatch.setenv(official.VARIABLE, str(folder))
    with pytest.raises(DataError) as caught:
        load_official(SET)
    message = str(caught.value)
    assert f"{official.VARIABLE}={folder}: no file" in message and "correct the variable" in message
    assert "\n" not in message
    assert kind == "no such folder" or SCORES in message
    available, reason = official.release_available()
    assert available and not reason  # so that load_official is asked, and says what is wrong
    assert site.calls == []


def test_a_good_download_is_kept(site, tmp_path):
    assert official.locate_release() == tmp_path / "cache"
    assert sorted(site.calls) == sorted(official.DIGESTS)
    assert site.options == {"progressbar": True, "timeout": official.TIMEOUT_S}
    kept = {str(p.relative_to(tmp_path / "cache")) for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    assert kept == set(official.DIGESTS)
    for name in official.SETS:
        assert len(load_official(name).votes) == 450
    assert official.release_available() == (True, "")
    assert len(site.calls) == 9  # the second look found the cache


def test_a_damaged_cache_is_mended(site, tmp_path):
    official.locate_release()
    (tmp_path / "cache" / SCORES).write_text("{", encoding="utf-8")
    official.locate_release()
    assert site.calls[9:] == [SCORES]
    assert len(load_official(SET).scores) == 70


@pytest.mark.parametrize(
    "failure",
    [
        requests.ConnectionError("Name or service\nnot known"),
        requests.Timeout("read timed out"),
        requests.HTTPError("404 Client Error"),
        PermissionError("disk"),
    ],
)
def test_offline_is_one_line_after_one_try(site, tmp_path, failure):
    site.fail = failure
    with pytest.raises(DataUnavailable) as caught:
        load_official(SET)
    message = str(caught.value)
    assert "\n" not in message and type(failure).__name__ in message
    assert site.calls[0] in message and official.VARIABLE in message and "connect to the network" in message
    assert len(site.calls) == 1
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]  # the half-written file is gone


def test_availability_offline_is_asked_once_a_process(site):
    site.fail = requests.ConnectionError("no network")
    first = official.release_available()
    assert first[0] is False and "ConnectionError" in first[1] and "\n" not in first[1]
    assert official.release_available() == first
    assert len(site.calls) == 1


def test_availability_online_downloads(site):
    assert official.release_available() == (True, "")
    assert len(site.calls) == 9


def test_a_download_with_another_digest_is_refused(site, tmp_path):
    site.spoil = SCORES
    with pytest.raises(DataUnavailable) as caught:
        official.locate_release()
    message = str(caught.value)
    assert SCORES in message and "another SHA-256" in message and "\n" not in message
    assert not (tmp_path / "cache" / SCORES).exists()
    assert site.calls.count(SCORES) == 1


def test_availability_never_raises(site, monkeypatch):
    def broken():
        raise RuntimeError("no home\nfolder")

    monkeypatch.setattr(official, "cache_folder", broken)
    assert official.release_available() == (False, "RuntimeError: no home folder")


def test_the_cache_is_one_folder_a_commit():
    assert official.cache_folder().parts[-2:] == ("tia2", official.COMMIT)
    assert "textnorm-study" in str(official.cache_folder())


def test_every_file_has_a_digest():
    files = {path.format(name) for path in official.FOLDERS.values() for name in official.SETS}
    assert files == set(official.DIGESTS)
    assert len(official.DIGESTS) == 9
    assert all(len(d) == 64 and int(d, 16) for d in official.DIGESTS.values())


# --- the real release -------------------------------------------------------------------------------------------------

needs_release = pytest.mark.skipif(
    not os.environ.get(official.VARIABLE),
    reason=f"reads the released data: set {official.VARIABLE} to a folder that holds them",
)


@needs_release
@pytest.mark.parametrize(
    ("name", "prompts", "scored", "ensemble", "contrastive"),
    [
        ("comprehensive", 100, 84, "uncertainty", 751),
        ("counting", 150, 146, "uncertainty", 525),
        ("composition", 300, 295, "mean", 9600),
    ],
)
def test_the_released_sets(name, prompts, scored, ensemble, contrastive):
    found = load_official(name)
    assert found.votes["prompt"].nunique() == prompts and len(found.votes) == prompts * 150
    assert found.scores["prompt"].nunique() == scored and len(found.scores) == scored * 35
    assert found.tuning["ensemble"].unique().tolist() == [ensemble]
    assert set(found.tuning["scale"]) <= {0.1, 1, 3, 5, 10}
    assert len(found.contrastive) == contrastive
    assert dict(found.files) == {path: official.DIGESTS[path] for path in found.files}


@needs_release
def test_the_papers_averages_over_all_scored_prompts():
    scores = pd.concat([load_official(name).scores for name in official.SETS])
    assert scores["prompt"].nunique() == 525
    mean = scores.groupby(["reward", "metric"])["value"].mean().round(3)
    # The paper's table 1, first and last row: PickScore alone, TextNorm with the ensemble.
    assert (mean["pickscore", "auroc"], mean["pickscore", "auprc"]) == (0.764, 0.669)
    assert (mean["textnorm", "auroc"], mean["textnorm", "auprc"]) == (0.822, 0.752)
