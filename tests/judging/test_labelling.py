"""The session behind both interfaces: nothing is lost, nothing but what is shown is answered."""

import json
import random
import subprocess
import sys

import pandas as pd
import pytest
from PIL import Image

from textnorm_lib.judging.labelling import (
    ALIGNMENT,
    COMPARISON,
    LabelFile,
    LabelItem,
    Session,
    alignment_items,
    comparison_items,
    read_labels,
)
from textnorm_lib.study.errors import DataError, StoreError

SEQUENCES = 1000


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    """Nine images of three prompts, two of which are not plain ASCII."""
    folder = tmp_path_factory.mktemp("images")
    prompts = ("a realistic photo of two cats", "ein “Bär” <b>\u2028", "猫が二匹")
    table = pd.DataFrame([(f"{n}_{k}.png", prompt) for n, prompt in enumerate(prompts) for k in range(3)])
    table.columns = ["image", "prompt"]
    for name in table["image"]:
        Image.new("RGB", (4, 4)).save(folder / name)
    return alignment_items(table, folder)


def opened(path, items, *, annotator="ana", seed=3, questions=ALIGNMENT):
    return Session(path, items, questions, annotator=annotator, seed=seed)


class Model:
    """What a session should be, in the plainest words: a list of (key, answer) and the place that is shown."""

    def __init__(self, keys):
        self.keys, self.given, self.place = keys, [], 0

    @property
    def answers(self):
        return dict(self.given)

    def first_open(self, start):
        order = [*range(start, len(self.keys)), *range(start)]
        return next((one for one in order if self.keys[one] not in self.answers), len(self.keys))

    def answer(self, answer):
        self.given.append((self.keys[self.place], answer))
        self.place = self.first_open(self.place)

    def undo(self):
        if self.given:
            key, _ = self.given.pop()
            self.place = self.keys.index(key)


def crash(session, luck):
    """The program stops, mostly in the middle of a line; the rest of the file is as it was."""
    whole = session.path.read_bytes()
    session.close()
    last = whole[whole[:-1].rfind(b"\n") + 1 :]
    lost = last.startswith(b'{"item"') and luck.random() < 0.5
    if lost:  # the last line had not been flushed
        cut = luck.randrange(len(last))
        session.path.write_bytes(whole[: len(whole) - len(last) + cut])
    else:  # another line had begun
        session.path.write_bytes(whole + last[: luck.randrange(len(last))])
    return lost


def perform(session, model, luck):
    """One thing that an annotator may do, in both."""
    action = luck.choice(["answer", "answer", "answer", "undo", "back", "forward", "stale"])
    if action == "answer" and session.current:
        answer = luck.choice(session.questions[session.current.question])
        session.answer(session.current, answer)
        model.answer(answer)
    elif action == "undo":
        assert session.undo() is bool(model.given)
        model.undo()
    elif action == "back":
        assert session.back() is (model.place > 0)
        model.place = max(0, model.place - 1)
    elif action == "forward":
        answered = model.place < len(model.keys) and model.keys[model.place] in model.answers
        assert session.forward() is answered
        model.place += answered
    elif action == "stale":
        stale = luck.choice([cell for cell in session.cells if cell != session.current])
        with pytest.raises(DataError, match="not what is shown"):
            session.answer(stale, session.questions[stale.question][0])


