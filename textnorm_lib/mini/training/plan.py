"""How much of everything the mini world is made of: numbers of scenes and images, and a recipe for each model."""

from dataclasses import dataclass
from typing import Any

JUDGES = ("judge_1", "judge_2", "judge_3")  # the benchmark's votes and all later judging
PREFERENCE_ANNOTATORS = ("preference_1", "preference_2")  # what reward models learn from
DOSED = ("pickscore", "imagereward")  # what learns from the preferences of annotators with a taste
DOSES = (0.0, 0.25, 0.5, 0.75)  # how much their taste counts beside faults (preferences.py)
RELEASED_AUROC = {  # of the published rewards against people, from the released scores: what ours are matched to
    "clip": {"counting": 0.60, "composition": 0.72},
    "blip2": {"counting": 0.56, "composition": 0.61},
    "imagereward": {"counting": 0.66, "composition": 0.77},
    "pickscore": {"counting": 0.73, "composition": 0.78},
}
SCENE_SEEDS = {"scenes": 0, "judges": 1, "preferences": 2}  # three sets of scenes that share none
QUALITY_JUDGES = {"quality_1": 4, "quality_2": 5, "quality_3": 6}  # what votes on quality, and its scenes' seed
PREFERENCE_SEED = 3  # of the prompts and images that preferences are about
TRAJECTORY_SEED = 7  # of the captions and first noises that the student learns from
DEVELOPMENT_SEED = 77  # of the images on which recipes are chosen; the benchmark's is the profile's
CALIBRATION_SEED = 998  # of the scenes on which the annotators' scores are calibrated
HELD_OUT_SEED = 999  # of the scenes on which the annotators are measured


def dosed(reward: str, dose: float) -> str:
    """The folder of a preference model by its dose: ``pickscore_025``."""
    return f"{reward}_{round(100 * dose):03d}"


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: a step sees ``batch_size`` examples.

    ``learning_rate`` is reached after ``warmup`` steps and falls to zero as a cosine.
    """

    steps: int
    learning_rate: float
    batch_size: int = 32
    weight_decay: float = 0.01
    warmup: int = 200
    average_decay: float = 0.999
    max_gradient_norm: float = 1.0
    seed: int = 0
    save_every_s: float = 60.0


@dataclass(frozen=True)
class Plan:
    """How much of everything: numbers of scenes and images, and a recipe for each model."""

    scenes: int = 60_000  # for the generator and the rewards
    annotator_scenes: int = 40_000  # for each group of annotators
    restored: int = 20_000  # of them also through the autoencoder
    half_finished: int = 10_000  # of them also half-finished by the generator, and as many broken
    quality_scenes: int = 3_000  # for each quality judge, spoilt in several ways
    quality_generated: int = 1_500  # of their captions also generated in several numbers of steps
    quality_images: int = 5  # per development prompt, on which the order of qualities is measured
    trajectories: int = 12_288  # of the generator, from which the student learns
    preference_prompts: int = 6_000  # with a quarter of them ImageReward learned its prompts by heart
    preference_images: int = 4  # per prompt
    held_out: int = 1_000  # scenes on which the annotators are calibrated, and as many on which they are measured
    development_prompts: int | None = None  # per set, on which generator and rewards are measured; None: all
    development_images: int = 20  # per prompt
    sampling_steps: int = 4  # the student's
    guidance_scale: float = 1.0
    device: str = "cpu"
    workers: int = 2  # processes that make images on a CPU
    autoencoder: Recipe = Recipe(steps=14_000, learning_rate=1.5e-3, batch_size=8)
    generator: Recipe = Recipe(steps=7_000, learning_rate=1e-3, warmup=500)
    generator_tuning: Recipe = Recipe(steps=2_500, learning_rate=8e-4, warmup=100)
    student: Recipe = Recipe(steps=2_400, learning_rate=4e-4, batch_size=64, warmup=100, average_decay=0.998)
    student_tuning: Recipe = Recipe(
        steps=1_600, learning_rate=3e-4, batch_size=64, warmup=100, average_decay=0.998, seed=1
    )
    student_finish: Recipe = Recipe(
        steps=800, learning_rate=2e-4, batch_size=64, warmup=50, average_decay=0.998, seed=2
    )
    detector: Recipe = Recipe(steps=2_000, learning_rate=1e-3)  # scenes as drawn and through the autoencoder
    detector_tuning: Recipe = Recipe(steps=1_200, learning_rate=5e-4, warmup=50)  # half-finished and broken ones too
    quality: Recipe = Recipe(steps=4_000, learning_rate=1e-3, batch_size=63)
    start: Recipe = Recipe(steps=1_600, learning_rate=1e-3, batch_size=128, weight_decay=0.05)  # of PickScore's CLIP
    clip: Recipe = Recipe(steps=1_000, learning_rate=1e-3, batch_size=128, weight_decay=0.05)
    blip2: Recipe = Recipe(steps=900, learning_rate=5e-4, batch_size=64)
    pickscore: Recipe = Recipe(steps=300, learning_rate=1e-4, batch_size=48, warmup=50, average_decay=0.99)
    blip: Recipe = Recipe(steps=1_500, learning_rate=5e-4, batch_size=64)  # what ImageReward begins from
    imagereward: Recipe = Recipe(steps=400, learning_rate=1e-4, warmup=50, average_decay=0.99)

    @property
    def sampling(self) -> dict[str, Any]:
        """How the generator makes images, as ``images.sampling.generate`` is told."""
        return {
            "steps": self.sampling_steps,
            "guidance_scale": self.guidance_scale,
            "batch_size": 32,
            "dtype": "float32",
            "workers": self.workers,
        }


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
    trajectories=6,
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
    student=_FEW,
    student_tuning=_FEW,
    student_finish=_FEW,
    detector=_FEW,
    detector_tuning=_FEW,
    quality=_FEW,
    start=_FEW,
    clip=_FEW,
    blip2=_FEW,
    blip=_FEW,
    pickscore=_FEW,
    imagereward=_FEW,
)
PLANS = {"toy": TOY, "bundled": BUNDLED}
