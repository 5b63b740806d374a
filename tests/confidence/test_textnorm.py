"""TextNorm: equations 1 to 3 against plain loops in double precision, and the reward built on them."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from toys import bundled_reward

from textnorm_lib.confidence.textnorm import TextNormReward, mean_ensemble, textnorm, uncertainty_ensemble
from textnorm_lib.rewards import load_reward
from textnorm_lib.study.errors import ConfigError, DataError

TOLERANCES = {torch.float64: 1e-14, torch.float32: 3e-7, torch.float16: 1e-3, torch.bfloat16: 8e-3}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def equation_1(scores: list[float], temperature: float) -> float:
    """One image's value; numerator and denominator are divided by the numerator, so that nothing is 0 / 0."""
    total = 0.0
    for score in scores:
        exponent = (score - scores[0]) / temperature
        total += math.exp(exponent) if exponent < 700 else math.inf
    return 1 / total


def equation_3(rewards: list[float], penalty: float) -> float:
    mean = sum(rewards) / len(rewards)
    return mean - penalty / len(rewards) * sum((reward - mean) ** 2 for reward in rewards)


def by_rows(scores, temperature: float) -> np.ndarray:
    rows = torch.as_tensor(scores).double().reshape(-1, scores.shape[-1]).tolist()
    return np.array([equation_1(row, temperature) for row in rows]).reshape(scores.shape[:-1])


def random_scores(rng: np.random.Generator) -> np.ndarray:
    """Any shape, m from 0 to 8, sizes from 0.001 to 10,000, around any level, often with ties."""
    shape = (*rng.integers(0, 4, size=rng.integers(0, 3)), rng.integers(1, 10))
    size = 10.0 ** rng.uniform(-3, 4)
    scores = size * rng.normal(size=shape) + rng.choice([0.0, size, -1e4, 1e4])
    return np.round(scores / size, 1) * size if rng.random() < 0.3 else scores


def _one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_small_scores_follow_the_equation_as_it_is_written():
    expected = math.exp(1.5 / 0.5) / (math.exp(1.5 / 0.5) + math.exp(0.2 / 0.5) + math.exp(-1.0 / 0.5))
    assert textnorm(np.array([1.5, 0.2, -1.0]), 0.5) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("seed", range(60))
def test_equation_1_on_any_scores_and_temperatures(seed):
    rng = np.random.default_rng(seed)
    scores, temperature = random_scores(rng), 10.0 ** rng.uniform(-3, 3)
    for dtype, tolerance in TOLERANCES.items():
        tensor = torch.from_numpy(scores).to(dtype)
        found = textnorm(tensor, temperature)
        assert found.dtype == dtype and found.shape == scores.shape[:-1]
        np.testing.assert_allclose(found.double().numpy(), by_rows(tensor, temperature), rtol=0, atol=tolerance)
        if dtype in (torch.float16, torch.bfloat16):  # rounded once, at the end
            assert torch.equal(found, textnorm(tensor.float(), temperature).to(dtype))
    for dtype in (np.float64, np.float32, np.float16):
        given = scores.astype(dtype)
        found, kept = textnorm(given, temperature), given.copy()
        assert found.dtype == dtype and found.shape == scores.shape[:-1]
        tolerance = TOLERANCES[torch.from_numpy(kept).dtype]
        np.testing.assert_allclose(found, by_rows(kept, temperature), rtol=0, atol=tolerance)
        np.testing.assert_array_equal(given, kept)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("temperature", [1e-3, 0.1, 1.0, 1e3])
def test_hard_scores(temperature, device):
    apart, level = ([1e4, -1e4], [-1e4, 1e4], [-1e30, 1e30]), ([7.0], [0.0, 0.0], [1e4, 1e4, 1e4], [1e4, 9999.999])
    for row in (*apart, *level):
        for dtype in (torch.float32, torch.float64):
            scores = torch.tensor(row, dtype=dtype, device=device)
            found = textnorm(scores, temperature)
            assert found.device == scores.device
            assert found.item() == pytest.approx(equation_1(scores.tolist(), temperature), abs=3e-7)


