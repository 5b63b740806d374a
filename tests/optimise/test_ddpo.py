"""DDPO on a toy pipeline: densities, parity with trl, exact resume, several processes, what it learns, how it fails."""

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import importable, toy_pipeline

from textnorm_lib.images.sampling import load_pipeline
from textnorm_lib.mini import generator as model
from textnorm_lib.optimise.ddpo import PAPER, Settings, train_ddpo
from textnorm_lib.optimise.denoising import ddim_steps, draw_noise, guided, sample
from textnorm_lib.optimise.policy_gradient import RunningStatistics, step_weights
from textnorm_lib.optimise.training import ATTENTION, FEED_FORWARD, FILE, add_lora, base_only
from textnorm_lib.study.errors import ConfigError, DataError, StoreError, StudyError

PROMPTS = ["a realistic photo of a deer", "a realistic photo of two frogs"]
TOY = Settings(
    epochs=4,
    images_per_epoch=8,
    updates_per_epoch=2,
    batch_size=4,
    denoising_steps=3,
    untrained_steps=1,
    guidance_scale=2.0,
    dtype="float32",
    learning_rate=1e-2,
    clip_range=1e-2,
    min_count=4,
    buffer_size=8,
    kl_every=1,
    save_every=2,
)
SHORT = replace(TOY, epochs=2)


@pytest.fixture(scope="module")
def base():
    return toy_pipeline(PROMPTS, channels=(32, 32))


def with_lora(base, *, tuned: float = 0.0, **options):
    """A copy with an adapter, ``tuned`` away from its start."""
    pipeline, generator = copy.deepcopy(base), torch.Generator().manual_seed(1)
    options = {"rank": 2, "targets": ATTENTION, **options}
    for value in add_lora(pipeline, **options, generator=generator):
        value.data += tuned * torch.randn(value.shape, generator=generator)
    return pipeline


@pytest.fixture
def pipeline(base):
    return with_lora(base)


def redness(images, prompts, metadata):
    """Red minus the mean of green and blue."""
    return images[:, 0].mean(dim=(1, 2)) - images[:, 1:].mean(dim=(1, 2, 3)), {}


def _adapter(pipeline) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in pipeline.unet.named_parameters() if value.requires_grad}


def _equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


# The decision process


@pytest.mark.parametrize("without_noise", [0, 4])
@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon", "sample"])
def test_a_step_is_diffusers_ddim_step_with_eta_1_and_the_last_may_have_none(prediction, without_noise):
    scheduler = model.build_scheduler()
    scheduler.register_to_config(prediction_type=prediction)
    steps, eta = ddim_steps(scheduler, 10, without_noise=without_noise), [1.0] * (10 - without_noise) + [0.0] * 4
    scheduler.set_timesteps(10)
    x, output, noise = torch.randn(3, 10, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ours = steps.mean(torch.arange(10), x, output) + steps.sigma[:, None, None, None] * noise
    theirs = [
        scheduler.step(output[i], int(t), x[i], eta=eta[i], variance_noise=noise[i]).prev_sample
        for i, t in enumerate(scheduler.timesteps)
    ]
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-5, atol=1e-5)
    assert torch.equal(steps.timesteps, scheduler.timesteps) and steps.decisions == 10 - without_noise


