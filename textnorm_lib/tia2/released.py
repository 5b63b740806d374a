"""The release as a study's prompts and contrastive prompts, its scores for tables and heat maps, how they were tuned.

The scores are metrics of prompts, a row per prompt, reward and metric; the rewards of single images were not released.
"""

from itertools import chain, islice, zip_longest

import numpy as np
import pandas as pd

from textnorm_lib.prompts.sets import DEVELOPMENT, SEALED, side_of
from textnorm_lib.prompts.templates import CLASSES, parse_composition, parse_counting
from textnorm_lib.stats.intervals import prompt_bootstrap
from textnorm_lib.stats.names import FOUR, PROMPT
from textnorm_lib.study.errors import DataError
from textnorm_lib.study.store import step
from textnorm_lib.tia2.official import OfficialSet

AP_METRICS = ("ap5", "ap10", "ap25")
SCALES = (0.1, 1.0, 3.0, 5.0, 10.0)
PENALTIES = (0.05, 0.1, 0.5, 1.0)


@step(1)
def collect_scores(*sets: OfficialSet) -> pd.DataFrame:
    """All released metrics: set, prompt, reward, metric, value."""
    frame = pd.concat([official.scores.assign(set=official.name) for official in sets], ignore_index=True)
    return frame[["set", "prompt", "reward", "metric", "value"]]


@step(1)
def auroc_by_pair(scores: pd.DataFrame) -> pd.DataFrame:
    """AUROC of each composition prompt, once in either order of its two classes: reward, row, column, auroc."""
    rows = scores.query("set == 'composition' and metric == 'auroc'")
    pairs = [parse_composition(prompt) for prompt in rows["prompt"]]
    first, second = (list(classes) for classes in zip(*pairs, strict=True))
    one_way = pd.DataFrame({"reward": rows["reward"], "row": first, "column": second, "auroc": rows["value"]})
    return pd.concat([one_way, one_way.rename(columns={"row": "column", "column": "row"})], ignore_index=True)


@step(1)
def auroc_by_class_and_count(scores: pd.DataFrame) -> pd.DataFrame:
    """AUROC of each counting prompt: reward, row (class), column (count), auroc."""
    rows = scores.query("set == 'counting' and metric == 'auroc'")
    classes, counts = zip(*map(parse_counting, rows["prompt"]), strict=True)
    frame = {"reward": rows["reward"], "row": list(classes), "column": list(counts), "auroc": rows["value"]}
    return pd.DataFrame(frame).reset_index(drop=True)


@step(1)
def scores_by_count(scores: pd.DataFrame) -> pd.DataFrame:
    """The counting set split by the count that the prompt asks for: ``set`` is then "1" to "6"."""
    rows = scores.query("set == 'counting'")
    counts = [str(parse_counting(prompt)[1]) for prompt in rows["prompt"]]
    return rows.assign(set=counts).reset_index(drop=True)


@step(1)
def differences_by_class(scores: pd.DataFrame, *, resamples: int, confidence: float, seed: int) -> pd.DataFrame:
    """Composition set, AUROC: TextNorm minus each other reward, drawing prompts or drawing classes again.

    The 300 prompts are the pairs of 25 classes and share them, so they are not independent. Drawing the classes again
    (a pair then counts as often as the product of its two classes) keeps what a class does to all of its pairs.
    Returns reward, difference, drawn ("prompts" or "classes"), low, high.
    """
    wide = scores.query("set == 'composition' and metric == 'auroc'").pivot(index="prompt", columns="reward")["value"]
    gains = -wide.drop(columns="textnorm").sub(wide["textnorm"], axis=0)
    places = np.array([[CLASSES.index(name) for name in parse_composition(prompt)] for prompt in gains.index])
    options = {"resamples": resamples, "confidence": confidence, "seed": seed}

    def mean_by_prompts(counts: np.ndarray) -> np.ndarray:
        return (counts @ gains.to_numpy() / counts.sum(axis=1, keepdims=True)).T

    def mean_by_classes(counts: np.ndarray) -> np.ndarray:
        return mean_by_prompts((counts[:, places[:, 0]] * counts[:, places[:, 1]]).astype(float))

    tables = []
    for drawn, statistic, n in (("prompts", mean_by_prompts, len(gains)), ("classes", mean_by_classes, len(CLASSES))):
        low, high = prompt_bootstrap(statistic, n, **options)
        found = {"difference": gains.mean(), "drawn": drawn, "low": low, "high": high}
        tables.append(pd.DataFrame(found).reset_index())
    return pd.concat(tables, ignore_index=True)


