"""RWR: the weights are what the documentation says, training is resumed exactly, and a known optimum is found."""

import copy
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from toys import importable, toy_pipeline

from textnorm_lib.mini import generator as model
from textnorm_lib.optimise import rwr, training
from textnorm_lib.optimise.rwr import (
    MOST_CENTRED,
    PAPER,
    Examples,
    Settings,
    choose_examples,
    encode_examples,
    train_rwr,
    weights_of,
)
from textnorm_lib.optimise.training import ATTENTION, FEED_FORWARD, add_lora, load_lora
from textnorm_lib.study.errors import ConfigError, DataError, StoreError, StudyError

TOY = Settings(
    images_per_prompt=4, best=2, steps=7, batch_size=4, learning_rate=1e-2, dtype="float32", save_every=3, seed=1
)


def _adapted():
    """A small pipeline with an adapter."""
    pipeline = toy_pipeline()
    add_lora(pipeline, rank=2, targets=ATTENTION, generator=torch.Generator().manual_seed(0))
    return pipeline


def _examples(seed: int = 0) -> Examples:
    generator = torch.Generator().manual_seed(seed)
    latents, texts = (torch.randn(shape, generator=generator) for shape in ((5, *model.LATENT_SHAPE), (3, 24, 128)))
    weights, prompt = torch.tensor([1.5, 0.5, 1.0, 2.0, 0.0]), torch.tensor([0, 0, 0, 1, 1])
    return Examples(latents, weights, prompt, texts[:2], texts[2:])


def _adapter(pipeline) -> torch.Tensor:
    return torch.cat([value.detach().flatten() for value in pipeline.unet.parameters() if value.requires_grad])