def test_densities_and_divergences_are_those_of_torchs_normal_distribution():
    steps, index = ddim_steps(model.build_scheduler(), 5), torch.arange(5)
    x, following, output, other = torch.randn(4, 5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma = steps.sigma[:, None, None, None]
    ours, base = (torch.distributions.Normal(steps.mean(index, x, f), sigma) for f in (output, other))
    log_prob = steps.log_prob(index, following, ours.mean)
    torch.testing.assert_close(log_prob, ours.log_prob(following).mean(dim=(1, 2, 3)), rtol=1e-5, atol=1e-5)
    divergence = torch.distributions.kl_divergence(ours, base).mean(dim=(1, 2, 3))
    torch.testing.assert_close(steps.kl(index, output, other), divergence, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("key", ["clip_sample", "thresholding", "set_alpha_to_one"])
def test_a_scheduler_without_a_density_is_refused(key):
    scheduler = type(model.build_scheduler())(**{"clip_sample": False, "set_alpha_to_one": False, key: True})
    with pytest.raises(ConfigError, match=f"{key} on"):
        ddim_steps(scheduler, 5)


def _sampled(pipeline, **options):
    steps = ddim_steps(pipeline.scheduler, 3)
    texts, empty = pipeline.encode_prompt(PROMPTS, "cpu", 1, True)
    return sample(pipeline.unet, steps, texts, empty[:1], draw_noise([3, 4], 3, (4, 16, 16)), scale=2.0, **options)


def test_an_images_noise_comes_from_its_seed_alone():
    together, alone = draw_noise([3, 4], 2, (4, 8, 8)), draw_noise([4], 2, (4, 8, 8))
    assert torch.equal(together[1:], alone) and not torch.equal(together[0], together[1])


def test_the_frozen_branch_is_the_bases_and_the_divergence_is_zero_at_the_base_alone(base, pipeline):
    tuned = with_lora(base, tuned=0.1)
    at_base, frozen = _sampled(pipeline, with_base=True), _sampled(tuned, frozen_empty=True, with_base=True)
    assert (at_base.kl == 0).all() and (frozen.kl > 0).all()
    torch.testing.assert_close(_sampled(pipeline, frozen_empty=True).latents, at_base.latents)
    texts, empty = base.encode_prompt(PROMPTS, "cpu", 1, True)
    time = ddim_steps(base.scheduler, 3).timesteps[1].expand(2)
    with torch.no_grad(), base_only(tuned.unet):
        expected = tuned.unet(frozen.latents[:, 1], time, empty).sample
    torch.testing.assert_close(frozen.empty[:, 1], expected)
    with torch.no_grad():
        whole = guided(base.unet, frozen.latents[:, 1], time, texts, empty[:1], scale=2.0)
    torch.testing.assert_close(frozen.base[:, 1], whole)


def test_steps_without_noise_are_no_decisions_and_end_where_the_noise_before_led(pipeline):
    texts, empty = pipeline.encode_prompt(PROMPTS, "cpu", 1, True)
    steps, noise = ddim_steps(pipeline.scheduler, 3, without_noise=2), draw_noise([3, 4], 3, (4, 16, 16))
    other = torch.cat([noise[:, :2], noise[:, 2:] + 1], dim=1)
    one, same = (sample(pipeline.unet, steps, texts, empty[:1], n, scale=2.0, with_base=True) for n in (noise, other))
    assert torch.equal(one.latents, same.latents) and one.latents.shape[1] == 4
    assert one.log_probs.shape == one.kl.shape == (2, 1) and one.base.shape[1] == 1


@pytest.mark.parametrize("frozen_empty", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_first_updates_ratio_is_one(base, tmp_path, dtype, frozen_empty):
    settings = replace(TOY, epochs=1, dtype=dtype, frozen_empty=frozen_empty)
    curve = train_ddpo(with_lora(base, tuned=0.1), PROMPTS, redness, settings, folder=tmp_path)
    assert curve["first_ratio_error"][0] <= 1e-5 and curve["ratio"][0] != 1 and curve["kl"][0] > 0


# trl as the reference


def test_noise_weights_let_every_trained_step_pull_alike(base):
    steps = ddim_steps(base.scheduler, 8, device="cpu")
    settings = replace(TOY, denoising_steps=8, untrained_steps=4)
    assert torch.equal(step_weights(steps, settings), torch.ones(4))
    weights = step_weights(steps, replace(settings, step_weights="noise"))
    pulls = weights * (steps.b.abs() / steps.sigma)[:4]  # what the gradient of a log-density grows with
    torch.testing.assert_close(pulls, pulls.mean().expand(4))
    assert weights.mean() == pytest.approx(1) and (weights.diff() < 0).all()


def test_a_steps_weight_multiplies_its_transitions_losses(base, tmp_path):
    losses = []
    for weighting in ("equal", "noise"):
        one_step = replace(TOY, epochs=1, updates_per_epoch=1, untrained_steps=2, step_weights=weighting)
        both = replace(one_step, untrained_steps=1)
        for settings in (one_step, both):
            folder = tmp_path / f"{weighting}_{settings.untrained_steps}"
            losses.append(train_ddpo(with_lora(base), PROMPTS, redness, settings, folder=folder)["gradient_norm"][0])
    assert losses[0] == losses[2]  # a single step weighs 1
    assert losses[3] < losses[1]  # the later one, whose gradient is the larger, weighs less than the earlier


def test_advantages_are_trls():
    from trl.trainer.utils import PerPromptStatTracker

    ours, theirs = RunningStatistics(8, 4), PerPromptStatTracker(8, 4)
    generator = np.random.default_rng(0)
    for _ in range(4):
        prompts, rewards = generator.choice(["a", "b", "c"], 6, p=[0.6, 0.3, 0.1]).tolist(), generator.normal(size=6)
        np.testing.assert_allclose(ours.update(prompts, rewards), theirs.update(prompts, rewards), rtol=1e-12)


@pytest.mark.filterwarnings("ignore")  # deprecations inside trl and diffusers
def test_loss_and_first_update_are_those_of_trls_trainer(base, tmp_path, monkeypatch):
    """Its whole epoch, on the same prompts and reward. Only the noise is ours: it draws from the global generator."""
    from accelerate import PartialState
    from trl import DDPOConfig, DDPOTrainer, DefaultDDPOStableDiffusionPipeline
    from trl.models import modeling_sd_base

    model.save_pipeline(copy.deepcopy(base), tmp_path / "pipeline")
    PartialState()
    settings = replace(TOY, epochs=1, updates_per_epoch=1, images_per_epoch=4, untrained_steps=0, clip_range=1e-4)
    settings = replace(settings, learning_rate=3e-4)  # larger ones magnify the rounding of gradients near 0
    ours = load_pipeline(str(tmp_path / "pipeline"))
    add_lora(ours, rank=4, targets=ATTENTION, generator=torch.Generator().manual_seed(0))
    first, seen = _adapter(ours), []

    def reward(images, prompts, metadata):
        seen.append((images, [item.get("seed") for item in metadata]))
        return redness(images, prompts, metadata)

    curve = train_ddpo(ours, PROMPTS, reward, settings, folder=tmp_path / "ours")

    noise = draw_noise(seen[0][1], 3, (4, 16, 16))
    following, places = iter(noise.unbind(dim=1)[1:]), iter([0, 1, 0, 1])
    theirs = DefaultDDPOStableDiffusionPipeline(str(tmp_path / "pipeline"), use_lora=True)
    theirs.sd_pipeline.prepare_latents = lambda *_, **__: noise[:, 0]
    monkeypatch.setattr(modeling_sd_base, "randn_tensor", lambda *_, **__: next(following))
    config = DDPOConfig(
        mixed_precision="no",
        sample_num_steps=3,
        sample_guidance_scale=2.0,
        sample_batch_size=4,
        sample_num_batches_per_epoch=1,
        train_batch_size=4,
        train_learning_rate=settings.learning_rate,
        per_prompt_stat_tracking=True,
        per_prompt_stat_tracking_buffer_size=8,
        per_prompt_stat_tracking_min_count=4,
        project_kwargs={"project_dir": str(tmp_path)},
    )
    trainer = DDPOTrainer(config, reward, lambda: (PROMPTS[next(places)], {}), theirs)
    for name, value in theirs.unet.named_parameters():
        if value.requires_grad:
            value.data.copy_(first[name])
    losses, calculate = [], trainer.calculate_loss
    trainer.calculate_loss = lambda *given: losses.append(calculate(*given)) or losses[-1]
    trainer.step(0, 0)

    torch.testing.assert_close(seen[1][0], seen[0][0], rtol=1e-5, atol=1e-5)
    assert curve["loss"][0] == pytest.approx(np.mean([loss.item() for loss, *_ in losses]), abs=1e-5)
    updated, expected = _adapter(ours), _adapter(theirs)
    torch.testing.assert_close(updated, expected, rtol=1e-5, atol=1e-5)
    assert max((updated[name] - first[name]).abs().max() for name in first) > 2e-4  # as Adam's first step should
    moments = load_file(tmp_path / "ours" / "checkpoint_00001" / "optimiser.safetensors")
    state = trainer.optimizer.state
    gradients = torch.cat([moments[f"{index}.exp_avg"].flatten() for index in range(len(first))])
    named = sorted((name, value) for name, value in theirs.unet.named_parameters() if value.requires_grad)
    difference = gradients - torch.cat([state[value]["exp_avg"].flatten() for _, value in named])
    assert difference.norm() < 1e-3 * gradients.norm()  # rewards that differ in the seventh digit are standardised


# Going on


class _Stop(BaseException):
    """As a kill: nothing may catch it."""


def _stopping(calls: int):
    left = iter(range(calls))

    def reward(images, prompts, metadata):
        if next(left, None) is None:
            raise _Stop
        return redness(images, prompts, metadata)

    return reward


def test_a_run_stopped_again_and_again_gives_the_weights_and_the_curve_of_one_that_was_not(base, tmp_path):
    whole = with_lora(base)
    curve = train_ddpo(whole, PROMPTS, redness, TOY, folder=tmp_path / "whole")
    for calls in (1, 3, 1):  # before the first checkpoint, between two, right after one
        with pytest.raises(_Stop):
            train_ddpo(with_lora(base), PROMPTS, _stopping(calls), TOY, folder=tmp_path / "cut")
    (tmp_path / "cut" / ".checkpoint_00004.partial").mkdir()  # as a kill leaves it
    resumed = with_lora(base)
    again = train_ddpo(resumed, PROMPTS, redness, TOY, folder=tmp_path / "cut")
    assert _equal(_adapter(whole), _adapter(resumed))
    assert curve.drop(columns="images_per_s").equals(again.drop(columns="images_per_s"))
    files = [tmp_path / name / "checkpoint_00004" for name in ("whole", "cut")]
    for name in (FILE, "optimiser.safetensors", "state.json"):
        assert (files[0] / name).read_bytes() == (files[1] / name).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "cut" / "curve.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3]


def test_a_stopped_run_goes_on_with_the_same_pipeline_in_the_same_process(base, pipeline, tmp_path):
    whole = with_lora(base)
    train_ddpo(whole, PROMPTS, redness, TOY, folder=tmp_path / "whole")
    with pytest.raises(_Stop):
        train_ddpo(pipeline, PROMPTS, _stopping(1), TOY, folder=tmp_path / "cut")
    train_ddpo(pipeline, PROMPTS, redness, TOY, folder=tmp_path / "cut")
    assert _equal(_adapter(whole), _adapter(pipeline))


def test_a_longer_run_goes_on_and_another_one_is_refused(base, pipeline, tmp_path):
    train_ddpo(pipeline, PROMPTS, redness, replace(TOY, epochs=1), folder=tmp_path)
    assert len(train_ddpo(with_lora(base), PROMPTS, redness, SHORT, folder=tmp_path)) == 2
    with pytest.raises(ConfigError, match=r"another learning_rate, 0.01; take another folder"):
        train_ddpo(with_lora(base), PROMPTS, redness, replace(TOY, learning_rate=1e-3), folder=tmp_path)
    with pytest.raises(ConfigError, match="another prompts"):
        train_ddpo(with_lora(base), PROMPTS[:1], redness, TOY, folder=tmp_path)
    with pytest.raises(DataError, match="the rank and targets it had"):
        train_ddpo(with_lora(base, rank=3), PROMPTS, redness, replace(TOY, epochs=3), folder=tmp_path)


SCRIPT = """
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_ddpo import PROMPTS, SHORT, redness, toy_pipeline, train_ddpo, with_lora
train_ddpo(with_lora(toy_pipeline(PROMPTS, channels=(32, 32))), PROMPTS, redness, SHORT, folder=Path({folder!r}))
"""


def test_two_processes_give_what_one_gives(base, tmp_path):
    one = train_ddpo(with_lora(base), PROMPTS, redness, SHORT, folder=tmp_path / "one")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path / "two")))
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--cpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    options = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0", str(script)]
    environment = importable(Path(__file__).parent)
    done = subprocess.run([*launch, *options], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    two = [json.loads(line) for line in (tmp_path / "two" / "curve.jsonl").read_text().splitlines()]
    for row, expected in zip(two, one.to_dict("records"), strict=True):
        for name in ("reward", "reward_std", "kl", "ratio", "loss", "gradient_norm"):
            assert row[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-6), name
    assert two[0]["reward"] == one["reward"][0]  # sampled before any sum over processes: the same images
    weights = [load_file(tmp_path / name / "checkpoint_00002" / FILE) for name in ("one", "two")]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)


