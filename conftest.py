"""For nbval: a cell that needs what this machine cannot have is skipped, and the summary counts it."""

import re

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip notebook cells whose first line is ``# needs: ...`` where that resource is not available."""
    cells = [item for item in items if hasattr(item, "cell")]
    if not cells:
        return
    from textnorm_lib.pipeline import RESOURCES
    from textnorm_lib.study.config import DEFAULT_PROFILE, load_profile
    from textnorm_lib.study.run import Run

    run = Run("nbval", load_profile(DEFAULT_PROFILE), None, RESOURCES)
    for item in cells:
        needs = re.match(r"# needs: ([\w ]+)", item.cell.source)
        if reason := run.lacking(needs[1]) if needs else "":
            item.add_marker(pytest.mark.skip(reason=f"not attempted, because {reason}"))