def test_arrays_of_any_layout_give_the_same():
    scores = np.random.default_rng(0).normal(size=(6, 4))
    expected = textnorm(scores, 0.5)
    frozen = scores.copy()
    frozen.flags.writeable = False
    for same in (np.asfortranarray(scores), frozen, scores[::-1][::-1], np.repeat(scores, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(textnorm(same, 0.5), expected)
    np.testing.assert_array_equal(textnorm(scores[::-1], 0.5), expected[::-1])


@pytest.mark.parametrize("seed", range(10))
def test_a_constant_added_changes_nothing_and_a_higher_own_score_never_lowers_it(seed):
    rng = np.random.default_rng(seed)
    scores, temperature = rng.normal(size=(50, 5)), 10.0 ** rng.uniform(-1, 1)
    found = textnorm(scores, temperature)
    np.testing.assert_allclose(textnorm(scores + rng.normal(size=(50, 1)), temperature), found, rtol=1e-12)
    np.testing.assert_allclose(textnorm(scores * 3, temperature * 3), found, rtol=1e-12)
    raised = np.stack([scores + np.eye(5)[0] * step for step in np.linspace(0, 2, 9)])
    assert (np.diff(textnorm(raised, temperature), axis=0) > 0).all()
    raised = np.stack([scores + np.eye(5)[2] * step for step in np.linspace(0, 2, 9)])
    assert (np.diff(textnorm(raised, temperature), axis=0) < 0).all()


def test_limits_of_the_temperature():
    scores = np.array([[3.0, 1.0, 2.0], [1.0, 3.0, 2.0], [3.0, 3.0, 1.0], [3.0, 3.0, 3.0]])
    np.testing.assert_allclose(textnorm(scores, 1e9), 1 / 3, rtol=1e-8)
    np.testing.assert_allclose(textnorm(scores, 1e-9), [1, 0, 1 / 2, 1 / 3], rtol=1e-12)
    near = textnorm(np.array([[0.3, 0.1, -0.7]]), 1e4)  # first order: (1 + (r_0 - mean of all r) / tau) / (1 + m)
    np.testing.assert_allclose(near, (1 + (0.3 + 0.1) / 1e4) / 3, rtol=1e-8)


@pytest.mark.parametrize("seed", range(20))
def test_sets_of_different_sizes_in_one_array_are_each_what_they_are_alone(seed):
    rng = np.random.default_rng(seed)
    scores, mask = rng.normal(size=(6, 3, 7)) * 10, rng.random((6, 1, 7)) < 0.5
    mask[..., 0] = True
    padded = np.where(mask, scores, rng.choice([np.nan, np.inf, -np.inf, 1e300], size=scores.shape))
    found = textnorm(padded, 2.0, mask=mask)
    for prompt in range(6):
        alone = textnorm(scores[prompt][:, mask[prompt, 0]], 2.0)
        np.testing.assert_allclose(found[prompt], alone, rtol=1e-13)
    tensor = torch.from_numpy(padded)
    np.testing.assert_array_equal(textnorm(tensor, 2.0, mask=mask).numpy(), found)
    np.testing.assert_array_equal(textnorm(tensor, 2.0, mask=torch.from_numpy(mask)).numpy(), found)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_gradients_are_those_of_the_equation(temperature, masked):
    scores = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores[1] = 0.7  # ties
    mask = torch.tensor([True, True, False, True, False]) if masked else None
    assert torch.autograd.gradcheck(partial(textnorm, temperature=temperature, mask=mask), scores.requires_grad_())


def test_gradients_stay_finite_at_hard_scores_and_do_not_reach_what_is_masked():
    scores = torch.tensor([[1e4, -1e4, torch.nan], [-1e30, 1e30, torch.inf], [1.0, 1.0, 0.0]], requires_grad=True)
    textnorm(scores, 1e-3, mask=torch.tensor([True, True, False])).sum().backward()
    expected = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [250.0, -250.0, 0.0]])
    torch.testing.assert_close(scores.grad, expected)


@pytest.mark.parametrize("temperature", [0, 0.0, -1.0, math.nan, math.inf, -math.inf, 1e-60])
def test_a_temperature_that_is_not_positive_and_finite_is_refused(temperature):
    for refuse in (partial(textnorm, np.zeros(3)), partial(TextNormReward, [Table("a")], SETS)):
        with pytest.raises(ConfigError, match=f"temperature is {temperature}: a finite number above 0") as caught:
            refuse(temperature)
        _one_line(caught)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_no_number_is_refused_by_its_index(bad, kind):
    values = kind([[0.0, 1.0, 2.0], [0.0, bad, 2.0], [bad, 1.0, 2.0]])
    with pytest.raises(DataError, match=rf"scores\[1, 1\] is {bad}: a finite number is needed"):
        textnorm(values, 1.0)
    with pytest.raises(DataError, match=rf"scores\[2, 0\] is {bad}"):
        textnorm(values, 1.0, mask=[True, False, True])
    with pytest.raises(DataError, match=rf"rewards\[1, 1\] is {bad}"):
        mean_ensemble(values)


