"""After ``import textnorm_lib`` the main set imports, whatever its build of torch; each test in a fresh process."""

import ctypes
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch


def python(code):
    """Run code in a process of its own, as it would start in a notebook's kernel."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def mismatch():
    """Whether this machine has it at all: torch without CUDA beside a torchvision that cannot load its own part."""
    spec = importlib.util.find_spec("torchvision")
    return (
        spec is not None and torch.version.cuda is None and not any(map(_loads, Path(spec.origin).parent.glob("_C.*")))
    )


def _loads(library):
    try:
        return bool(ctypes.CDLL(str(library)))
    except OSError:
        return False


@pytest.mark.parametrize(
    "imports",
    [
        "import torchvision, open_clip\nfrom torchvision.transforms.v2 import Resize\nfrom trl import DDPOTrainer",
        "from textnorm_lib import load_reward, textnorm\nfrom diffusers import StableDiffusionPipeline",
    ],
    ids=["torchvision first", "torch first, by the library"],
)
def test_after_import_textnorm_lib_the_main_set_imports_in_any_order(imports):
    result = python(f"import textnorm_lib\n{imports}\n")
    assert result.returncode == 0, result.stderr


def test_it_imports_neither_torchvision_nor_transformers_and_a_second_call_does_nothing():
    result = python(
        "import sys, textnorm_lib.study.compat as compat\n"
        "assert 'torch' not in sys.modules\n"
        "print(compat.prepare_torchvision(), compat.prepare_torchvision())\n"
        "print({'torchvision', 'transformers'} & set(sys.modules))\n"
    )
    assert result.stdout == f"{mismatch()} False\nset()\n", result.stderr


def test_without_it_torchvision_does_not_import_beside_a_torch_that_it_was_not_built_for():
    if not mismatch():
        pytest.skip("torchvision's compiled part loads beside this torch: there is nothing to settle")
    result = python("import torchvision")
    assert result.returncode != 0
    assert "torchvision::nms" in result.stderr
