"""Input that was once refused by another library's error, for the wrong reason, or not at all."""

import hashlib
import json
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from textnorm_lib.confidence.textnorm import textnorm
from textnorm_lib.images.pixels import square
from textnorm_lib.judging.verdicts import comparisons_needed
from textnorm_lib.optimise.policy_gradient import RunningStatistics
from textnorm_lib.optimise.training import resume
from textnorm_lib.rewards import load_reward
from textnorm_lib.study.config import load_profile
from textnorm_lib.study.errors import ConfigError, DataError, StudyError, file_within
from textnorm_lib.study.weights import Weights, bundled


@pytest.mark.parametrize("options", [{"head": "itm"}, {"bogus": 1}])
def test_an_option_that_a_reward_does_not_have_is_named_and_its_folder_is_not_blamed(options):
    (name,) = options
    with pytest.raises(ConfigError, match=f"load_reward: clip has no option '{name}'"):
        load_reward("clip", folder=bundled("rewards/clip"), **options)


def test_a_whole_image_of_too_many_pixels_is_refused_before_it_is_unpacked(tmp_path):
    Image.new("1", (13_000, 13_000)).save(tmp_path / "large.png")
    with pytest.raises(DataError, match="13000 x 13000 pixels"):
        square(tmp_path / "large.png", 8, "image 0")


def test_a_picture_of_a_format_that_is_not_supported_is_one_line(tmp_path):
    head = struct.pack("<4s7I44x2I4s", b"DDS ", 124, 0x1007, 8, 8, 0, 0, 0, 32, 4, b"ABCD")
    (tmp_path / "x.png").write_bytes(head.ljust(256, b"\0"))
    with pytest.raises(DataError, match="cannot be read"):
        square(tmp_path / "x.png", 8, "image 0")


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "a" * 280, "\0"])
def test_a_name_of_weights_that_no_folder_can_have_is_refused_in_one_line(name):
    with pytest.raises(StudyError) as caught:
        _ = Weights(name).path
    assert "\n" not in str(caught.value)


def test_a_long_path_to_weights_is_a_path(tmp_path):
    folder = tmp_path
    for _ in range(4):
        folder = folder / ("a" * 90)
    folder.mkdir(parents=True)
    assert len(str(folder)) > 300 and Weights(str(folder)).path == folder


@pytest.mark.parametrize("tagged", ["!!int ''", "!!float ''", "!!bool x", "!!timestamp x"])
def test_a_tag_with_a_value_that_it_cannot_have_is_not_valid_yaml(tmp_path, monkeypatch, tagged):
    monkeypatch.setattr("textnorm_lib.study.config.PROFILES", tmp_path)
    (tmp_path / "own.yaml").write_text(f"seed: {tagged}\n")
    with pytest.raises(ConfigError, match=r"own\.yaml"):
        load_profile("own")


@pytest.mark.parametrize("rates", [(1e-200, 0.0), (0.50443, 0.49557)])
def test_rates_too_alike_to_tell_or_too_rare_to_meet_are_said_to_be(rates):
    with pytest.raises(DataError, match=r"so alike that it takes more than 100,000"):
        comparisons_needed(*rates, power=0.999)


def test_links_in_a_circle_and_names_that_are_none_are_no_files_of_a_folder(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert file_within(tmp_path, "a").parent == tmp_path  # opening it is refused by the system
    for name in (".", "", float("nan"), None):
        with pytest.raises(DataError, match="is no file within"):
            file_within(tmp_path, name)


@pytest.mark.parametrize("state", [[], {}, None, {"told": 1}])
def test_a_checkpoint_whose_state_is_something_else_sets_nothing(tmp_path, state):
    checkpoint = tmp_path / "checkpoint_00001"
    checkpoint.mkdir()
    empty = save({"x": torch.zeros(1)})
    contents = {"pytorch_lora_weights.safetensors": empty, "optimiser.safetensors": empty}
    contents["state.json"] = json.dumps(state).encode()
    for name, content in contents.items():
        (checkpoint / name).write_bytes(content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    (checkpoint / "digests.json").write_text(json.dumps(digests))
    with pytest.raises(DataError, match="cannot be read"):
        resume(tmp_path, None, None, told={"seed": 1}, may_change=())


def test_rewards_that_are_no_numbers_are_refused_before_any_is_taken_in():
    statistics = RunningStatistics(4, 1)
    for rewards in (np.array(["x"]), [None], [1.0, 2.0]):
        with pytest.raises(DataError):
            statistics.update(["a prompt"], rewards)
    assert statistics.buffers == {}


def test_a_temperature_may_be_a_tensor_or_an_array_of_one_number():
    scores = np.array([[1.0, 1.0, 1.0]])
    for one in (torch.tensor(1.0), np.array(1.0)):
        assert textnorm(scores, one) == pytest.approx([1 / 3])
