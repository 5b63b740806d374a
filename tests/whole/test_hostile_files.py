"""Files as nobody should make them: bombs, pickles, pipes, links and names that lead elsewhere are one clear line."""

import json
import os
import pickle
import struct
import zipfile
import zlib

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from toys import bundled_reward

from textnorm_lib.figures import report
from textnorm_lib.images.pixels import square
from textnorm_lib.judging.labelling import FORMAT, alignment_items, read_labels
from textnorm_lib.mini.annotators import load_annotator, load_quality_judge
from textnorm_lib.optimise.training import CURVE, FILE, cut_curve, load_lora, resume
from textnorm_lib.rewards import load_reward
from textnorm_lib.rewards.convert import Checkpoint
from textnorm_lib.study.errors import DataError, StudyError, file_within
from textnorm_lib.study.pages import _read
from textnorm_lib.study.store import read_result
from textnorm_lib.study.weights import Weights, fetch
from textnorm_lib.tia2 import load_official

EXAMPLES = 40
hostile = settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
DEEP = b"[" * 100_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
CONTENTS = st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()) | st.just(DEEP)


class Evil:
    def __reduce__(self):
        return os.system, ("exit 1",)


def refused(call, *arguments, kind=StudyError):
    with pytest.raises(kind) as caught:
        call(*arguments)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 900
    return str(caught.value)


def png(width, height):
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0")),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (12_000, 12_000), (0, 5)])
def test_a_header_that_promises_a_huge_image_is_refused_before_memory_is_taken(tmp_path, width, height):
    (tmp_path / "bomb.png").write_bytes(png(width, height))
    assert "bomb.png" in refused(square, tmp_path / "bomb.png", 64, "image 0")


@hostile
@given(st.integers(0, 300), st.binary(max_size=20))
def test_an_image_that_is_cut_short_or_overwritten_is_read_or_refused(tmp_path, place, junk):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "1.png")
    content = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(content[:place] + junk)
    try:
        assert square(tmp_path / "1.png", 8, "image 0").shape == (8, 8, 3)
    except DataError as error:
        assert "1.png" in str(error)


READERS = {
    "image": lambda path: square(path, 8, "image 0"),
    "labels": read_labels,
    "annotator": load_annotator,
    "quality judge": load_quality_judge,
    "checkpoint": lambda path: Checkpoint(path, "ImageReward"),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "device.jsonl").symlink_to("/dev/zero")
    for name in ("pipe", "device"):
        assert "a pipe or a device" in refused(read, tmp_path / f"{name}.jsonl")


@pytest.mark.parametrize(
    "name", ["../x.png", "/etc/passwd", "a/../../x.png", "..\\x.png", "", "link.png", "a\n.png", "a\0b"]
)
def test_an_image_outside_its_folder_is_no_item_to_label(tmp_path, name):
    (tmp_path / "images").mkdir()
    (tmp_path / "x.png").write_bytes(b"private")
    (tmp_path / "images" / "link.png").symlink_to(tmp_path / "x.png")
    refused(alignment_items, pd.DataFrame({"image": [name], "prompt": ["a dog"]}), tmp_path / "images", kind=DataError)


@hostile
@given(st.text("ab./\\~\0\n", max_size=12))
def test_whatever_an_image_is_called_its_file_lies_within_the_folder(tmp_path, name):
    try:
        path = file_within(tmp_path, name)
    except DataError:
        return
    assert path.resolve().is_relative_to(tmp_path.resolve())


