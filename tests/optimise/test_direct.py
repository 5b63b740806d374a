"""Direct reward gradients: their gradient is that of the reward of diffusers' images, runs resume, errors are told."""

import copy
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toys import importable, toy_pipeline

from textnorm_lib.images.sampling import load_pipeline
from textnorm_lib.optimise.direct import Settings, _Direct, train_direct
from textnorm_lib.optimise.training import ATTENTION, FILE, add_lora
from textnorm_lib.study.errors import ConfigError, StudyError

PROMPTS = ["a deer", "two frogs", "a ship"]
TOY = Settings(
    steps=4,
    batch_size=4,
    images_per_prompt=2,
    denoising_steps=3,
    gradient_steps=2,
    guidance_scale=2.0,
    dtype="float32",
    learning_rate=1e-2,
    save_every=2,
)


class Redness:
    """Red minus the mean of green and blue; notes what it is shown."""

    def __init__(self):
        self.prompts, self.images = [], []

    def differentiable(self, images, prompts):
        self.prompts.append(list(prompts))
        self.images.append(images.detach().clone())
        return images[:, 0].mean(dim=(1, 2)) - images[:, 1:].mean(dim=(1, 2, 3))


@pytest.fixture(scope="module")
def base():
    return toy_pipeline(PROMPTS, channels=(32, 32))


def with_lora(base, *, tuned: float = 0.0):
    pipeline, generator = copy.deepcopy(base), torch.Generator().manual_seed(1)
    for value in add_lora(pipeline, rank=2, targets=ATTENTION, generator=generator):
        value.data += tuned * torch.randn(value.shape, generator=generator)
    return pipeline


def _adapter(pipeline) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in pipeline.unet.named_parameters() if value.requires_grad}