# What it learns


@pytest.mark.parametrize("kl_coefficient", [0.0, 100.0])
def test_it_learns_a_colour_and_stays_near_the_base_where_the_divergence_weighs_much(tmp_path, kl_coefficient):
    pipeline = load_pipeline("bundled:generator")
    pipeline.unet.register_to_config(sample_size=8)  # images of 32 pixels
    add_lora(pipeline, rank=4, targets=ATTENTION + FEED_FORWARD, generator=torch.Generator().manual_seed(0))
    settings = Settings(
        epochs=4,
        images_per_epoch=32,
        batch_size=32,
        updates_per_epoch=8,
        denoising_steps=5,
        untrained_steps=2,
        guidance_scale=1.0,
        dtype="bfloat16",
        learning_rate=4e-3,
        clip_range=5e-3,
        kl_every=3,
        kl_coefficient=kl_coefficient,
    )
    curve = train_ddpo(pipeline, PROMPTS, redness, settings, folder=tmp_path, gold=redness)
    gain, error = curve["reward"][3] - curve["reward"][0], curve["reward_std"].max() / 32**0.5
    if kl_coefficient:
        assert gain < 4 * error and curve["kl"].max() < 1
    else:
        assert gain > 6 * error and curve["kl"][3] > 5
    assert curve["gold"].equals(curve["reward"])