@pytest.mark.parametrize(
    ("scores", "mask", "message"),
    [
        (np.array([1, 2]), None, "scores is int64: floats"),
        (torch.tensor([1, 2]), None, "scores is torch.int64: floats"),
        (np.array(["a"], dtype=object), None, "scores is object: floats"),
        (np.array([1j]), None, "scores is complex128: floats"),
        ([1.0, 2.0], None, "scores is list: floats"),
        (np.array(1.0), None, r"scores has shape \(\)"),
        (np.zeros((3, 0)), None, r"scores has shape \(3, 0\)"),
        (np.zeros((3, 2)), np.array([True, False, True]), r"mask is torch.bool \(3,\): .* fit scores \(3, 2\)"),
        (np.zeros((3, 2)), np.ones((1, 3, 2), dtype=bool), r"mask is torch.bool \(1, 3, 2\)"),
        (np.zeros((3, 2)), np.array([1, 0]), r"mask is torch.int64 \(2,\)"),
        (np.zeros((3, 2)), np.array([[True, True], [False, True], [True, True]]), "mask leaves out column 0"),
    ],
)
def test_unusable_scores_and_masks_are_refused(scores, mask, message):
    with pytest.raises(DataError, match=message) as caught:
        textnorm(scores, 1.0, mask=mask)
    _one_line(caught)


@pytest.mark.parametrize("seed", range(20))
def test_equations_2_and_3(seed):
    rng = np.random.default_rng(seed)
    rewards, penalty = rng.random((rng.integers(1, 6), 4, 3)), np.float64(rng.choice([0.0, 0.05, 1.0, 20.0]))
    columns = rewards.reshape(len(rewards), -1).T.tolist()
    for function, expected in (
        (mean_ensemble, [sum(column) / len(column) for column in columns]),
        (partial(uncertainty_ensemble, penalty=penalty), [equation_3(column, penalty) for column in columns]),
    ):
        expected = np.reshape(expected, (4, 3))
        found = function(rewards)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
        for dtype, tolerance in TOLERANCES.items():
            found = function(torch.from_numpy(rewards).to(dtype))
            assert found.dtype == dtype and found.shape == (4, 3)
            np.testing.assert_allclose(found.double(), expected, rtol=0, atol=max(4 * (1 + penalty) * tolerance, 1e-13))
        assert function(rewards.astype(np.float32)).dtype == np.float32


def test_the_variance_is_that_of_the_population():
    assert uncertainty_ensemble(np.array([0.2, 0.8]), 1.0) == pytest.approx(0.5 - 0.3**2)
    assert uncertainty_ensemble(np.array([0.2]), 5.0) == 0.2
    rewards = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(partial(uncertainty_ensemble, penalty=0.5), rewards)


@pytest.mark.parametrize("penalty", [-0.1, math.nan, math.inf])
def test_a_penalty_that_is_negative_or_not_finite_is_refused(penalty):
    for refuse in (
        partial(uncertainty_ensemble, np.zeros((2, 3))),
        partial(TextNormReward, [Table("a")], SETS, 1.0, "uncertainty"),
    ):
        with pytest.raises(ConfigError, match=f"penalty is {penalty}: a finite number of 0 or more"):
            refuse(penalty)


def test_an_ensemble_of_nothing_is_refused():
    for rewards in (np.zeros((0, 3)), np.array(0.5)):
        with pytest.raises(DataError, match="one reward or more"):
            mean_ensemble(rewards)
    with pytest.raises(ConfigError, match="rewards is empty"):
        TextNormReward([], SETS, 1.0)


class Table:
    """A reward that tells images apart by their first pixel, and notes what it is asked."""

    def __init__(self, name: str, factor: int = 7) -> None:
        self.name, self.factor, self.calls = name, factor, []

    def score_matrix(self, images, prompts) -> np.ndarray:
        pixels = [int(np.asarray(image)[0, 0, 0]) for image in images]
        self.calls.append((pixels, list(prompts)))
        return np.array([[self.one(pixel, prompt) for prompt in prompts] for pixel in pixels], dtype=np.float32)

    def one(self, pixel: int, prompt: str) -> float:
        return (self.factor * pixel + 13 * sum(map(ord, prompt))) % 29 / 5


