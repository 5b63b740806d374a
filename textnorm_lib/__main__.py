"""The study's commands: ``python -m textnorm_lib COMMAND ...``; ``run_all.sh`` calls them.

    compute [PROFILE]           compute what takes long; the notebooks then read it back
    verify [--share .02]        recompute a random share of results/ and compare
    preflight [PROFILE]         look for what would stop a run after hours
    results collect|compare     take what notebooks read into results/; say how much of it a run reproduced
    report [PROFILE] [--check]  collect papers_figures/, or check it
    pages [PROFILE]             write the notebooks as they were run as pages for a browser
    weights fetch ...           fetch a model for a machine without network
    rewards convert ...         make safetensors of a published checkpoint

``compute`` works in one process, or in several that are launched together:

    accelerate launch --num_processes 8 -m textnorm_lib compute paper             # eight GPUs of one machine
    accelerate launch --config_file nodes.yaml -m textnorm_lib compute paper      # several machines, one folder

Images are shared by batches, scores by prompts, training by the batches of each step; what depends on nothing else is
computed by the first process while the others wait. Images and scores are the same for any number of processes, weights
up to the order in which numbers are added. If a process is lost, ``accelerate`` ends the others; the same command goes
on from there, with as many processes as you like. Several machines need a folder that all of them see
(TEXTNORM_ARTIFACTS).
"""

import argparse
import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from textnorm_lib.figures import report
from textnorm_lib.judging import human_evaluation  # noqa: F401 (a notebook takes its steps: they enter STEPS)
from textnorm_lib.optimise.finetuning import all_runs
from textnorm_lib.pipeline import Pipeline, start_run
from textnorm_lib.rewards import clip, convert, pretrained
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.stats import calibration  # noqa: F401 (as human_evaluation)
from textnorm_lib.study import pages, preflight, results, weights
from textnorm_lib.study.config import DEFAULT_PROFILE
from textnorm_lib.study.errors import StudyError
from textnorm_lib.study.processes import Processes, launched, wait_for_all
from textnorm_lib.study.store import RESULTS, STEPS, Artifact, Store, step
from textnorm_lib.study.weights import BUNDLED, Weights
from textnorm_lib.tia2.labels import VOTES
from textnorm_lib.tia2.official import SETS, ReleasedSet


def compute_together(artifact: Artifact) -> None:
    """Make a result, and all that it rests on, in each of the processes that were launched together.

    All of them work on a shared step; of any other the first alone, and they read it back.
    """
    first, missing = Processes().rank == 0, _missing(artifact, {})
    wait_for_all()  # so that every process has found the same missing, before the first writes
    for part in missing:
        if first:
            part.store.folder_of(part)
        elif part.function.shared:
            part.store.take_part(part)
        wait_for_all()


def _missing(artifact: Artifact, found: dict[str, Artifact]) -> Collection[Artifact]:
    """What has to be computed to have an artifact, each behind what it rests on; nothing if it is stored."""
    if artifact.key not in found and not artifact.store.stored(artifact):
        for part in artifact.inputs:
            if isinstance(part, Artifact):
                _missing(part, found)
        found[artifact.key] = artifact
    return found.values()


@step(1)
def some_prompts(prompts: pd.DataFrame, *, share: float, seed: int) -> pd.DataFrame:
    """A random share of ``prompts``, one at least, in their order."""
    return prompts.sample(max(1, round(share * len(prompts))), random_state=seed).sort_index(ignore_index=True)


def verify(share: float, *, seed: int) -> tuple[bool, str]:
    """Recompute a random share of ``results/`` in an empty folder; whether all agree, and a line that says so.

    Of the benchmark a share of the prompts is made anew, images, votes and scores; of what follows from stored results
    alone, a share of the steps. Votes have to be equal but for one in a hundred (another processor's rounding may move
    a pixel), scores within ``results.TOLERANCE`` of their spread on 99 images of a hundred.
    """
    run = start_run("verify")
    columns = [*VOTES, *REWARDS]
    with TemporaryDirectory() as folder:
        run.store = Store(Path(folder), RESULTS, prefer=True)
        study, few = Pipeline(run), Pipeline(run)
        few.prompts = run.step(some_prompts, study.prompts, share=share, seed=seed)
        again, stored = few.labelled.value, study.labelled.value
        stored = stored[stored["prompt"].isin(again["prompt"])].reset_index(drop=True)
        spread = stored[columns].std() * dict.fromkeys(REWARDS, results.TOLERANCE)
        same = (again[columns] - stored[columns]).abs() <= spread.reindex(columns, fill_value=0.0)
    others = results.recompute(STEPS, share, seed=seed)
    worst, total = same.mean().min(), len(others.same) + len(others.different)
    told = f"{len(again)} images made anew: {same[VOTES].mean().mean():.1%} of the votes and "
    told += f"{same[list(REWARDS)].mean().mean():.1%} of the scores are the same; "
    told += f"{len(others.same)} of {total} steps recomputed from stored results are"
    if others.different:
        told += f", not {', '.join(others.different)}"
    return worst >= 0.99 and not others.different, told


