"""People's votes on the images of the benchmark that was built: what they answered in notebook 01, as a step.

    votes = run.step(people_votes, study.images, *[AnswersFile(path) for path in files])

The profile names the files of three people (``tia2.votes``) once they are through; from then on their votes are the
benchmark's, as the released ones are the paper's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from textnorm_lib.errors import DataError
from textnorm_lib.files import check_regular
from textnorm_lib.labelled import alignment_votes
from textnorm_lib.store import artifacts_folder, digest, step
from textnorm_lib.tia2.labels import ANNOTATORS, INDEX


@dataclass(frozen=True)
class AnswersFile:
    """The answers of one person (``label_file.py``) as a step's input: its key is a digest of what is in it."""

    path: Path

    @property
    def key(self) -> str:
        """SHA-256 of the file; ``DataError`` for one that cannot be read."""
        try:
            check_regular(self.path)
            return digest(self.path.read_bytes())
        except OSError as error:
            remedy = "label the images in notebook 01, or correct tia2.votes in the profile"
            raise DataError(f"{self.path}: {error.strerror}; {remedy}") from None


def answers_files(names: Sequence[str]) -> list[AnswersFile]:
    """The files that a profile names: as they are if absolute, else below the folder of the labels."""
    return [AnswersFile(artifacts_folder() / "labels" / name) for name in names]


@step(1)
def people_votes(made: Path, *files: AnswersFile) -> pd.DataFrame:
    """The votes of three people on the images in the folder ``made``, in the form of ``build.collect_votes``.

    Raises ``DataError`` as ``labelled.alignment_votes``, for other than three files, and for a person who has not
    answered all of the images.
    """
    if len(files) != len(ANNOTATORS):
        raise DataError(f"{len(files)} files of votes; give those of three people (in a profile: tia2.votes)")
    index = pd.read_parquet(made / INDEX)
    votes = alignment_votes([file.path for file in files], index)
    for number, file in enumerate(files, start=1):
        if (left := len(index) - (votes["annotator"] == number).sum()) > 0:
            raise DataError(f"{file.path} has no answer for {left} of {len(index)} images; finish it in notebook 01")
    return votes.merge(index[["image", "set"]], on="image")[["set", "image", "prompt", "annotator", "vote"]]