SETS = {
    "two dogs": ["three dogs", "two cats"],
    "a cat": ["two cats", "a dog", "three cats"],
    "a ship": ["a truck"],
}
PROMPTS = ["a cat", "two dogs", "a cat", "a ship", "two dogs", "a cat"]


@pytest.fixture
def images() -> np.ndarray:
    """Six images, uint8, each of one grey."""
    return np.repeat(np.array([3, 250, 91, 17, 8, 128], dtype=np.uint8), 8 * 8 * 3).reshape(6, 8, 8, 3)


@pytest.mark.parametrize("options", [{}, {"ensemble": "uncertainty", "penalty": 2.0}])
def test_each_image_is_scored_against_its_own_prompts_set(options, images):
    tables = [Table("a"), Table("b", 11), Table("c", 5)]
    found = TextNormReward(tables, SETS, 0.7, **options).score(images, PROMPTS)
    assert found.dtype == np.float32 and found.shape == (6,)
    for value, image, prompt in zip(found, images, PROMPTS, strict=True):
        texts, pixel = [prompt, *SETS[prompt]], int(image[0, 0, 0])
        each = [equation_1([table.one(pixel, text) for text in texts], 0.7) for table in tables]
        assert value == pytest.approx(equation_3(each, options.get("penalty", 0.0)), abs=1e-6)
    assert np.ptp(found) > 0.1


def test_each_image_is_looked_at_once_and_meets_its_own_set_alone(images):
    table = Table("a")
    TextNormReward([table], SETS, 1.0).score(images, PROMPTS)
    assert table.calls == [
        ([3, 91, 128], ["a cat", *SETS["a cat"]]),
        ([250, 8], ["two dogs", *SETS["two dogs"]]),
        ([17], ["a ship", *SETS["a ship"]]),
    ]


def test_order_and_company_change_no_images_reward(images):
    reward = TextNormReward([Table("a"), Table("b", 11)], SETS, 1.0)
    together = reward.score(images, PROMPTS)
    np.testing.assert_array_equal(reward.score(images[::-1], PROMPTS[::-1]), together[::-1])
    alone = [reward.score(images[place : place + 1], PROMPTS[place : place + 1])[0] for place in range(6)]
    np.testing.assert_array_equal(alone, together)


def test_a_contrastive_set_is_a_set_without_the_prompt_itself(images):
    careless = SETS | {"two dogs": ["three dogs", "two dogs", "two cats", "three dogs", "two cats"]}
    clean, linted = (TextNormReward([Table("a")], sets, 1.0).score(images, PROMPTS) for sets in (SETS, careless))
    np.testing.assert_array_equal(clean, linted)


def test_a_function_may_give_the_contrastive_prompts_and_is_asked_once_a_prompt(images):
    asked = []

    def write(prompt: str) -> list[str]:
        asked.append(prompt)
        return SETS[prompt]

    found = TextNormReward([Table("a")], write, 1.0).score(images, PROMPTS)
    np.testing.assert_array_equal(found, TextNormReward([Table("a")], SETS, 1.0).score(images, PROMPTS))
    assert asked == ["a cat", "two dogs", "a ship"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "prompt 'a ship' has no contrastive prompts"),
        ({"a ship": []}, "prompt 'a ship' has no contrastive prompts"),
        ({"a ship": ["a ship"]}, "prompt 'a ship' has no contrastive prompts"),
        ({"a ship": "a truck"}, "prompt 'a ship': its contrastive prompts are a single text, 'a truck'"),
    ],
)
def test_a_prompt_without_a_set_is_named_before_anything_is_scored(given, message, images):
    table, sets = Table("a"), {prompt: SETS[prompt] for prompt in ("two dogs", "a cat")} | given
    for contrastive in (sets, lambda prompt: sets.get(prompt, [])):
        with pytest.raises(DataError, match=message) as caught:
            TextNormReward([table], contrastive, 1.0).score(images, PROMPTS)
        _one_line(caught)
    assert table.calls == []


