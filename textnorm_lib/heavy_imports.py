"""What a process needs to sample and to score, imported once in the server that worker processes are forked from."""

from textnorm_lib.compat import prepare_torchvision

prepare_torchvision()

import open_clip  # noqa: E402, F401
from transformers import AutoTokenizer, Blip2ForImageTextRetrieval, BlipTextModel, CLIPModel  # noqa: E402, F401
