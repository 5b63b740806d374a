"""Fine-tuning beside what others run, on a CPU: DDPO beside trl's trainer, RWR beside a loop that encodes each time.

    python benchmarks/finetuning.py --parts ddpo rwr --dtypes float32 bfloat16 --model bundled:generator

The same model, prompts, batches and LoRA (rank 4, on attention) on both sides. Each has a process of its own, one
thread, and a first epoch or step to warm up. Ours is timed as a run that goes on: it reads a checkpoint first and
writes one at the end. Seconds are processor time, which other work on the machine hardly changes; the clock's ratio is
beside it. Memory is the most that was resident while timed, as Linux tells it, and what the libraries alone take of it.

DDPO: whole epochs, sampling and one update, as in the paper. "As trl" is the same mathematics: guidance in one batch,
all steps trained; tests/test_ddpo.py finds trl's loss and its update in it. Other settings are other mathematics:
``frozen_empty`` and ``untrained_steps``, which the study recommends. Rows pass the U-Net for one image, without and
with a gradient: where they are equal, so is the work.

RWR: steps on images and captions. The loop does in each step what diffusers' script for LoRA does: it reads, scales and
encodes them; ours encodes once before, which is timed apart. Both draw the same: their adapters can be compared.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from finetuning_sides import Spent, Work, ddpo_ours, ddpo_trl, rwr_loop, rwr_ours, write_images
from score_matrix import alone

DDPO_SETTINGS = {
    "as trl": {},
    "frozen_empty": {"frozen_empty": True},
    "frozen_empty, 2 untrained_steps": {"frozen_empty": True, "untrained_steps": 2},
}


def compare_ddpo(work: Work) -> dict[str, dict[str, float]]:
    """A row for each of our settings."""
    theirs, images = alone(ddpo_trl, work), work.count * work.images
    rows = {}
    for name, settings in DDPO_SETTINGS.items():
        ours = alone(ddpo_ours, work, settings)
        rows[f"{work.dtype}, {name}"] = {
            **side_by_side(theirs, ours, unit="images", done=images),
            "rows, original": theirs.sampled_rows / images,
            "rows, ours": ours.sampled_rows / images,
            "with gradient, original": theirs.trained_rows / images,
            "with gradient, ours": ours.trained_rows / images,
        }
    return rows


def compare_rwr(work: Work) -> dict[str, dict[str, float]]:
    """One row. The difference of the adapters is a share of the way that the loop's went, both as norms."""
    with tempfile.TemporaryDirectory() as folder:
        write_images(work.model, Path(folder))
        theirs, ours = (alone(run, work, Path(folder)) for run in (rwr_loop, rwr_ours))
    difference = np.linalg.norm(ours.change - theirs.change) / np.linalg.norm(theirs.change)
    row = side_by_side(theirs, ours, unit="steps", done=work.count)
    return {work.dtype: {**row, "s before, ours": ours.before, "difference": difference}}


def side_by_side(theirs: Spent, ours: Spent, *, unit: str, done: int) -> dict[str, float]:
    return {
        f"{unit}/s, original": done / theirs.seconds,
        f"{unit}/s, ours": done / ours.seconds,
        "times faster": theirs.seconds / ours.seconds,
        "by the clock": theirs.wall / ours.wall,
        "MiB, original": theirs.peak_mib,
        "MiB, ours": ours.peak_mib,
        "libraries, original": theirs.libraries_mib,
        "libraries, ours": ours.libraries_mib,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Our fine-tuning beside trl's and beside a plain loop.")
    parser.add_argument("--parts", nargs="+", choices=("ddpo", "rwr"), default=("ddpo", "rwr"))
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), default=("float32", "bfloat16"))
    parser.add_argument("--model", default="bundled:generator", help="or a folder in diffusers' format")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--images", type=int, default=64, help="of an epoch of DDPO, a multiple of the batch size")
    parser.add_argument("--denoising-steps", type=int, default=10)
    parser.add_argument("--guidance-scale", type=float, default=3.0, help="of DDPO; RWR fits without guidance")
    parser.add_argument("--epochs", type=int, default=2, help="of DDPO that are timed")
    parser.add_argument("--steps", type=int, default=20, help="of RWR that are timed")
    options = parser.parse_args(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"{options.model}, batches of {options.batch_size}, torch {torch.__version__}, one thread")
    epoch = {name: getattr(options, name) for name in ("images", "denoising_steps", "guidance_scale")}
    print(", ".join(f"{name} {value}" for name, value in epoch.items()), "of DDPO")
    parts = {"ddpo": (compare_ddpo, {"count": options.epochs, **epoch}), "rwr": (compare_rwr, {"count": options.steps})}
    for part in options.parts:
        compare, sizes = parts[part]
        rows = {}
        for dtype in options.dtypes:
            rows |= compare(Work(options.model, dtype, options.batch_size, **sizes))
        print(f"\n{part}\n\n{pd.DataFrame.from_dict(rows, orient='index').to_markdown(floatfmt='.3g')}", flush=True)
    print(f"\nload of {os.cpu_count()} cores over the last 15 minutes: {os.getloadavg()[2]:.1f}")


if __name__ == "__main__":
    main()
