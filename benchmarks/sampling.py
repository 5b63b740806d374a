"""How fast a model makes images on this machine's CPU, and what limits it.

    python benchmarks/sampling.py [model]        model as in textnorm_lib/weights.py, by default the bundled one

Prints images a second by type and number of processes, at the mini profile's settings and without the time to load,
then how one process divides its time.
"""

import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch

from textnorm_lib.config import load_profile
from textnorm_lib.mini.prompts import choose_prompts
from textnorm_lib.sampling import generate, load_pipeline, plan_images
from textnorm_lib.weights import Weights

BATCHES = 6  # a process


def images_per_second(model: str, settings: dict, *, workers: int) -> float:
    """The rate after the first batch of each process."""
    size = settings["batch_size"]
    plan = plan_images(choose_prompts("counting", size // 4), 4 * BATCHES * workers, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        made = generate(Weights(model), plan, folder=Path(folder), workers=workers, **settings)
        times = [time.perf_counter() for _ in made]
    warm = workers * size
    return (len(times) - warm) / (times[-1] - times[warm - 1])


def shares_of_time(model: str, settings: dict) -> dict[str, float]:
    """Share of one process's time in each part of the pipeline, for one batch."""
    pipeline = load_pipeline(model)
    parts = {"text encoder": pipeline.text_encoder, "U-Net": pipeline.unet, "decoder": pipeline.vae.decoder}
    seconds = dict.fromkeys(parts, 0.0)
    started = {}
    for name, part in parts.items():
        part.register_forward_pre_hook(lambda *_, name=name: started.update({name: time.perf_counter()}))
        part.register_forward_hook(
            lambda *_, name=name: seconds.update({name: seconds[name] + time.perf_counter() - started[name]})
        )
    plan = plan_images(choose_prompts("counting", settings["batch_size"]), 1, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        for _ in generate(pipeline, plan, folder=Path(folder), **settings):
            pass
        total = time.perf_counter() - begun
    shares = {name: spent / total for name, spent in seconds.items()}
    return {**shares, "the rest": 1 - sum(shares.values())}


def main(model: str) -> None:
    profile = load_profile("mini").generator
    settings = {name: getattr(profile, name) for name in ("steps", "guidance_scale", "batch_size")}
    rows = []
    for dtype in ("float32", "bfloat16"):
        rates = [images_per_second(model, {**settings, "dtype": dtype}, workers=workers) for workers in (1, 2)]
        shares = shares_of_time(model, {**settings, "dtype": dtype})
        rows.append([dtype, *(f"{rate:.1f}" for rate in rates), *(f"{share:.0%}" for share in shares.values())])
    columns = ["type", "images/s, 1 process", "2 processes", *shares]
    print(f"{model}, torch {torch.__version__}, batches of {profile.batch_size}, {profile.steps} steps\n")
    print(pd.DataFrame(rows, columns=columns).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main(*sys.argv[1:] or ["bundled:generator"])