def _trained(folder: Path, settings: Settings = TOY, examples: Examples | None = None, pipeline=None):
    pipeline = pipeline or _adapted()
    curve = train_rwr(pipeline, examples or _examples(), settings, folder=folder)
    return _adapter(pipeline), curve.drop(columns="steps_per_s")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Adapter and curve of a run that was never stopped."""
    return _trained(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("weighting", ["reward", "rank", "equal"])
@pytest.mark.parametrize(("origin", "unit"), [(0.0, 1.0), (-50.0, 3.0), (20.0, 1e-3)])
def test_a_prompts_weights_sum_to_their_number_whatever_the_rewards_origin_and_unit(weighting, origin, unit):
    rewards = np.random.default_rng(0).normal(size=30)
    best = np.argsort(-rewards)[:10]
    weights = weights_of(rewards, best, weighting)
    assert weights.sum() == pytest.approx(10) and (weights > 0).all() and (np.diff(weights) <= 0).all()
    np.testing.assert_allclose(weights_of(origin + unit * rewards, best, weighting), weights, rtol=1e-6)
    assert (weights[0] > weights[-1]) == (weighting != "equal")


def test_rewards_and_ranks_weigh_in_proportion():
    rewards = np.array([2.0, 5.0, 3.0, 1.0])
    np.testing.assert_allclose(weights_of(rewards, np.array([1, 2]), "reward"), [4 / 3, 2 / 3])
    np.testing.assert_allclose(weights_of(rewards, np.array([1, 2, 0]), "rank"), [1.5, 1.0, 0.5])
    np.testing.assert_array_equal(weights_of(np.zeros(4), np.array([0, 1]), "reward"), [1.0, 1.0])


@pytest.mark.parametrize(("origin", "unit"), [(0.0, 1.0), (-50.0, 3.0), (20.0, 1e-3)])
def test_centred_weights_are_deviations_from_the_prompts_mean_whatever_the_rewards_origin_and_unit(origin, unit):
    rewards = np.random.default_rng(0).uniform(size=30)
    best = np.argsort(-rewards)
    weights = weights_of(rewards, best, "centred")
    assert weights.mean() == pytest.approx(0, abs=1e-12) and weights.std() == pytest.approx(1)
    np.testing.assert_allclose(weights, (rewards[best] - rewards.mean()) / rewards.std())
    np.testing.assert_allclose(weights_of(origin + unit * rewards, best, "centred"), weights, rtol=1e-6)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_one_odd_image_weighs_no_more_than_the_limit(side):
    rewards = np.array([side * 1000.0, *np.random.default_rng(0).uniform(size=29)])
    weights = weights_of(rewards, np.arange(30), "centred")
    assert weights[0] == side * MOST_CENTRED and (abs(weights[1:]) < MOST_CENTRED).all()


@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 1 / 3])
@pytest.mark.parametrize("number", [1, 3, 7, 64])
def test_images_that_are_all_alike_teach_nothing_if_centred_and_weigh_the_same_else(value, number):
    rewards, best = np.full(number, value), np.arange(number)  # a mean of equal numbers may be another number
    assert (weights_of(rewards, best, "centred") == 0).all()
    assert (weights_of(rewards, best, "reward") == 1).all()


def _scored(rewards=(1.0, 4.0, 2.0, 3.0, 40.0, 10.0, 20.0, 30.0)) -> pd.DataFrame:
    names = [f"{number}.png" for number in range(8)]
    return pd.DataFrame({"prompt": ["a deer"] * 4 + ["two frogs"] * 4, "image": names, "clip": rewards})


def test_each_prompts_best_images_are_kept_best_first():
    chosen = choose_examples(_scored(), reward="clip", settings=TOY)
    assert chosen["image"].tolist() == ["1.png", "3.png", "4.png", "7.png"]
    assert chosen["reward"].tolist() == [4.0, 3.0, 40.0, 30.0]
    np.testing.assert_allclose(chosen["weight"], [1.2, 0.8, 1.2, 0.8])


def test_centred_weights_keep_the_worst_images_of_each_prompt_as_well():
    chosen = choose_examples(_scored(), reward="clip", settings=replace(TOY, best=2, weighting="centred"))
    assert chosen["image"].tolist() == [f"{number}.png" for number in (1, 3, 2, 0, 4, 7, 6, 5)]
    np.testing.assert_allclose(chosen["weight"], np.tile([1.5, 0.5, -0.5, -1.5], 2) / np.sqrt(1.25))
    ends = choose_examples(_scored(), reward="clip", settings=replace(TOY, best=1, weighting="centred"))
    assert ends["image"].tolist() == ["1.png", "0.png", "4.png", "5.png"]


def test_centred_weights_train_on_pairs_of_one_prompt_noise_and_time_whose_pulls_cancel(tmp_path):
    latents, texts = torch.randn(8, *model.LATENT_SHAPE), torch.randn(3, 24, 128)
    weights, prompt = torch.tensor([1.5, 0.5, -0.5, -1.5] * 2), torch.arange(8) // 4
    settings = replace(TOY, weighting="centred", batch_size=16, steps=1)
    run = rwr._Rwr(_adapted(), Examples(latents, weights, prompt, texts[:2], texts[2:]), settings, tmp_path)
    chosen, times, noise, emptied = (part.chunk(2) for part in run._draw(torch.Generator().manual_seed(0)))
    assert torch.equal(prompt[chosen[0]], prompt[chosen[1]]) and (chosen[0] != chosen[1]).all()
    assert torch.equal(weights[chosen[0]], -weights[chosen[1]])
    assert all(torch.equal(*pair) for pair in (times, noise, emptied))
    alike = Examples(latents[:1].expand(8, -1, -1, -1).contiguous(), weights, prompt, texts[:2], texts[2:])
    curve = train_rwr(_adapted(), alike, settings, folder=tmp_path / "alike")
    assert abs(curve["loss"][0]) < 1e-6  # good and bad look the same: there is nothing to learn


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (_scored().drop(columns="clip"), "no column 'clip'"),
        (_scored()[:0], "no rows"),
        (_scored()[:7], "prompt 'two frogs' has 3 images, not 4"),
        (_scored((1, 2, 3, np.nan, 1, 2, 3, 4)), "clip of '3.png' is nan"),
        (_scored((1, 2, 3, 4, 1, 2, np.inf, 4)), "clip of '6.png' is inf"),
    ],
)
def test_images_that_cannot_be_chosen_from_are_refused(images, said):
    with pytest.raises(DataError, match=said) as caught:
        choose_examples(images, reward="clip", settings=TOY)
    assert "\n" not in str(caught.value)


def test_examples_are_the_autoencoders_latents_and_the_prompts_texts(tmp_path):
    pipeline = toy_pipeline()
    for number in range(4):
        Image.new("RGB", (64, 64), (60 * number, 0, 0)).save(tmp_path / f"{number}.png")
    rows = {"prompt": ["a deer", "two frogs", "a deer", "a deer"], "weight": [1.0, 1.0, 1.5, 0.5]}
    chosen = pd.DataFrame({**rows, "image": [f"{number}.png" for number in range(4)]})
    examples = encode_examples(pipeline, chosen, folder=tmp_path)
    pixels = torch.full((1, 3, 64, 64), -1.0)
    pixels[:, 0] = 180 / 127.5 - 1
    with torch.no_grad():
        latent = pipeline.vae.encode(pixels).latent_dist.mean[0] * pipeline.vae.config.scaling_factor
        text, empty = pipeline.encode_prompt("a deer", "cpu", 1, True)
    torch.testing.assert_close(examples.latents[3], latent, rtol=0, atol=1e-3)
    torch.testing.assert_close(examples.texts[examples.prompt], examples.texts[[0, 1, 0, 0]])
    torch.testing.assert_close(examples.texts[:1], text)
    torch.testing.assert_close(examples.empty_text, empty)
    assert examples.weights.tolist() == rows["weight"]
    (tmp_path / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2.png\) cannot be read"):
        encode_examples(pipeline, chosen, folder=tmp_path)


def test_the_papers_settings_are_appendix_7_2s():
    papers = (PAPER.images_per_prompt, PAPER.best, PAPER.steps, PAPER.batch_size, PAPER.learning_rate, PAPER.dtype)
    assert papers == (100, 10, 1000, 32, 1e-5, "float16")
    optimiser = (PAPER.weight_decay, PAPER.beta_1, PAPER.beta_2, PAPER.epsilon, PAPER.max_gradient_norm)
    assert optimiser == (1e-2, 0.9, 0.999, 1e-8, 1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("best", 0), ("best", 101), ("steps", 0), ("batch_size", 0), ("save_every", 0), ("images_per_prompt", 0)),
        *(("learning_rate", 0.0), ("learning_rate", float("nan")), ("kl_coefficient", -0.25), ("weight_decay", -1.0)),
        *(("caption_dropout", 1.0), ("caption_dropout", -0.1), ("weighting", "softmax"), ("dtype", "float8")),
        *(("epsilon", 0.0), ("max_gradient_norm", float("inf")), ("pass_size", -1)),
        *(("beta_1", 1.0), ("beta_1", -0.1), ("beta_2", 1.0), ("beta_2", float("nan"))),
    ],
)
def test_a_setting_out_of_range_is_named(name, value):
    with pytest.raises(ConfigError, match=f"^{name} = {re.escape(repr(value))}( |:)") as caught:
        replace(PAPER, **{name: value})
    assert "\n" not in str(caught.value)


def test_centred_weights_need_as_many_worst_images_and_batches_of_pairs():
    assert replace(PAPER, weighting="centred", best=50).best == 50
    with pytest.raises(ConfigError, match=r"^best = 51: of 100, centred takes as many worst; 50 at most"):
        replace(PAPER, weighting="centred", best=51)
    with pytest.raises(ConfigError, match=r"^batch_size = 5: centred trains on pairs; give an even number"):
        replace(PAPER, weighting="centred", batch_size=5)


@pytest.mark.parametrize(("killed_after", "same_process"), [(1, True), (1, False), (3, False), (5, True)])
def test_a_killed_run_goes_on_to_the_same_weights_bit_for_bit(whole, tmp_path, monkeypatch, killed_after, same_process):
    pipeline = _adapted()

    written = training.append_row

    def append_row(folder, row):
        written(folder, row)
        if row["step"] == killed_after:
            with (folder / training.CURVE).open("a") as file:
                file.write('{"step": ')  # half a line
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "append_row", append_row)
    with pytest.raises(KeyboardInterrupt):
        _trained(tmp_path, pipeline=pipeline)
    monkeypatch.undo()
    torch.rand(3)  # the global generator is not part of it
    adapter, curve = _trained(tmp_path, pipeline=pipeline if same_process else None)
    assert torch.equal(adapter, whole[0])
    pd.testing.assert_frame_equal(curve, whole[1], check_exact=True)


def test_more_steps_may_be_asked_for_later(whole, tmp_path):
    _trained(tmp_path, replace(TOY, steps=4, save_every=2))
    assert torch.equal(_trained(tmp_path)[0], whole[0])


def test_a_checkpoint_is_the_adapter_after_its_steps(whole, tmp_path):
    adapter, curve = _trained(tmp_path)
    names = sorted(path.name for path in tmp_path.glob("checkpoint_*"))
    assert names == [f"checkpoint_{step:05}" for step in (0, 3, 6, 7)]
    assert curve["step"].tolist() == list(range(1, 8)) and curve["kl"].notna().tolist() == [0, 0, 1, 0, 0, 1, 1]
    again = _adapted()
    load_lora(again, tmp_path / "checkpoint_00007")
    assert torch.equal(_adapter(again), adapter)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"settings": replace(TOY, learning_rate=1e-3)}, "another learning_rate, 0.01; take another folder"),
        ({"settings": replace(TOY, seed=2)}, "another seed, 1"),
        ({"examples": _examples(seed=1)}, "another set of examples"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(tmp_path, changed, said):
    _trained(tmp_path, replace(TOY, steps=1))
    with pytest.raises(ConfigError, match=said):
        _trained(tmp_path, **changed)


def test_a_damaged_checkpoint_is_named_and_the_one_before_serves(whole, tmp_path):
    _trained(tmp_path)
    for checkpoint in ("checkpoint_00007", "checkpoint_00006"):
        path = tmp_path / checkpoint / "optimiser.safetensors"
        path.write_bytes(path.read_bytes()[:-4] + b"\0\0\1\0")
        with pytest.raises(DataError, match=rf"{checkpoint}.*(not what was written|cannot be read)") as caught:
            _trained(tmp_path)
        assert "\n" not in str(caught.value)
        for file in path.parent.iterdir():
            file.unlink()
        path.parent.rmdir()
    assert torch.equal(_trained(tmp_path)[0], whole[0])


def test_a_full_disk_leaves_the_checkpoint_before(whole, tmp_path, monkeypatch):
    def full(pipeline, folder):
        if "00006" in folder.name:
            raise OSError(28, os.strerror(28))
        written(pipeline, folder)

    written = training.save_lora
    monkeypatch.setattr(training, "save_lora", full)
    with pytest.raises(StoreError, match=r"No space left.*checkpoint_00003 keeps the last good state") as caught:
        _trained(tmp_path)
    assert "\n" not in str(caught.value) and len(list(tmp_path.glob("*checkpoint_*"))) == 2
    monkeypatch.undo()
    assert torch.equal(_trained(tmp_path)[0], whole[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_with_the_step_and_keeps_the_last_checkpoint(whole, tmp_path, bad):
    pipeline, passes = _adapted(), []

    def spoil(unet, given, output):
        passes.append(0)
        output.sample = output.sample * (bad if len(passes) == 6 else 1.0)  # step 3 takes two passes, for its kl

    pipeline.unet.register_forward_hook(spoil)
    said = r"step 5: the loss is (nan|inf); .*checkpoint_00003 keeps the last good state"
    with pytest.raises(StudyError, match=said) as caught:
        _trained(tmp_path, pipeline=pipeline)
    assert "\n" not in str(caught.value)
    assert torch.equal(_trained(tmp_path)[0], whole[0])


def test_a_gradient_that_is_no_number_stops_before_the_weights_change(tmp_path):
    pipeline = _adapted()
    next(value for value in pipeline.unet.parameters() if value.requires_grad).register_hook(
        lambda grad: grad * torch.nan
    )
    before = _adapter(pipeline)
    with pytest.raises(
        StudyError, match=r"step 1: the norm of the gradient is nan; .*checkpoint_00000 keeps the last good state"
    ):
        _trained(tmp_path, pipeline=pipeline)
    assert torch.equal(_adapter(pipeline), before)


def test_what_cannot_be_trained_is_refused(tmp_path):
    bare, strange = toy_pipeline(), _adapted()
    strange.scheduler.register_to_config(prediction_type="sample")
    for pipeline, said in ((bare, "needs an adapter, and nothing else"), (strange, "prediction_type is 'sample'")):
        with pytest.raises(ConfigError, match=said):
            _trained(tmp_path, pipeline=pipeline)


def test_an_example_of_weight_zero_teaches_nothing(whole, tmp_path):
    examples = _examples()
    latents = examples.latents.clone()
    latents[4] = 7.0
    assert torch.equal(_trained(tmp_path / "a", examples=examples._replace(latents=latents))[0], whole[0])
    latents[3] = 7.0
    assert not torch.equal(_trained(tmp_path / "b", examples=examples._replace(latents=latents))[0], whole[0])


def test_a_negative_weight_pushes_the_other_way(tmp_path):
    settings, examples, steps = replace(TOY, steps=1), _examples(), []
    for sign in (1, -1):
        pipeline, folder = _adapted(), tmp_path / str(sign)
        _, curve = _trained(folder, settings, examples._replace(weights=sign * examples.weights), pipeline)
        named = sorted(pipeline.unet.named_parameters())
        steps.append(torch.cat([value.detach().flatten() for name, value in named if "lora_B" in name]))
        assert np.sign(curve["loss"][0]) == sign
    assert torch.equal(steps[0], -steps[1]) and steps[0].any()  # B is zero at first


def test_emptied_captions_train_the_unconditional_branch_alone(whole, tmp_path):
    settings, examples = replace(TOY, caption_dropout=1 - 1e-12), _examples()
    one = _trained(tmp_path / "one", settings)[0]
    other = _trained(tmp_path / "other", settings, examples._replace(texts=-examples.texts))[0]
    assert torch.equal(one, other) and not torch.equal(one, whole[0])


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loss_of_the_first_step_is_the_denoising_loss_of_the_base(tmp_path, kind):
    pipeline, examples = _adapted(), _examples()
    pipeline.scheduler.register_to_config(prediction_type=kind)
    generator = torch.Generator().manual_seed(TOY.seed * 1_000_003)
    chosen = torch.randint(5, (4,), generator=generator)
    times = torch.randint(1000, (4,), generator=generator)
    noise = torch.randn((4, *model.LATENT_SHAPE), generator=generator)
    signal = pipeline.scheduler.alphas_cumprod[times].sqrt()[:, None, None, None]
    clean, spread = examples.latents[chosen], (1 - signal**2).sqrt()
    target = noise if kind == "epsilon" else signal * noise - spread * clean
    with torch.no_grad():
        found = pipeline.unet(signal * clean + spread * noise, times, examples.texts[examples.prompt[chosen]]).sample
    expected = (examples.weights[chosen] * (found - target).square().mean(dim=(1, 2, 3))).mean()
    curve = train_rwr(pipeline, examples, replace(TOY, steps=1, kl_coefficient=1.0), folder=tmp_path)
    assert curve["loss"][0] == pytest.approx(expected.item(), rel=1e-5) and curve["kl"][0] == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_trains_to_nearly_the_same_weights(whole, tmp_path, dtype):
    adapter, curve = _trained(tmp_path, replace(TOY, dtype=dtype))
    np.testing.assert_allclose(curve["loss"], whole[1]["loss"], rtol=0.03)
    assert adapter.dtype == torch.float32 and torch.cosine_similarity(adapter, whole[0], dim=0) > 0.95
    _trained(tmp_path / "halves", replace(TOY, dtype=dtype, steps=4))
    assert torch.equal(_trained(tmp_path / "halves", replace(TOY, dtype=dtype))[0], adapter)


@pytest.mark.parametrize("pass_size", [1, 3, 4, 100])
def test_a_batch_in_several_passes_takes_the_same_steps(tmp_path, pass_size):
    settings = replace(TOY, steps=3, kl_coefficient=0.5)
    whole, curve = _trained(tmp_path / "whole", settings)
    parted, parted_curve = _trained(tmp_path / "parted", replace(settings, pass_size=pass_size))
    pd.testing.assert_frame_equal(parted_curve, curve, rtol=1e-4)
    torch.testing.assert_close(parted, whole, rtol=1e-3, atol=1e-5)


def test_two_processes_train_as_one(tmp_path):
    settings = "replace(TOY, steps=3, kl_coefficient=0.5)"
    script = f"from test_rwr import *; from test_rwr import _trained; _trained(Path({str(tmp_path)!r}), {settings})"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])  # one that is free
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=importable(Path(__file__).parent)
            | shared
            | {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": "2"},
        )
        for rank in "01"
    ]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    together = _adapted()
    load_lora(together, tmp_path / "checkpoint_00003")
    alone, curve = _trained(tmp_path / "alone", replace(TOY, steps=3, kl_coefficient=0.5))
    torch.testing.assert_close(_adapter(together), alone, rtol=1e-4, atol=1e-5)
    of_two = pd.read_json(tmp_path / "curve.jsonl", lines=True)
    np.testing.assert_allclose(of_two[curve.columns], curve, rtol=1e-4, atol=1e-7)


@pytest.fixture(scope="module")
def lamps():
    """A pipeline that has learnt latents of one level each, levels being standard normal: what shines or does not."""
    pipeline = toy_pipeline(channels=(32, 32))
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        text, empty = pipeline.encode_prompt("a deer", "cpu", 1, True)
    optimiser = torch.optim.AdamW(pipeline.unet.parameters(), 2e-3)
    for step in range(250):
        generator = torch.Generator().manual_seed(step)
        clean = torch.randn((16, 1, 1, 1), generator=generator).expand(16, 4, 8, 8)
        noise = torch.randn(clean.shape, generator=generator)
        times = torch.randint(1000, (16,), generator=generator)
        found = pipeline.unet(pipeline.scheduler.add_noise(clean, noise, times), times, text.expand(16, -1, -1)).sample
        loss = (found - pipeline.scheduler.get_velocity(clean, noise, times)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return pipeline, text, empty


def _lit(pipeline) -> torch.Tensor:
    """64 latents from 64 seeds."""
    seeds = [torch.Generator().manual_seed(seed) for seed in range(64)]
    options = {"height": 32, "width": 32, "num_inference_steps": 8, "guidance_scale": 1.0, "output_type": "latent"}
    return pipeline(["a deer"] * 64, generator=seeds, **options).images


def test_brightness_is_learnt_and_a_large_beta_holds_the_base(lamps, tmp_path):
    base, text, empty = lamps
    settings = replace(TOY, images_per_prompt=64, best=8, batch_size=16, steps=60, save_every=60)
    before = _lit(base)
    level = before.mean(dim=(1, 2, 3)).numpy()
    images = pd.DataFrame({"prompt": "a deer", "image": range(64), "level": level})
    chosen = choose_examples(images, reward="level", settings=settings)
    weights = torch.from_numpy(chosen["weight"].to_numpy(np.float32, copy=True))
    examples = Examples(before[chosen["image"].to_list()], weights, torch.zeros(8, dtype=torch.long), text, empty)
    gains, divergences = [], []
    for kl_coefficient in (0.0, 100.0):
        pipeline = copy.deepcopy(base)
        generator = torch.Generator().manual_seed(0)
        add_lora(pipeline, rank=8, targets=[*ATTENTION, *FEED_FORWARD], generator=generator)
        with_kl = replace(settings, kl_coefficient=kl_coefficient)
        curve = train_rwr(pipeline, examples, with_kl, folder=tmp_path / str(kl_coefficient))
        gains.append(_lit(pipeline).mean(dim=(1, 2, 3)).numpy() - level)
        divergences.append(curve["kl"].iloc[-1])
    error = gains[0].std(ddof=1) / np.sqrt(64)
    assert gains[0].mean() > 5 * error and gains[0].mean() > 0.1
    assert abs(gains[1].mean()) < 0.25 * gains[0].mean() and divergences[1] < 0.1 * divergences[0]
