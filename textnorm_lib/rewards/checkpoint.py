"""What converting a published checkpoint takes: weights all accounted for, BERT's tokenizer, a folder written whole."""

import os
import pickle
import shutil
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError

from textnorm_lib.compat import prepare_torchvision
from textnorm_lib.errors import DataError
from textnorm_lib.files import check_regular


class Checkpoint:
    """The weights in a ``.pt`` or ``.pth`` file, under ``entry`` if given; each is taken once and none is left over.

    ``model`` names what the file should hold, for messages. Raises ``DataError`` where the file holds something else
    than tensors by name, or cannot be read without running what is in it.
    """

    def __init__(self, path: Path, model: str, *, entry: str | None = None) -> None:
        self.path, self.model = path, model
        try:
            check_regular(path)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{path} cannot be read as a checkpoint of {model} ({reason}); fetch it again") from error
        if entry is not None:
            if not isinstance(content, dict) or entry not in content:
                raise DataError(f"{path} holds no {entry!r}; is it the checkpoint of {model}?")
            content = content[entry]
        if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
            raise DataError(f"{path} holds no weights by name; is it the checkpoint of {model}?")
        self._weights: dict[str, torch.Tensor] = dict(content)

    def shape(self, name: str, axes: int) -> torch.Size:
        """The shape of a weight with so many ``axes``."""
        shape = self._weight(name).shape
        if len(shape) != axes:
            raise DataError(f"{self.path}: {name} has shape {list(shape)}; {self.model} has {axes} axes there")
        return shape

    def take(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        """A weight, which must have this shape."""
        weight = self._weight(name)
        if weight.shape != torch.Size(shape):
            raise DataError(
                f"{self.path}: {name} has shape {list(weight.shape)} and not {list(shape)}; "
                f"is it the checkpoint of {self.model}?"
            )
        return self._weights.pop(name)

    def finish(self, unused: Collection[str]) -> None:
        """Raise if anything was neither taken nor is ``unused``."""
        if left := [name for name in self._weights if name not in unused]:
            raise DataError(
                f"{self.path} holds {left[0]}, which {self.model} does not have ({len(left)} such weights); "
                f"is it the checkpoint of {self.model}?"
            )

    def _weight(self, name: str) -> torch.Tensor:
        if name not in self._weights:
            raise DataError(f"{self.path} holds no {name}; is it the whole checkpoint of {self.model}?")
        return self._weights[name]


def bert_tokenizer(folder: Path, *, added: Sequence[str], words: int, tokens: int, blanks: str | None = None):
    """bert-base-uncased's tokenizer from ``folder / "vocab.txt"``, with further special tokens ``added`` at its end.

    ``words``: how many tokens the model knows; ``tokens``: how many of a prompt it reads. What matches the regular
    expression ``blanks`` becomes a space first. Raises ``DataError`` where the vocabulary is missing or does not fit.
    """
    prepare_torchvision()
    from tokenizers import AddedToken, Regex, normalizers
    from tokenizers.models import WordPiece
    from transformers import BertTokenizer, PreTrainedTokenizerFast

    path = folder / "vocab.txt"
    if not path.is_file():
        raise DataError(f"{path} is missing; put bert-base-uncased's vocabulary there")
    vocabulary = WordPiece.read_file(str(path))
    backend = BertTokenizer(vocab=vocabulary).backend_tokenizer
    backend.add_special_tokens([AddedToken(token, special=True) for token in added])
    if blanks is not None:
        backend.normalizer = normalizers.Sequence([normalizers.Replace(Regex(blanks), " "), backend.normalizer])
    if backend.get_vocab_size() != words:
        raise DataError(
            f"{path} makes {backend.get_vocab_size()} tokens with {', '.join(added)}, the checkpoint knows {words}; "
            "give bert-base-uncased's vocabulary"
        )
    # Not a BertTokenizer: read back, that would make its rules anew and forget the blanks.
    special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=tokens, **special)


@contextmanager
def written(folder: Path) -> Iterator[Path]:
    """A folder to write to, which becomes ``folder`` at the end, and nothing if anything fails.

    Raises ``DataError`` where there is already something in ``folder``, or no room for it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists already; remove it to convert again, or choose another folder")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        follow_umask(partial)
        partial.replace(folder)
    except SafetensorError as error:
        raise DataError(f"{partial} cannot be written ({error}); make room there, or choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def follow_umask(folder: Path) -> None:
    """Give the files in ``folder`` the mode of any new file: safetensors lets nobody but their owner read them."""
    mask = os.umask(0o077)  # there is no other way to ask for it
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)
