"""Profiles load whole or not at all: each defect is one line with the file, the key, the value and the remedy."""

import dataclasses

import pytest

from textnorm_lib.study import config
from textnorm_lib.study.config import as_dict, load_profile, profile_names
from textnorm_lib.study.errors import ConfigError
from textnorm_lib.study.settings import RwrSettings

VALID = """seed: 0
bootstrap:
  resamples: 1000
  confidence: 0.95
workers: 2
generator:
  model: bundled:generator
  revision: null
  steps: 10
  guidance_scale: 3.0
  batch_size: 32
  dtype: float32
annotators: [a, b, c]
quality_judges: [d, e, f]
rewards:
  dtype: float32
  clip: {weights: "bundled:rewards/clip", revision: null}
  blip2: {weights: "bundled:rewards/blip2", revision: null}
  imagereward: {weights: "bundled:rewards/imagereward", revision: null}
  pickscore: {weights: "bundled:rewards/pickscore", revision: null}
prompts: sprites
contrastive_prompts: 4
textnorm: null
training: toy
tia2:
  images_per_prompt: 4
  prompts_per_set:
    comprehensive: 6
    counting: 6
    composition: 4
  votes: []
best_of_n:
  prompts_per_set: {comprehensive: 2, counting: 2, composition: 2}
  images_per_prompt: 16
  sizes: [1, 2, 4, 8]
  judged: [4, 8]
rwr:
  prompts_per_set: {comprehensive: 1, counting: 1, composition: 1}
  passed_over: 0
  rewards: [clip, textnorm]
  numbers: 2
  beta: 0.3
  other_betas: {textnorm: [0.7]}
  lora_rank: 4
  lora_targets: attention
  recipe: {images_per_prompt: 12, best: 6, weighting: centred, steps: 7, learning_rate: 2.0e-4, save_every: 2}
  checkpoints: [2, 7]
  images_per_prompt: 9
ddpo:
  model: bundled:generator
  revision: null
  prompts_per_set: {comprehensive: 1, counting: 1, composition: 1}
  passed_over: 0
  rewards: [clip, blip2]
  numbers: 1
  beta: 0
  other_betas: {}
  lora_rank: 4
  lora_targets: attention and feed-forward
  recipe: {epochs: 5, images_per_epoch: 24, batch_size: 12, guidance_scale: 2, save_every: 2}
  checkpoints: [4, 5]
  images_per_prompt: 10
"""


