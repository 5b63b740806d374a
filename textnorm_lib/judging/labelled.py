"""From the files of labelling sessions to the study's votes: several annotators together, and how far they agree.

    votes = alignment_votes(files, images)          # like the released ones; tia2.image_table makes labels of them
    votes = comparison_votes(files, comparisons)    # like a judge's; win_tie_loss makes results of them
    people_agree(votes)

Files can be read while somebody still labels; what has no answer yet has no row. The profile names the files of three
people (``tia2.votes``) once they are through with notebook 01; from then on ``people_votes`` are the benchmark's, as
the released ones are the paper's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from textnorm_lib.judging.comparisons import votes_on
from textnorm_lib.judging.labelling import ALIGNMENT, COMPARISON, LabelItem, Session, read_labels
from textnorm_lib.stats.agreement import cohen_kappa, nominal_alpha
from textnorm_lib.study.errors import DataError, check_regular
from textnorm_lib.study.progress import progress
from textnorm_lib.study.store import artifacts_folder, digest, step
from textnorm_lib.tia2.labels import ANNOTATORS, BAD, GOOD, INDEX, SKIP

VOTES = {"good": GOOD, "bad": BAD, "skip": SKIP}


def alignment_votes(files: Sequence[Path | str], images: pd.DataFrame) -> pd.DataFrame:
    """The votes in ``files``, one annotator each: image, prompt, annotator (1, 2, ... in their order), vote, name.

    ``images`` has image and prompt, and gives the order. Raises ``DataError`` for a file of another kind, an annotator
    with two files, and an image that is none of these.
    """
    answers = _answers(files, ALIGNMENT, "image", images["image"])
    numbers = {name: number for number, name in enumerate(answers["name"].unique(), start=1)}
    votes = images[["image", "prompt"]].merge(answers, left_on="image", right_on="item")
    votes = votes.assign(annotator=votes["name"].map(numbers), vote=votes["answer"].map(VOTES))
    return votes[["image", "prompt", "annotator", "vote", "name"]].astype({"annotator": int, "vote": int})


def comparison_votes(files: Sequence[Path | str], comparisons: pd.DataFrame) -> pd.DataFrame:
    """The votes in ``files``, one judge each, in the form of ``comparisons.ask``.

    Raises ``DataError`` for a file of another kind, a judge with two files, and a comparison that is none of these.
    """
    answers = _answers(files, COMPARISON, "comparison", comparisons["comparison"])
    return votes_on(answers[["item", "name", "question", "answer"]].to_numpy().tolist(), comparisons)


def _answers(
    files: Sequence[Path | str], questions: Mapping[str, Sequence[str]], what: str, known: pd.Series
) -> pd.DataFrame:
    """item, question, answer, name of all ``files``, which ask ``questions`` of ``known`` items."""
    wanted, known = {name: [*answers] for name, answers in questions.items()}, set(known)
    rows, file_of = [], {}
    for file in map(Path, files):
        labels = read_labels(file)
        name = labels.header["annotator"]
        if labels.header["questions"] != wanted:
            raise DataError(f"{file} asks {labels.header['questions']}, not {wanted}; give the files of those sessions")
        if name in file_of:
            raise DataError(f"{file} and {file_of[name]} are both of {name!r}; give one file of each annotator")
        file_of[name] = file
        for (item, question), answer in labels.answers.items():
            if item not in known:
                raise DataError(f"{file} answers {what} {item!r:.80}, which is none of those given; add its {what}s")
            rows.append((item, question, answer, name))
    return pd.DataFrame(rows, columns=["item", "question", "answer", "name"])


def people_agree(votes: pd.DataFrame) -> pd.DataFrame:
    """How far people agree, of votes of either kind: question, pair, n, same, coefficient.

    Of each two people: n items that both answered, the share with the same answer, Cohen's kappa. Of all of them: n
    items that two or more answered, the share of equal pairs of answers, Krippendorff's alpha (nominal). A skip is a
    missing answer. What cannot be told is nan: the coefficient where only one answer occurs, everything where n is 0.
    """
    if "vote" in votes:
        about = {"question": "alignment", "item": votes["image"], "who": votes["name"], "answer": votes["vote"]}
    else:
        about = {"item": votes["comparison"], "who": votes["judge"]}
    votes = votes.assign(**about)
    votes = votes[~votes["answer"].isin([SKIP, "skip"])].astype({"answer": str})
    rows = []
    for question, group in votes.groupby("question", sort=False):
        wide = group.pivot(index="item", columns="who", values="answer")[group["who"].unique()]
        same = []
        for pair in combinations(wide, 2):
            first, second = wide[[*pair]].dropna().to_numpy().T
            same.append(first == second)
            rows.append((question, ", ".join(pair), len(first), pd.Series(same[-1]).mean(), cohen_kappa(first, second)))
        counts = pd.crosstab(group["item"], group["answer"]).to_numpy()
        several = (counts.sum(axis=1) > 1).sum()
        rows.append((question, "all", several, pd.Series(np.concatenate([*same, []])).mean(), nominal_alpha(counts)))
    return pd.DataFrame(rows, columns=["question", "pair", "n", "same", "coefficient"])


def answer_all(session: Session, judge: Callable[[LabelItem, str], str]) -> None:
    """Answer what is open in ``session`` by ``judge``, which takes an item and the question: a simulated sitting."""
    for _ in progress(range(len(session.cells) - session.done), session.annotator, unit="answers"):
        session.answer(session.current, judge(session.current.item, session.current.question))


@dataclass(frozen=True)
class AnswersFile:
    """The answers of one person (``judging/labelling.py``) as a step's input: its key is a digest of what is in it."""

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
    """The votes of three people on the images in the folder ``made``, in the form of ``mini.annotators.collect_votes``.

    Raises ``DataError`` as ``alignment_votes``, for other than three files, and for a person who has not
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