def models_of(study: Pipeline) -> dict[str, tuple[Weights, tuple[str, ...]]]:
    """Every model of a study by the profile's key for it, with the files that its folder needs."""
    ddpo = Weights(study.profile.ddpo.model, study.profile.ddpo.revision)
    named = {"generator.model": (study.generator, preflight.PIPELINE_FILES)}
    named["ddpo.model"] = ddpo, preflight.PIPELINE_FILES
    for name in REWARDS:
        named[f"rewards.{name}"] = study.reward_model(name), clip.FILES if name == "clip" else pretrained.FILES
    for key in ("annotators", "quality_judges"):
        for name in getattr(study.profile, key):
            named[f"{key} {name}"] = Weights(f"{BUNDLED}annotators/{name}.safetensors"), ()
    return named


def images_asked_for(study: Pipeline) -> dict[Weights, int]:
    """How many images each model is to make, as if nothing were stored yet; notebook 00 makes few."""
    profile, counts = study.profile, Counter()
    for part in (profile.tia2, profile.best_of_n):
        counts[study.generator] += sum(asdict(part.prompts_per_set).values()) * part.images_per_prompt
    ddpo = Weights(profile.ddpo.model, profile.ddpo.revision)
    for model, asked in ((study.generator, profile.rwr), (ddpo, profile.ddpo)):
        runs = all_runs(asked.rewards, asked.numbers, beta=asked.beta, other_betas=asked.other_betas)
        prompts = sum(asdict(asked.prompts_per_set).values())
        counts[model] += prompts * asked.images_per_prompt * (1 + len(runs) * len(asked.checkpoints))
    return dict(counts)


def look_ahead(profile: str) -> int:
    """Print what would stop a run of the profile, a line each; the exit status."""
    study = Pipeline(start_run("preflight", profile=profile))
    problems = preflight.model_problems(models_of(study)) + preflight.gpu_problems(study.profile)
    try:
        problems += preflight.disk_problems(images_asked_for(study))
        for prompts in (study.prompts, study.pool.prompts):
            _ = prompts.value  # there are as many as the profile asks for
    except StudyError as error:
        if not any(str(error) in known for known in problems):  # of a missing model
            problems.append(str(error))
    for problem in problems:
        print(f"preflight: {problem}", file=sys.stderr)
    if problems:
        return 2
    models = {weights for weights, _ in models_of(study).values()}
    print(f"preflight: profile {profile}: {len(models)} models are here, the disk has room, ok")
    if seconds := preflight.seconds_stored(profile):
        told = ", ".join(f"{step} {spent:,.0f}" for step, spent in seconds.items() if spent >= 1) or "less than 1 each"
        print(f"preflight: its last run is stored; seconds of its steps: {told}")
    return 0


def compute(profile: str) -> int:
    """Compute what takes long in a profile; the exit status."""
    for artifact in Pipeline(start_run("compute", profile=profile)).long_steps():
        if launched() > 1:
            compute_together(artifact)
        else:
            artifact.store.folder_of(artifact)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m textnorm_lib", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["compute", "verify", "preflight", *ELSEWHERE])
    options, rest = parser.parse_known_args(arguments)
    if options.command in ELSEWHERE:
        return ELSEWHERE[options.command](rest)
    parser = argparse.ArgumentParser(prog=f"python -m textnorm_lib {options.command}")
    if options.command == "verify":
        parser.add_argument("--share", type=float, default=0.02, help="of the prompts and of the steps")
        parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    else:
        parser.add_argument("profile", nargs="?", default=DEFAULT_PROFILE)
    given = parser.parse_args(rest)
    try:
        if options.command == "verify":
            passed, told = verify(given.share, seed=given.seed)
            print(f"verify: {told}")
            return int(not passed)
        return (compute if options.command == "compute" else look_ahead)(given.profile)
    except StudyError as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 2


def _results(arguments: list[str]) -> int:
    return results.main(arguments, never=[ReleasedSet(name).key for name in SETS])


ELSEWHERE = {
    "results": _results,
    "report": report.main,
    "pages": pages.main,
    "weights": weights.main,
    "rewards": convert.main,
}

if __name__ == "__main__":
    sys.exit(main())
