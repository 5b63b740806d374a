"""How good the trained models are: what the model card says is computed here.

Annotators and quality judges are measured on scenes that no training saw; the student and again the quality
judges on images of *development* prompts, and so are the rewards (``doses.py``), so that recipes can be chosen by these
numbers without a look at what the study evaluates on.
"""

import io
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from statsmodels.stats.proportion import proportion_confint

from textnorm_lib.images.sampling import generate, load_pipeline, plan_images
from textnorm_lib.mini import annotators
from textnorm_lib.mini.annotators import QualityJudge, read_images
from textnorm_lib.mini.generator import as_tensor
from textnorm_lib.mini.scenes import render_many
from textnorm_lib.mini.training import spoil
from textnorm_lib.mini.training.judges import are_exact, draw_severities, look, spoilt_twice
from textnorm_lib.mini.training.plan import (
    DEVELOPMENT_SEED,
    HELD_OUT_SEED,
    JUDGES,
    PREFERENCE_ANNOTATORS,
    QUALITY_JUDGES,
    Plan,
)
from textnorm_lib.mini.training.scenes import Scenes, training_scenes
from textnorm_lib.prompts.grammar import parse
from textnorm_lib.prompts.sets import SETS, mini_prompts, split
from textnorm_lib.stats.metrics import prompt_metrics, summarise
from textnorm_lib.study.progress import progress
from textnorm_lib.study.weights import Weights
from textnorm_lib.tia2.build import label_images, make_images
from textnorm_lib.tia2.describe import share_good

INTERVALS = {"resamples": 10_000, "confidence": 0.95, "seed": 0}
FEWER_STEPS = (3, 2)  # than the student's four
JPEG_QUALITIES = (40, 4)  # at severity 0 and 1: a kind of spoiling that no judge has seen
DISTURBANCE = 0.4  # of the U-Net's weights, in units of each tensor's spread: what tuning might do to a generator

Pairs = dict[str, tuple[np.ndarray, np.ndarray]]  # by case: images, and the same ones in a worse version


def measure_annotators(plan: Plan, folder: Path, weights: Path) -> pd.DataFrame:
    """Share of held-out scenes whose objects an annotator sees exactly, and its votes on them.

    One row per annotator and version of the scenes (as drawn, through the autoencoder, half-finished, degraded): exact,
    low, high (Wilson, 95%), good and skip: shares of its votes, all of which ought to be good.
    """
    folder, count = folder / "held_out", plan.held_out
    scenes = training_scenes(folder, count=count, seed=HELD_OUT_SEED, workers=plan.workers)
    pipeline = load_pipeline(str(weights / "generator"))
    options = {"count": count, "seed": HELD_OUT_SEED}
    restored = spoil.restored(scenes, pipeline.vae, folder / "restored.npy", **options)
    halves = spoil.half_finished(scenes, pipeline, folder / "half_finished.npy", **options)
    drawn, specs = as_tensor(scenes.images), [parse(caption) for caption in scenes.captions]
    versions = {
        "as drawn": drawn,
        "through the autoencoder": as_tensor(restored),
        "half-finished": as_tensor(halves),
        "degraded": spoil.degrade(drawn, torch.Generator().manual_seed(HELD_OUT_SEED)),
    }
    rows = []
    for name in progress((*JUDGES, *PREFERENCE_ANNOTATORS), "annotators", unit="annotator"):
        annotator = annotators.load_annotator(weights / "annotators" / f"{name}.safetensors")
        for version, images in versions.items():
            seen = look(annotator, images)
            exact = are_exact(seen, scenes, 0.5)
            votes = np.array([annotators.vote(*pair) for pair in zip(seen, specs, strict=True)])
            low, high = proportion_confint(exact.sum(), count, method="wilson")
            rows.append((name, version, exact.mean(), low, high, (votes == 1).mean(), (votes == -1).mean()))
    return pd.DataFrame(rows, columns=["annotator", "version", "exact", "low", "high", "good", "skip"])


def measure_development(plan: Plan, folder: Path, weights: Path) -> pd.DataFrame:
    """The share of good images of development prompts by the judges: means over prompts (``metrics.summarise``)."""
    return summarise(share_good(development_images(plan, folder / "development", weights)), **INTERVALS)


