"""For nbval: a cell that needs what this machine cannot have is skipped; progress is not compared."""

import re

import pytest


def pytest_collectstart(collector: pytest.Collector) -> None:
    """What a cell says about its progress depends on the machine's speed: compare what it shows."""
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip notebook cells whose first line is ``# needs: ...`` where that resource is not available."""
    begun = [(item, re.match(r"# needs: ([\w ]+)", item.cell.source)) for item in items if hasattr(item, "cell")]
    cells = [(item, needs[1]) for item, needs in begun if needs]
    if not cells:
        return
    from committed import committed_profile

    from textnorm_lib.pipeline import RESOURCES  # only with notebooks: unit tests need not import all of it
    from textnorm_lib.study.config import load_profile
    from textnorm_lib.study.run import Run

    for item, needs in cells:
        run = Run("nbval", load_profile(committed_profile(item.path)), None, RESOURCES)
        if reason := run.lacking(needs):
            item.add_marker(pytest.mark.skip(reason=f"not attempted, because {reason}"))