HEADER = {"format": FORMAT, "annotator": "ana", "seed": 0, "items": "1", "questions": {"alignment": ["good", "bad"]}}
ANSWER = {"item": "1.png", "question": "alignment", "answer": "good", "seconds": 1.0}
LINES = {
    "a key twice": json.dumps(ANSWER)[:-1] + ', "answer": "bad"}',
    "no number of seconds": json.dumps({**ANSWER, "seconds": float("nan")}),
    "endless seconds": '{"item": "1", "question": "alignment", "answer": "good", "seconds": 1e999}',
    "seconds that no float holds": '{"item": "1", "question": "alignment", "answer": "good", "seconds": 1%s}'
    % ("0" * 400),
    "seconds before": json.dumps({**ANSWER, "seconds": -1.0}),
    "nested deeply": DEEP.decode(),
    "bytes of nothing": "\0\0\0",
    "an undo of nothing": json.dumps({**ANSWER, "undo": True}),
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_line_of_labels_that_no_session_writes_is_named(tmp_path, line):
    (tmp_path / "l.jsonl").write_text(f"{json.dumps(HEADER)}\n{line}\n", encoding="utf-8")
    assert "l.jsonl, line 2" in refused(read_labels, tmp_path / "l.jsonl", kind=DataError)


@hostile
@given(st.sampled_from([*HEADER, *ANSWER]), JSON)
def test_any_value_in_a_file_of_labels_is_read_as_text_and_numbers_or_refused(tmp_path, key, value):
    head, answer = ({**old, key: value} if key in old else old for old in (HEADER, ANSWER))
    (tmp_path / "l.jsonl").write_text(f"{json.dumps(head)}\n{json.dumps(answer)}\n")
    try:
        labels = read_labels(tmp_path / "l.jsonl")
    except DataError as error:
        assert "l.jsonl, line " in str(error)
    else:
        assert all(isinstance(item, str) and labels.seconds[item, question] >= 0 for item, question in labels.answers)


@hostile
@given(CONTENTS)
def test_any_bytes_for_a_record_a_notebook_a_manifest_or_a_curve_are_read_or_one_line(tmp_path, content):
    for name in ("meta.json", "1.ipynb", "manifest.json", CURVE, "1.jsonl"):
        (tmp_path / name).write_bytes(content)
    checkpoint = tmp_path / "checkpoint_00001"
    checkpoint.mkdir(exist_ok=True)
    for name in ("digests.json", FILE, "optimiser.safetensors", "state.json"):
        (checkpoint / name).write_bytes(content)
    load_records = (
        lambda: read_result(tmp_path),
        lambda: _read(tmp_path / "1.ipynb"),
        lambda: report._manifest(tmp_path),
    )
    load_runs = (
        lambda: cut_curve(tmp_path, 1),
        lambda: resume(tmp_path, None, None, told={}, may_change=()),
        lambda: load_lora(None, tmp_path),
    )
    load_answers = (lambda: read_labels(tmp_path / "1.jsonl"),)
    for load in (*load_records, *load_runs, *load_answers):
        try:
            load()
        except StudyError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("frames", [["../../x"], ["/etc/passwd"], ["a\0"], 3, ["a", 3], {"a/b": 1}])
def test_a_record_cannot_name_frames_outside_its_folder(tmp_path, frames):
    (tmp_path / "meta.json").write_text(json.dumps({"frames": frames}))
    assert "meta.json" in refused(lambda: read_result(tmp_path))


def weights_file(kind):
    """Bytes where safetensors are expected."""
    if kind == "pickle":
        return pickle.dumps(Evil())
    header = {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}
    told = {
        "huge header": b"{}",
        "wrong offsets": json.dumps(header).encode(),
        "nested": b'{"a":' * 5000,
        "empty": b"",
    }[kind]
    return struct.pack("<Q", 1 << 60 if kind == "huge header" else len(told)) + told


@pytest.mark.parametrize("kind", ["pickle", "huge header", "wrong offsets", "nested", "empty"])
def test_what_is_no_safetensors_is_refused_and_no_pickle_is_run(tmp_path, kind):
    path = tmp_path / "model.safetensors"
    path.write_bytes(weights_file(kind))
    for load in (load_annotator, load_quality_judge, lambda path: Checkpoint(path, "ImageReward")):
        assert "model.safetensors" in refused(load, path, kind=DataError)
    path.rename(tmp_path / "model.pt")
    assert "pickles are not loaded" in refused(lambda: Weights(str(tmp_path / "model.pt")).path)


@pytest.mark.parametrize("inside", [pickle.dumps(Evil()), b"\0" * 50_000_000], ids=["pickle", "zip bomb"])
def test_an_archive_is_not_unpickled_nor_blown_up(tmp_path, inside):
    with zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", inside)
    assert "model.pt" in refused(Checkpoint, tmp_path / "model.pt", "ImageReward", kind=DataError)


@pytest.mark.parametrize("content", [DEEP, b"[]", b"{}", b"null", b'{"vision_config": 3}', b"\xff\xfe"])
@pytest.mark.parametrize("name", ["clip", "imagereward", "pickscore"])
def test_a_models_configuration_of_any_json_is_one_line(tmp_path, name, content):
    source = bundled_reward(name)
    for file in source.iterdir():
        (tmp_path / file.name).symlink_to(file)
    file = tmp_path / ("open_clip_config.json" if name == "clip" else "config.json")
    file.unlink()
    file.write_bytes(content)
    assert name in refused(lambda: load_reward(name, folder=tmp_path), kind=DataError)


@pytest.mark.parametrize("name", ["../..", "../x", "owner/..", "a/../../b", "a\0b", "~/x", "x" * 5000])
def test_a_models_name_leads_nowhere_but_to_the_hub(tmp_path, name):
    refused(fetch, Weights(name, "a" * 40), tmp_path / "to", kind=DataError)
    assert list(tmp_path.iterdir()) == []


@hostile
@given(CONTENTS)
def test_any_bytes_for_a_released_file_are_one_line(tmp_path, content):
    for folder, stem in (("human_annotations", "human_labels"), ("prompts", "prompt_set"), ("alignment_scores",) * 2):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{stem}_counting.json").write_bytes(content)
    assert "human_labels_counting.json" in refused(load_official, "counting", tmp_path, kind=DataError)