@pytest.fixture
def write_profile(monkeypatch, tmp_path):
    """A function that writes mini.yaml, the only profile then."""
    monkeypatch.setattr(config, "PROFILES", tmp_path)

    def write(content):
        (tmp_path / "mini.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())

    write(VALID)
    return write


def refusal(name="mini"):
    """The one line with which a profile is refused."""
    with pytest.raises(ConfigError) as caught:
        load_profile(name)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_there_are_the_profiles_of_the_readme():
    assert profile_names() == ("full", "mini", "paper", "paper-toy", "smoke")


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_loads_under_its_files_name(name):
    profile = load_profile(name)
    assert profile.name == name
    assert as_dict(profile)["bootstrap"]["resamples"] == profile.bootstrap.resamples


@pytest.mark.parametrize("name", profile_names())
def test_every_key_of_a_profile_says_why(name):
    lines = (config.PROFILES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    bare = [line for line in lines if line.strip() and not line.endswith(":") and "#" not in line]
    assert bare == []


@pytest.mark.parametrize("name", profile_names())
def test_what_is_tuned_on_is_in_the_profiles_pool(name):
    profile = load_profile(name)
    images = RwrSettings(**profile.rwr.recipe).images_per_prompt
    assert images <= profile.best_of_n.images_per_prompt
    for method in (profile.rwr, profile.ddpo):
        asked, there = (dataclasses.asdict(one.prompts_per_set) for one in (method, profile.best_of_n))
        assert all(asked[kind] + method.passed_over <= there[kind] for kind in asked)


def test_a_profile_is_frozen():
    profile = load_profile("mini")
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.seed = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.bootstrap.resamples = 1


def test_an_unknown_profile_is_refused_with_the_nearest_name():
    assert refusal("smok") == "unknown profile 'smok': did you mean 'smoke'?"
    assert "full, mini, paper, paper-toy, smoke" in refusal("zzz")
    assert "unknown profile 3" in refusal(3)  # papermill turns `-p profile 3` into a number


DEFECTS = {
    "misspelt key beside the right one": (VALID + "sede: 5\n", "sede = 5: unknown key; did you mean 'seed'?"),
    "misspelt key": (VALID.replace("seed: 0", "sede: 5"), "sede = 5: unknown key; did you mean 'seed'?"),
    "misspelt key in a section": (
        VALID.replace("resamples", "resample"),
        "bootstrap.resample = 1000: unknown key; did you mean 'resamples'?",
    ),
    "key like no other": (VALID + "zzz: 1\n", "zzz = 1: unknown key; known are"),
    "key given twice": (VALID + "seed: 1\n", "seed is given twice"),
    "missing key": (VALID.replace("seed: 0\n", ""), "seed is missing; add it"),
    "missing key in a section": (VALID.replace("  resamples: 1000\n", ""), "bootstrap.resamples is missing; add it"),
    "text for a number": (VALID.replace("seed: 0", "seed: nought"), "seed = 'nought' (str)"),
    "truth for a number": (VALID.replace("seed: 0", "seed: yes"), "seed = True (bool)"),
    "fraction for a whole number": (VALID.replace("seed: 0", "seed: 1.5"), "seed = 1.5 (float)"),
    "nothing for a number": (VALID.replace("seed: 0", "seed:"), "seed = None"),
    "1e4, which YAML 1.1 reads as text": (VALID.replace("1000", "1e4"), "bootstrap.resamples = '1e4' (str)"),
    "negative seed": (VALID.replace("seed: 0", "seed: -1"), "seed = -1 (int): input should be greater than or equal"),
    "too few resamples": (VALID.replace("1000", "10"), "bootstrap.resamples = 10 (int): input should be greater"),
    "confidence in percent": (
        VALID.replace("0.95", "95"),
        "bootstrap.confidence = 95 (int): input should be less than",
    ),
    "no worker": (VALID.replace("workers: 2", "workers: 0"), "workers = 0 (int): input should be greater"),
    "no model": (VALID.replace("bundled:generator", '""'), "generator.model = '' (str)"),
    "revision that is no commit": (VALID.replace("null", "main"), "generator.revision = 'main' (str)"),
    "no steps": (VALID.replace("steps: 10", "steps: 0"), "generator.steps = 0 (int)"),
    "guidance below one": (VALID.replace("3.0", "0.5"), "generator.guidance_scale = 0.5 (float)"),
    "no batch": (VALID.replace("batch_size: 32", "batch_size: 0"), "generator.batch_size = 0 (int)"),
    "type that is none": (VALID.replace("float32", "float8"), "generator.dtype = 'float8' (str): input should be 'fl"),
    "two annotators": (VALID.replace("[a, b, c]", "[a, b]"), "name three different ones, or none"),
    "an annotator twice": (VALID.replace("[a, b, c]", "[a, b, a]"), "name three different ones, or none"),
    "plan that there is not": (VALID.replace("toy", "fast"), "training = 'fast' (str): input should be 'toy'"),
    "no images": (VALID.replace("images_per_prompt: 4", "images_per_prompt: 0"), "tia2.images_per_prompt = 0 (int)"),
    "more prompts than the paper has": (
        VALID.replace("counting: 6", "counting: 151"),
        "tia2.prompts_per_set.counting = 151 (int): input should be less",
    ),
    "misspelt set": (
        VALID.replace("counting", "couting"),
        "tia2.prompts_per_set.couting = 6: unknown key; did you mean 'counting'?",
    ),
    "sizes of n that do not grow": (VALID.replace("[1, 2, 4, 8]", "[1, 4, 2]"), "best_of_n.sizes = [1, 4, 2] (list)"),
    "no n of one": (
        VALID.replace("[1, 2, 4, 8]", "[2, 4, 8]"),
        "best_of_n: sizes = [2, 4, 8]: begin with",
    ),
    "n that is judged but not followed": (VALID.replace("[4, 8]", "[5]"), "judged = [5]: choose among sizes, 4 or"),
    "too small a pool for two batches": (
        VALID.replace("images_per_prompt: 16", "images_per_prompt: 15"),
        "images_per_prompt = 15: two disjoint best of 8 are judged, which needs 16",
    ),
    "setting that there is not": (
        VALID.replace("weighting", "weigthing"),
        "rwr: recipe: weigthing = 'centred': unknown key; did you mean 'weighting'?",
    ),
    "setting of the other method": (
        VALID.replace("epochs: 5", "caption_dropout: 0.1"),
        "ddpo: recipe: caption_dropout = 0.1: unknown key; known are epochs, images_per_epoch",
    ),
    "seed among the settings": (
        VALID.replace("epochs: 5", "seed: 5"),
        "ddpo: recipe: seed is not given here; delete it, each",
    ),
    "beta among the settings": (
        VALID.replace("weighting: centred", "kl_coefficient: 1.0"),
        "rwr: recipe: kl_coefficient is not given here; delete it, set beta",
    ),
    "3e-4, which YAML 1.1 reads as text": (
        VALID.replace("2.0e-4", "3e-4"),
        "rwr: recipe: learning_rate = '3e-4' (str): input should be a valid number; YAML reads 1e-4 as text, write 1.0",
    ),
    "word for a setting": (
        VALID.replace("steps: 7", "steps: many"),
        "recipe: steps = 'many' (str): input should be a valid integer",
    ),
    "fraction for a whole setting": (
        VALID.replace("steps: 7", "steps: 7.5"),
        "rwr: recipe: steps = 7.5 (float): input should be a valid int",
    ),
    "truth for a whole setting": (
        VALID.replace("epochs: 5", "epochs: yes"),
        "ddpo: recipe: epochs = True (bool): input should be a valid int",
    ),
    "number for a setting's word": (
        VALID.replace("centred", "1"),
        "rwr: recipe: weighting = 1 (int): input should be 'reward', 'rank', ",
    ),
    "nothing for a setting": (
        VALID.replace("2.0e-4", ""),
        "rwr: recipe: learning_rate = None (NoneType): input should be a valid number",
    ),
    "setting out of range": (
        VALID.replace("2.0e-4", "-2.0e-4"),
        "rwr: recipe: learning_rate = -0.0002 (float): input should be greater than 0",
    ),
    "setting that is no number": (
        VALID.replace("2.0e-4", ".nan"),
        "rwr: recipe: learning_rate = nan (float): input should be a finite",
    ),
    "settings that do not go together": (
        VALID.replace("best: 6", "best: 7"),
        "rwr: recipe: best = 7: of 12, centred takes as many worst; 6 at most",
    ),
    "batches that do not make an epoch": (
        VALID.replace("batch_size: 12", "batch_size: 10"),
        "ddpo: recipe: images_per_epoch = 24: give a multiple of batch_size, 10",
    ),
    "misspelt key of a section that may be null": (
        VALID.replace("textnorm: null", "textnorm: {penalti: 1}"),
        "textnorm.penalti = 1: unknown key; did you mean 'penalty'?",
    ),
    "no settings": (VALID.replace("{epochs: 5, images", "[epochs]\n# {"), "ddpo.recipe = ['epochs'] (list)"),
    "checkpoint that is not saved": (
        VALID.replace("[2, 7]", "[2, 5]"),
        "rwr: checkpoints: 5 is not saved; one is every 2 to 7 (steps)",
    ),
    "checkpoint after the last": (
        VALID.replace("[4, 5]", "[4, 6]"),
        "ddpo: checkpoints: 6 is not saved; one is every 2 to 5 (epochs)",
    ),
    "checkpoint before training": (VALID.replace("[4, 5]", "[0, 4]"), "ddpo.checkpoints = [0, 4] (list): give diff"),
    "unknown reward": (VALID.replace("[clip, textnorm]", "[clip, texnorm]"), "rwr.rewards.1 = 'texnorm' (str): input"),
    "no reward": (VALID.replace("[clip, blip2]", "[]"), "ddpo.rewards = [] (list)"),
    "a reward twice": (
        VALID.replace("[clip, blip2]", "[clip, blip2, clip]"),
        "ddpo.rewards = ['clip', 'blip2', 'clip'] (list): name each reward once",
    ),
    "beta for an unknown reward": (VALID.replace("{textnorm", "{texnorm"), "rwr.other_betas.texnorm"),
    "negative beta": (VALID.replace("0.3", "-0.3"), "rwr.beta = -0.3 (float): input should be greater"),
    "beta without end": (VALID.replace("0.7", ".inf"), "rwr.other_betas.textnorm.0 = inf (float): input should be a f"),
    "no runs": (VALID.replace("numbers: 2", "numbers: 0"), "rwr.numbers = 0 (int): input should be greater"),
    "too few images for two sets": (VALID.replace("prompt: 9", "prompt: 7"), "rwr.images_per_prompt = 7 (int): input"),
    "layers that there are not": (VALID.replace("attention\n", "all\n", 1), "rwr.lora_targets = 'all' (str): input"),
    "misspelt key of a method": (
        VALID.replace("numbers: 2", "number: 2"),
        "rwr.number = 2: unknown key; did you mean 'numbers'?",
    ),
    "missing method": (VALID[: VALID.index("ddpo:")], "ddpo is missing; add it"),
    "confidence that is no number": (VALID.replace("0.95", ".nan"), "bootstrap.confidence = nan"),
    "number for a section": ("seed: 0\nbootstrap: 3\n", "bootstrap = 3 (int)"),
    "nothing for a section": ("seed: 0\nbootstrap:\n", "bootstrap = None"),
    "list for a section": ("seed: 0\nbootstrap: [1000, 0.95]\n", "bootstrap = [1000, 0.95] (list)"),
    "open brace": ("seed: 0\nbootstrap: {resamples: 1000\n", "not valid YAML in line 3"),
    "wrong indentation": ("seed: 0\n  bootstrap: 1\n", "not valid YAML in line 2"),
    "empty file": ("", "holds no keys"),
    "list for the whole": ("- seed\n", "holds no keys"),
    "other encoding": (VALID.encode() + b"# caf\xe9\n", "UTF-8"),
}


def test_the_profile_that_defects_are_put_into_has_none(write_profile):
    profile = load_profile("mini")
    assert profile.rwr.recipe["learning_rate"] == 2e-4 and profile.rwr.other_betas == {"textnorm": (0.7,)}
    assert profile.ddpo.checkpoints == (4, 5) and profile.ddpo.beta == 0.0


@pytest.mark.parametrize(("content", "said"), DEFECTS.values(), ids=DEFECTS)
def test_a_defective_profile_is_refused_in_one_line(write_profile, content, said):
    write_profile(content)
    message = refusal()
    assert message.startswith("mini.yaml: ")
    assert said in message


def test_the_files_name_is_the_profiles_name(write_profile):
    write_profile(VALID + "name: paper\n")
    assert "name = 'paper'" in refusal()
