"""LoRA on a toy pipeline: the base stays what it is, what is saved gives the same image where diffusers loads it.

How a run goes on and how it fails is tested with each method, in test_rwr.py and test_ddpo.py.
"""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import toy_pipeline

from textnorm_lib.optimise.training import (
    ATTENTION,
    FEED_FORWARD,
    FILE,
    add_lora,
    base_only,
    latest_checkpoint,
    load_lora,
    save_lora,
)
from textnorm_lib.study.errors import ConfigError, DataError, StoreError

PROMPT = "a realistic photo of a deer"
OPTIONS = {"rank": 2, "targets": ATTENTION + FEED_FORWARD}


@pytest.fixture(scope="module")
def base():
    pipeline = toy_pipeline([PROMPT])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def pipeline(base):
    return copy.deepcopy(base)


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _image(pipeline) -> np.ndarray:
    return pipeline(PROMPT, num_inference_steps=2, generator=_seeded(), output_type="np").images[0]


def _tuned(pipeline, seed: int = 1):
    """The pipeline with an adapter that is no longer at its start."""
    generator = _seeded(seed)
    for value in add_lora(pipeline, **OPTIONS, generator=generator):
        value.data += 0.1 * torch.randn(value.shape, generator=generator)
    return pipeline


def test_training_starts_at_the_base_and_trains_the_adapter_alone(base, pipeline):
    trained = add_lora(pipeline, **OPTIONS, generator=_seeded())
    assert np.array_equal(_image(base), _image(pipeline))
    parts = (pipeline.unet, pipeline.vae, pipeline.text_encoder)
    open_ones = [value for part in parts for value in part.parameters() if value.requires_grad]
    assert {id(value) for value in open_ones} == {id(value) for value in trained}
    shapes = {tuple(value.shape) for name, value in pipeline.unet.named_parameters() if "lora_A" in name}
    assert trained and all(shape[0] == 2 for shape in shapes)


def test_the_first_weights_come_from_the_generator_alone(base):
    values = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(values))
        before = torch.get_rng_state()
        values.append(add_lora(copy.deepcopy(base), **OPTIONS, generator=_seeded(seed)))
        assert torch.equal(before, torch.get_rng_state())
    same, other = (torch.cat([value.detach().flatten() for value in values[index]]) for index in (1, 2))
    first = torch.cat([value.detach().flatten() for value in values[0]])
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert first[first != 0].std() == pytest.approx(0.5, rel=0.1)  # 1 / rank


def test_the_adapter_is_in_single_precision_over_a_base_in_half(pipeline):
    pipeline.unet.half()
    assert {value.dtype for value in add_lora(pipeline, **OPTIONS, generator=_seeded())} == {torch.float32}


def test_without_the_adapter_it_is_the_base_and_with_it_again_the_tuned_model(base, pipeline):
    expected = _image(base)
    tuned = _image(_tuned(pipeline))
    assert not np.array_equal(tuned, expected)
    with base_only(pipeline.unet):
        with base_only(pipeline.unet):
            pass
        assert np.array_equal(_image(pipeline), expected)
    with pytest.raises(KeyError), base_only(pipeline.unet):
        raise KeyError
    assert np.array_equal(_image(pipeline), tuned)
    with base_only(base.unet):
        assert np.array_equal(_image(base), expected)


def test_parameters_can_be_trained_after_a_look_at_the_base(pipeline):
    trained = add_lora(pipeline, **OPTIONS, generator=_seeded())
    with base_only(pipeline.unet):
        pass
    assert all(value.requires_grad for value in trained)


def test_diffusers_loads_what_was_saved_and_gives_the_same_image(base, pipeline, tmp_path):
    save_lora(_tuned(pipeline), tmp_path)
    ours, theirs = copy.deepcopy(base), copy.deepcopy(base)
    load_lora(ours, tmp_path)
    theirs.load_lora_weights(tmp_path)
    assert np.array_equal(_image(ours), _image(pipeline))
    np.testing.assert_allclose(_image(theirs), _image(pipeline), atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_loading_into_an_adapter_goes_on_with_the_same_parameters(base, pipeline, tmp_path):
    save_lora(_tuned(pipeline), tmp_path)
    other = copy.deepcopy(base)
    trained = add_lora(other, **OPTIONS, generator=_seeded(5))
    load_lora(other, tmp_path)
    now = [value for _, value in sorted(other.unet.named_parameters()) if value.requires_grad]
    assert all(a is b for a, b in zip(trained, now, strict=True))
    assert np.array_equal(_image(other), _image(pipeline))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 0, "targets": ATTENTION}, "rank is 0"),
        ({"rank": 2, "targets": [*ATTENTION, "to_w"]}, "no layer 'to_w'"),
        ({"rank": 2, "targets": []}, "targets is empty"),
    ],
)
def test_an_adapter_that_cannot_be_made_is_refused(pipeline, options, said):
    with pytest.raises(ConfigError, match=said):
        add_lora(pipeline, **options, generator=_seeded())


def test_a_second_adapter_and_none_at_all_are_refused(pipeline, tmp_path):
    with pytest.raises(ConfigError, match="no adapter to save"):
        save_lora(pipeline, tmp_path)
    add_lora(pipeline, **OPTIONS, generator=_seeded())
    with pytest.raises(ConfigError, match="an adapter already"):
        add_lora(pipeline, **OPTIONS, generator=_seeded())


def _cut_short(path):
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("harm", "said"),
    [(lambda path: path.unlink(), "cannot be read"), (_cut_short, "cannot be read")],
    ids=["missing", "cut short"],
)
@pytest.mark.parametrize("with_adapter", [True, False])
def test_a_file_that_is_missing_or_cut_short_is_named(base, pipeline, tmp_path, harm, said, with_adapter):
    save_lora(_tuned(pipeline), tmp_path)
    harm(tmp_path / FILE)
    target = pipeline if with_adapter else base
    with pytest.raises(DataError, match=f"{FILE}: {said}") as caught:
        load_lora(target, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"rank": 3, "targets": OPTIONS["targets"]}, {"rank": 2, "targets": ATTENTION}])
def test_another_rank_or_other_targets_are_refused_and_change_nothing(base, pipeline, tmp_path, options):
    save_lora(_tuned(pipeline), tmp_path)
    other = copy.deepcopy(base)
    trained = [value.clone() for value in add_lora(other, **options, generator=_seeded())]
    with pytest.raises(DataError, match="take the rank and targets it had"):
        load_lora(other, tmp_path)
    now = [value for _, value in sorted(other.unet.named_parameters()) if value.requires_grad]
    assert all(torch.equal(a, b) for a, b in zip(trained, now, strict=True))


def test_what_cannot_be_written_leaves_the_last_file_whole(pipeline, tmp_path, monkeypatch):
    save_lora(_tuned(pipeline), tmp_path)
    before = load_file(tmp_path / FILE)
    pipeline.unet.get_parameter(
        next(name for name, value in pipeline.unet.named_parameters() if value.requires_grad)
    ).data += 1
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(StoreError, match="No space left"):
        save_lora(pipeline, tmp_path)
    after = load_file(tmp_path / FILE)
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_latest_checkpoint_is_that_of_the_most_steps_and_not_the_last_by_name(tmp_path):
    assert latest_checkpoint(tmp_path) is None
    for name in ("checkpoint_99950", "checkpoint_100000", "checkpoint_00050", "checkpoint_999999.bak"):
        (tmp_path / name).mkdir()
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint_100000"
