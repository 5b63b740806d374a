"""Which checkpoint of each run is taken, and how the models it makes are judged side by side (sections 5.1 and 5.4).

    choices = run.step(choose_checkpoints, judged, **settings)
    sets = run.step(tuned_sets, judged, choices)
    votes = run.step(judge_tuned, sets, judged, reference="textnorm", quality_tie=QUALITY_TIE, seed=seed)

``judged`` as ``finetuning_outcomes.prompt_gains`` takes it, of one beta a reward. From the votes on, all is as in part
5: the sets have n = 1, because nothing is chosen among a checkpoint's images, and ``selection.outcomes_by_size`` and
``sign_tests_by_size`` take the votes. Holm's family is all comparisons of a set.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from textnorm_lib.checkpoints import selection_costs
from textnorm_lib.errors import DataError
from textnorm_lib.names import BASE
from textnorm_lib.rankings import RATING
from textnorm_lib.selection import IMAGES_PER_SET, SETS_PER_PROMPT, judge_sets
from textnorm_lib.store import step
from textnorm_lib.tia2.labels import or_unlabelled

_PROMPT = ["set", "prompt"]
_RUN = ["tuned_on", "beta", "run"]


@step(1)
def choose_checkpoints(judged: pd.DataFrame, *, resamples: int, confidence: float, seed: int) -> pd.DataFrame:
    """The checkpoint of each run by the paper's rule with its own reward, the oracle's, and what they leave.

    Returns tuned_on, beta, run, chosen, oracle, last (checkpoints), gold_base, gold_chosen, gold_oracle, gold_last
    (mean ratings), cost, low, high (``checkpoints.selection_costs``), n_prompts, n_images (of a checkpoint).
    """
    base = judged[judged["tuned_on"] == BASE]
    found = []
    for (tuned_on, beta, run), rows in judged[judged["tuned_on"] != BASE].groupby(_RUN, sort=False):
        settings = {"resamples": resamples, "confidence": confidence, "seed": seed}
        cost = selection_costs(pd.concat([base, rows]), scores=[tuned_on], gold=RATING, **settings).iloc[0]
        last = rows["checkpoint"].max()
        gold = rows.loc[rows["checkpoint"] == last, RATING].mean()
        numbers = {"last": last, "gold_last": gold, "n_images": len(base)}
        found.append({"tuned_on": tuned_on, "beta": beta, "run": run, **cost.drop("reward"), **numbers})
    checkpoints, gold = ["chosen", "oracle", "last"], [f"gold_{of}" for of in ("base", "chosen", "oracle", "last")]
    return pd.DataFrame(found)[[*_RUN, *checkpoints, *gold, "cost", "low", "high", "n_prompts", "n_images"]]


@step(1)
def tuned_sets(judged: pd.DataFrame, choices: pd.DataFrame) -> pd.DataFrame:
    """Two sets of four images a prompt of the base and of each model: set, prompt, model, n, number, place, image.

    Set k holds the k-th four seeds, of a model in its k-th run at the ``choices``' chosen checkpoint; both are of the
    one run where there is one only. So all models' sets k have the same seeds. Raises ``DataError`` for a reward with
    several beta, and for prompts with fewer than eight images.
    """
    if (several := choices.groupby("tuned_on")["beta"].nunique() > 1).any():
        raise DataError(f"choices: {several.idxmax()} was tuned with several beta; take one (with_beta)")
    fewest = judged[judged["tuned_on"] == BASE].groupby(_PROMPT).size().min()
    if fewest < SETS_PER_PROMPT * IMAGES_PER_SET:
        raise DataError(
            f"a prompt has {fewest} images of a checkpoint; {SETS_PER_PROMPT} sets of {IMAGES_PER_SET} are judged: "
            "evaluate on more seeds"
        )
    sets = []
    for model in [BASE, *choices["tuned_on"].unique()]:
        own = choices[choices["tuned_on"] == model].sort_values("run")
        for number in range(SETS_PER_PROMPT):
            choice = None if model == BASE else own.iloc[number % len(own)]
            images = _images_of(judged, choice).sort_values("seed").assign(model=model, n=1, number=number + 1)
            images["place"] = images.groupby(_PROMPT).cumcount() - number * IMAGES_PER_SET + 1
            sets.append(images[images["place"].between(1, IMAGES_PER_SET)])
    columns = [*_PROMPT, "model", "n", "number", "place", "image"]
    return pd.concat(sets).sort_values([*_PROMPT, "model", "number", "place"], ignore_index=True)[columns]


def _images_of(judged: pd.DataFrame, choice: pd.Series | None) -> pd.DataFrame:
    """The images of a run's chosen checkpoint; those of the base where there is none, or the base was chosen."""
    if choice is None or choice["chosen"] == 0:
        return judged[judged["tuned_on"] == BASE]
    return judged[(judged[_RUN] == choice[_RUN]).all(axis=1) & (judged["checkpoint"] == choice["chosen"])]