def development_images(plan: Plan, folder: Path, weights: Path) -> pd.DataFrame:
    """Images of development prompts in ``folder``, and the judges' votes: set, columns of ``labels.image_table``."""
    prompts, generator = development_prompts(plan.development_prompts), Weights(str(weights / "student"))
    options = {"images_per_prompt": plan.development_images, "seed": DEVELOPMENT_SEED, "folder": folder}
    make_images(prompts, generator, **options, **plan.sampling)
    judges = [Weights(str(weights / "annotators" / f"{name}.safetensors")) for name in JUDGES]
    return label_images(annotators.collect_votes(folder, *judges, workers=plan.workers))


def development_prompts(most: int | None = None) -> pd.DataFrame:
    """The prompts of development classes, of each set all or ``most`` at even distances: set, prompt."""
    rows = []
    for name in SETS:
        prompts = [prompt for prompt in mini_prompts(name) if split(prompt) == "development"]
        places = range(len(prompts)) if most is None else np.linspace(0, len(prompts) - 1, most).astype(int)
        rows += [(name, prompts[place]) for place in places]
    return pd.DataFrame(rows, columns=["set", "prompt"])


def measure_quality(plan: Plan, folder: Path, weights: Path) -> dict[str, pd.DataFrame]:
    """How often the judges put two versions in order, what else their qualities go with, and how far they agree.

    quality_orders: case, judge (their majority as well), pairs, in_order, low, high (Wilson, 95%). quality_metrics:
    means over development prompts by set (``metrics.summarise``), with a column question: "clean" (AUROC of scenes of
    a prompt against its generated images) and "label" (alignment, by the judges of alignment). quality_agreement:
    judge, other, Spearman's correlation over all development images and the mean of those within a prompt.
    """
    judges = [annotators.load_quality_judge(weights / "annotators" / f"{name}.safetensors") for name in QUALITY_JUDGES]
    pipeline = load_pipeline(str(weights / "generator"))
    images = development_images(plan, folder / "development", weights)
    images = _judged(judges, images, read_images(folder / "development" / name for name in images["image"]))
    clean = _judged(judges, *_clean_scenes(plan, folder, pipeline))
    pairs = _held_out_pairs(plan, folder, pipeline)
    pairs |= _generated_pairs(plan, folder, load_pipeline(str(weights / "student")))
    return {
        "quality_orders": _orders(judges, pairs),
        "quality_metrics": _metrics(images, clean),
        "quality_agreement": _agreement(images),
    }


def _held_out_pairs(plan: Plan, folder: Path, pipeline) -> Pairs:
    """Scenes that no training saw, each spoilt mildly and more severely."""
    scenes = training_scenes(folder / "held_out", count=plan.held_out, seed=HELD_OUT_SEED, workers=plan.workers)
    folder, options = folder / "quality" / "held_out", {"pipeline": pipeline, "seed": HELD_OUT_SEED}
    severities = draw_severities(plan.held_out, np.random.default_rng(HELD_OUT_SEED))
    pairs = {kind: spoilt_twice(kind, scenes, severities, folder, **options) for kind in spoil.LATENT_KINDS}
    clean = spoil.spoilt("noise", scenes, np.zeros(plan.held_out), path=folder / "clean.npy", **options)
    for kind in spoil.PIXEL_KINDS:
        spoilt = (
            spoil.spoil_pixels(kind, as_tensor(clean), torch.from_numpy(one).float(), seed=HELD_OUT_SEED)
            for one in severities
        )
        pairs[kind] = tuple(map(spoil.as_pixels, spoilt))
    return pairs | {"JPEG": tuple(_as_jpeg(clean, one) for one in severities)}


def _as_jpeg(images: np.ndarray, severities: np.ndarray) -> np.ndarray:
    """Images (n, h, w, 3) saved as JPEG, the more severe the worse."""
    best, worst = JPEG_QUALITIES
    saved = []
    for image, one in zip(images, severities, strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=round(best + (worst - best) * one))
        saved.append(np.asarray(Image.open(file)))
    return np.stack(saved)


