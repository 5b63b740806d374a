"""The distilled generator at toy size: what it learns from, that it learns, and how diffusers samples it."""

import pytest
import torch

from textnorm_lib.images.sampling import load_pipeline
from textnorm_lib.mini.training import distil
from textnorm_lib.mini.training.fit import curves
from textnorm_lib.mini.training.plan import Recipe
from textnorm_lib.optimise.denoising import ddim_steps
from textnorm_lib.study.weights import Weights

TEACHER = Weights("bundled:generator")
CAPTIONS = ["a realistic photo of a dog", "two cats", "a realistic photo of three apples"]
RECIPE = Recipe(steps=12, learning_rate=3e-4, batch_size=6, warmup=1, average_decay=0.5)


@pytest.fixture(scope="module")
def trajectories(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trajectories")
    return distil.make_trajectories(TEACHER, CAPTIONS, folder, seed=1, workers=1)


def test_trajectories_begin_with_noise_and_end_with_what_the_teacher_makes(trajectories):
    assert trajectories.shape == (3, distil.STEPS + 1, 4, 16, 16) and trajectories.dtype == torch.float16
    assert trajectories[:, 0].std() == pytest.approx(1, abs=0.05)
    pipeline = load_pipeline("bundled:generator")
    pipeline.scheduler = distil.trailing(pipeline.scheduler)
    made = pipeline(
        CAPTIONS,
        latents=trajectories[:, 0].float(),
        num_inference_steps=distil.TEACHER_STEPS,
        guidance_scale=distil.GUIDANCE,
        output_type="latent",
    ).images
    assert (made - trajectories[:, -1].float()).abs().max() < 0.05  # the first noise was rounded to half precision


def test_files_that_are_there_are_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(distil, "PART", 2)
    whole = distil.make_trajectories(TEACHER, CAPTIONS, tmp_path, seed=1, workers=1)
    first, second = sorted(tmp_path.iterdir())
    before = first.stat().st_mtime_ns
    second.unlink()
    assert torch.equal(distil.make_trajectories(TEACHER, CAPTIONS, tmp_path, seed=1, workers=1), whole)
    assert first.stat().st_mtime_ns == before


def test_a_student_that_takes_the_teachers_own_steps_has_nothing_to_learn(tmp_path, monkeypatch):
    monkeypatch.setattr(distil, "TEACHER_STEPS", distil.STEPS)
    monkeypatch.setattr(distil, "GUIDANCE", 1.0)
    own = distil.make_trajectories(TEACHER, CAPTIONS, tmp_path / "own", seed=1, workers=1)
    distil.distil(
        load_pipeline("bundled:generator"), own, CAPTIONS, Recipe(1, 0.0, batch_size=12), folder=tmp_path / "fit"
    )
    assert curves(tmp_path)["loss"].item() < 1e-4


def test_it_learns_and_samples_in_four_passes_at_trailing_times(trajectories, tmp_path):
    pipeline = load_pipeline("bundled:generator")
    distil.distil(pipeline, trajectories, CAPTIONS, RECIPE, folder=tmp_path / "fit")
    losses = curves(tmp_path)["loss"]
    assert losses.tail(4).mean() < 0.8 * losses.head(4).mean()
    pipeline.save_pretrained(tmp_path / "student")
    student = load_pipeline(str(tmp_path / "student"))
    assert ddim_steps(student.scheduler, distil.STEPS).timesteps.tolist() == [999, 749, 499, 249]
    passes = []
    student.unet.register_forward_hook(lambda *_: passes.append(1))
    images = student(CAPTIONS, num_inference_steps=distil.STEPS, guidance_scale=1.0, output_type="np").images
    assert len(passes) == distil.STEPS and images.shape == (3, 64, 64, 3)
