"""For nbval: a cell that needs what this machine cannot have is skipped, and the summary counts it."""

import re

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip notebook cells whose first line is ``# needs: ...`` where that resource is not available."""
    cells = [item for item in items if hasattr(item, "cell")]
    if not cells:
        return
    from textnorm_lib.run import RESOURCES  # only with notebooks: unit tests need no look at the data

    for item in cells:
        need = re.match(r"# needs: (\w+)", item.cell.source)
        available, reason = RESOURCES[need[1]]() if need else (True, "")
        if not available:
            item.add_marker(pytest.mark.skip(reason=f"not attempted, because {reason}"))