def _generated_pairs(plan: Plan, folder: Path, pipeline) -> Pairs:
    """Images of development prompts as the study makes them, and from the same noise in a worse way.

    ``pipeline`` is of no use afterwards: its weights are disturbed in the end.
    """
    prompts = development_prompts(plan.development_prompts)["prompt"].tolist()
    table = plan_images(prompts, plan.quality_images, seed=DEVELOPMENT_SEED)

    def make(name: str, steps: int) -> np.ndarray:
        options = plan.sampling | {"steps": steps, "workers": 1}  # a pipeline that is loaded stays in its process
        return read_images(generate(pipeline, table, folder=folder / "quality" / name, **options))

    usual = read_images(folder / "development" / name for name in table["image"])
    pairs = {f"{steps} steps": (usual, make(f"steps_{steps}", steps)) for steps in FEWER_STEPS}
    generator = torch.Generator().manual_seed(DEVELOPMENT_SEED)
    with torch.no_grad():
        for weight in pipeline.unet.parameters():
            if weight.ndim > 1:
                weight += DISTURBANCE * weight.std() * torch.randn(weight.shape, generator=generator)
    return pairs | {"disturbed weights": (usual, make("disturbed", plan.sampling_steps))}


def _clean_scenes(plan: Plan, folder: Path, pipeline) -> tuple[pd.DataFrame, np.ndarray]:
    """Scenes of the development prompts through the autoencoder: set, prompt, and their pixels."""
    prompts = development_prompts(plan.development_prompts)
    table = prompts.loc[prompts.index.repeat(plan.quality_images)].reset_index(drop=True)
    drawn = render_many([parse(prompt) for prompt in table["prompt"]], DEVELOPMENT_SEED, workers=plan.workers)
    images, nothing = np.stack([scene.image for scene in drawn]), np.full((len(table), 8, 6), -1, dtype=np.float32)
    scenes = Scenes(images, table["prompt"].tolist(), nothing, np.zeros((len(table), 2)))
    options = {"path": folder / "quality" / "development_scenes.npy", "seed": DEVELOPMENT_SEED}
    return table, spoil.spoilt("noise", scenes, np.zeros(len(table)), pipeline, **options)


def _judged(judges: Sequence[QualityJudge], images: pd.DataFrame, pixels: np.ndarray) -> pd.DataFrame:
    return images.assign(**{judge.name: judge.quality(pixels) for judge in judges})


def _orders(judges: Sequence[QualityJudge], pairs: Pairs) -> pd.DataFrame:
    """The share of pairs in order, by case and judge; of their majority as well."""
    rows = []
    for case, (better, worse) in pairs.items():
        right = {judge.name: judge.quality(better) > judge.quality(worse) for judge in judges}
        right["majority"] = np.sum(list(right.values()), axis=0) > len(judges) / 2
        for name, one in right.items():
            low, high = proportion_confint(one.sum(), len(one), method="wilson")
            rows.append((case, name, len(one), one.mean(), low, high))
    return pd.DataFrame(rows, columns=["case", "judge", "pairs", "in_order", "low", "high"])


def _metrics(images: pd.DataFrame, clean: pd.DataFrame) -> pd.DataFrame:
    """Whether quality tells scenes from generated images, and whether it goes with alignment: means over prompts."""
    against = pd.concat([clean.assign(label=1, rating=1.0), images.assign(label=0, rating=0.0)])
    tables = []
    for question, table, metrics in (("clean", against, ["auroc"]), ("label", images, ["auroc", "spearman"])):
        values = prompt_metrics(table, tuple(QUALITY_JUDGES))
        tables.append(summarise(values[values["metric"].isin(metrics)], **INTERVALS).assign(question=question))
    return pd.concat(tables, ignore_index=True)


def _agreement(images: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of every two judges: over all images, and the mean of those within a prompt."""
    names = list(QUALITY_JUDGES)
    overall = images[names].corr("spearman")
    within = images.groupby(["set", "prompt"])[names].corr("spearman").groupby(level=-1).mean()
    rows = [(one, other, overall.loc[one, other], within.loc[one, other]) for one, other in combinations(names, 2)]
    return pd.DataFrame(rows, columns=["judge", "other", "overall", "within_prompt"])
