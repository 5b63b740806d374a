"""The profile "paper" is the paper's: appendix 7.2's table, sections 3.1, 5 and 8; and nothing asks for its name."""

import ast
from dataclasses import asdict
from pathlib import Path

import pytest

from textnorm_lib.optimise import ddpo, rwr
from textnorm_lib.study.config import load_profile, profile_names

ROOT = Path(__file__).parents[2]
PAPER, TOY = load_profile("paper"), load_profile("paper-toy")

# Appendix 7.2: the parameter, RWR's value, DDPO's. "-" stands in the table where a method has none.
TABLE = [
    ("denoising steps", 50, 50),
    ("guidance scale", 7.5, 5.0),
    ("learning_rate", 1e-5, 3e-4),
    ("weight_decay", 1e-2, 1e-4),
    ("beta_1", 0.9, 0.9),
    ("beta_2", 0.999, 0.999),
    ("epsilon", 1e-8, 1e-8),
    ("max_gradient_norm", 1.0, 1.0),
    ("batch_size", 32, 64),
    ("images_per_epoch", "-", 256),
    ("updates_per_epoch", "-", 1),
    ("dtype", "float16", "float16"),
]


def _settings(module, section):
    return module.Settings(**section.recipe)


@pytest.mark.parametrize(("parameter", "of_rwr", "of_ddpo"), TABLE, ids=[row[0] for row in TABLE])
def test_the_settings_are_those_of_the_table(parameter, of_rwr, of_ddpo):
    sampling = {"denoising steps": PAPER.generator.steps, "guidance scale": PAPER.generator.guidance_scale}
    tuned = asdict(_settings(ddpo, PAPER.ddpo))
    in_ddpo = {"denoising steps": tuned["denoising_steps"], "guidance scale": tuned["guidance_scale"]}
    assert {**asdict(_settings(rwr, PAPER.rwr)), **sampling}.get(parameter, "-") == of_rwr
    assert {**tuned, **in_ddpo}[parameter] == of_ddpo


def test_what_the_text_says_of_fine_tuning():
    of_rwr, of_ddpo = _settings(rwr, PAPER.rwr), _settings(ddpo, PAPER.ddpo)
    assert (of_rwr.images_per_prompt, of_rwr.best, of_rwr.steps) == (100, 10, 1000)  # sections 5.3, 7.2
    assert of_ddpo.epochs == 500
    assert {PAPER.rwr.beta, *PAPER.rwr.other_betas["textnorm"]} == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert PAPER.rwr.rewards == PAPER.ddpo.rewards == ("clip", "blip2", "imagereward", "pickscore", "textnorm")
    assert PAPER.generator.model.endswith("stable-diffusion-2-1") and PAPER.ddpo.model.endswith("2-1-base")


def test_what_the_text_says_of_the_benchmark_and_of_best_of_n():
    assert asdict(PAPER.tia2.prompts_per_set) == {"comprehensive": 100, "counting": 150, "composition": 300}
    assert PAPER.tia2.images_per_prompt == 50 and 550 * 50 == 27_500  # section 3.1
    assert set(asdict(PAPER.best_of_n.prompts_per_set).values()) == {30}
    assert PAPER.best_of_n.judged == (16, 64, 256)
    assert PAPER.prompts == "released" and PAPER.textnorm.rewards == ("imagereward", "pickscore")  # section 7.3
    assert (PAPER.annotators, PAPER.quality_judges, PAPER.tia2.votes) == ((), (), ())  # people's part


def test_paper_toy_is_paper_with_other_sizes():
    paper, toy = asdict(PAPER), asdict(TOY)
    names = {"model", "revision", "weights", "rewards", "prompts", "lora_targets", "annotators"}

    def differing(one, other, path=()):
        for key in one:
            if isinstance(one[key], dict) and key != "recipe" and isinstance(other[key], dict):
                yield from differing(one[key], other[key], (*path, key))
            elif one[key] != other[key]:
                yield (*path, key)

    found = set(differing(paper, toy))
    assert {path[0] for path in found} == {
        "name",
        "bootstrap",
        "generator",
        "rewards",
        "tia2",
        "best_of_n",
        "rwr",
        "ddpo",
    }
    assert not {path[-1] for path in found} & names
    for section in ("rwr", "ddpo"):
        assert not set(toy[section]["recipe"]) & {"learning_rate", "weighting", "guidance_scale", "epsilon"}


def _names_compared(path):
    """The profile names that a module compares something with."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            values = [node.left, *node.comparators]
        elif isinstance(node, ast.Match):
            values = [value for case in node.cases for value in ast.walk(case.pattern)]
        else:
            continue
        values += [one for value in values if isinstance(value, ast.Tuple | ast.List | ast.Set) for one in value.elts]
        constants = {
            value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)
        }
        yield from ((node.lineno, name) for name in constants & set(profile_names()))


def test_nothing_branches_on_a_profiles_name():
    found = [
        (path.name, line, name)
        for path in sorted(ROOT.glob("textnorm_lib/**/*.py"))
        for line, name in _names_compared(path)
    ]
    assert not found
    for notebook in ROOT.glob("notebooks/*.ipynb"):
        text = notebook.read_text(encoding="utf-8")
        assert "profile.name" not in text and "if profile ==" not in text, notebook.name
