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
import json
import shutil
import sys
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch

from textnorm_lib.figures import report
from textnorm_lib.judging import human_evaluation  # noqa: F401 (a notebook takes its steps: they enter STEPS)
from textnorm_lib.optimise.finetuning import all_runs
from textnorm_lib.pipeline import Pipeline, start_run
from textnorm_lib.rewards import clip, convert, pretrained
from textnorm_lib.rewards.scoring import REWARDS
from textnorm_lib.stats import calibration  # noqa: F401 (as human_evaluation)
from textnorm_lib.study import results
from textnorm_lib.study.config import DEFAULT_PROFILE, Profile
from textnorm_lib.study.errors import DataError, StudyError
from textnorm_lib.study.pages import make_pages
from textnorm_lib.study.processes import Processes, launched, wait_for_all
from textnorm_lib.study.progress import progress
from textnorm_lib.study.run import records_folder
from textnorm_lib.study.store import RESULTS, STEPS, Artifact, Store, artifacts_folder, step
from textnorm_lib.study.weights import BUNDLED, VARIABLE, Weights, fetch
from textnorm_lib.tia2.labels import VOTES
from textnorm_lib.tia2.official import SETS, ReleasedSet

BYTES_PER_PIXEL = 2  # as PNG the mini world's images take 1.3, photographs 1.2 to 1.7
ELSEWHERE = {"report": report.main, "rewards": convert.main}  # commands with a command line of their own
PIPELINE_FILES = ("model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json")


# ---- compute


def compute(profile: str) -> int:
    """Compute what takes long in a profile; the exit status."""
    for artifact in Pipeline(start_run("compute", profile=profile)).long_steps():
        if launched() > 1:
            compute_together(artifact)
        else:
            artifact.store.folder_of(artifact)
    return 0


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


# ---- verify


@step(1)
def some_prompts(prompts: pd.DataFrame, *, share: float, seed: int) -> pd.DataFrame:
    """A random share of ``prompts``, one at least, in their order."""
    return prompts.sample(max(1, round(share * len(prompts))), random_state=seed).sort_index(ignore_index=True)


def verify(share: float, seed: int) -> int:
    """Recompute a random share of ``results/`` in an empty folder and print how much agrees; the exit status.

    Of the benchmark a share of the prompts is made anew, images, votes and scores; of what follows from stored results
    alone, a share of the steps.
    """
    run = start_run("verify")
    with TemporaryDirectory() as folder:
        run.store = Store(Path(folder), RESULTS, prefer=True)
        study, few = Pipeline(run), Pipeline(run)
        few.prompts = run.step(some_prompts, study.prompts, share=share, seed=seed)
        again, stored = few.labelled.value, study.labelled.value
    alike, told = same_images(again, stored[stored["prompt"].isin(again["prompt"])])
    others = results.recompute(STEPS, share, seed=seed)
    total = len(others.same) + len(others.different)
    told += f"; {len(others.same)} of {total} steps recomputed from stored results are the same"
    if others.different:
        told += f", not {', '.join(others.different)}"
    print(f"verify: {told}")
    return int(not alike or bool(others.different))


def same_images(again: pd.DataFrame, stored: pd.DataFrame) -> tuple[bool, str]:
    """Whether images made anew are those of ``stored`` (votes and scores, the same rows), and a line that says so.

    Another processor rounds differently, which may move a pixel by one level: of a hundred votes two may differ, and
    of a hundred scores two by more than a hundredth of their spread.
    """
    scores = list(REWARDS)
    votes = again[VOTES].to_numpy() == stored[VOTES].to_numpy()
    spread = stored[scores].std().to_numpy()
    near = np.abs(again[scores].to_numpy() - stored[scores].to_numpy()) <= results.ROUNDING * spread
    told = f"{len(again)} images made anew: {votes.mean():.1%} of the votes and {near.mean():.1%} of the scores are "
    return bool(votes.mean() >= 0.98 and near.mean() >= 0.98), f"{told}the same within rounding"


