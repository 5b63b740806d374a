"""run_all.sh answers in one line, stops at the first failure, and fits the notebooks that it runs.

The notebooks have the anatomy that the study asks of them.
Nothing here executes one: see test_nbval.py and test_faults.py.
"""

import ast
import os
import re
import subprocess
import time
from pathlib import Path

import papermill
import pytest

from textnorm_lib.figures.report import ITEMS
from textnorm_lib.study.config import profile_names

CHECKOUT = Path(__file__).parents[2]
SCRIPT = CHECKOUT / "run_all.sh"
NOTEBOOKS = sorted(CHECKOUT.glob("notebooks/[0-9A]*.ipynb"))
NUMBERED = [path for path in NOTEBOOKS if path.name[0].isdigit()]
FOLDERS = ("TEXTNORM_ARTIFACTS", "TEXTNORM_TIA2_DIR", "TEXTNORM_WEIGHTS", "TEXTNORM_REFERENCE_ENVS")
BARE = {"PATH": "/usr/bin:/bin", "VIRTUAL_ENV": "/nonexistent"}  # an environment with nothing in it


def run_all(*arguments, env=BARE, cwd=None):
    """Exit status, lines on standard output, lines on standard error."""
    result = subprocess.run([SCRIPT, *arguments], capture_output=True, text=True, env=env, cwd=cwd, timeout=60)
    return result.returncode, result.stdout.splitlines(), result.stderr.splitlines()


# ---- what it answers without any environment


def test_list_names_every_notebook_in_order_and_runs_nothing(tmp_path):
    names = [f"notebooks/{path.name}" for path in NUMBERED]
    assert names, "there is no notebooks/[0-9]*.ipynb"
    assert run_all("--list") == (0, names, [])
    assert run_all("smoke", "--list", cwd=tmp_path) == (0, names, [])
    assert not list(tmp_path.iterdir())


def test_only_chooses_by_number_and_may_be_repeated():
    numbers = [path.name.split("_")[0] for path in NUMBERED]
    assert run_all("--list", "--only", numbers[-1]) == (0, [f"notebooks/{NUMBERED[-1].name}"], [])
    both = run_all("--only", numbers[-1], "--list", "--only", numbers[0])[1]
    assert both == [f"notebooks/{NUMBERED[0].name}", f"notebooks/{NUMBERED[-1].name}"]


