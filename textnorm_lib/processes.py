"""The processes of a tuning run, as ``accelerate launch`` or ``notebook_launcher`` started them; one if nobody did.

Work is cut into batches that do not depend on how many processes there are, and process i of p takes batches i, i + p,
i + 2p, ...; sums and results are the same for any p, up to the order in which numbers are added.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")


class Processes:
    """Which process this is and what it shares with the others. ``device`` is where the model of a lone process is."""

    def __init__(self, device: torch.device) -> None:
        from accelerate import PartialState

        state = PartialState(cpu=device.type == "cpu")
        self.rank, self.count, self.first = state.process_index, state.num_processes, state.is_main_process
        self.device = state.device if self.count > 1 else device

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