# ---- preflight: what would stop a run after hours, all of it, a line each


def look_ahead(profile: str) -> int:
    """Print what would stop a run of the profile, a line each; the exit status."""
    study = Pipeline(start_run("preflight", profile=profile))
    models = models_of(study)
    problems = model_problems(models) + gpu_problems(study.profile)
    try:
        problems += disk_problems(images_asked_for(study))
        for prompts in (study.prompts, study.pool.prompts):
            _ = prompts.value  # there are as many as the profile asks for
    except StudyError as error:
        if not any(str(error) in known for known in problems):  # of a missing model
            problems.append(str(error))
    for problem in problems:
        print(f"preflight: {problem}", file=sys.stderr)
    if problems:
        return 2
    distinct = {weights for weights, _ in models.values()}
    print(f"preflight: profile {profile}: {len(distinct)} models are here, the disk has room, ok")
    if seconds := seconds_stored(profile):
        told = ", ".join(f"{name} {spent:,.0f}" for name, spent in seconds.items() if spent >= 1) or "less than 1 each"
        print(f"preflight: its last run is stored; seconds of its steps: {told}")
    return 0


def models_of(study: Pipeline) -> dict[str, tuple[Weights, tuple[str, ...]]]:
    """Every model of a study by the profile's key for it, with the files that its folder needs."""
    ddpo = Weights(study.profile.ddpo.model, study.profile.ddpo.revision)
    named = {"generator.model": (study.generator, PIPELINE_FILES), "ddpo.model": (ddpo, PIPELINE_FILES)}
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


def model_problems(models: Mapping[str, tuple[Weights, tuple[str, ...]]]) -> list[str]:
    """What is wrong with models, given as ``models_of`` does; what only the hub has is fetched."""
    keys: dict[tuple[Weights, tuple[str, ...]], list[str]] = {}
    for key, model in models.items():
        keys.setdefault(model, []).append(key)
    problems = []
    for (weights, files), of_model in progress(keys.items(), "models", unit="models"):
        named = " and ".join(of_model)
        try:
            path = weights.path
        except StudyError as error:
            problems.append(f"{named}: {error}")
            continue
        problems += [f"{named}: {path / name} {defect}; copy {path} anew" for name, defect in _defects(path, files)]
    return problems


def disk_problems(images: Mapping[Weights, int]) -> list[str]:
    """Whether so many images of each pipeline fit on the disk, beside what is already there of them.

    Raises ``StudyError`` for a pipeline that cannot be read.
    """
    needed = sum(BYTES_PER_PIXEL * image_side(model.path) ** 2 * count for model, count in images.items())
    folder = artifacts_folder()
    free = shutil.disk_usage(next(place for place in (folder, *folder.parents) if place.exists())).free
    stored = sum(path.stat().st_size for path in (folder / "steps").rglob("*") if path.is_file())
    if free + stored >= needed:
        return []
    return [
        f"{folder}: {needed / 2**30:.1f} GiB may be written, {free / 2**30:.1f} GiB are free; make room, point "
        "TEXTNORM_ARTIFACTS to a larger disk, or lower images_per_prompt in the profile"
    ]


def gpu_problems(profile: Profile) -> list[str]:
    """Whether anything computes in float16, and there is no GPU for it."""
    dtypes = {part: getattr(profile, part).dtype for part in ("generator", "rewards")}
    dtypes |= {f"{part}.recipe": getattr(profile, part).recipe.get("dtype") for part in ("rwr", "ddpo")}
    keys = [f"{part}.dtype" for part, dtype in dtypes.items() if dtype == "float16"]
    if not keys or torch.cuda.is_available():
        return []
    remedy = "install a CUDA build of torch, or take bfloat16, in which a CPU is several times faster"
    return [f"{' and '.join(keys)}: float16 wants a GPU, and torch finds none here; {remedy}"]


