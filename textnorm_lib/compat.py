"""The one place that settles torchvision beside a CPU build of torch.

The published torchvision wheel for Linux is built for CUDA. Beside a CPU build of torch its compiled part cannot be
loaded, yet its Python part still refers to the operator ``torchvision::nms``, so that ``import torchvision`` fails, and
``import transformers`` with it. The study never calls that operator: it is enough that the name exists.
"""

import ctypes
import importlib.util
from pathlib import Path

_kept: list = []  # a torch.library.Library withdraws its operators when it is collected


def prepare_torchvision() -> bool:
    """Declare torchvision's missing operators where its compiled part cannot be loaded.

    Call it before transformers, diffusers, open_clip or torchvision are first imported; a second call does nothing.
    Returns True where the operators had to be declared, False where torchvision works as it is (a CUDA machine, or a
    matching CPU wheel) or is not installed.
    """
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
