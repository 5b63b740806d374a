"""ImageReward and BLIP-2 through the packages that their authors published: a reference for the study's own path.

image-reward 1.5 and salesforce-lavis 1.0.2 cannot be imported here. Each runs in an environment of its own
(environments.py), in a process that stays (reference_worker.py) and is spoken with over pipes (worker_process.py).

Pairs are scored one by one with the package's own call and preprocessing: LAVIS squeezes an image that is not square,
lowercases a prompt and drops some punctuation, and on a GPU its image encoder computes in half precision.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image

from textnorm_lib.errors import ConfigError, DataError
from textnorm_lib.progress import progress
from textnorm_lib.rewards.base import Reward
from textnorm_lib.rewards.environments import environment_folder, environment_python
from textnorm_lib.rewards.pixels import Images
from textnorm_lib.rewards.worker_process import WorkerProcess

TIME_LIMIT_S = 1800.0  # for one request: reading gigabytes from a slow disk, an image with a hundred prompts
WORKER = Path(__file__).with_name("reference_worker.py")
_TOKENIZER = "bert-base-uncased/vocab.txt"


class Package(NamedTuple):
    """An original package: the lock file of its environment, the files of its weights, the heads to choose from."""

    lock: str
    files: tuple[str, ...]
    heads: tuple[str, ...]


PACKAGES = {
    "imagereward": Package("imagereward", ("ImageReward.pt", "med_config.json", _TOKENIZER), ()),
    "blip2": Package(
        "lavis",
        ("blip2_pretrained.pth", "eva_vit_g.pth", "bert-base-uncased/config.json", _TOKENIZER),
        ("itm", "itc"),
    ),
}
_NONE_NEEDED = {
    "clip": "the main backend is open_clip, the original",
    "pickscore": "its authors published it for transformers, which the main backend is",
}


class ReferenceReward(Reward):
    """An original package as a reward; ``close`` it, or use it in ``with``.

    ``seconds`` is what the worker spent on the latest call, ``peak_mib`` the most memory that it has had so far.
    """

    def __init__(
        self,
        name: str,
        folder: Path | str,
        *,
        head: str | None = None,
        device: str = "cpu",
        random: Mapping[str, Any] | None = None,
        seed: int = 0,
        time_limit: float = TIME_LIMIT_S,
    ) -> None:
        """With the published files in ``folder``, or what ``save`` wrote there; nothing is fetched.

        ``random`` asks for random weights instead: {} of the published sizes, else of those that it names (as in
        reference_worker.py); then only the tokenizer has to be there, bert-base-uncased/vocab.txt, one word a line.
        ``head`` is for "blip2": "itm" (the default) or "itc". ``time_limit`` is the seconds that a request may take.
        """
        package = _package(name)
        if head is not None and head not in package.heads:
            raise ConfigError(f"{name} (reference): head is {head!r}; known: {', '.join(package.heads) or 'none'}")
        super().__init__(Path(folder).absolute(), batch_size=1)
        for file in package.files if random is None else (_TOKENIZER,):
            if not (self.folder / file).is_file():
                raise DataError(f"{name} (reference): {self.folder / file} is missing; put that file there")
        self.name, self.device = name, device
        self.head = head or next(iter(package.heads), None)
        self.seconds = self.peak_mib = 0.0
        self._worker = _start(name, package, time_limit)
        start = {"do": "load"} if random is None else {"do": "random", "sizes": dict(random), "seed": seed}
        try:
            self._ask(**start, folder=str(self.folder), device=device)
        except BaseException:
            self.close()
            raise

    def save(self, folder: Path | str) -> None:
        """Write weights, configuration and tokenizer to ``folder``, in the original's own files."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._ask("save", folder=str(Path(folder).absolute()))

    def to(self, device: str, dtype: torch.dtype = torch.float32) -> Self:
        """Itself, if that is what it is."""
        if (device, dtype) != (self.device, self.dtype):
            raise ConfigError(f"{self.name} (reference) stays on {self.device!r} with its own arithmetic; load it anew")
        return self

    def close(self) -> None:
        """End the worker."""
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _ask(self, do: str, **request: Any) -> np.ndarray | None:
        reply = self._worker.ask(do, **request)
        self.seconds, self.peak_mib = self.seconds + reply.seconds, reply.peak_mib
        return reply.scores

    def _matrix(self, images: Images, prompts: list[str]) -> torch.Tensor:
        return self._rows(images, [prompts] * len(images))

    def _pairs(self, images: Images, prompts: list[str]) -> torch.Tensor:
        return self._rows(images, [[prompt] for prompt in prompts])[:, 0]

    def _rows(self, images: Images, prompts: Sequence[list[str]]) -> torch.Tensor:
        """Image i with its equally many prompts i -> (n images, n prompts)."""
        self.seconds = 0.0
        indices = progress(range(len(images)), f"{self.name} (reference): images", unit="images")
        return torch.from_numpy(np.stack([self._row(images[index], index, prompts[index]) for index in indices]))

    def _row(self, image: Image.Image | str | Path | np.ndarray, index: int, prompts: list[str]) -> np.ndarray:
        path = pixels = None
        if isinstance(image, str | Path):
            path = str(Path(image).absolute())
        elif isinstance(image, Image.Image | np.ndarray):
            pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        else:
            raise DataError(f"{self.name}: image {index} is a {type(image).__name__}; give a PIL image or a path")
        about = f"image {index}"
        scores = self._ask("score", about=about, image=pixels, path=path, prompts=prompts, head=self.head)
        if scores is None or scores.dtype != np.float32 or scores.shape != (len(prompts),):
            said = "no scores" if scores is None else f"{scores.dtype} scores of shape {scores.shape}"
            raise self._worker.failure(f"gave {said} for {about} with {len(prompts)} prompts")
        return scores


def worker_command(name: str) -> list[str]:
    """What starts the worker. -I: neither this folder nor the caller's PYTHONPATH is imported from."""
    return [str(environment_python(_package(name).lock)), "-I", str(WORKER), name]


def _start(name: str, package: Package, time_limit: float) -> WorkerProcess:
    environment = environment_folder(package.lock)
    remedy = f"load it again; if that does not help, delete {environment} and it is installed anew"
    return WorkerProcess(worker_command(name), label=f"{name} (reference)", time_limit=time_limit, remedy=remedy)


def _package(name: str) -> Package:
    if name in PACKAGES:
        return PACKAGES[name]
    why = f" ({_NONE_NEEDED[name]})" if name in _NONE_NEEDED else ""
    raise ConfigError(f"{name!r} has no reference backend{why}; those with one: {', '.join(PACKAGES)}")
