"""The processes that work together, as ``accelerate launch`` or ``notebook_launcher`` started them; one if nobody did.

Work is cut into batches that do not depend on how many processes there are, and process i of p takes batches i, i + p,
i + 2p, ...; sums and results are the same for any p, up to the order in which numbers are added.
"""

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch

Item = TypeVar("Item")


LONGEST_WAIT = timedelta(days=7)  # of a process for the others; torch's ten minutes are shorter than many a task


def launched() -> int:
    """How many processes were launched together: 1 if this one was started alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def own_share(tasks: Sequence[Item]) -> Sequence[Item]:
    """This process's part of ``tasks``."""
    return Processes().own(tasks) if launched() > 1 else tasks


def wait_for_all() -> None:
    """Until every process that was launched is here."""
    if launched() > 1:
        Processes().wait()


class Processes:
    """Which process this is and what it shares with the others. ``device`` is where the model of a lone process is.

    With several GPUs, "cuda" is from then on each process's own.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        from accelerate import PartialState

        device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        state = PartialState(cpu=device.type == "cpu", timeout=LONGEST_WAIT)
        self.rank, self.count, self.first = state.process_index, state.num_processes, state.is_main_process
        self.device = state.device if self.count > 1 else device

    def wait(self) -> None:
        """Until every process is here."""
        from accelerate import PartialState

        PartialState().wait_for_everyone()

    def own(self, batches: Sequence[Item]) -> Sequence[Item]:
        """This process's batches."""
        return batches[self.rank :: self.count]

    def gather(self, own: torch.Tensor) -> torch.Tensor:
        """Results of this process's batches (b, ...) to those of all batches, in their order, on the CPU."""
        from accelerate.utils import gather

        everyone = gather(own.to(self.device)).cpu()
        return everyone.unflatten(0, (self.count, -1)).transpose(0, 1).flatten(0, 1)

    def add_up(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in one exchange."""
        from accelerate.utils import reduce

        if self.count == 1:
            return
        tensors = list(tensors)
        total = reduce(torch.cat([tensor.flatten() for tensor in tensors]), "sum")
        for tensor, value in zip(tensors, total.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(value.view_as(tensor))