# How it fails


def _nan(images, prompts, metadata):
    return [float("nan"), *[0.0] * (len(images) - 1)], {}


def _raising(images, prompts, metadata):
    raise ValueError("no\nsuch thing")


def _too_few(images, prompts, metadata):
    return [0.0], {}


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (_nan, "the reward is no finite number for 1 of 8 images"),
        (_raising, "the reward raised ValueError: no such thing"),
        (_too_few, r"the reward has shape \(1,\) for 8 images"),
    ],
)
def test_a_reward_that_fails_is_one_line_with_the_epoch_and_the_run_can_go_on(base, tmp_path, reward, said):
    train_ddpo(with_lora(base), PROMPTS, redness, SHORT, folder=tmp_path)
    said = f"DDPO: epoch 2: {said}; .*checkpoint_00002 keeps the last good state"
    with pytest.raises(StudyError, match=said) as caught:
        train_ddpo(with_lora(base), PROMPTS, reward, TOY, folder=tmp_path)
    assert "\n" not in str(caught.value)
    assert len(train_ddpo(with_lora(base), PROMPTS, redness, TOY, folder=tmp_path)) == 4


def test_a_gradient_that_is_no_number_stops_with_epoch_and_update_before_it_touches_a_weight(pipeline, tmp_path):
    poison = next(value for value in pipeline.unet.parameters() if value.requires_grad)
    calls = iter(range(10))

    def reward(images, prompts, metadata):
        if next(calls) == 2:
            poison.data.fill_(float("nan"))
        return redness(images, prompts, metadata)

    with pytest.raises(StudyError, match=r"epoch 2: update 0: .* is nan; .*checkpoint_00002 keeps the last good state"):
        train_ddpo(pipeline, PROMPTS, reward, TOY, folder=tmp_path)
    good = [value for name, value in _adapter(pipeline).items() if value.isfinite().all()]
    assert len(good) == len(_adapter(pipeline)) - 1
    assert len(train_ddpo(pipeline, PROMPTS, redness, TOY, folder=tmp_path)) == 4


