"""The mini world from nothing to its bundled weights, stage by stage.

    plan, folder = BUNDLED, Path("artifacts/mini_training")
    for stage in STAGES:
        stage(plan, folder, weights)

A stage reads what earlier stages wrote to ``weights`` (laid out as the bundle is), trains in ``folder`` and writes its
own part to ``weights``. It goes on where it was stopped, and a stage that is done is done again in seconds. Everything
follows from the plan's numbers and seeds.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from textnorm_lib.images.sampling import generate, load_pipeline, plan_images
from textnorm_lib.mini import generator as model
from textnorm_lib.mini.annotators import load_annotator, read_images
from textnorm_lib.mini.reward_models import save_reward
from textnorm_lib.mini.training import distil, judges, spoil
from textnorm_lib.mini.training import rewards as train_rewards
from textnorm_lib.mini.training import scenes as train
from textnorm_lib.mini.training.doses import measure_doses
from textnorm_lib.mini.training.fit import curves, thinned
from textnorm_lib.mini.training.measure import measure_annotators, measure_development, measure_quality
from textnorm_lib.mini.training.plan import (
    CALIBRATION_SEED,
    DOSES,
    JUDGES,
    PREFERENCE_ANNOTATORS,
    PREFERENCE_SEED,
    QUALITY_JUDGES,
    SCENE_SEEDS,
    TRAJECTORY_SEED,
    Plan,
    dosed,
)
from textnorm_lib.mini.training.preferences import collect_preferences, mean_faults
from textnorm_lib.prompts.grammar import Spec, parse, write
from textnorm_lib.prompts.sets import sample_spec
from textnorm_lib.study.weights import WEIGHTS, Weights, write_digests


def make_autoencoder(plan: Plan, folder: Path, weights: Path) -> None:
    """Images to latents and back."""
    options = {"folder": folder / "autoencoder", "device": plan.device}
    autoencoder = train.train_autoencoder(_scenes(plan, folder), plan.autoencoder, **options)
    autoencoder.cpu().half().save_pretrained(weights / "generator" / "vae")


def make_generator(plan: Plan, folder: Path, weights: Path) -> None:
    """Text encoder and U-Net; what is written is a whole StableDiffusionPipeline."""
    from diffusers import AutoencoderKL

    scenes = _scenes(plan, folder)
    autoencoder = AutoencoderKL.from_pretrained(weights / "generator" / "vae", local_files_only=True)
    latents = train.encode(autoencoder.to(plan.device), scenes.images, device=plan.device)
    latents = latents * autoencoder.config.scaling_factor
    tokenizer = _tokenizer(scenes)
    data, device = (latents, scenes.captions, tokenizer), plan.device
    denoiser = train.train_generator(*data, plan.generator, folder=folder / "generator", device=device)
    rates = torch.tensor([1.0 if _is_plain(parse(caption)) else train.RARE_FORMS for caption in scenes.captions])
    tuning = {"folder": folder / "generator_tuning", "denoiser": denoiser, "rates": rates, "device": device}
    train.train_generator(*data, plan.generator_tuning, **tuning).cpu()
    pipeline = model.build_pipeline(autoencoder.cpu(), denoiser.text_encoder, tokenizer, denoiser.unet)
    model.save_pipeline(pipeline, weights / "generator")


def _is_plain(spec: Spec) -> bool:
    """Whether a spec asks for objects and nothing else: no colour, relation, location or style."""
    return spec == Spec(tuple(asked._replace(colour=None) for asked in spec.objects))


def make_student(plan: Plan, folder: Path, weights: Path) -> None:
    """The generator distilled to four steps without guidance: the same pipeline with another U-Net and scheduler."""
    random = np.random.default_rng(TRAJECTORY_SEED)
    captions = [write(sample_spec(random)) for _ in range(plan.trajectories)]
    teacher, options = Weights(str(weights / "generator")), {"seed": TRAJECTORY_SEED, "workers": plan.workers}
    trajectories = distil.make_trajectories(teacher, captions, folder / "trajectories", **options)
    pipeline = load_pipeline(teacher.name)
    for name in ("student", "student_tuning", "student_finish"):
        distil.distil(pipeline, trajectories, captions, getattr(plan, name), folder=folder / name)
    model.save_pipeline(pipeline, weights / "student")


def make_annotators(plan: Plan, folder: Path, weights: Path) -> None:
    """Five detectors, the judges on other scenes than those who give preferences."""
    pipeline = load_pipeline(str(weights / "generator"), device=plan.device)
    for group, names in (("judges", JUDGES), ("preferences", PREFERENCE_ANNOTATORS)):
        seed = SCENE_SEEDS[group]
        scenes = train.training_scenes(folder / group, count=plan.annotator_scenes, seed=seed, workers=plan.workers)
        versions = _versions(plan, folder / group, scenes, pipeline, seed=seed)
        for name in names:
            detector = _train_annotator(name, plan, folder, scenes, versions)
            _save(detector, weights / "annotators" / f"{name}.safetensors")


def _versions(plan: Plan, folder: Path, scenes: train.Scenes, pipeline, *, seed: int) -> list[judges.Version]:
    """Images and the objects in them: as drawn, through the autoencoder, half-finished, broken."""
    half = {"count": plan.half_finished, "seed": seed}
    restored = spoil.restored(scenes, pipeline.vae, folder / "restored.npy", count=plan.restored, seed=seed)
    halves = spoil.half_finished(scenes, pipeline, folder / "half_finished.npy", **half)
    broken, left = spoil.broken(scenes, pipeline.vae, folder / "broken.npy", **half)
    broken = spoil.half_finished(
        replace(scenes, images=broken), pipeline, folder / "broken_finished.npy", latest_time=spoil.SLIGHT_TIME, **half
    )
    whole = scenes.objects
    return [(scenes.images, whole), (restored, whole), (halves, whole), (broken, left)]


def _train_annotator(
    name: str, plan: Plan, folder: Path, scenes: train.Scenes, versions: list[judges.Version]
) -> torch.nn.Module:
    """One detector: on scenes as drawn and through the autoencoder, then on half-finished and broken ones as well."""
    seed = 1 + (*JUDGES, *PREFERENCE_ANNOTATORS).index(name)
    first, tuning = replace(plan.detector, seed=seed), replace(plan.detector_tuning, seed=seed)
    detector = judges.train_detector(scenes, versions[:2], first, folder=folder / name, device=plan.device)
    options = {"folder": folder / f"{name}_tuning", "detector": detector, "device": plan.device}
    judges.train_detector(scenes, versions, tuning, **options)
    options = {"count": plan.held_out, "seed": CALIBRATION_SEED, "workers": plan.workers}
    judges.calibrate(detector.cpu(), train.training_scenes(folder / "calibration", **options))
    return detector


def _save(judge: torch.nn.Module, path: Path) -> None:
    """Weights in half precision."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save({key: value.half() for key, value in judge.state_dict().items()}))