@pytest.mark.parametrize("questions", [ALIGNMENT, COMPARISON], ids=["one question", "two questions"])
def test_a_thousand_random_sittings_lose_at_most_the_unflushed_answer(items, tmp_path, questions):
    crashes = losses = 0
    for number in range(SEQUENCES // 2):
        luck, path = random.Random(number), tmp_path / f"{number}.jsonl"
        session = opened(path, items, questions=questions, seed=number)
        model = Model([cell.key for cell in session.cells])
        for _ in range(luck.randrange(5, 40)):
            if luck.random() < 0.12:
                before = session
                history = list(before._labels.history)
                if crash(session, luck):
                    losses += 1
                    model = replayed(model.keys, path)
                    assert abs(len(model.given) - len(history)) == 1
                crashes += 1
                session = opened(path, items, questions=questions, seed=number)
                model.place = model.first_open(0)
            else:
                perform(session, model, luck)
            assert session._labels.answers == model.answers
            assert (session.current.key if session.current else None) == (
                model.keys[model.place] if model.place < len(model.keys) else None
            )
        session.close()
        assert read_labels(path).answers == model.answers
    assert crashes > 500 and losses > 100


def replayed(keys, path):
    """A model made of the whole lines of a file, by hand."""
    model = Model(keys)
    for line in path.read_bytes().split(b"\n")[1:-1]:
        event = json.loads(line)
        if event.get("undo"):
            model.given.pop()
        else:
            model.given.append(((event["item"], event["question"]), event["answer"]))
    return model


def test_the_order_is_of_the_seed_and_the_annotator_and_of_nothing_else(items, tmp_path):
    orders = {}
    for annotator, seed in (("ana", 3), ("ana", 4), ("Željko", 3)):
        session = opened(tmp_path / f"{annotator}{seed}.jsonl", items, annotator=annotator, seed=seed)
        orders[annotator, seed] = [cell.key for cell in session.cells]
    other_way_round = opened(tmp_path / "again.jsonl", items[::-1], annotator="ana", seed=3)
    assert [cell.key for cell in other_way_round.cells] == orders["ana", 3]
    assert len({tuple(order) for order in orders.values()}) == len(orders)


def test_questions_on_one_comparison_follow_each_other(items, tmp_path):
    cells = opened(tmp_path / "one.jsonl", items, questions=COMPARISON).cells
    assert [cell.question for cell in cells] == ["alignment", "quality"] * len(items)
    assert all(first.item == second.item for first, second in zip(cells[::2], cells[1::2], strict=True))


def test_a_finished_session_can_still_be_looked_at_and_mended(items, tmp_path):
    session = opened(tmp_path / "one.jsonl", items)
    assert session.seconds_left is None
    while session.current:
        session.answer(session.current, "good")
    assert session.done == len(items) and session.seconds_left == 0
    assert not session.forward()
    assert session.back()
    session.answer(session.current, "bad")
    assert session.current is None and session.done == len(items)
    assert session.undo() and session.answer_to(session.current) == "good"


def test_an_answer_that_its_question_does_not_have_is_refused(items, tmp_path):
    session = opened(tmp_path / "one.jsonl", items)
    with pytest.raises(DataError, match="answer is 'left'; known are good, bad, skip"):
        session.answer(session.current, "left")
    assert session.done == 0


def test_a_file_passes_to_the_session_that_opened_it_last_in_this_program(items, tmp_path):
    first = opened(tmp_path / "one.jsonl", items)
    first.answer(first.current, "bad")
    second = opened(tmp_path / "one.jsonl", items)
    assert second.done == 1
    with pytest.raises(DataError, match="this session is closed, maybe because its file was opened again"):
        first.answer(first.current, "good")
    second.answer(second.current, "good")
    assert len(read_labels(tmp_path / "one.jsonl").answers) == 2


def test_a_file_that_another_program_has_is_refused(items, tmp_path):
    path = tmp_path / "one.jsonl"
    opened(path, items).close()
    code = (
        "import sys; from pathlib import Path; from textnorm_lib.judging.labelling import LabelFile, read_labels\n"
        "file = LabelFile(Path(sys.argv[1]), read_labels(Path(sys.argv[1])).header); print('open'); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(DataError, match=r"one\.jsonl is open in another notebook or program"):
            opened(path, items)
        other.communicate()
    opened(path, items)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotator": "ben"}, "was begun with annotator 'ana', not 'ben'"),
        ({"seed": 4}, "was begun with seed 3, not 4"),
        ({"questions": COMPARISON}, "was begun with questions"),
        ({"items": slice(1, None)}, r"was begun with items '9 \(.*not '8 \("),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_file_of_something_else_is_refused_and_left_alone(items, tmp_path, change, message):
    path = tmp_path / "one.jsonl"
    opened(path, items).close()
    before = path.read_bytes()
    if "items" in change:
        change = {"items": items[change["items"]]}
    with pytest.raises(DataError, match=message):
        opened(path, **{"items": items, **change})
    assert path.read_bytes() == before
    opened(path, items)


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b'{"item": "0_0.png", "question": "alignment", "answer": "splendid", "seconds": 1}',
        b'{"item": "0_0.png", "question": "quality", "answer": "good", "seconds": 1}',
        b'{"item": "0_0.png", "question": "alignment", "answer": null, "undo": true}',
        b'{"item": ["0_0.png"], "question": "alignment", "answer": "good", "seconds": 1}',
        b'{"item": "0_0.png", "question": "alignment", "answer": "good"}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
    ids=range(9),
)
def test_a_damaged_line_is_named(items, tmp_path, line):
    path = tmp_path / "one.jsonl"
    opened(path, items).close()
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(DataError, match=r"one\.jsonl, line 2: no session writes this"):
        opened(path, items)
    with pytest.raises(DataError, match="line 2"):
        read_labels(path)


def test_an_answer_to_a_strange_item_is_named(items, tmp_path):
    path = tmp_path / "one.jsonl"
    opened(path, items).close()
    event = {"item": "../../x.png", "question": "alignment", "answer": "good", "seconds": 1}
    path.write_bytes(path.read_bytes() + json.dumps(event).encode() + b"\n")
    with pytest.raises(DataError, match=r"answer to \('\.\./\.\./x\.png', 'alignment'\), which is none of these items"):
        opened(path, items)


def test_a_file_that_is_none_of_labels_is_not_touched(items, tmp_path):
    path = tmp_path / "diary.txt"
    for content in (b"dear diary", b"dear diary\nsecond line"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"diary\.txt"):
            opened(path, items)
        assert path.read_bytes() == content


def test_a_full_disk_costs_nothing_but_the_answer(items, tmp_path):
    session = opened(tmp_path / "one.jsonl", items)
    session.answer(session.current, "good")
    before, cell, real = session.path.read_bytes(), session.current, session._file._file

    class Full:
        closed = False

        def write(self, line):
            return real.write(line[:20])

        def __getattr__(self, name):
            return getattr(real, name)

    session._file._file = Full()
    with pytest.raises(StoreError, match=r"one\.jsonl: .*nothing was stored: make room and repeat it"):
        session.answer(cell, "bad")
    assert (session.path.read_bytes(), session.current, session.done) == (before, cell, 1)
    session._file._file = real
    session.answer(cell, "bad")
    assert read_labels(session.path).answers[cell.key] == "bad"


def test_a_file_that_was_removed_takes_no_more_answers(items, tmp_path):
    session = opened(tmp_path / "one.jsonl", items)
    session.path.unlink()
    with pytest.raises(StoreError, match="was removed while it was open"):
        session.answer(session.current, "good")


def test_a_folder_that_cannot_be_made_is_named(items, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/one\.jsonl: .*give a folder that can be written"):
        opened(tmp_path / "file" / "one.jsonl", items)


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "\x00"])
def test_an_annotator_needs_a_name(items, tmp_path, name):
    with pytest.raises(DataError, match="annotator is"):
        opened(tmp_path / "one.jsonl", items, annotator=name)