@pytest.mark.parametrize("prompts", ["a cat", PROMPTS[:5], []])
def test_images_need_one_prompt_each(prompts, images):
    with pytest.raises(DataError, match=r"6 images and prompts .* one prompt an image"):
        TextNormReward([Table("a")], SETS, 1.0).score(images, prompts)
    with pytest.raises(DataError, match="0 images"):
        TextNormReward([Table("a")], SETS, 1.0).score([], [])


def test_what_a_reward_refuses_is_told_with_the_prompt(images, monkeypatch):
    def refuse(images, prompts):
        raise DataError("a: image 1 cannot be read")

    table = Table("a")
    monkeypatch.setattr(table, "score_matrix", refuse)
    with pytest.raises(DataError, match="among the images of prompt 'a cat': a: image 1 cannot be read"):
        TextNormReward([table], SETS, 1.0).score(images, PROMPTS)


def test_the_ensembles_options_are_checked():
    with pytest.raises(ConfigError, match=r"ensemble is 'median'; known: mean, uncertainty"):
        TextNormReward([Table("a")], SETS, 1.0, ensemble="median")
    with pytest.raises(ConfigError, match=r"penalty is 0.5, but the mean ensemble has none"):
        TextNormReward([Table("a")], SETS, 1.0, penalty=0.5)


def test_a_trainers_call_gives_the_scores_and_what_they_are_made_of(images):
    tables = [Table("a"), Table("b", 11), Table("a", 5)]
    reward = TextNormReward(tables, SETS, 1.0, "uncertainty", 0.5)
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    rewards, info = reward(tensor.requires_grad_(), tuple(PROMPTS), ({},) * 6)
    assert rewards.dtype == torch.float32 and not rewards.requires_grad
    np.testing.assert_array_equal(rewards, reward.score(images, PROMPTS))
    assert list(info) == ["a_0", "b", "a_2", "spread"]
    for name, table in zip(info, tables, strict=False):
        np.testing.assert_array_equal(info[name], TextNormReward([table], SETS, 1.0).score(images, PROMPTS))
    each = torch.stack([info[name] for name in reward.names])
    torch.testing.assert_close(info["spread"], each.std(dim=0, correction=0))
    torch.testing.assert_close(rewards, each.mean(dim=0) - 0.5 * info["spread"] ** 2)


@pytest.mark.parametrize("options", [{}, {"ensemble": "uncertainty", "penalty": 0.5}])
def test_gradients_pass_to_images_and_values_are_the_scores(options):
    rewards = [load_reward(name, folder=bundled_reward(name)) for name in ("pickscore", "imagereward")]
    sets = {"two dogs": ["three dogs", "two cats"], "a ship": ["a truck"]}
    reward, prompts = TextNormReward(rewards, sets, (2.0, 1.0), **options), ["two dogs", "a ship", "two dogs"]
    drawn = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    shown = (torch.from_numpy(drawn).permute(0, 3, 1, 2) / 255).requires_grad_()
    values = reward.differentiable(shown, prompts)
    np.testing.assert_allclose(values.detach(), reward.score(drawn, prompts), atol=1e-5)
    values.sum().backward()
    assert (shown.grad.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_images_may_be_tensors_of_any_float_type_arrays_or_pictures(images):
    reward = TextNormReward([Table("a")], SETS, 1.0)
    expected = torch.from_numpy(reward.score(images, PROMPTS))
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    pictures = [Image.fromarray(image) for image in images]
    for same in (images, pictures, tensor, tensor.double(), tensor.half(), tensor + 0.001, tensor - 0.001):
        torch.testing.assert_close(reward(same, PROMPTS)[0], expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor * 2 - 1, r"image 0 has values from -0.9\d* to"),
        (lambda tensor: tensor * 255, "image 0 has values from 3 to 3; 0 to 1 are needed"),
        (lambda tensor: tensor.index_fill(0, torch.tensor([4]), torch.nan), "image 4 has values from nan"),
        (lambda tensor: (tensor * 255).to(torch.uint8), r"images are torch.uint8 \(6, 3, 8, 8\)"),
        (lambda tensor: tensor.permute(0, 2, 3, 1), r"images are torch.float32 \(6, 8, 8, 3\)"),
        (lambda tensor: tensor[0], r"images are torch.float32 \(3, 8, 8\)"),
    ],
)
def test_tensors_that_are_no_images_are_refused(change, message, images):
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    with pytest.raises(DataError, match=message) as caught:
        TextNormReward([Table("a")], SETS, 1.0)(change(tensor), PROMPTS)
    _one_line(caught)
