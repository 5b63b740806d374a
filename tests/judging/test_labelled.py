"""Votes of labelling sessions go into the study's statistics and judging as they are."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from textnorm_lib.judging.comparisons import ask, make_comparisons
from textnorm_lib.judging.labelled import alignment_votes, answer_all, comparison_votes, people_agree
from textnorm_lib.judging.labelling import ALIGNMENT, COMPARISON, Session, alignment_items, comparison_items
from textnorm_lib.judging.verdicts import majority, sign_tests, win_tie_loss
from textnorm_lib.stats.agreement import krippendorff_alpha
from textnorm_lib.stats.metrics import alignment_metrics
from textnorm_lib.study.errors import DataError
from textnorm_lib.tia2.labels import image_table

PEOPLE = ("ana", "ben", "Zoë")


@pytest.fixture
def images(tmp_path):
    """Twelve images of two prompts."""
    table = pd.DataFrame({"image": [f"{n:02}.png" for n in range(12)], "prompt": ["a cat"] * 6 + ["a dog"] * 6})
    for name in table["image"]:
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    return table


def sitting(folder, person, items, questions, judge):
    session = Session(folder / f"{person}.jsonl", items, questions, annotator=person, seed=1)
    answer_all(session, judge)
    session.close()
    return session.path


def vote_of(person, image):
    """Fixed by the person and the image: about half are good, some are skipped."""
    return ("good", "bad", "good", "bad", "skip")[hash_of(person, image) % 5]


def hash_of(*words):
    return sum(
        np.frombuffer("/".join(words).encode(), np.uint8).astype(int) * np.arange(1, len("/".join(words).encode()) + 1)
    )


def test_votes_on_images_go_into_labels_metrics_and_agreement(images, tmp_path):
    items = alignment_items(images, tmp_path)
    files = [
        sitting(tmp_path, person, items, ALIGNMENT, lambda item, _, person=person: vote_of(person, item.name))
        for person in PEOPLE
    ]
    votes = alignment_votes(files, images)
    assert len(votes) == len(images) * 3
    for row in votes.itertuples():
        assert {"good": 1, "bad": 0, "skip": -1}[vote_of(row.name, row.image)] == row.vote
    table = image_table(votes)
    assert table["image"].tolist() == images["image"].tolist()
    measured = alignment_metrics(np.arange(len(table)), table["label"], table["rating"])
    assert np.isfinite(list(measured.values())).all()
    agreed = people_agree(votes).set_index("pair")
    assert list(agreed.index) == ["ana, ben", "ana, Zoë", "ben, Zoë", "all"]
    expected = krippendorff_alpha(table[["vote_1", "vote_2", "vote_3"]].to_numpy())
    assert agreed.loc["all", "coefficient"] == pytest.approx(expected, abs=1e-12)


def test_votes_on_comparisons_are_what_asking_a_judge_gives(tmp_path):
    models = {}
    for model in ("textnorm", "clip"):
        rows = [
            ("counting", prompt, f"{model}_{prompt}_{k}.png") for prompt in ("one", "two", "three") for k in range(8)
        ]
        models[model] = pd.DataFrame(rows, columns=["set", "prompt", "image"]).assign(model=model)
        for name in models[model]["image"]:
            Image.new("RGB", (4, 4)).save(tmp_path / name)
    comparisons = make_comparisons(models["textnorm"], models["clip"], seed=0)
    items = comparison_items(comparisons, lambda image: tmp_path / image)

    def judge(person, comparison, question):
        return ("left", "tie", "right")[hash_of(person, comparison, question) % 3]

    files = [
        sitting(
            tmp_path,
            person,
            items,
            COMPARISON,
            lambda item, question, person=person: judge(person, item.name, question),
        )
        for person in PEOPLE
    ]
    votes = comparison_votes(files, comparisons)
    asked = [
        ask(
            lambda shown, p=person, q=question: judge(p, shown.comparison, q),
            comparisons,
            name=person,
            question=question,
            see=str,
        )
        for person in PEOPLE
        for question in COMPARISON
    ]
    keys = ["comparison", "judge", "question"]
    expected = pd.concat(asked).sort_values(keys, ignore_index=True)
    pd.testing.assert_frame_equal(votes.sort_values(keys, ignore_index=True), expected)
    assert len(majority(votes)) == len(comparisons) * 2
    assert set(win_tie_loss(votes)["outcome"]) == {"win", "tie", "loss"}
    assert len(sign_tests(votes)) == 4
    agreed = people_agree(votes)
    assert agreed.groupby("question")["n"].unique().map(list).to_dict() == {"alignment": [6], "quality": [6]}


def test_a_half_finished_file_gives_what_it_has(images, tmp_path):
    session = Session(tmp_path / "ana.jsonl", alignment_items(images, tmp_path), ALIGNMENT, annotator="ana", seed=1)
    session.answer(session.current, "good")
    votes = alignment_votes([session.path], images)
    assert votes["vote"].tolist() == [1]
    only = people_agree(votes)
    assert only["n"].tolist() == [0] and only[["same", "coefficient"]].isna().all(axis=None)


def test_files_that_do_not_go_together_are_named(images, tmp_path):
    items = alignment_items(images, tmp_path)
    file = sitting(tmp_path, "ana", items, ALIGNMENT, lambda *_: "good")
    with pytest.raises(DataError, match=r"ana\.jsonl and .*ana\.jsonl are both of 'ana'"):
        alignment_votes([file, file], images)
    with pytest.raises(DataError, match=r"ana\.jsonl answers image '.*png', which is none of those given"):
        alignment_votes([file], images.head(3))
    with pytest.raises(DataError, match=r"ana\.jsonl asks \{'alignment': \['good', 'bad', 'skip'\]\}, not"):
        comparison_votes([file], pd.DataFrame({"comparison": ["x"]}))
    with pytest.raises(DataError, match=r"nobody\.jsonl: No such file"):
        alignment_votes([tmp_path / "nobody.jsonl"], images)
