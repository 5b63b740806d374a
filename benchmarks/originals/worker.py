"""The process that holds one original reward package; ``ReferenceReward`` starts it and speaks with it.

    python -I worker.py imagereward study/compat.py        or blip2

It runs in the package's own environment, where the study's library cannot be imported; of that it loads one file, which
settles torchvision (the second argument). A message is a line of JSON, followed by as many bytes of npz (numpy arrays,
no pickles) as its ``bytes`` says. Requests, by ``do``:

    load     folder, device                 the published files, or what ``save`` wrote
    random   folder, device, sizes, seed    random weights; the folder holds the tokenizer
    save     folder                         the weights in the original's files and under its names
    score    prompts, head, path            one image: a path, or null and npz "image", uint8 (h, w, 3);
                                            the reply's npz: "scores", float32 (n prompts,)

A reply says ``seconds`` (this request) and ``peak_mib`` (this process, so far), or ``error`` in one line. ``sizes``
holds what differs from the published model: "image_size", and as the original classes name them "vision" (its
VisionTransformer), "text" (its BertConfig), "model" (LAVIS's Blip2ITM).
"""

import importlib.util
import io
import json
import os
import resource
import shutil
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

TOKENIZER = "bert-base-uncased"  # what both packages ask for by name: a folder of that name here comes before the hub


class ImageReward:
    """image-reward 1.5: ``model.score(prompt, image)``."""

    bert_file = "med_config.json"
    bert: ClassVar = {"hidden_size": 768, "add_cross_attention": True}
    added_words = 2

    def __init__(self, bert, sizes, device):
        package = import_module("ImageReward.ImageReward")
        pretrain, blip = (import_module(f"ImageReward.models.BLIP.{name}") for name in ("blip_pretrain", "blip"))
        size = sizes.get("image_size", 224)

        def create_vit(*arguments, original=pretrain.create_vit):
            encoder, _ = original(*arguments)
            return encoder, encoder.embed_dim

        # The original writes these sizes out in its code; the published ones come out as they were.
        _resize(blip, "VisionTransformer", {"img_size": size, **sizes.get("vision", {})})
        pretrain.create_vit = create_vit
        pretrain.BertConfig = SimpleNamespace(from_json_file=lambda _: bert)
        package.MLP = lambda _, original=package.MLP: original(bert.hidden_size)
        package._transform = lambda _, original=package._transform: original(size)
        self.model = package.ImageReward(med_config=None, device=device)

    def read(self, folder):
        """The state dict in the original's file."""
        return _read(folder / "ImageReward.pt")

    def write(self, state, folder):
        """A state dict to the original's file."""
        _write(state, folder / "ImageReward.pt")

    def finish(self, device):
        """Once the weights are there."""
        self.model.to(device)

    def scores(self, image, prompts, head):
        """An image with each of the prompts, one after another."""
        return [self.model.score(prompt, image) for prompt in prompts]


class Blip2:
    """salesforce-lavis 1.0.2: ``model({"image": ..., "text_input": ...}, match_head=...)`` after its own processors."""

    bert_file = f"{TOKENIZER}/config.json"
    bert: ClassVar = {}
    added_words = 0  # it lengthens the table of words itself
    vision = "visual_encoder."

    def __init__(self, bert, sizes, device):
        import_module("lavis")
        self.vit = import_module("lavis.models.eva_vit")
        base, former, matching = (
            import_module(f"lavis.models.blip2_models.{name}")
            for name in ("blip2", "Qformer", "blip2_image_text_matching")
        )
        load_processor = import_module("lavis.processors").load_processor
        size = sizes.get("image_size", 224)
        # The original begins with two downloads, of which nothing is left once its checkpoint is read.
        _resize(self.vit, "VisionTransformer", sizes.get("vision", {}))
        self.vit.download_cached_file = lambda *_, **__: _empty_checkpoint()
        base.BertConfig = SimpleNamespace(from_pretrained=lambda _: bert)
        base.BertLMHeadModel = SimpleNamespace(from_pretrained=lambda _, config: former.BertLMHeadModel(config))
        self.model = matching.Blip2ITM(img_size=size, vit_precision="fp32", **sizes.get("model", {}))
        self.image_processor = load_processor("blip_image_eval", {"image_size": size})
        self.text_processor = load_processor("blip_caption")

    def read(self, folder):
        """The state dict in the original's two files."""
        vision, rest = _read(folder / "eva_vit_g.pth"), _read(folder / "blip2_pretrained.pth")["model"]
        return {**{self.vision + key: value for key, value in vision.items()}, **rest}

    def write(self, state, folder):
        """A state dict to the original's two files."""
        vision = {key.removeprefix(self.vision): value for key, value in state.items() if key.startswith(self.vision)}
        rest = {key: value for key, value in state.items() if not key.startswith(self.vision)}
        _write(vision, folder / "eva_vit_g.pth")
        _write({"model": rest}, folder / "blip2_pretrained.pth")

    def finish(self, device):
        """As in the package: the image encoder's weights in half precision; a CPU computes with these in single."""
        self.vit.convert_weights_to_fp16(self.model.visual_encoder)
        if device == "cpu":
            self.model.float()
        self.model.to(device)

    def scores(self, image, prompts, head):
        """An image with each of the prompts, by the ``head``: "itm" or "itc"."""
        pixels = self.image_processor(image).unsqueeze(0).to(self.model.device)
        outputs = (
            self.model({"image": pixels, "text_input": self.text_processor(prompt)}, match_head=head)
            for prompt in prompts
        )
        return [(output.softmax(dim=1)[0, 1] if head == "itm" else output[0, 0]).item() for output in outputs]


