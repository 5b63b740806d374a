"""The house: rooms import as pyproject.toml's contracts say and docs/house.md draws, all in pieces that can be read."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
LIBRARY = "textnorm_lib"
PAGE = (CHECKOUT / "docs" / "house.md").read_text(encoding="utf-8")
CONTRACTS = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LONGEST_MODULE, LONGEST_FUNCTION = 450, 50  # lines


def _name(path: Path) -> str:
    """A module's name, without the library's own before it."""
    parts = path.relative_to(CHECKOUT / LIBRARY).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or LIBRARY


PATHS = {_name(path): path for path in sorted((CHECKOUT / LIBRARY).rglob("*.py"))}
MODULES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}


# ---- rooms


def _lint(folder: Path) -> subprocess.CompletedProcess:
    """The contracts of a copy of the checkout, or of the checkout itself."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True)


def test_the_rooms_keep_their_contracts():
    checked = _lint(CHECKOUT)
    assert checked.returncode == 0, checked.stdout
    assert f"{len(CONTRACTS)} kept, 0 broken" in checked.stdout


@pytest.mark.parametrize(
    ("broken", "module", "line"),
    [
        ("layers", "stats/names.py", "from textnorm_lib.rewards import base"),
        ("layers", "stats/names.py", "def f():\n    from textnorm_lib.rewards import base"),
        ("layers", "attic.py", "A_ROOM_THAT_THE_CONTRACT_DOES_NOT_NAME = True"),
        ("protected", "figures/style.py", "from textnorm_lib.mini import drawings"),
        ("forbidden", "mini/drawings.py", "from textnorm_lib.judging import verdicts"),
        ("acyclic_siblings", "study/errors.py", "from textnorm_lib.study import store"),
    ],
)
def test_an_import_against_a_contract_is_found(tmp_path, broken, module, line):
    (tmp_path / "pyproject.toml").write_bytes((CHECKOUT / "pyproject.toml").read_bytes())
    for path in PATHS.values():
        copy = tmp_path / path.relative_to(CHECKOUT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    with (tmp_path / LIBRARY / module).open("a") as file:
        file.write(f"\n{line}\n")
    (contract,) = (contract["name"] for contract in CONTRACTS if contract["type"] == broken)
    checked = _lint(tmp_path)
    assert checked.returncode == 1 and (f"{contract} BROKEN" in checked.stdout or "attic" in checked.stdout)


def test_the_page_has_a_line_for_each_room_in_the_contracts_order():
    told = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", PAGE, re.MULTILINE)
    (layers,) = (contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")
    assert told == [*reversed(layers), "mini"]
    drawn = re.search(r"```mermaid\n(.+?)```", PAGE, re.DOTALL)[1]
    assert [room for room in told if not re.search(rf"\b{room}\b", drawn)] == []


def test_the_page_fits_a_screen():
    assert len(PAGE.splitlines()) <= 60


# ---- pieces


def test_a_module_is_read_in_one_sitting():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in PATHS.items()}
    assert {name: length for name, length in lines.items() if length > LONGEST_MODULE} == {}


def _functions(tree: ast.AST):
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_a_function_is_read_on_one_screen():
    long = {
        f"{name}.{function.name}": length
        for name, tree in MODULES.items()
        for function in _functions(tree)
        if (length := function.end_lineno - function.lineno + 1) > LONGEST_FUNCTION
    }
    assert long == {}


def _untold(body: list[ast.stmt], where: str) -> list[str]:
    """Public functions and classes without a docstring; ``forward`` of a network is told by its class."""
    found = []
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_") or node.name == "forward":
            continue
        found += [] if ast.get_docstring(node) else [f"{where}.{node.name}"]
        found += _untold(node.body, f"{where}.{node.name}") if isinstance(node, ast.ClassDef) else []
    return found


def test_every_module_and_every_public_function_and_class_has_a_docstring():
    untold = defaultdict(list)
    for name, tree in MODULES.items():
        untold[name] += [] if ast.get_docstring(tree) else [name]
        untold[name] += _untold(tree.body, name)
    assert {name: missing for name, missing in untold.items() if missing} == {}
