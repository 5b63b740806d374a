"""Fixtures of several test modules."""

import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """As each of several processes has it: more threads sum in another order, and are slow beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
