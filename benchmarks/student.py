"""The student beside the generator that it was distilled from: images a second, and how good they are.

    python -m benchmarks.student --images 600

Both make images of the same development prompts from the same seeds, the generator in eight guided steps, the student
in four without guidance. Speed: they take turns (``side_by_side.py``). Quality: per set, the share of images that the
judges' majority calls good, the quality judges' mean, and the student's difference with its 95% interval (t, over
prompts, each of which has both sides' images).
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import pandas as pd
from scipy import stats

from benchmarks.sampling import Work, ours
from benchmarks.side_by_side import Spread, asked_for, busy, errors_in_one_line, table, take_turns, where
from textnorm_lib.mini.annotators import collect_votes, rate_quality
from textnorm_lib.mini.training import distil
from textnorm_lib.mini.training.measure import development_prompts
from textnorm_lib.mini.training.plan import DEVELOPMENT_SEED, JUDGES, QUALITY_JUDGES
from textnorm_lib.study.weights import Weights
from textnorm_lib.tia2.build import label_images, make_images

SIDES = {
    "generator": {"model": "bundled:generator", "steps": distil.TEACHER_STEPS, "guidance_scale": distil.GUIDANCE},
    "student": {"model": "bundled:student", "steps": distil.STEPS, "guidance_scale": 1.0},
}
BATCH = 32


def speed(repeats: int, batches: int) -> dict[str, Spread]:
    """Images a second of each side, and how many times faster the student is, turn by turn."""
    works = [Work(**side, device="cpu", batch_size=BATCH, batches=batches) for side in SIDES.values()]
    generator, student = take_turns(repeats, *(partial(ours, work) for work in works))
    return {
        "images/s, generator": Spread.of(one.rate for one in generator),
        "images/s, student": Spread.of(one.rate for one in student),
        "times faster": Spread.of(b.rate / a.rate for a, b in zip(generator, student, strict=True)),
    }


def quality(images: int, workers: int) -> pd.DataFrame:
    """By set and measure (good, quality): each side's mean over prompts, and the difference with its interval."""
    prompts = development_prompts()
    per_prompt = -(-images // prompts["set"].value_counts())
    both = []
    for name, side in SIDES.items():
        for one, some in prompts.groupby("set", sort=False):
            with tempfile.TemporaryDirectory() as folder:
                judged = _judged(some, side, int(per_prompt[one]), Path(folder), workers)
            both.append(judged.groupby("prompt", sort=False).mean().assign(side=name, set=one))
    long = pd.concat(both).reset_index().melt(["set", "prompt", "side"], var_name="measure")
    means = long.pivot(index=["set", "measure", "prompt"], columns="side", values="value")
    rows = {}
    for (one, measure), values in means.groupby(level=["set", "measure"]):
        change = values["student"] - values["generator"]
        low, high = stats.ttest_1samp(change, 0).confidence_interval()
        sides = values[list(SIDES)].mean()
        rows[f"{one}, {measure}"] = {**sides, "change": change.mean(), "low": low, "high": high}
    return pd.DataFrame.from_dict(rows, orient="index")


def _judged(prompts: pd.DataFrame, side: dict, images: int, folder: Path, workers: int) -> pd.DataFrame:
    """One row per image: prompt, good (0 or 1), quality (the judges' mean)."""
    sampling = {"steps": side["steps"], "guidance_scale": side["guidance_scale"], "batch_size": BATCH}
    options = {"images_per_prompt": images, "seed": DEVELOPMENT_SEED, "dtype": "float32", "folder": folder}
    make_images(prompts, Weights(side["model"]), **options, **sampling, workers=workers)
    judges, raters = (
        [Weights(f"bundled:annotators/{one}.safetensors") for one in of] for of in (JUDGES, QUALITY_JUDGES)
    )
    labels = label_images(collect_votes(folder, *judges, workers=workers))
    rated = rate_quality(folder, *raters, workers=workers).set_index("image").mean(axis=1)
    return pd.DataFrame({"prompt": labels["prompt"], "good": labels["label"], "quality": labels["image"].map(rated)})


@errors_in_one_line()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The student beside the generator.")
    parser.add_argument("--images", type=int, default=600, help="per set and side, to judge; 0: speed alone")
    parser.add_argument("--batches", type=int, default=4, help="that are timed")
    parser.add_argument("--workers", type=int, default=2, help="processes that make the images to judge")
    options = asked_for(parser, arguments)
    print(where(options), flush=True)
    print(f"\n{table({'': speed(options.repeats, options.batches)})}\n\n{busy()}\n", flush=True)
    if options.images:
        print(quality(options.images, options.workers).round(3).to_markdown())


if __name__ == "__main__":
    main()
