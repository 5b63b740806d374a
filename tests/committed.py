"""What the notebooks are committed with."""

import json
import re
from functools import cache
from pathlib import Path


@cache
def committed_profile(notebook: Path) -> str:
    """The profile in the cell of a notebook that is tagged parameters; "smoke" where there is none."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parameters = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    found = re.search(r'^profile = "([\w-]+)"', "\n".join(parameters), re.MULTILINE)
    return found[1] if found else "smoke"