def test_items_need_names_of_their_own_and_their_images(items, tmp_path):
    with pytest.raises(DataError, match="10 items have 9 different names"):
        opened(tmp_path / "one.jsonl", [*items, items[0]])
    gone = LabelItem("x", "a cat", ((tmp_path / "gone.png",),))
    with pytest.raises(DataError, match=r"gone\.png: this image is not there"):
        opened(tmp_path / "one.jsonl", [gone])


def test_items_of_comparisons_have_two_sides_and_tell_no_model(items):
    images = [str(number) for number in range(8)]
    row = {"comparison": "c1", "prompt": "a cat", "left": images[:4], "right": images[4:], "left_model": "clip"}
    (item,) = comparison_items(pd.DataFrame([row]), lambda image: items[int(image)].sides[0][0])
    assert [len(side) for side in item.sides] == [4, 4]
    assert "clip" not in repr(item)


def test_only_a_cell_without_its_own_line_end_is_dropped(items, tmp_path):
    path = tmp_path / "one.jsonl"
    session = opened(path, items)
    session.answer(session.current, "good")
    session.close()
    path.write_bytes(path.read_bytes()[:-1])  # a whole answer, but its line has no end: it had not been flushed
    assert read_labels(path).answers == {}
    again = opened(path, items)
    assert again.cut_short and again.done == 0
    assert not LabelFile(path, read_labels(path).header).cut_short
