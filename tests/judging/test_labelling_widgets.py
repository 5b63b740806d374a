"""The kernel's half of the labelling interfaces: what it shows, and which presses it takes."""

import base64
import json

import pandas as pd
import pytest
from PIL import Image

from textnorm_lib.judging.labelling import (
    ALIGNMENT,
    COMPARISON,
    LabelItem,
    Session,
    alignment_items,
    open_session,
    read_labels,
)
from textnorm_lib.judging.widgets import alignment_interface, comparison_interface

HOSTILE = "a cat</p><img src=x onerror=alert(1)> & \u202e <script>"


@pytest.fixture
def images(tmp_path):
    files = [tmp_path / f"secret_model_{number}.png" for number in range(8)]
    for number, file in enumerate(files):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(file)
    return files


@pytest.fixture
def interface(images, tmp_path):
    table = pd.DataFrame({"image": [file.name for file in images[:3]], "prompt": HOSTILE})
    session = Session(tmp_path / "one.jsonl", alignment_items(table, tmp_path), ALIGNMENT, annotator="ana", seed=0)
    return alignment_interface(session)


def press(interface, action, shown=None):
    number = interface.shown["number"] if shown is None else shown
    interface._pressed(interface, {"action": action, "shown": number}, [])


def test_what_a_page_gets_is_the_prompt_and_pixels_and_no_name(interface, images):
    assert interface.shown["prompt"] == HOSTILE
    ((image,),) = [side["images"] for side in interface.sides]
    assert base64.b64decode(image["source"].removeprefix("data:image/png;base64,")) in [f.read_bytes() for f in images]
    told = json.dumps([interface.about, interface.sides, interface.shown])
    assert "secret" not in told and image["alt"]


def test_a_press_counts_once_and_for_what_was_shown(interface):
    first = interface.shown["number"]
    press(interface, "good")
    press(interface, "bad", shown=first)  # the second half of a double click
    press(interface, "good", shown="first")
    interface._pressed(interface, "good", [])
    interface._pressed(interface, {"action": "good"}, [])
    assert interface.shown["done"] == 1
    press(interface, "splendid")
    press(interface, "close")  # nothing but what the interface has can be asked of a session
    assert interface.shown["done"] == 1


def test_back_shows_what_was_given_and_undo_takes_it(interface):
    press(interface, "bad")
    press(interface, "back")
    assert interface.shown["given"] == "bad"
    press(interface, "undo")
    assert interface.shown["given"] is None and interface.shown["done"] == 0


def test_the_end_says_so_and_can_be_undone(interface):
    for _ in range(3):
        press(interface, "skip")
    assert interface.shown["answers"] == [] and interface.shown["done"] == 3
    press(interface, "good")
    assert interface.shown["done"] == 3
    press(interface, "undo")
    assert interface.shown["done"] == 2 and interface.shown["answers"]


def test_what_cannot_be_stored_is_said_on_the_page(interface, tmp_path):
    (tmp_path / "one.jsonl").unlink()
    press(interface, "good")
    assert "was removed while it was open" in interface.shown["note"] and interface.shown["done"] == 0


def test_a_rehearsal_says_so_at_every_step_and_leaves_nothing(images, tmp_path):
    items = [LabelItem("one", "a cat", ((images[0],),)), LabelItem("two", "a cat", ((images[1],),))]
    session = open_session(tmp_path / "labels", items, ALIGNMENT, annotator="", seed=0)
    interface = alignment_interface(session)
    for _ in range(2):
        assert "not kept" in interface.shown["note"]
        press(interface, "good")
    assert not (tmp_path / "labels").exists()


def test_a_named_annotator_gets_a_file_in_the_folder_whatever_the_name(images, tmp_path):
    items = [LabelItem("one", "a cat", ((images[0],),))]
    session = open_session(tmp_path / "labels", items, ALIGNMENT, annotator="../Zoë O'Neil", seed=0)
    assert [file.name for file in (tmp_path / "labels").glob("*.jsonl")] == ["___Zoë_O_Neil.jsonl"]
    assert read_labels(session.path).header["annotator"] == "../Zoë O'Neil"


def test_a_line_that_was_cut_short_is_mentioned_once(images, tmp_path):
    items = [LabelItem("one", "a cat", ((images[0],),)), LabelItem("two", "a cat", ((images[1],),))]
    path = tmp_path / "one.jsonl"
    Session(path, items, ALIGNMENT, annotator="ana", seed=0).close()
    path.write_bytes(path.read_bytes() + b'{"item')
    interface = alignment_interface(Session(path, items, ALIGNMENT, annotator="ana", seed=0))
    assert "cut short" in interface.shown["note"]
    press(interface, "good")
    assert interface.shown["note"] == ""


def test_a_comparison_has_two_named_sides_and_two_questions(images, tmp_path):
    items = [LabelItem("c1", "a cat", (tuple(images[:4]), tuple(images[4:])))]
    interface = comparison_interface(Session(None, items, COMPARISON, annotator="ana", seed=0))
    assert [side["head"] for side in interface.sides] == ["Left", "Right"]
    alts = [image["alt"] for side in interface.sides for image in side["images"]]
    assert len(set(alts)) == 8 and alts[5] == "Right, image 2 of 4"
    first = interface.shown["asks"]
    press(interface, "left")
    assert interface.shown["asks"] != first and interface.shown["answers"][1] == ["tie", "Tie"]


def test_an_image_that_cannot_be_shown_is_named_and_cannot_be_answered(interface, images):
    following = {cell.item.sides[0][0] for cell in interface._session.cells[1:]}
    hidden = {file: file.rename(file.with_suffix(".gone")) for file in following}
    press(interface, "good")
    assert interface.shown["answers"] == [] and ".png: No such file" in interface.shown["note"]
    for file, gone in hidden.items():
        gone.rename(file)
    press(interface, "back")
    press(interface, "forward")
    assert interface.shown["answers"] and interface.shown["note"] == "" and interface.shown["done"] == 1


def test_a_kind_of_image_that_browsers_do_not_show_is_named(tmp_path):
    file = tmp_path / "image.tiff"
    file.write_bytes(b"")
    interface = alignment_interface(Session(None, [LabelItem("a", "b", ((file,),))], ALIGNMENT, annotator="a", seed=0))
    assert "image.tiff: browsers are given .png" in interface.shown["note"]