def seconds_stored(profile: str) -> dict[str, float]:
    """What the steps behind the figures and tables of the profile's last run took, by step, the longest first."""
    steps, seconds = {}, Counter()
    try:
        for path in records_folder(profile).glob("*.json"):
            for made in json.loads(path.read_bytes())["made"].values():
                steps |= {one["key"]: one["step"] for one in made["steps"]}
        for key, name in steps.items():
            meta = artifacts_folder() / "steps" / name / key / "meta.json"
            seconds[name] += json.loads(meta.read_bytes())["seconds"] if meta.is_file() else 0.0
    except (OSError, ValueError, LookupError, TypeError):
        return {}  # damaged: whoever reads these for their content says so
    return dict(seconds.most_common())


def image_side(model: Path) -> int:
    """Pixels a side of the images that the pipeline in the folder ``model`` makes.

    Raises ``DataError`` for configurations that cannot be read, or are not those of a latent diffusion model.
    """
    try:
        unet, vae = (json.loads((model / part / "config.json").read_bytes()) for part in ("unet", "vae"))
        return int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise DataError(f"{model}: unet/config.json or vae/config.json is no use ({reason}); copy it anew") from error


def _defects(path: Path, needed: tuple[str, ...]) -> list[tuple[str, str]]:
    """Files of the model in ``path`` that are missing, and configurations that are no JSON."""
    if path.is_file():
        return []
    missing = [(name, "is missing") for name in needed if not (path / name).is_file()]
    broken = []
    for file in sorted(path.rglob("*.json")):
        try:
            json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or "no JSON"
            broken.append((file.relative_to(path).as_posix(), f"cannot be read ({reason})"))
    return missing + broken


# ---- the others, and the command line


def keep_results(action: str) -> int:
    """Collect ``results/``, or compare it with what was computed here; the exit status."""
    steps = artifacts_folder() / "steps"
    if action == "compare":
        print(results.report(results.compare(steps)))
        return 0
    records = [json.loads(path.read_text()) for path in records_folder(DEFAULT_PROFILE).glob("*.json")]
    asked = {key for record in records for key in record["asked"]}
    size = results.collect(steps, asked, never=[ReleasedSet(name).key for name in SETS])
    print(f"results: {size / 1e6:.1f} MB in {RESULTS}")
    return 0


def write_pages(profile: str) -> int:
    """Write the notebooks as they were run as pages; the exit status."""
    *pages, index = make_pages(profile)
    print(f"pages: {len(pages)} notebooks in {index.parent}; open {index.name} in a browser")
    return 0


def fetch_weights(name: str, revision: str, to: Path) -> int:
    """Fetch a model from the hub; the exit status."""
    folder = fetch(Weights(name, revision), to)
    print(f"weights: {folder} is complete; copy {to} and set {VARIABLE} to it")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m textnorm_lib", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, run in (("compute", compute), ("preflight", look_ahead), ("pages", write_pages)):
        command = commands.add_parser(name)
        command.add_argument("profile", nargs="?", default=DEFAULT_PROFILE)
        command.set_defaults(run=run)
    command = commands.add_parser("verify")
    command.add_argument("--share", type=float, default=0.02, help="of the prompts and of the steps")
    command.add_argument("--seed", type=int, default=0, help="of what is drawn")
    command.set_defaults(run=verify)
    command = commands.add_parser("results")
    command.add_argument("action", choices=["collect", "compare"])
    command.set_defaults(run=keep_results)
    command = commands.add_parser("weights").add_subparsers(required=True).add_parser("fetch")
    command.add_argument("name", help="on the hub: owner/model")
    command.add_argument("--revision", required=True, help="the 40 digits of a commit")
    command.add_argument("--to", required=True, type=Path, help=f"the folder that {VARIABLE} is to name there")
    command.set_defaults(run=fetch_weights)
    for name in ELSEWHERE:
        commands.add_parser(name)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in ELSEWHERE:
        return ELSEWHERE[arguments[0]](arguments[1:])
    given = vars(_parser().parse_args(arguments))
    command, run = given.pop("command"), given.pop("run")
    try:
        return run(**given)
    except StudyError as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