def test_help_says_every_profile_and_option():
    for flag in ("--help", "-h"):
        status, out, err = run_all(flag)
        assert (status, err) == (0, [])
    text = "\n".join(out)
    words = [*profile_names(), "--only", "--force", "--list", "lab", "docs", "verify", "check", "test"]
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["smok"], "unknown profile 'smok'; known are full mini paper-toy paper smoke"),
        (["smok", "--list"], "unknown profile 'smok'"),
        (["../profiles/mini"], "unknown profile '../profiles/mini'"),
        (["--only"], "--only needs a number"),
        (["--list", "--only", "99"], "no notebook starts with: 99"),
        (["--forse"], "unknown option '--forse'"),
        (["mini", "smoke"], "unknown option 'smoke'"),
        (["test", "fast"], "test takes no options"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_is_refused_in_one_line_with_exit_status_2(arguments, said):
    status, out, err = run_all(*arguments)
    assert (status, out) == (2, [])
    assert err[-1].startswith("run_all.sh: ") and said in err[-1]
    assert len([line for line in err if line.startswith("run_all.sh: ")]) == 1


# ---- what it calls, seen through stand-ins for the tools


@pytest.fixture
def tools(tmp_path):
    """An environment whose tools only leave a line in a log; the one whose line holds $FAIL_AT fails."""
    log, folder = tmp_path / "log", tmp_path / "bin"
    folder.mkdir()
    for name in ("python", "papermill", "ruff", "lint-imports", "jupyter", "nbstripout"):
        tool = folder / name
        tool.write_text(
            f'#!/bin/sh\necho "{name} $*" >> {log}\n'
            f"[ {name} = python ] || printenv {' '.join(FOLDERS)} > {tmp_path}/folders\n"
            f'echo "${{TEXTNORM_ANEW-}} {name} $*" >> {tmp_path}/anew\n'
            f'case "{name} $*" in *"$FAIL_AT"*) [ -z "$FAIL_AT" ] || exit 1 ;; esac\n'
        )
        tool.chmod(0o755)
    env = {**BARE, "PATH": f"{folder}:/usr/bin:/bin", "VIRTUAL_ENV": str(tmp_path), "FAIL_AT": ""}
    env["TEXTNORM_ARTIFACTS"] = str(tmp_path / "artifacts")

    def call(*arguments, **more):
        log.write_text("")
        return *run_all(*arguments, env={**env, **more}, cwd=CHECKOUT), log.read_text().splitlines()

    return call


def test_a_run_computes_first_then_runs_every_notebook_the_last_one_last_and_then_reports(tools):
    status, _, _, calls = tools("smoke")
    assert status == 0
    notebooks = [call.split()[1] for call in calls if call.startswith("papermill ")]
    assert sorted(notebooks) == [f"notebooks/{path.name}" for path in NUMBERED] and "/08" in notebooks[-1]
    assert all("-p profile smoke" in call for call in calls if call.startswith("papermill "))
    begun = [call for call in calls if call.startswith("python -m ")][:2]
    assert begun == ["python -m textnorm_lib preflight smoke", "python -m textnorm_lib compute smoke"]
    assert calls.index(begun[1]) < next(place for place, call in enumerate(calls) if call.startswith("papermill "))
    assert calls[-1] == "python -m textnorm_lib report smoke"
    assert tools("mini")[3][-2:] == ["python -m textnorm_lib report mini", "python -m textnorm_lib results compare"]


def test_with_force_nothing_counts_that_was_stored_before_the_run(tools, tmp_path):
    def anew():
        lines = (tmp_path / "anew").read_text().splitlines()
        return [line.split(" ")[0] for line in lines if " papermill " in line]

    before = time.time()
    assert tools("smoke")[0] == 0 and set(anew()) == {"0"}
    assert tools("smoke", "--force")[0] == 0 and float(anew()[-1]) >= int(before)


def test_nbval_may_read_results_though_the_runs_around_it_may_not(tools, tmp_path):
    assert tools("test")[0] == 0
    lines = [line for line in (tmp_path / "anew").read_text().splitlines() if "--nbval" in line]
    assert len(lines) == 1 and lines[0].startswith(" python ")


def test_nothing_is_started_where_something_would_stop_it_later_and_single_notebooks_are(tools):
    status, _, err, calls = tools("smoke", FAIL_AT="preflight")
    assert status != 0 and "nothing was started" in err[-1] and "preflight" in calls[-1]
    status, _, _, calls = tools("smoke", "--only", "02", FAIL_AT="preflight")
    assert status == 0 and not [call for call in calls if "preflight" in call]


def test_the_folder_of_the_toy_run_reaches_its_notebooks_as_absolute_where_the_caller_gave_none(tools, tmp_path):
    """The last notebooks of the test command are those of paper-toy."""
    assert tools("test", TEXTNORM_ARTIFACTS="")[0] == 0
    artifacts, *_ = (tmp_path / "folders").read_text().splitlines()
    assert Path(artifacts) == CHECKOUT / "artifacts" / "paper-toy"


def test_a_notebook_that_stops_is_named_and_the_rest_is_not_run(tools):
    status, _, err, calls = tools("smoke", FAIL_AT=NUMBERED[0].name)
    assert status != 0
    assert NUMBERED[0].name in err[-1] and "./run_all.sh smoke again" in err[-1]
    assert len([call for call in calls if call.startswith("papermill ")]) <= 3  # two at a time
    assert not [call for call in calls if "textnorm_lib report" in call]


def test_folders_given_relative_to_the_caller_reach_the_notebooks_as_absolute(tools, tmp_path):
    """A notebook runs in notebooks/, the report in the checkout: a relative path would name two places."""
    given = {name: os.path.relpath(tmp_path / name, CHECKOUT) for name in FOLDERS}
    assert tools("smoke", **given)[0] == 0
    seen = [Path(folder) for folder in (tmp_path / "folders").read_text().split()]
    assert [folder.is_absolute() for folder in seen] == [True] * len(FOLDERS)
    assert [folder.resolve() for folder in seen] == [tmp_path / name for name in given]


@pytest.mark.parametrize(
    "tool",
    [
        "ruff check",
        "ruff format",
        "lint-imports",
        "pytest tests",
        "--nbval",
        "papermill",
        "report smoke",
        "smoke --check",
        "pytest tests/whole/test_exercises",
        "stand_ins --toy",
        "report paper-toy",
        "report --check",
    ],
)
def test_the_test_command_fails_where_one_of_its_tools_fails(tools, tool):
    status, _, _, calls = tools("test", FAIL_AT=tool)
    assert status != 0
    assert tool in calls[-1], "it went on after the failure"


def test_the_test_command_passes_where_all_of_them_pass(tools):
    assert tools("test")[0] == 0


def test_an_environment_that_lacks_packages_is_told_how_to_get_them(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").write_text("#!/bin/sh\necho papermill torch\n")
    (folder / "python").chmod(0o755)
    env = {**BARE, "PATH": f"{folder}:/usr/bin:/bin", "VIRTUAL_ENV": str(tmp_path)}
    status, _, (line,) = run_all("smoke", env=env)
    assert status == 2
    assert "lacks: papermill torch" in line and "pip install -r requirements.lock" in line


# ---- the notebooks that it runs


def test_there_are_notebooks_and_each_registered_item_has_its_own():
    assert NOTEBOOKS, "there is no notebooks/[0-9A]*.ipynb yet"
    assert {item.notebook for item in ITEMS.values()} <= {path.stem for path in NUMBERED}


@pytest.fixture
def code(cells):
    return [cell for cell in cells if cell.cell_type == "code"]


@pytest.mark.filterwarnings("ignore")
def test_run_all_passes_exactly_the_parameters_that_a_notebook_has(notebook):
    """papermill takes a misspelt parameter with only a warning."""
    if notebook not in NUMBERED:
        pytest.skip("run_all.sh does not run the appendix")
    passed = set(re.findall(r" -p (\w+) ", SCRIPT.read_text()))
    parameters = papermill.inspect_notebook(str(notebook))
    assert set(parameters) - {"annotator", "images_to_label", "force"} == passed  # typed by people, not passed
    assert [name for name, parameter in parameters.items() if parameter["default"] in ("", "None")] == []


def test_exactly_one_cell_is_tagged_parameters(code):
    assert [cell.metadata.get("tags", []).count("parameters") for cell in code].count(1) == 1


def test_it_is_small(notebook, cells):
    assert notebook.stat().st_size < 500_000
    assert len(cells) <= 45


def test_code_cells_are_short(code):
    assert [cell.source for cell in code if len(cell.source.splitlines()) > 15] == []


def test_functions_in_a_notebook_are_toys(code):
    """What is longer belongs in the library, where it is tested. A line of magic is no Python."""
    for cell in code:
        lines = [line for line in cell.source.splitlines() if not line.startswith(("%", "!"))]
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                assert node.end_lineno - node.lineno < 8, f"{node.name} is too long for a notebook"


def test_every_code_cell_was_run_in_order_and_none_failed(code):
    """nbval compares nothing where a cell has neither an execution count nor an output."""
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert [cell.source for cell in code for output in cell.outputs if output.output_type == "error"] == []


def test_markers_of_nbval_stand_on_lines_of_their_own(code):
    """Elsewhere nbval does not see them."""
    lines = [line for cell in code for line in cell.source.splitlines() if "NBVAL" in line]
    assert [line for line in lines if not re.fullmatch(r"# NBVAL_[A-Z_]+", line)] == []


def test_outputs_name_no_folder_of_the_machine_that_made_them(code):
    outputs = [str(output) for cell in code for output in cell.outputs if output.output_type != "display_data"]
    outputs += [str(output.data.get("text/plain")) for cell in code for output in cell.outputs if "data" in output]
    assert [text for text in outputs if re.search(r"(?<![\w.])/(work|tmp|home|root|Users)/", text)] == []


def test_pictures_have_a_text_for_those_who_cannot_see_them(code):
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert [
        picture.metadata for picture in pictures if len(picture.metadata.get("image/png", {}).get("alt", "")) < 20
    ] == []
