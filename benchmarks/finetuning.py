"""Fine-tuning beside what others run: DDPO beside trl's trainer, RWR beside a loop that encodes each time.

    python -m benchmarks.finetuning                                              # the bundled generator, on a CPU
    python -m benchmarks.finetuning --model FOLDER --dtypes bfloat16 --batch-size 4 --images 32 --denoising-steps 50

The same model, prompts, batches and LoRA (rank 4, on attention) on both sides, which take turns (``side_by_side.py``),
each with a first epoch or step to warm up. Ours is timed as a run that goes on: it reads a checkpoint first and writes
one at the end. On a CPU the clock's ratio stands beside the processor's, and what the libraries take of the memory. On
a GPU trl allows TF32 in float32 and ours does not: compare bfloat16 there.

DDPO: whole epochs, sampling and one update, as in the paper. "As trl" is the same mathematics: guidance in one batch,
all steps trained; tests/optimise/test_ddpo.py finds trl's loss and its update in it. Other settings are other
mathematics: ``frozen_empty`` and ``untrained_steps``, which the study recommends. Rows pass the U-Net for one image,
without and with a gradient: where they are equal, so is the work.

RWR: steps on images and captions. The loop does in each step what diffusers' script for LoRA does: it reads, scales and
encodes them; ours encodes once before, which is timed apart. Both draw the same: their adapters can be compared.
"""

import argparse
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.ddpo_sides import ddpo_ours, ddpo_trl
from benchmarks.finetuning_sides import Tuned, Work
from benchmarks.rwr_sides import rwr_loop, rwr_ours, write_images
from benchmarks.side_by_side import (
    Spread,
    alone,
    asked_for,
    busy,
    errors_in_one_line,
    peak_rate,
    side_by_side,
    table,
    take_turns,
    where,
)

DDPO_SETTINGS = {
    "as trl": {},
    "frozen_empty": {"frozen_empty": True},
    "frozen_empty, 2 untrained_steps": {"frozen_empty": True, "untrained_steps": 2},
}


def compare_ddpo(work: Work, *, repeats: int, peak: float) -> dict[str, dict[str, float | Spread]]:
    """A column for each of our settings."""
    sides = [partial(ddpo_ours, more=settings) for settings in DDPO_SETTINGS.values()]
    theirs, *all_ours = take_turns(repeats, partial(ddpo_trl, work), *(partial(side, work) for side in sides))
    columns, images = {}, work.count * work.images
    for name, side, ours in zip(DDPO_SETTINGS, sides, all_ours, strict=True):
        counted = alone(partial(side, replace(work, count=1), counting=True))
        columns[name] = {
            **side_by_side(theirs, ours, unit="images", counted=counted, peak=peak),
            **libraries(theirs, ours),
            "rows, original": theirs[0].sampled_rows / images,
            "rows, ours": ours[0].sampled_rows / images,
            "with gradient, original": theirs[0].trained_rows / images,
            "with gradient, ours": ours[0].trained_rows / images,
        }
    return columns


def compare_rwr(work: Work, *, repeats: int, peak: float) -> dict[str, dict[str, float | Spread]]:
    """One column. The difference of the adapters is a share of the way that the loop's went, both as norms."""
    with tempfile.TemporaryDirectory() as folder:
        alone(write_images, work.model, Path(folder))
        sides = [partial(side, work, Path(folder)) for side in (rwr_loop, rwr_ours)]
        theirs, ours = take_turns(repeats, *sides)
        # All of it: its last step also looks at the divergence.
        counted = alone(partial(rwr_ours, work, Path(folder), counting=True))
    way = np.linalg.norm(theirs[0].change)
    column = {
        **side_by_side(theirs, ours, unit="steps", counted=counted, peak=peak),
        **libraries(theirs, ours),
        "s before, ours": Spread.of(one.before for one in ours),
        "difference": max(np.linalg.norm(b.change - a.change) / way for a, b in zip(theirs, ours, strict=True)),
    }
    return {"as the loop": column}


def libraries(theirs: list[Tuned], ours: list[Tuned]) -> dict[str, float]:
    """MiB of memory with the libraries alone, on a CPU."""
    if ours[0].device != "cpu":
        return {}
    return {"MiB, its libraries": theirs[0].libraries_mib, "MiB, our libraries": ours[0].libraries_mib}


@errors_in_one_line()
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
    options = asked_for(parser, arguments)
    print(f"{options.model}, batches of {options.batch_size}\n{where(options)}")
    epoch = {name: getattr(options, name) for name in ("images", "denoising_steps", "guidance_scale")}
    print(", ".join(f"{name} {value}" for name, value in epoch.items()), "of DDPO")
    parts = {"ddpo": (compare_ddpo, {"count": options.epochs, **epoch}), "rwr": (compare_rwr, {"count": options.steps})}
    for dtype in options.dtypes:
        peak = alone(peak_rate, options.device, dtype)
        for part in options.parts:
            compare, sizes = parts[part]
            work = Work(options.model, options.device, dtype, options.batch_size, **sizes)
            columns = compare(work, repeats=options.repeats, peak=peak)
            print(f"\n{part}, {dtype}; peak: {peak / 1e9:,.0f} GFLOP/s\n\n{table(columns)}", flush=True)
    print(f"\n{busy()}")


if __name__ == "__main__":
    main()