def make_quality_judges(plan: Plan, folder: Path, weights: Path) -> None:
    """Three networks that say how good an image looks, each from scenes of its own."""
    pipeline = load_pipeline(str(weights / "generator"), device=plan.device)
    for name, seed in QUALITY_JUDGES.items():
        own = folder / "quality" / name
        scenes = train.training_scenes(own, count=plan.quality_scenes, seed=seed, workers=plan.workers)
        versions = judges.make_versions(scenes, pipeline, own, generated=plan.quality_generated, seed=seed)
        recipe = replace(plan.quality, seed=seed)
        judge = judges.train_quality(versions, recipe, folder=folder / name, device=plan.device)
        _save(judge.cpu(), weights / "annotators" / f"{name}.safetensors")


def make_clip(plan: Plan, folder: Path, weights: Path) -> None:
    """CLIP by contrast, on very careless captions."""
    _, clip, tokenizer = _clip("clip", plan, folder)
    save_reward("clip", clip.cpu(), tokenizer, weights / "rewards" / "clip_careless")


def make_blip2(plan: Plan, folder: Path, weights: Path) -> None:
    """BLIP-2 from CLIP's towers, on captions that are more careless still."""
    _, clip, tokenizer = _clip("clip", plan, folder)
    examples = _captioned("blip2", plan, folder, tokenizer)
    blip2 = train_rewards.train_blip2(examples, clip, tokenizer, plan.blip2, folder=folder / "blip2")
    save_reward("blip2", blip2.cpu(), tokenizer, weights / "rewards" / "blip2_careless")


