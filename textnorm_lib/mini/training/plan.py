"""How much of everything the mini world is made of: numbers of scenes and images, and a recipe for each model."""

from dataclasses import dataclass

from textnorm_lib.mini.training import annotators as train_annotators
from textnorm_lib.mini.training import quality as train_quality
from textnorm_lib.mini.training import rewards as train_rewards
from textnorm_lib.mini.training import scenes as train
from textnorm_lib.mini.training.fit import Recipe

JUDGES = ("judge_1", "judge_2", "judge_3")  # the benchmark's votes and all later judging
PREFERENCE_ANNOTATORS = ("preference_1", "preference_2")  # what reward models learn from
SCENE_SEEDS = {"scenes": 0, "judges": 1, "preferences": 2}  # three sets of scenes that share none
QUALITY_JUDGES = {"quality_1": 4, "quality_2": 5, "quality_3": 6}  # what votes on quality, and its scenes' seed
PREFERENCE_SEED = 3  # of the prompts and images that preferences are about
DEVELOPMENT_SEED = 77  # of the images on which recipes are chosen; the benchmark's is the profile's
CALIBRATION_SEED = 998  # of the scenes on which the annotators' scores are calibrated
HELD_OUT_SEED = 999  # of the scenes on which the annotators are measured


@dataclass(frozen=True)
class Plan:
    """How much of everything: numbers of scenes and images, and a recipe for each model."""

    scenes: int = 60_000  # for the generator and the rewards
    annotator_scenes: int = 40_000  # for each group of annotators
    restored: int = 20_000  # of them also through the autoencoder
    half_finished: int = 10_000  # of them also half-finished by the generator, and as many broken
    quality_scenes: int = 3_000  # for each quality judge, spoilt in several ways
    quality_generated: int = 1_500  # of their captions also generated in several numbers of steps
    quality_images: int = 5  # a development prompt, on which the order of qualities is measured
    preference_prompts: int = 1_500
    preference_images: int = 4  # a prompt
    held_out: int = 1_000  # scenes on which the annotators are calibrated, and as many on which they are measured
    development_prompts: int | None = None  # a set, on which generator and rewards are measured; None: all
    development_images: int = 20  # a prompt
    sampling_steps: int = 8
    guidance_scale: float = 2.0
    device: str = "cpu"
    workers: int = 2  # processes that make images on a CPU
    autoencoder: Recipe = train.AUTOENCODER
    generator: Recipe = train.GENERATOR
    generator_tuning: Recipe = train.GENERATOR_TUNING
    detector: Recipe = train_annotators.DETECTOR
    detector_tuning: Recipe = train_annotators.TUNING
    quality: Recipe = train_quality.QUALITY
    clip: Recipe = train_rewards.CLIP
    blip2: Recipe = train_rewards.BLIP2
    pickscore: Recipe = train_rewards.PICKSCORE
    imagereward: Recipe = train_rewards.IMAGEREWARD


BUNDLED = Plan()
_FEW = Recipe(steps=4, learning_rate=1e-3, batch_size=6, warmup=1)
TOY = Plan(  # every stage in seconds, to see it work; nothing good comes out
    scenes=64,
    annotator_scenes=24,
    restored=8,
    half_finished=8,
    quality_scenes=8,
    quality_generated=4,
    quality_images=2,
    preference_prompts=12,
    preference_images=3,
    held_out=16,
    development_prompts=3,
    development_images=3,
    sampling_steps=4,
    workers=1,
    autoencoder=_FEW,
    generator=_FEW,
    generator_tuning=_FEW,
    detector=_FEW,
    detector_tuning=_FEW,
    quality=_FEW,
    clip=_FEW,
    blip2=_FEW,
    pickscore=_FEW,
    imagereward=_FEW,
)
PLANS = {"toy": TOY, "bundled": BUNDLED}