@step(1)
def collect_tuning(*sets: OfficialSet) -> pd.DataFrame:
    """What TextNorm's released scores were computed with: set, prompt, ensemble, scale, penalty."""
    frame = pd.concat([official.tuning.assign(set=official.name) for official in sets], ignore_index=True)
    return frame[["set", "prompt", "ensemble", "scale", "penalty"]]


@step(2)
def tuning_shares(tuning: pd.DataFrame) -> pd.DataFrame:
    """How many prompts use each value of the grid: set, parameter, value, prompts, share."""
    rows = []
    for parameter, grid in (("scale", SCALES), ("penalty", PENALTIES)):
        for name, group in tuning.dropna(subset=[parameter]).groupby("set", sort=False):
            if unknown := set(group[parameter]) - set(grid):
                raise ValueError(f"{name}: {parameter} {sorted(unknown)} is not on the grid {grid}")
            for value, prompts in group[parameter].value_counts().reindex(grid, fill_value=0).items():
                rows.append((name, parameter, value, prompts, prompts / len(group)))
    return pd.DataFrame(rows, columns=["set", "parameter", "value", "prompts", "share"])


@step(1)
def choose_in_hindsight(scores: pd.DataFrame) -> pd.DataFrame:
    """Released TextNorm beside two untouched choices that are allowed to peek as it was.

    For each prompt the reward with the highest mean of the three AP metrics *on that prompt's own labels* is taken:
    ``hindsight2`` chooses between ImageReward and PickScore, ``hindsight4`` among the four baselines. Where several
    share the first place, their metrics are averaged. TextNorm's own choice was among 20 settings (5 scales and 4
    penalties; 5 for the composition set).
    """
    wide = scores.pivot_table(index=[*PROMPT, "reward"], columns="metric", values="value", sort=False)
    ap = wide[list(AP_METRICS)].mean(axis=1)
    chosen = [wide.xs("textnorm", level="reward").assign(reward="textnorm")]
    for name, candidates in (("hindsight2", ("imagereward", "pickscore")), ("hindsight4", FOUR)):
        among = ap[ap.index.isin(candidates, level="reward")]
        best = among[among >= among.groupby(PROMPT, sort=False).transform("max") - 1e-12].index
        chosen.append(wide.loc[best].groupby(PROMPT, sort=False).mean().assign(reward=name))
    return pd.concat(chosen).reset_index().melt([*PROMPT, "reward"], var_name="metric", value_name="value")


def grid(frame: pd.DataFrame, reward: str) -> pd.DataFrame:
    """One reward's AUROCs as a matrix: classes alphabetically against classes or counts; nan where none exists."""
    rows = frame[frame["reward"] == reward]
    matrix = rows.pivot(index="row", columns="column", values="auroc")
    classes = sorted(CLASSES)
    columns = classes if set(matrix.columns) <= set(classes) else sorted(matrix.columns)
    return matrix.reindex(index=classes, columns=columns)


@step(1)
def released_prompts(*sets: OfficialSet, only: str | None, **per_set: int) -> pd.DataFrame:
    """So many of the released prompts, the first of development and of sealed classes in turn: set, prompt."""
    chosen = []
    for official in sets:
        prompts, number = official.votes["prompt"].drop_duplicates(), per_set[official.name]
        sides = [list(prompts[prompts.map(side_of) == side]) for side in (DEVELOPMENT, SEALED) if only in (None, side)]
        in_turn = filter(None, chain.from_iterable(zip_longest(*sides)))
        taken = set(prompts) if only is None and number == len(prompts) else set(islice(in_turn, number))
        if len(taken) < number:
            raise DataError(f"{number} prompts of the released {official.name} set; it has {len(taken)} to choose from")
        chosen.append((official.name, [prompt for prompt in prompts if prompt in taken]))
    rows = [(name, prompt) for name, prompts in chosen for prompt in prompts]
    return pd.DataFrame(rows, columns=PROMPT)


@step(1)
def released_sets(prompts: pd.DataFrame, *sets: OfficialSet) -> pd.DataFrame:
    """The paper's own contrastive prompts, of those of ``prompts`` (set, prompt) that it has: set, prompt, text, kind.

    A language model wrote them, or people and rules (the paper does not say of which prompts).
    """
    released = pd.concat([official.contrastive for official in sets]).rename(columns={"contrastive_prompt": "text"})
    return prompts[PROMPT].merge(released[["prompt", "text"]], on="prompt").assign(kind="released")


@step(1)
def first_contrasts(contrastive: pd.DataFrame, *, most: int) -> pd.DataFrame:
    """The first ``most`` contrastive prompts of each prompt."""
    return contrastive.groupby("prompt", sort=False).head(most).reset_index(drop=True)
