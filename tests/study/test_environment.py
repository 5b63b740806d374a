"""environment.yml, requirements.lock, pyproject.toml and the library's imports do not drift apart."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CHECKOUT = Path(__file__).parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
# Import names that are not the distribution's name.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "clip": "clip-anytorch",
    "cv2": "opencv-python-headless",
    "crowdkit": "crowd-kit",
    "IPython": "ipython",
    "open_clip": "open-clip-torch",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# The packages that the study was asked to be made with.
ASKED_FOR = (
    *("jupyterlab", "papermill", "nbval", "torch", "diffusers", "transformers", "peft", "trl", "open_clip_torch"),
    *("image-reward", "salesforce-lavis", "seaborn", "pandas", "scipy", "openai"),
)


def lines_of(path):
    """The requirements in a file: neither comments nor empty lines."""
    return [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]


LOCKS = [CHECKOUT / "requirements.lock", *sorted(CHECKOUT.glob("benchmarks/environments/*.txt"))]
LOCKED = {canonicalize_name(line.split("==")[0]): line.split("==")[-1] for line in lines_of(LOCKS[0])}
DECLARED = [Requirement(text) for text in PROJECT["dependencies"]]
DEV = [Requirement(text) for text in PROJECT["optional-dependencies"]["dev"]]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_is_name_equals_version_sorted_and_unique(lock):
    lines = lines_of(lock)
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*==[0-9][a-z0-9.]*", line)] == []
    names = [line.split("==")[0] for line in lines]
    assert lines == sorted(lines) or names == sorted(names)
    assert len(set(map(canonicalize_name, names))) == len(names)


def test_the_lock_names_no_local_build_and_is_the_same_for_cpu_and_gpu():
    assert [name for name, version in LOCKED.items() if Version(version).local] == []
    assert "+" not in "".join(lines_of(LOCKS[0]))


@pytest.mark.parametrize("requirement", DECLARED + DEV, ids=str)
def test_what_pyproject_asks_for_is_locked_at_a_version_that_satisfies_it(requirement):
    locked = LOCKED.get(canonicalize_name(requirement.name))
    assert locked is not None, f"{requirement.name} is not in requirements.lock"
    assert requirement.specifier.contains(locked, prereleases=True), f"{requirement} but the lock has {locked}"


def test_environment_yml_installs_the_same_lock_for_the_same_python():
    environment = yaml.safe_load((CHECKOUT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    (python,) = [Requirement(text) for text in conda if text.startswith("python")]
    assert str(python.specifier) == PROJECT["requires-python"]
    assert "pip" in conda
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}


@pytest.mark.parametrize("name", ASKED_FOR)
def test_each_package_that_was_asked_for_is_in_one_of_the_locks(name):
    found = [lock.name for lock in LOCKS for line in lines_of(lock) if canonicalize_name(name) == line.split("==")[0]]
    assert found, f"{name} is in none of {[lock.name for lock in LOCKS]}"


def imports_of(path):
    """The top-level names of all third-party modules that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def imported(folder):
    """Third-party distribution -> the files that import it."""
    found = {}
    ours = {path.stem for root in ("docs/by_eye", "tests") for path in (CHECKOUT / root).rglob("*.py")}
    ours |= {"benchmarks", "textnorm_lib", "__future__"}
    for path in sorted((CHECKOUT / folder).rglob("*.py")):
        for name in imports_of(path):
            if name not in sys.stdlib_module_names and name not in ours:
                found.setdefault(canonicalize_name(DISTRIBUTIONS.get(name, name)), set()).add(path.name)
    return found


def test_whatever_the_library_imports_is_declared():
    declared = {canonicalize_name(requirement.name) for requirement in DECLARED}
    undeclared = {name: files for name, files in imported("textnorm_lib").items() if name not in declared}
    assert undeclared == {}, "add these to pyproject.toml's dependencies"


def test_whatever_the_tests_import_is_locked():
    assert {name: files for name, files in imported("tests").items() if name not in LOCKED} == {}
