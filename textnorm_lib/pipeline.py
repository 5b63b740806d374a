"""The study in one file: what is computed from what.

    run = start_run("04_best_of_n", profile="mini")
    study = Pipeline(run)           # run.profile says how much of everything
    study.labels                    # a handle: the benchmark's labels; nothing is computed yet
    study.labels.value              # a DataFrame: read back, or computed with all that it rests on

Notebooks take what several of them need from here and compute the rest themselves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

from textnorm_lib.confidence import tuning
from textnorm_lib.judging import selection, start_here
from textnorm_lib.judging.labelled import answers_files, people_votes
from textnorm_lib.mini.annotators import collect_votes, rate_quality
from textnorm_lib.mini.scenes import sample_scenes
from textnorm_lib.optimise import finetuning, outcomes
from textnorm_lib.optimise.best_of_n import gold_curves
from textnorm_lib.optimise.pool import CHOOSERS, TEXTNORM, join_judges, name_textnorm
from textnorm_lib.prompts.random import random_sets
from textnorm_lib.prompts.rules import rule_sets
from textnorm_lib.prompts.sets import DEVELOPMENT, SEALED, images_of_side, prompts_of_sets
from textnorm_lib.rewards.scoring import REWARDS, own_scores, score_images
from textnorm_lib.stats.metrics import prompt_metrics
from textnorm_lib.stats.rankings import RATING
from textnorm_lib.study.config import DEFAULT_PROFILE, Finetuning, Profile, PromptsPerSet
from textnorm_lib.study.run import Run, begin_run, results_of
from textnorm_lib.study.store import Artifact
from textnorm_lib.study.weights import BUNDLED, Weights
from textnorm_lib.tia2 import describe
from textnorm_lib.tia2.build import label_images, list_images, make_images
from textnorm_lib.tia2.official import SETS, ReleasedSet, release_available
from textnorm_lib.tia2.released import collect_scores, first_contrasts, released_prompts, released_sets

# Added to the profile's seed, so that no image of one purpose has the noise of another's.
POOL_SEED, TRAINING_SEED, EVALUATION_SEED = 1000, 2000, 3000
START_SEED = 2000  # no other purpose makes images of development prompts from it
# Each reward alone, the paper's pair, all four.
SEALED_ENSEMBLES = [*((name,) for name in REWARDS), tuning.PAPERS_ENSEMBLE, REWARDS]
PATHS = 9  # from noise to image, on which a divergence is measured, at least one per prompt: it varies little
UNCOUNTED_STEPS = 2  # of a divergence, the last ones (optimise/finetuning.py)


def _tia2(profile: Profile) -> str:
    return "" if results_of(profile) else release_available()[1]


def _annotators(profile: Profile) -> str:
    reason = f"profile {profile.name} names no annotators: people compare sets, in notebook 07"
    return "" if profile.annotators else reason


def _labels(profile: Profile) -> str:
    reason = f"profile {profile.name} names no votes: three people label the images in notebook 01 (key tia2.votes)"
    return "" if profile.annotators or profile.tia2.votes else reason


# What a cell or a figure may need (``# needs: tia2 labels``), and why it cannot be had.
RESOURCES = {
    "release": lambda _: release_available()[1],  # the released files themselves
    "tia2": _tia2,  # what follows from them: the files, or results/
    "prompts": lambda profile: _tia2(profile) if profile.prompts == "released" else "",  # those of the profile
    "annotators": _annotators,  # networks that vote on any image
    "labels": _labels,  # votes on the benchmark, of annotators or of people
}


def start_run(notebook: str, *, profile: str = DEFAULT_PROFILE, force: bool = False) -> Run:
    """Begin a notebook's run: load the profile and let cells with ``# needs: ...`` ask for what they need.

    ``force`` computes every step again, also those whose results come with the repository. The variable TEXTNORM_ANEW
    passes over these as well, and over what was stored before that second. Raises ``ConfigError`` for a bad profile.
    """
    return begin_run(notebook, profile, force=force, resources=RESOURCES)


@dataclass(frozen=True)
class Judged:
    """Images with what everyone says of them."""

    prompts: Artifact  # set, prompt
    images: Artifact  # the folder of the PNG files, with index.parquet: set, image, prompt, seed
    contrastive: Artifact  # set, prompt, text, kind
    scores: dict[str, Artifact]  # of each reward: prompt, image, text, score (``rewards.scoring.read_scores``)
    rewarded: Artifact  # a row an image: set, prompt, image, the four rewards, textnorm; training may depend on it
    judged: Artifact | None  # with votes, label, rating, quality_1 .. 3 as well; None where nobody votes

    @property
    def known(self) -> Artifact:
        """A row an image with all that is said of it."""
        return self.judged or self.rewarded


@dataclass(frozen=True)
class Tuned(Judged):
    """Images of a reward's tuned models, of every checkpoint beside the base: columns tuned_on, beta, run, ..., too."""

    trained: Artifact  # a folder a run: checkpoints and curve
    curves: Artifact  # the curves of all runs
    divergences: Artifact  # of each checkpoint from the base


