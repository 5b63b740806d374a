"""What takes long in notebooks 00 to 06, by one process or by several together; the notebooks then read it back.

    python -m textnorm_lib.compute paper                                            # one process
    accelerate launch --num_processes 8 -m textnorm_lib.compute paper               # eight GPUs of one machine
    accelerate launch --config_file nodes.yaml -m textnorm_lib.compute paper        # several machines, one folder

Images are shared by batches, scores by prompts, training by the batches of each step; what depends on nothing else is
computed by the first process while the others wait. Images and scores are the same for any number of processes, weights
up to the order in which numbers are added. If a process is lost, ``accelerate`` ends the others; the same command goes
on from there, with as many processes as you like. Several machines need a folder that all of them see
(TEXTNORM_ARTIFACTS).
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from textnorm_lib.config import DEFAULT_PROFILE, Profile, load_profile
from textnorm_lib.errors import StudyError
from textnorm_lib.pool import build_pool
from textnorm_lib.processes import Processes, launched, wait_for_all
from textnorm_lib.prompt_sets import contrast_sets
from textnorm_lib.rewards.scoring import score_rewards
from textnorm_lib.start_here import build_start
from textnorm_lib.store import Artifact, Keyed, Store, artifacts_folder
from textnorm_lib.tia2.build import build_tia2
from textnorm_lib.tuned import tune_by_ddpo, tune_by_rwr


def compute_together(store: Store, function: Callable, *inputs: Keyed, **config: Any) -> Artifact:
    """``store.compute`` in each of the processes that were launched together, with one result.

    All of them work on a shared step; of any other the first alone, and they read it back.
    """
    first = Processes().rank == 0
    if not first and function.shared and not store.stored(function, *inputs, **config):
        store.take_part(function, *inputs, **config)
    if first:
        store.compute(function, *inputs, **config)
    wait_for_all()
    return store.compute(function, *inputs, **config)


def compute_all(compute: Callable[..., Artifact], profile: Profile) -> None:
    """Notebook 00's images, the benchmark with its scores, the pool, the models tuned by RWR and DDPO with theirs."""
    build_start(compute, profile)
    built = build_tia2(compute, profile)
    score_rewards(compute, profile, built.images, contrast_sets(compute, profile, built.prompts))
    pool = build_pool(compute, profile)
    tune_by_rwr(compute, profile, pool)
    tune_by_ddpo(compute, profile, pool)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m textnorm_lib.compute", description="Compute what takes long, by several processes together."
    )
    parser.add_argument("profile", nargs="?", default=DEFAULT_PROFILE)
    options = parser.parse_args(arguments)
    store = Store(artifacts_folder() / "steps")

    def compute(function: Callable, *inputs: Keyed, **config: Any) -> Artifact:
        together = launched() > 1
        return (
            compute_together(store, function, *inputs, **config)
            if together
            else store.compute(function, *inputs, **config)
        )

    try:
        compute_all(compute, load_profile(options.profile))
    except StudyError as error:
        print(f"compute: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
