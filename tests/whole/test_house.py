"""The house: each module on one floor of docs/house.md, imports downwards only, all in pieces that can be read."""

import ast
import fnmatch
import graphlib
import re
from collections import defaultdict
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
LIBRARY = "textnorm_lib"
PAGE = CHECKOUT / "docs" / "house.md"
DATA = {"mini.drawings"}  # polygons
LONGEST_MODULE, LONGEST_FUNCTION = 350, 50  # lines


def _name(path: Path) -> str:
    """A module's name, without the library's own before it."""
    parts = path.relative_to(CHECKOUT / LIBRARY).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or LIBRARY


PATHS = {_name(path): path for path in sorted((CHECKOUT / LIBRARY).rglob("*.py"))}
MODULES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}


def _imports(tree: ast.Module) -> set[str]:
    """The library's modules that one imports, inside functions as well; a package only for names of its own."""
    named = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are absolute here"
            for one in node.names:
                inner = f"{node.module}.{one.name}"
                named.add(inner if inner.removeprefix(f"{LIBRARY}.") in MODULES else node.module)
        elif isinstance(node, ast.Import):
            named |= {one.name for one in node.names}
    return {name.removeprefix(f"{LIBRARY}.") for name in named if name.startswith(LIBRARY)} & MODULES.keys()


def _floors() -> dict[str, list[str]]:
    """The drawing's floors, the highest first, and what is written on each: modules, or patterns of their names."""
    drawing = re.search(r"```text\n(.+?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    floors, name = {}, None
    for line in drawing.splitlines():
        label, modules = line[:16].strip(), line[16:].split()
        name = label or name
        floors.setdefault(name, []).extend(modules)
    return floors


FLOORS = _floors()
HEIGHT = {floor: height for height, floor in enumerate(reversed(FLOORS))}


def _floors_of(module: str) -> list[str]:
    return [floor for floor, written in FLOORS.items() for one in written if fnmatch.fnmatchcase(module, one)]


GRAPH = {name: _imports(tree) - {name} for name, tree in MODULES.items()}
PLACED = {name: floors[0] for name in MODULES if (floors := _floors_of(name))}


def test_every_module_stands_on_exactly_one_floor_of_the_page():
    assert {name: _floors_of(name) for name in MODULES if len(_floors_of(name)) != 1} == {}, f"draw them in {PAGE}"


def test_the_page_names_no_module_that_there_is_not():
    written = [one for floor in FLOORS.values() for one in floor]
    assert [one for one in written if not fnmatch.filter(MODULES, one)] == []


def test_every_floor_of_the_drawing_is_told_in_the_pages_table():
    told = re.findall(r"^\| ([\w ]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert told[1:] == list(FLOORS)


def test_imports_go_to_the_same_floor_or_to_a_lower_one():
    upward = [
        f"{name} ({PLACED[name]}) imports {other} ({PLACED[other]})"
        for name, others in GRAPH.items()
        for other in sorted(others)
        if {name, other} <= PLACED.keys() and HEIGHT[PLACED[other]] > HEIGHT[PLACED[name]]
    ]
    assert upward == []


def test_no_chain_of_imports_comes_back_to_where_it_began():
    try:
        graphlib.TopologicalSorter(GRAPH).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_the_imports_that_the_test_reads_are_those_of_a_known_module():
    assert {"store", "errors", "two_way", "metrics", "names", "pool", "rankings"} <= GRAPH["finetuning_outcomes"]
    assert "mini.annotators" in GRAPH["tia2.build"]  # inside a function
    assert "mini.train" in GRAPH["mini.stages"] and "mini" not in GRAPH["mini.stages"]


def test_a_module_is_read_in_one_sitting():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in PATHS.items()}
    assert {name: length for name, length in lines.items() if length > LONGEST_MODULE and name not in DATA} == {}


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