def _equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_images_are_those_that_diffusers_makes_of_the_same_noise(base, tmp_path):
    pipeline, reward = with_lora(base, tuned=0.3), Redness()
    run = _Direct(pipeline, PROMPTS, reward, TOY, tmp_path)
    places, seeds = run._plan(0)
    assert [PROMPTS[place] for place in places] == ["a deer", "a deer", "two frogs", "two frogs"]
    run.step(0)
    noise = torch.stack([torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    options = {"num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "pt"}
    made = with_lora(base, tuned=0.3)(reward.prompts[0], latents=noise, **options).images
    torch.testing.assert_close(reward.images[0], made, atol=1e-4, rtol=0)


def test_the_gradient_is_the_rewards_slope_and_k_says_through_how_many_steps(base, tmp_path):
    """Where all steps pass the gradient, a small step along it raises the reward by as much as it says."""
    whole = replace(TOY, gradient_steps=3)
    run = _Direct(with_lora(base, tuned=0.3), PROMPTS, Redness(), whole, tmp_path)
    places, seeds = run._plan(0)

    def reward():
        images, _ = run._images(run.texts[places], seeds)
        return run.reward.differentiable(images, [PROMPTS[place] for place in places]).mean()

    before = reward()
    gradient = torch.autograd.grad(before, run.parameters)
    norm = math.sqrt(sum(part.square().sum().item() for part in gradient))
    step = 1e-2 / norm
    with torch.no_grad():
        for value, part in zip(run.parameters, gradient, strict=True):
            value += step * part
    assert (reward() - before).item() == pytest.approx(step * norm**2, rel=0.1)
    norms = []
    for count in (1, 2, 3):
        one = _Direct(with_lora(base, tuned=0.3), PROMPTS, Redness(), replace(TOY, gradient_steps=count), tmp_path)
        norms.append(one.step(0)["gradient_norm"])
    assert len(set(norms)) == 3 and norms[2] == pytest.approx(norm, rel=1e-4)


def test_the_scale_divides_the_gradient_and_the_divergence_is_zero_at_the_base(base, tmp_path):
    plain, scaled = (
        _Direct(with_lora(base), PROMPTS, Redness(), replace(TOY, **more), tmp_path).step(0)
        for more in ({}, {"reward_scale": 4.0, "kl_coefficient": 1.0})
    )
    assert plain["reward"] == scaled["reward"] and plain["kl"] is None and scaled["kl"] == 0
    assert plain["gradient_norm"] == pytest.approx(4 * scaled["gradient_norm"], rel=1e-4)
    tuned = _Direct(with_lora(base, tuned=0.3), PROMPTS, Redness(), replace(TOY, kl_coefficient=1.0), tmp_path)
    assert tuned.step(0)["kl"] > 0


def test_checkpointed_gradients_are_the_same(base, tmp_path):
    rows = [
        _Direct(with_lora(base), PROMPTS, Redness(), replace(TOY, gradient_checkpointing=on), tmp_path).step(0)
        for on in (False, True)
    ]
    assert rows[0]["gradient_norm"] == pytest.approx(rows[1]["gradient_norm"], rel=1e-5)


@pytest.mark.parametrize(("kl_coefficient", "least", "most"), [(0.0, 0.1, 1.0), (1e3, -0.05, 0.05)])
def test_it_learns_a_colour_and_stays_where_the_divergence_weighs_much(tmp_path, kl_coefficient, least, most):
    pipeline = load_pipeline("bundled:generator")
    pipeline.unet.register_to_config(sample_size=8)  # images of 32 pixels
    add_lora(pipeline, rank=4, targets=ATTENTION, generator=torch.Generator().manual_seed(0))
    settings = replace(TOY, steps=15, guidance_scale=1.0, kl_coefficient=kl_coefficient, save_every=15)
    curve = train_direct(pipeline, ["a deer", "two frogs"], Redness(), settings, folder=tmp_path)
    assert list(curve) == ["step", "reward", "kl", "gradient_norm", "images_per_s"] and len(curve) == 15
    assert least < curve["reward"].tail(3).mean() - curve["reward"].head(2).mean() < most


class _Stop(BaseException):
    """As a kill: nothing may catch it."""


class _Stopping(Redness):
    def differentiable(self, images, prompts):
        if len(self.prompts) == 3:
            raise _Stop
        return super().differentiable(images, prompts)


def test_a_run_that_was_stopped_gives_the_weights_and_the_curve_of_one_that_was_not(base, tmp_path):
    whole, resumed = with_lora(base), with_lora(base)
    curve = train_direct(whole, PROMPTS, Redness(), TOY, folder=tmp_path / "whole")
    with pytest.raises(_Stop):
        train_direct(with_lora(base), PROMPTS, _Stopping(), TOY, folder=tmp_path / "cut")
    again = train_direct(resumed, PROMPTS, Redness(), TOY, folder=tmp_path / "cut")
    assert _equal(_adapter(whole), _adapter(resumed)) and not _equal(_adapter(whole), _adapter(with_lora(base)))
    assert curve.drop(columns="images_per_s").equals(again.drop(columns="images_per_s"))
    with pytest.raises(ConfigError, match="another learning_rate"):
        train_direct(with_lora(base), PROMPTS, Redness(), replace(TOY, learning_rate=1e-3), folder=tmp_path / "cut")


SCRIPT = """
from pathlib import Path
import torch
torch.set_num_threads(1)
from test_direct import PROMPTS, TOY, Redness, toy_pipeline, train_direct, with_lora
train_direct(with_lora(toy_pipeline(PROMPTS, channels=(32, 32))), PROMPTS, Redness(), TOY, folder=Path({folder!r}))
"""


def test_two_processes_give_what_one_gives(base, tmp_path):
    train_direct(with_lora(base), PROMPTS, Redness(), TOY, folder=tmp_path / "one")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(folder=str(tmp_path / "two")))
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = importable(Path(__file__).parent)
    done = subprocess.run([*launch, str(script)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    weights = [load_file(tmp_path / name / "checkpoint_00004" / FILE) for name in ("one", "two")]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)


class _Bad:
    def __init__(self, kind):
        self.kind = kind

    def differentiable(self, images, prompts):
        values = images.mean(dim=(1, 2, 3))
        if self.kind == "raises":
            raise ValueError("no\nsuch thing")
        return {"nan": values * math.nan, "few": values[:1], "cut": values.detach()}[self.kind]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("nan", "step 1: the reward is no finite number for 4 of 4 images"),
        ("raises", "the reward raised ValueError: no such thing"),
        ("few", r"the reward has shape \(1,\) for 4 images"),
        ("cut", "the reward passes no gradient to the images; compute it in torch"),
    ],
)
def test_a_reward_that_fails_is_one_line(base, tmp_path, kind, said):
    with pytest.raises(StudyError, match=said) as caught:
        train_direct(with_lora(base), PROMPTS, _Bad(kind), TOY, folder=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 3}, "batch_size = 3: it is not a multiple of images_per_prompt = 2"),
        ({"gradient_steps": 4}, "gradient_steps = 4: there are only 3; take fewer"),
        ({"reward_scale": 0.0}, "reward_scale = 0.0"),
    ],
)
def test_settings_that_make_no_sense_are_named(change, said):
    with pytest.raises(ConfigError, match=said):
        replace(TOY, **change)


def test_prompts_given_twice_are_refused(base, tmp_path):
    with pytest.raises(ConfigError, match="give one or more, each once"):
        train_direct(with_lora(base), ["a deer", "a deer"], Redness(), TOY, folder=tmp_path)
