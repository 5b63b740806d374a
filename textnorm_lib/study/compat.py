"""torchvision beside a CPU build of torch, settled once for every import that follows ``import textnorm_lib``.

The published torchvision wheel for Linux is built for CUDA. Beside a CPU build of torch its compiled part cannot be
loaded, yet its Python part refers to the operator ``torchvision::nms``, so that ``import torchvision`` fails, and with
it ``import transformers`` and ``import diffusers``. The study never calls that operator: its name is enough.
"""

import ctypes
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

_kept: list = []  # a torch.library.Library withdraws its operators when it is collected


class _BeforeTorchvision(MetaPathFinder):
    """Finds torchvision as Python does, and declares its operators before its code runs."""

    def find_spec(self, name: str, path=None, target=None) -> ModuleSpec | None:
        if name != "torchvision" or (spec := PathFinder.find_spec(name, path)) is None:
            return None
        run = spec.loader.exec_module

        def prepare_and_run(module) -> None:
            prepare_torchvision()
            run(module)

        spec.loader.exec_module = prepare_and_run
        return spec


def watch_imports() -> None:
    """Have ``prepare_torchvision`` called when somebody first imports torchvision; imports nothing itself."""
    if not any(isinstance(finder, _BeforeTorchvision) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTorchvision())


def prepare_torchvision() -> bool:
    """Declare torchvision's operators where its compiled part cannot be loaded; whether that was necessary."""
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or torch.version.cuda is not None or hasattr(torch.ops.torchvision, "nms"):
        return False
    for compiled in Path(spec.origin).parent.glob("_C.*"):
        try:
            ctypes.CDLL(str(compiled))
            return False
        except OSError:
            continue
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
    return True