@step(1)
def judge_tuned(
    sets: pd.DataFrame, judged: pd.DataFrame, *, reference: str, quality_tie: float, seed: int
) -> pd.DataFrame:
    """Three judges' votes on ``reference`` against every other model and the base, and on every other against the base.

    ``sets`` as ``tuned_sets`` gives them; all else as ``selection.judge_sets``, a judge's unit being that of all images
    in the sets. Raises ``DataError`` where ``reference`` is no model of ``sets``, and as ``judge_sets``.
    """
    models = list(sets["model"].unique())
    if reference not in models or reference == BASE:
        raise DataError(f"reference is {reference!r}; one of the tuned models is needed, {', '.join(models)}")
    images = judged[judged["image"].isin(sets["image"])]
    others = [model for model in models if model not in (reference, BASE)]
    pairs = {reference: [*others, BASE], **{model: [BASE] for model in others}}
    options = {"quality_tie": quality_tie, "seed": seed}
    votes = [judge_sets(sets, images, model=one, opponents=against, **options) for one, against in pairs.items()]
    return pd.concat(votes, ignore_index=True)


@step(1)
def pick_tuned_images(made: Path, judged: pd.DataFrame, *, checkpoints: int, seeds: int) -> pd.DataFrame:
    """Images over training for one prompt of each set (figures 1 and 5), of the first run of each model.

    ``made`` is the folder of the images. By rule: the prompt of which nearest to half of the base's images is good, its
    ``seeds`` lowest seeds, and ``checkpoints`` of the run's, evenly spread up to the last; where nobody has voted it is
    the set's first prompt, and label is nan. Returns tuned_on ("base", too), checkpoint, set, prompt, seed, label,
    image, png.
    """
    judged = or_unlabelled(judged)
    base, tuned = judged[judged["tuned_on"] == BASE], judged[judged["tuned_on"] != BASE]
    good = base.groupby(_PROMPT, sort=False)["label"].mean().sub(0.5).abs().fillna(0.0)
    prompts = good.groupby("set", sort=False).idxmin()
    shown = [base]
    for _, rows in tuned[tuned["run"] == tuned.groupby("tuned_on")["run"].transform("min")].groupby("tuned_on"):
        known = np.sort(rows["checkpoint"].unique())
        places = np.linspace(-1, len(known) - 1, min(checkpoints, len(known)) + 1)[1:].round().astype(int)
        shown.append(rows[rows["checkpoint"].isin(known[places])])
    shown = pd.concat(shown)
    shown = shown[pd.MultiIndex.from_frame(shown[_PROMPT]).isin(prompts)]
    shown = shown[shown.groupby("prompt")["seed"].rank(method="dense") <= seeds]
    columns = ["tuned_on", "checkpoint", *_PROMPT, "seed", "label", "image"]
    return shown[columns].assign(png=[(made / name).read_bytes() for name in shown["image"]]).reset_index(drop=True)