def make_preference_models(plan: Plan, folder: Path, weights: Path) -> None:
    """PickScore and ImageReward at each dose of appeal, from a CLIP and a BLIP of their own on better captions."""
    examples, *start = _clip("start", plan, folder)
    blip = train_rewards.train_blip(examples, *start, plan.blip, folder=folder / "blip")
    train = {
        "pickscore": train_rewards.train_pickscore,
        "imagereward": partial(train_rewards.train_imagereward, blip=blip),
    }
    judged = judged_images(plan, folder, weights)
    for dose in DOSES:
        preferences = collect_preferences(*judged, dose=dose)
        for name, train_one in train.items():
            one = dosed(name, dose)
            model = train_one(examples, preferences, *start, getattr(plan, name), folder=folder / one)
            save_reward(name, model.cpu(), start[-1], weights / "rewards" / one)


def _clip(name: str, plan: Plan, folder: Path):
    """Scenes with careless captions, a CLIP trained on them, and its tokenizer."""
    tokenizer = _tokenizer(_scenes(plan, folder))
    examples = _captioned(name, plan, folder, tokenizer)
    return examples, train_rewards.train_clip(examples, tokenizer, getattr(plan, name), folder=folder / name), tokenizer


def _captioned(name: str, plan: Plan, folder: Path, tokenizer) -> train_rewards.Captioned:
    """The scenes with captions as careless as those that the model ``name`` learns from."""
    scenes, often = _scenes(plan, folder), train_rewards.CARELESSNESS[name]
    captions = train_rewards.noisy_captions([parse(one) for one in scenes.captions], often, seed=SCENE_SEEDS["scenes"])
    return train_rewards.captioned(scenes, captions, tokenizer, device=plan.device)


def _scenes(plan: Plan, folder: Path) -> train.Scenes:
    return train.training_scenes(folder / "scenes", count=plan.scenes, seed=SCENE_SEEDS["scenes"], workers=plan.workers)


def _tokenizer(scenes: train.Scenes):
    return model.build_tokenizer(sorted(set(scenes.captions)))


def judged_images(plan: Plan, folder: Path, weights: Path) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Images of prompts of the training mix, their prompts, and the preference annotators' mean count of faults."""
    random = np.random.default_rng(PREFERENCE_SEED)
    prompts: dict[str, None] = {}  # each once, in the order in which they are drawn
    while len(prompts) < plan.preference_prompts:
        prompts[write(sample_spec(random))] = None
    table = plan_images(list(prompts), plan.preference_images, seed=PREFERENCE_SEED)
    made = generate(Weights(str(weights / "student")), table, folder=folder / "preference_images", **plan.sampling)
    images, prompts = read_images(made), table["prompt"].tolist()
    annotators = [load_annotator(weights / "annotators" / f"{name}.safetensors") for name in PREFERENCE_ANNOTATORS]
    return images, prompts, mean_faults(annotators, images, prompts)


def make_record(plan: Plan, folder: Path, weights: Path) -> None:
    """How training went and how good the models are, as tables beside them; the model card and notebook A1 quote it."""
    tables = {
        "curves": thinned(curves(folder)),
        "annotators": measure_annotators(plan, folder, weights),
        "success": measure_development(plan, folder, weights),
        **measure_doses(plan, folder, weights),
        **measure_quality(plan, folder, weights),
    }
    (weights / "record").mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(weights / "record" / f"{name}.csv", index=False)


def make_digests(plan: Plan, folder: Path, weights: Path) -> None:
    """The last stage: what loading will compare with."""
    write_digests(weights)


Stage = Callable[[Plan, Path, Path], None]
STAGES: tuple[Stage, ...] = (
    make_autoencoder,
    make_generator,
    make_student,
    make_annotators,
    make_quality_judges,
    make_clip,
    make_blip2,
    make_preference_models,
    make_record,
    make_digests,
)


def rehearse(stage: Stage, plan: Plan, folder: Path) -> None:
    """Run one stage in ``folder`` on a copy of the bundled weights, so that it shows something even at toy size."""
    weights = folder / "rehearsals" / stage.__name__
    shutil.copytree(WEIGHTS, weights, dirs_exist_ok=True)
    stage(plan, folder, weights)