@dataclass(frozen=True)
class Comparison:
    """Tuned models at one KL coefficient, laid side by side."""

    choices: Artifact  # of each run the checkpoint by the paper's rule, and what it costs
    votes: Artifact
    outcomes: Artifact
    tests: Artifact


class Pipeline:
    """Everything that more than one notebook needs, as named handles on stored results."""

    def __init__(self, run: Run) -> None:
        self.step, self.profile = run.step, run.profile

    # ---- the released benchmark

    @cached_property
    def release(self) -> list[ReleasedSet]:
        """The three released sets."""
        return [ReleasedSet(name) for name in SETS]

    @cached_property
    def released_images(self) -> Artifact:
        """27,500 rows: set, image, prompt, three votes, label, rating."""
        return self.step(describe.collect_images, *self.release)

    @cached_property
    def released_contrastive(self) -> Artifact:
        """set, prompt, position, contrastive_prompt."""
        return self.step(describe.collect_contrastive, *self.release)

    @cached_property
    def released_scores(self) -> Artifact:
        """The released metrics of every reward on every prompt with both labels: set, prompt, reward, metric, value."""
        return self.step(collect_scores, *self.release)

    # ---- the model that everything is made with, and how it is sampled

    @property
    def generator(self) -> Weights:
        """The text-to-image model."""
        return Weights(self.profile.generator.model, self.profile.generator.revision)

    def reward_model(self, name: str) -> Weights:
        """The model of a reward."""
        model = getattr(self.profile.rewards, name)
        return Weights(model.weights, model.revision)

    @property
    def sampling(self) -> dict:
        """For ``sampling.generate``."""
        names = ("steps", "guidance_scale", "batch_size", "dtype")
        return {name: getattr(self.profile.generator, name) for name in names}

    @cached_property
    def scenes(self) -> Artifact:
        """Scenes of the mini world with their captions, as its models learn from them: prompt, png."""
        return self.step(sample_scenes, number=24, seed=self.profile.seed)

    # ---- what is done to any prompts and images

    def _choose_prompts(self, per_set: PromptsPerSet, *, only: str | None = None) -> Artifact:
        """So many prompts of each set, of one side only if asked for. Fewer are always among more."""
        if self.profile.prompts == "released":
            return self.step(released_prompts, *self.release, only=only, **asdict(per_set))
        return self.step(prompts_of_sets, only=only, **asdict(per_set))

    def _contrast(self, prompts: Artifact) -> Artifact:
        """Contrastive prompts: the released ones of released prompts, by rule of the others."""
        most = self.profile.contrastive_prompts
        if self.profile.prompts == "released":
            return self.step(first_contrasts, self.step(released_sets, prompts, *self.release), most=most)
        return self.step(rule_sets, prompts, most=most)

    def _make(self, prompts: Artifact, images_per_prompt: int, *, seed: int) -> Artifact:
        options = {"images_per_prompt": images_per_prompt, "seed": self.profile.seed + seed}
        return self.step(make_images, prompts, self.generator, **self.sampling, **options, workers=self.profile.workers)

    def _score(self, images: Artifact, contrastive: Artifact, *, names: Iterable[str] = REWARDS) -> dict[str, Artifact]:
        options = {"dtype": self.profile.rewards.dtype, "workers": self.profile.workers}
        return {
            name: self.step(score_images, images, contrastive, self.reward_model(name), name=name, **options)
            for name in names
        }

    def _apply(
        self, recipe: Artifact, images: Artifact, contrastive: Artifact, scores: dict[str, Artifact]
    ) -> Artifact:
        """A row an image of the folder ``images``, with its own scores and TextNorm by ``recipe``."""
        own = self.step(own_scores, self.step(list_images, images), *scores.values(), names=list(scores))
        return self.step(tuning.apply_recipes, own, contrastive, recipe, *scores.values(), names=list(scores))

    def _vote(self, images: Artifact) -> Artifact:
        return self.step(collect_votes, images, *_networks(self.profile.annotators), workers=self.profile.workers)

    def _judge(self, prompts: Artifact, images: Artifact) -> Judged:
        """The folder ``images`` with what everyone says of it."""
        contrastive = self._contrast(prompts)
        scores = self._score(images, contrastive)
        rewarded = self.step(name_textnorm, self._apply(self.recipe, images, contrastive, scores), self.recipe)
        judged = None
        if self.profile.annotators:
            judges = _networks(self.profile.quality_judges)
            quality = self.step(rate_quality, images, *judges, workers=self.profile.workers)
            judged = self.step(join_judges, rewarded, self.step(label_images, self._vote(images)), quality)
        return Judged(prompts, images, contrastive, scores, rewarded, judged)

    # ---- the benchmark that is built here: prompts -> images -> votes -> labels

    @cached_property
    def prompts(self) -> Artifact:
        """set, prompt."""
        return self._choose_prompts(self.profile.tia2.prompts_per_set)

    @cached_property
    def contrastive(self) -> Artifact:
        """The contrastive prompts of ``prompts``: set, prompt, text, kind."""
        return self._contrast(self.prompts)

    @cached_property
    def images(self) -> Artifact:
        """The folder of the benchmark's images."""
        return self._make(self.prompts, self.profile.tia2.images_per_prompt, seed=0)

    @cached_property
    def votes(self) -> Artifact | None:
        """set, image, prompt, annotator, vote; None as long as nobody has voted."""
        if self.profile.annotators:
            return self._vote(self.images)
        if self.profile.tia2.votes:
            return self.step(people_votes, self.images, *answers_files(self.profile.tia2.votes))
        return None

    @cached_property
    def labels(self) -> Artifact | None:
        """A row an image, as ``released_images``; None as long as nobody has voted."""
        return self.votes and self.step(label_images, self.votes)

    @cached_property
    def scores(self) -> dict[str, Artifact]:
        """By reward: each image with its prompt and that prompt's contrasts."""
        return self._score(self.images, self.contrastive)

    @cached_property
    def labelled(self) -> Artifact:
        """``labels`` with a column per reward: the score of the image with its own prompt."""
        return self.step(own_scores, self.labels, *self.scores.values(), names=list(self.scores))

    @cached_property
    def development(self) -> Artifact:
        """The rows of ``labelled`` on which everything is chosen."""
        return self.step(images_of_side, self.labelled, side=DEVELOPMENT)

    @cached_property
    def sealed(self) -> Artifact:
        """The rows of ``labelled`` on which what was chosen is judged."""
        return self.step(images_of_side, self.labelled, side=SEALED)

    # ---- TextNorm, tuned on development prompts

    @cached_property
    def recipe(self) -> Artifact:
        """TextNorm of notebooks 04 to 08, one row: the paper's ensemble at its best setting, or the profile's."""
        if given := self.profile.textnorm:
            return self.step(tuning.given_recipe, **asdict(given))
        return self._tune([tuning.PAPERS_ENSEMBLE], self.contrastive, self.scores)

    def _tune(self, ensembles: Sequence[Sequence[str]], contrastive: Artifact, scores: dict[str, Artifact]) -> Artifact:
        """Each ensemble's best setting on the development prompts, with these contrasts, scored."""
        on = {"names": list(REWARDS), "ensembles": [list(rewards) for rewards in ensembles]}
        grid = self.step(tuning.grid_metrics, self.development, contrastive, *scores.values(), **on)
        units = self.step(tuning.reward_units, self.development, *self.scores.values(), names=list(REWARDS))
        return self.step(tuning.tuned_recipes, grid, units)

    @cached_property
    def random_contrasts(self) -> Artifact:
        """The control: as many contrastive prompts as by rule that have nothing to do with the prompt."""
        return self.step(random_sets, self.contrastive, seed=self.profile.seed)

    @cached_property
    def random_scores(self) -> dict[str, Artifact]:
        """By reward: each image with the random contrasts."""
        return self._score(self.images, self.random_contrasts)

    @cached_property
    def paper_contrasts(self) -> Artifact:
        """The released contrastive prompts of those prompts that have some."""
        return self.step(released_sets, self.prompts, *self.release)

    @cached_property
    def paper_scores(self) -> dict[str, Artifact]:
        """By reward: each image with the released contrasts."""
        return self._score(self.images, self.paper_contrasts)

    @cached_property
    def sealed_values(self) -> Artifact:
        """``sealed`` with what TextNorm says, as tuned on development prompts, a column per ensemble.

        With contrasts by rule ("textnorm:...") and, tuned as well, with random ones ("random:...").
        """
        values = self.sealed
        by_rule, at_random = (self.contrastive, self.scores), (self.random_contrasts, self.random_scores)
        for prefix, (texts, scores) in (("textnorm", by_rule), ("random", at_random)):
            data = (values, texts, self._tune(SEALED_ENSEMBLES, texts, scores), *scores.values())
            values = self.step(tuning.apply_recipes, *data, names=list(scores), prefix=prefix)
        return values

    @cached_property
    def sealed_metrics(self) -> Artifact:
        """Metrics of the rewards and of each column of ``sealed_values``: set, prompt, reward, metric, value."""
        columns = [f"{prefix}:{'+'.join(rewards)}" for prefix in ("textnorm", "random") for rewards in SEALED_ENSEMBLES]
        return self.step(prompt_metrics, self.sealed_values, rewards=[*REWARDS, *columns])

    # ---- the pool from which rewards choose (section 5.2)

    @cached_property
    def pool(self) -> Judged:
        """Images of sealed prompts, none of them in the benchmark; a smaller pool has the first of a larger one."""
        asked = self.profile.best_of_n
        prompts = self._choose_prompts(asked.prompts_per_set, only=SEALED)
        return self._judge(prompts, self._make(prompts, asked.images_per_prompt, seed=POOL_SEED))

    @cached_property
    def choosers(self) -> list[str]:
        """Who chooses from the pool: five rewards and, where they vote, the annotators: nobody can choose better."""
        return [*CHOOSERS, RATING] if self.profile.annotators else list(CHOOSERS)

    @cached_property
    def chosen(self) -> Artifact:
        """Each chooser's best four of n, twice: set, prompt, model, n, number, place, image."""
        options = {"choosers": self.choosers, "sizes": list(self.profile.best_of_n.judged)}
        return self.step(selection.choose_sets, self.pool.known, **options)

    @cached_property
    def chosen_votes(self) -> Artifact:
        """The judges' votes on TextNorm's sets beside each other chooser's."""
        others = [name for name in self.choosers if name != TEXTNORM]
        options = {"model": TEXTNORM, "opponents": others, "quality_tie": selection.QUALITY_TIE}
        return self.step(selection.judge_sets, self.chosen, self.pool.judged, **options, seed=self.profile.seed)

    @cached_property
    def gold(self) -> Artifact:
        """The annotators' rating of each chooser's best of n: set, prompt, reward, n, gold, base, ..."""
        sizes = list(self.profile.best_of_n.sizes)
        return self.step(gold_curves, self.pool.judged, rewards=self.choosers, gold=RATING, sizes=sizes)

    # ---- notebook 00: a few development prompts, CLIP and its TextNorm only

    @cached_property
    def start(self) -> Judged:
        """Sixteen images each of two prompts per set; ``rewarded`` and ``judged`` have clip and textnorm only."""
        per_set = dict.fromkeys(asdict(self.profile.tia2.prompts_per_set), start_here.PROMPTS_PER_SET)
        prompts = self._choose_prompts(PromptsPerSet(**per_set), only=DEVELOPMENT)
        images = self._make(prompts, start_here.IMAGES_PER_PROMPT, seed=START_SEED)
        contrastive = self._contrast(prompts)
        scores = self._score(images, contrastive, names=[start_here.REWARD])
        recipe = self.step(tuning.given_recipe, **start_here.RECIPE)
        labels = [self.step(label_images, self._vote(images))] if self.profile.annotators else []
        rated = self.step(start_here.join_labels, self._apply(recipe, images, contrastive, scores), *labels)
        return Judged(prompts, images, contrastive, scores, rated, rated if labels else None)

    # ---- fine-tuning on prompts of the pool (sections 5.3 and 5.4); settings were chosen on other prompts

    @cached_property
    def rwr(self) -> Tuned:
        """Reward-weighted regression on the pool's images, as ``profile.rwr`` asks for."""
        asked, model = self.profile.rwr, self.generator
        prompts = self._open_prompts(asked)
        data = (prompts, self.pool.rewarded, self.pool.images, model)
        return self._look_at(asked, prompts, self.step(finetuning.run_rwr, *data, **self._training(asked)), model)

    @cached_property
    def ddpo(self) -> Tuned:
        """DDPO as ``profile.ddpo`` asks for, on prompts chosen by the pool."""
        asked = self.profile.ddpo
        model, prompts = Weights(asked.model, asked.revision), self._open_prompts(asked)
        options = {"reward_dtype": self.profile.rewards.dtype, **self._training(asked)}
        data = (prompts, self._contrast(prompts), self.recipe, model, *(self.reward_model(name) for name in REWARDS))
        return self._look_at(asked, prompts, self.step(finetuning.run_ddpo, *data, **options), model)

    def _open_prompts(self, asked: Finetuning) -> Artifact:
        options = {"passed_over": asked.passed_over, **asdict(asked.prompts_per_set)}
        return self.step(finetuning.choose_open_prompts, self.pool.known, **options)

    def _training(self, asked: Finetuning) -> dict:
        names = ("rewards", "numbers", "beta", "other_betas", "lora_rank", "lora_targets", "recipe")
        options = {name: value for name, value in asdict(asked).items() if name in names}
        return {**options, "seed": self.profile.seed + TRAINING_SEED, "workers": self.profile.workers}

    def _look_at(self, asked: Finetuning, prompts: Artifact, trained: Artifact, model: Weights) -> Tuned:
        """Images of every checkpoint of ``model``, judged, and its distance from the base."""
        options = {**self.sampling, "checkpoints": list(asked.checkpoints), "workers": self.profile.workers}
        options |= {"seed": self.profile.seed + EVALUATION_SEED}
        data, each = (prompts, trained, model), {"images_per_prompt": asked.images_per_prompt}
        images = self.step(finetuning.sample_checkpoints, *data, **options, **each)
        counted = {"paths": PATHS, "left_out": UNCOUNTED_STEPS}
        divergences = self.step(finetuning.measure_divergences, *data, **options, **counted)
        seen = dict(vars(self._judge(prompts, images)))
        for name in ("rewarded", "judged"):
            seen[name] = seen[name] and self.step(finetuning.join_models, seen[name], images)
        curves = self.step(finetuning.read_curves, trained)
        return Tuned(**seen, trained=trained, curves=curves, divergences=divergences)

    def compare_tuned(self, judged: Artifact) -> Comparison:
        """Chosen checkpoints side by side, TextNorm's against all others; ``judged`` has models of one beta."""
        asked = self.profile.bootstrap
        choices = self.step(selection.choose_checkpoints, judged, **asdict(asked), seed=self.profile.seed)
        options = {"reference": TEXTNORM, "quality_tie": selection.QUALITY_TIE, "seed": self.profile.seed}
        votes = self.step(selection.judge_tuned, self.step(selection.tuned_sets, judged, choices), judged, **options)
        shares = self.step(selection.outcomes_by_size, votes, confidence=asked.confidence)
        return Comparison(choices, votes, shares, self.step(selection.sign_tests_by_size, votes))

    def prompt_gains(self, tuned: Tuned) -> Artifact:
        """What each checkpoint's images of each prompt have beyond the base's: proxy, gold, quality, kl."""
        return self.step(outcomes.prompt_gains, tuned.judged, tuned.divergences)

    # ---- all that takes long

    def long_steps(self) -> list[Artifact]:
        """What takes long in notebooks 00 to 06, in the order in which it is best computed."""
        parts = [self.start.rewarded, *self.scores.values(), self.labels]
        if self.labels:
            parts += self.random_scores.values()
        parts += [made.known for made in (self.pool, self.rwr, self.ddpo)]
        parts += [self.rwr.divergences, self.ddpo.divergences]
        return [part for part in parts if part]


def _networks(names: Iterable[str]) -> list[Weights]:
    """The mini world's annotators and judges of quality."""
    return [Weights(f"{BUNDLED}annotators/{name}.safetensors") for name in names]
