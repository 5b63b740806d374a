"""The package as its user meets it: light to import, every name where it is said to be, the example runs."""

import ast
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import textnorm_lib
from textnorm_lib.study.errors import ConfigError, DataError, DataUnavailable, StudyError

TYPE_CHECKED = {
    alias.name: node.module
    for block in ast.parse(Path(textnorm_lib.__file__).read_text(encoding="utf-8")).body
    if isinstance(block, ast.If)
    for node in block.body
    for alias in node.names
}


def python(code: str) -> None:
    """Run code in a fresh process, which has to succeed."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_importing_it_takes_no_time_and_none_of_the_large_libraries():
    python(
        "import sys, time\n"
        "began = time.perf_counter()\n"
        "import textnorm_lib\n"
        "assert time.perf_counter() - began < 0.5\n"
        "assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert 'textnorm' in dir(textnorm_lib)\n"
    )


def test_no_room_needs_the_toy_world_and_textnorm_is_the_function_whatever_was_imported():
    python(
        "import sys, textnorm_lib.confidence, textnorm_lib.rewards, textnorm_lib.optimise, textnorm_lib.judging\n"
        "import textnorm_lib.confidence.tuning, textnorm_lib.optimise.outcomes, textnorm_lib.judging.selection\n"
        "loaded = [name.split('.') for name in sys.modules if name.startswith('textnorm_lib')]\n"
        "assert not any('mini' in parts for parts in loaded)\n"
        "from textnorm_lib import textnorm\n"
        "import textnorm_lib.confidence.textnorm as module\n"
        "assert callable(textnorm) and textnorm is module.textnorm is textnorm_lib.textnorm\n"
    )


def test_every_list_of_the_public_names_is_the_same():
    told = textnorm_lib.__doc__
    homes = {name: f"textnorm_lib.{home}" for name, home in textnorm_lib._HOME.items()}
    assert homes == TYPE_CHECKED and textnorm_lib.__all__ == list(homes) and set(homes) <= set(dir(textnorm_lib))
    listed = re.findall(r"^    [\w ]+?  +((?:\w+, )*\w+)$", told[told.index("beside them") :], re.MULTILINE)
    assert sorted(", ".join(listed).split(", ")) == sorted(homes)


@pytest.mark.parametrize("name", textnorm_lib.__all__)
def test_a_public_name_is_there_and_says_what_it_is(name):
    value = getattr(textnorm_lib, name)
    assert value is getattr(sys.modules[f"textnorm_lib.{textnorm_lib._HOME[name]}"], name)
    assert not callable(value) or len(inspect.getdoc(value).splitlines()[0]) > 20


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'textnorm_lib' has no attribute 'textnrom'"):
        _ = textnorm_lib.textnrom
    with pytest.raises(ImportError, match="textnrom"):
        exec("from textnorm_lib import textnrom")


def test_the_example_at_the_top_runs():
    example = re.search(r"\n\n((?:    .*\n|\n)+?)\n\S", textnorm_lib.__doc__)[1]
    names = {}
    exec(textwrap.dedent(example), names)
    assert names["confident"].shape == names["both"].shape == (4,) and len(names["texts"]) == 9


def test_wrong_values_are_value_errors_and_in_a_notebook_one_line():
    assert all(issubclass(kind, StudyError) and issubclass(kind, ValueError) for kind in (ConfigError, DataError))
    assert issubclass(DataUnavailable, DataError)
    with pytest.raises(ValueError, match="temperature") as caught:
        textnorm_lib.textnorm([[1.0, 2.0]], temperature=0.0)
    assert caught.value._render_traceback_() == [f"{type(caught.value).__name__}: {caught.value}"]
    with pytest.raises(ValueError, match="unknown profile 'min'"):
        textnorm_lib.load_profile("min")