@pytest.mark.parametrize("name", [FILE, "optimiser.safetensors", "state.json", "digests.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_can_be_gone_on_with(base, pipeline, tmp_path, name):
    train_ddpo(pipeline, PROMPTS, redness, replace(TOY, epochs=1), folder=tmp_path)
    path = tmp_path / "checkpoint_00001" / name
    content = bytearray(path.read_bytes())
    content[-5] ^= 1  # one bit
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"checkpoint_00001.*delete the checkpoint's folder") as caught:
        train_ddpo(with_lora(base), PROMPTS, redness, TOY, folder=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_one_line_and_keeps_the_checkpoint_before(base, pipeline, tmp_path, monkeypatch):
    train_ddpo(pipeline, PROMPTS, redness, replace(TOY, epochs=1), folder=tmp_path)

    def full(*_, **__):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched, pytest.raises(StoreError, match=r"No space left .*checkpoint_00001 keeps"):
        patched.setattr("textnorm_lib.optimise.training.save", full)
        train_ddpo(with_lora(base), PROMPTS, redness, SHORT, folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_00000", "checkpoint_00001", "curve.jsonl"]
    assert len(train_ddpo(with_lora(base), PROMPTS, redness, SHORT, folder=tmp_path)) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 0}, "epochs = 0 .int.: input should be greater than 0"),
        ({"images_per_epoch": 9}, "images_per_epoch = 9: give a multiple of batch_size"),
        ({"updates_per_epoch": 9}, "updates_per_epoch = 9: 8 at most"),
        ({"untrained_steps": 3}, "untrained_steps = 3: of 3, leave one"),
        ({"guidance_scale": 0.5}, "guidance_scale = 0.5 .float.: input should be greater than or equal to 1"),
        ({"dtype": "int8"}, "dtype = 'int8' .str.: input should be 'float32', 'bfloat16' or 'float16'"),
        ({"learning_rate": float("nan")}, "learning_rate = nan .float.: input should be a finite number"),
        ({"kl_coefficient": -1.0}, "kl_coefficient = -1.0 .float.: input should be greater than or equal to 0"),
        ({"min_count": 9}, "min_count = 9: buffer_size, .*is the most there can be"),
        ({"beta_1": 1.0}, "beta_1 = 1.0 .float.: input should be less than 1"),
        ({"beta_2": -0.5}, "beta_2 = -0.5 .float.: input should be greater than or equal to 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(change, said):
    with pytest.raises(ConfigError, match=said):
        replace(TOY, **change)


def test_the_papers_settings_are_those_of_its_appendix():
    told = (PAPER.denoising_steps, PAPER.guidance_scale, PAPER.batch_size, PAPER.images_per_epoch, PAPER.epochs)
    assert told == (50, 5.0, 64, 256, 500) and PAPER.updates_per_epoch == 1 and PAPER.dtype == "float16"
    assert (PAPER.learning_rate, PAPER.weight_decay, PAPER.epsilon) == (3e-4, 1e-4, 1e-8)
    assert (PAPER.beta_1, PAPER.beta_2, PAPER.max_gradient_norm) == (0.9, 0.999, 1.0)


@pytest.mark.parametrize("prompts", [[], [PROMPTS[0]] * 2])
def test_no_prompts_and_prompts_given_twice_are_refused(pipeline, tmp_path, prompts):
    with pytest.raises(ConfigError, match="each once"):
        train_ddpo(pipeline, prompts, redness, TOY, folder=tmp_path)


def test_a_pipeline_without_an_adapter_is_refused(base, tmp_path):
    frozen = copy.deepcopy(base)
    frozen.unet.requires_grad_(False)
    with pytest.raises(ConfigError, match="call add_lora"):
        train_ddpo(frozen, PROMPTS, redness, TOY, folder=tmp_path)
