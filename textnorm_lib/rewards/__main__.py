"""Published checkpoints, converted once to folders for ``load_reward``; the folder VOCAB holds BERT's vocab.txt.

python -m textnorm_lib.rewards convert imagereward ImageReward.pt --tokenizer VOCAB --to models/imagereward
python -m textnorm_lib.rewards convert blip2 blip2_pretrained.pth eva_vit_g.pth --tokenizer VOCAB --to models/blip2
"""

import argparse
import sys
from pathlib import Path

from textnorm_lib.errors import StudyError
from textnorm_lib.rewards.convert import convert_blip2, convert_imagereward

# What converts, and the files that it takes.
_CONVERTERS = {
    "imagereward": (convert_imagereward, ("ImageReward.pt",)),
    "blip2": (convert_blip2, ("blip2_pretrained.pth", "eva_vit_g.pth")),
}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m textnorm_lib.rewards", description="Reward models.")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("convert", help="write a published checkpoint as a folder for load_reward")
    models = command.add_subparsers(dest="model", required=True)
    for name, (_, files) in _CONVERTERS.items():
        model = models.add_parser(name, help=f"takes {' and '.join(files)}")
        for file in files:
            model.add_argument(file, type=Path)
        model.add_argument("--tokenizer", required=True, type=Path, help="a folder with bert-base-uncased's vocab.txt")
        model.add_argument("--to", required=True, type=Path, help="the new folder")
    options = parser.parse_args(arguments)
    convert, files = _CONVERTERS[options.model]
    try:
        convert(*(getattr(options, file) for file in files), options.to, tokenizer=options.tokenizer)
    except (StudyError, OSError) as error:
        print(f"convert: {error}", file=sys.stderr)
        return 2
    print(f"convert: {options.to} is complete")
    return 0


if __name__ == "__main__":
    sys.exit(main())
