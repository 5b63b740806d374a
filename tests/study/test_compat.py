"""After ``import textnorm_lib`` the main set imports, whatever its build of torch; each test in a fresh process."""

import subprocess
import sys

import pytest

# Whether this machine has the mismatch at all: torch without CUDA beside a torchvision that cannot load its own part.
MISMATCH = """
import ctypes, importlib.util, pathlib, torch
spec = importlib.util.find_spec("torchvision")
def loads(path):
    try:
        return bool(ctypes.CDLL(str(path)))
    except OSError:
        return False
parts = pathlib.Path(spec.origin).parent.glob("_C.*") if spec else []
print(spec is not None and torch.version.cuda is None and not any(map(loads, parts)))
"""


def python(code):
    """Run code in a process of its own, as it would start in a notebook's kernel."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180)


@pytest.fixture(scope="module")
def mismatch():
    return python(MISMATCH).stdout.strip() == "True"


@pytest.mark.parametrize(
    "imports",
    [
        "from diffusers import StableDiffusionPipeline",
        "import torchvision",
        "from textnorm_lib import load_reward, textnorm\nfrom diffusers import StableDiffusionPipeline",
        "import torch\nfrom transformers import CLIPModel\nimport open_clip",
        "from trl import DDPOTrainer\nimport peft\nfrom torchvision.transforms.v2 import Resize",
    ],
)
def test_after_import_textnorm_lib_the_main_set_imports_in_any_order(imports):
    result = python(f"import textnorm_lib\n{imports}\n")
    assert result.returncode == 0, result.stderr


def test_a_second_call_does_nothing(mismatch):
    call = "from textnorm_lib.study.compat import prepare_torchvision as prepare\nprint(prepare(), prepare())\n"
    assert python(call).stdout.split() == [str(mismatch), "False"]


def test_without_it_torchvision_does_not_import_beside_a_torch_that_it_was_not_built_for(mismatch):
    if not mismatch:
        pytest.skip("torchvision's compiled part loads beside this torch: there is nothing to settle")
    result = python("import torchvision")
    assert result.returncode != 0
    assert "torchvision::nms" in result.stderr


def test_it_imports_neither_torchvision_nor_transformers():
    result = python(
        "import sys, textnorm_lib.study.compat as compat\n"
        "assert 'torch' not in sys.modules\n"
        "compat.prepare_torchvision()\n"
        "print({'torchvision', 'transformers'} & set(sys.modules))\n"
    )
    assert result.stdout == "set()\n", result.stderr
