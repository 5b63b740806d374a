"""What a process needs to sample and to score, imported once in the server that worker processes are forked from."""

# ruff: noqa: F401 (importing them is all that is wanted)
import open_clip
from transformers import AutoTokenizer, Blip2ForImageTextRetrieval, BlipTextModel, CLIPModel