class Worker:
    """Answers requests: one method each."""

    def __init__(self, name, compat):
        self.kind = {"imagereward": ImageReward, "blip2": Blip2}[name]
        self.original = None
        spec = importlib.util.spec_from_file_location("compat", compat)
        self.compat = importlib.util.module_from_spec(spec)  # kept: what it declares lives as long
        spec.loader.exec_module(self.compat)
        self.compat.prepare_torchvision()

    def load(self, folder, device):
        """The request ``load``."""
        from transformers import BertConfig

        folder = Path(folder)
        sizes = json.loads((folder / "sizes.json").read_text()) if (folder / "sizes.json").exists() else {}
        self._build(folder, BertConfig.from_json_file(folder / self.kind.bert_file), sizes, device)
        found = self.original.model.load_state_dict(self.original.read(folder), strict=False)
        absent = [key for key in found.missing_keys if not key.endswith("position_ids")]  # a constant: 0, 1, 2, ...
        if absent:
            raise ValueError(f"{len(absent)} weights are missing, such as {absent[0]}")
        self.original.finish(device)

    def random(self, folder, device, sizes, seed):
        """The request ``random``."""
        import torch
        from transformers import BertConfig

        words = len((Path(folder) / TOKENIZER / "vocab.txt").read_text().splitlines()) + self.kind.added_words
        bert = BertConfig(**{"vocab_size": words, **self.kind.bert, **sizes.get("text", {})})
        torch.manual_seed(seed)
        self._build(Path(folder), bert, sizes, device)
        for weights in self.original.model.parameters():
            if weights.ndim > 1:  # variance kept from layer to layer, so that scores differ from each other
                fan_in = weights.shape[-1] if weights.ndim == 3 else weights[0].numel()
                weights.data.normal_(0, fan_in**-0.5)
            else:
                weights.data.add_(0.1 * torch.randn_like(weights))
        self.original.finish(device)

    def save(self, folder):
        """The request ``save``."""
        folder = Path(folder)
        if not folder.samefile("."):
            shutil.copytree(TOKENIZER, folder / TOKENIZER, dirs_exist_ok=True)
        self.bert.to_json_file(folder / self.kind.bert_file, use_diff=False)
        (folder / "sizes.json").write_text(json.dumps(self.sizes))
        self.original.write({key: value.cpu() for key, value in self.original.model.state_dict().items()}, folder)

    def score(self, prompts, head, path, image=None):
        """The request ``score``: (n prompts,)."""
        import numpy as np
        import torch
        from PIL import Image

        if self.original is None:
            raise ValueError("there is no model yet; load one first")
        picture = Image.open(path).convert("RGB") if image is None else Image.fromarray(image)
        with torch.no_grad():
            return np.array(self.original.scores(picture, prompts, head), dtype=np.float32)

    def _build(self, folder, bert, sizes, device):
        if self.original is not None:
            raise ValueError("there is a model already; start another worker")
        os.chdir(folder)
        self.bert, self.sizes = bert, sizes
        self.original = self.kind(bert, sizes, device)
        self.original.model.eval()


def serve(worker, requests, replies):
    """Answer until the input ends."""
    import numpy as np

    for line in iter(requests.readline, b""):
        started = time.perf_counter()
        message = json.loads(line)
        do, length = message.pop("do"), message.pop("bytes")
        arrays = dict(np.load(io.BytesIO(requests.read(length)), allow_pickle=False)) if length else {}
        reply, payload = {}, io.BytesIO()
        try:
            scores = getattr(worker, do)(**message, **arrays)
            if scores is not None:
                np.savez(payload, scores=scores)
        except Exception as error:
            traceback.print_exc()
            reply["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        reply |= {"bytes": len(payload.getbuffer()), "seconds": time.perf_counter() - started, "peak_mib": _peak_mib()}
        replies.write(json.dumps(reply).encode() + b"\n" + payload.getbuffer())
        replies.flush()


def _peak_mib():
    try:  # what getrusage gives to a process in Linux begins with the size of the one that started it
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**10
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _own_pipes():
    """Standard input and output for messages alone: what libraries print goes to standard error."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def _resize(module, name, sizes):
    """Have ``module`` make its class ``name`` with other sizes than are written in its code."""
    original = getattr(module, name)
    setattr(module, name, lambda **given: original(**{**given, **sizes}))


def _empty_checkpoint():
    import torch

    file = io.BytesIO()
    torch.save({}, file)
    file.seek(0)
    return file


def _read(path):
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def _write(state, path):
    import torch

    torch.save(state, path)


if __name__ == "__main__":
    serve(Worker(*sys.argv[1:]), *_own_pipes())
