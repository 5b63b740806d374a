"""Fixtures of several test modules."""

from pathlib import Path

import nbformat
import pytest
import torch

LONG = ("test_faults.py", "test_notebooks_in_jupyterlab.py", "test_pipeline.py")
NOTEBOOKS = sorted(Path(__file__).parents[1].glob("notebooks/[0-9A]*.ipynb"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take minutes first: a worker takes a file at a time, and neither should wait at the end."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """As each of several processes has it: more threads sum in another order, and are slow beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    """The path of each notebook."""
    return request.param


@pytest.fixture
def cells(notebook):
    """Its cells."""
    return nbformat.read(notebook, as_version=4).cells
