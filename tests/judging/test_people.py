"""People's votes on the built benchmark take the annotators' place, when all three are through."""

import numpy as np
import pandas as pd
import pytest
from toys import study_of

from textnorm_lib.judging import labelled as people
from textnorm_lib.judging.labelled import answer_all
from textnorm_lib.judging.labelling import ALIGNMENT, LabelItem, Session
from textnorm_lib.study.errors import DataError
from textnorm_lib.tia2 import build
from textnorm_lib.tia2.labels import INDEX

NAMES = [f"image_{number}.png" for number in range(6)]


@pytest.fixture
def made(tmp_path):
    folder = tmp_path / "made"
    folder.mkdir()
    sets = ["counting"] * 3 + ["composition"] * 3
    pd.DataFrame({"set": sets, "image": NAMES, "prompt": "two cats"}).to_parquet(folder / INDEX)
    for name in NAMES:
        (folder / name).touch()
    return folder


def _sit(path, made, name, answers):
    items = [LabelItem(image, "two cats", ((made / image,),)) for image in NAMES]
    session = Session(path, items, ALIGNMENT, annotator=name, seed=0)
    for _ in range(len(answers)):
        session.answer(session.current, answers[session.current.item.name])
    session.close()


@pytest.fixture
def files(made, tmp_path):
    rng, given = np.random.default_rng(0), []
    for name in ("ana", "ben", "eva"):
        path = tmp_path / f"{name}.jsonl"
        _sit(path, made, name, dict(zip(NAMES, rng.choice(["good", "bad", "skip"], 6).tolist(), strict=True)))
        given.append(people.AnswersFile(path))
    return given


def test_three_peoples_votes_have_the_form_of_the_annotators(made, files):
    votes = people.people_votes(made, *files)
    assert list(votes.columns) == ["set", "image", "prompt", "annotator", "vote"]
    assert len(votes) == 18 and set(votes["annotator"]) == {1, 2, 3} and set(votes["vote"]) <= {1, 0, -1}
    labels = build.label_images(votes)
    assert labels.groupby("set").size().to_dict() == {"composition": 3, "counting": 3}


def test_who_has_not_finished_is_named_with_what_is_left(made, files, tmp_path):
    _sit(tmp_path / "ida.jsonl", made, "ida", {})
    few = tmp_path / "joe.jsonl"
    items = [LabelItem(image, "two cats", ((made / image,),)) for image in NAMES]
    session = Session(few, items, ALIGNMENT, annotator="joe", seed=0)
    session.answer(session.current, "good")
    session.close()
    with pytest.raises(DataError, match=r"joe\.jsonl has no answer for 5 of 6 images; finish it in notebook 01"):
        people.people_votes(made, *files[:2], people.AnswersFile(few))
    with pytest.raises(DataError, match="2 files of votes; give those of three people"):
        people.people_votes(made, *files[:2])


def test_a_file_that_is_not_there_is_one_line_and_another_answer_is_another_key(files, tmp_path):
    with pytest.raises(DataError, match=r"nobody\.jsonl: No such file.*or correct tia2\.votes in the profile"):
        _ = people.AnswersFile(tmp_path / "nobody.jsonl").key
    before = files[0].key
    with files[0].path.open("a") as file:
        file.write('{"item": "image_0.png", "question": "alignment", "answer": "bad", "seconds": 1.0}\n')
    assert files[0].key != before


def test_a_profile_without_annotators_takes_the_named_peoples_votes_or_none(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTNORM_ARTIFACTS", str(tmp_path))
    setting = {"rewards": ["clip"], "temperatures": [1.0], "penalty": 0.0}
    nobody = {"annotators": [], "textnorm": setting}
    built = study_of(tmp_path, "smoke", nobody)
    assert built.votes is None and built.labels is None
    built = study_of(tmp_path, "smoke", nobody | {"tia2.votes": ["a.jsonl", "b.jsonl", "c.jsonl"]})
    assert built.votes.function is people.people_votes and built.labels.function is build.label_images
    assert built.labels.inputs == (built.votes,)
    images, *given = built.votes.inputs
    assert images == built.images and [one.path for one in given] == [tmp_path / "labels" / f"{n}.jsonl" for n in "abc"]


def test_all_of_a_sitting_is_read_whatever_its_order(made, tmp_path):
    items = [LabelItem(image, "two cats", ((made / image,),)) for image in NAMES]
    files = []
    for name in ("ana", "ben", "eva"):
        session = Session(tmp_path / f"{name}.jsonl", items, ALIGNMENT, annotator=name, seed=7)
        answer_all(session, lambda item, _: "good" if item.name in NAMES[:2] else "bad")
        session.close()
        files.append(people.AnswersFile(session.path))
    labels = build.label_images(people.people_votes(made, *files))
    assert labels.set_index("image")["label"].to_dict() == {name: int(name in NAMES[:2]) for name in NAMES}
