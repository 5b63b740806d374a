"""For nbval: a cell that needs what this machine cannot have is skipped, and the summary counts it."""

import re

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip notebook cells whose first line is ``# needs: ...`` where that resource is not available."""
    cells = [item for item in items if hasattr(item, "cell")]
    if not cells:
        return
    from textnorm_lib.config import load_profile  # only with notebooks: unit tests need no look at the data
    from textnorm_lib.run import lacking

    profile = load_profile("smoke")  # the notebooks' own default
    for item in cells:
        needs = re.match(r"# needs: ([\w ]+)", item.cell.source)
        if reason := lacking(needs[1], profile) if needs else "":
            item.add_marker(pytest.mark.skip(reason=f"not attempted, because {reason}"))
