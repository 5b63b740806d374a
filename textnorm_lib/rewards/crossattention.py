"""What a cross-encoder need not compute: the same scores with less work.

*Keys and values of an image for every prompt.* transformers' text encoders want a row of image tokens for each prompt
and derive keys and values from each row: m prompts on one image do so m times. But the words that look at an image have
no order and do not see each other there, so the words of all m prompts may stand in one row.

*What no head reads.* The head looks at the first states only: the text's first token, or the queries. Behind the last
layer's self-attention the states do not meet again, and the others may be dropped there.
"""

import torch
from torch import nn


class SharedImageTokens(nn.Module):
    """A cross-attention of transformers for prompts (b m, l, d) and the image tokens (b, t, d') that they look at.

    The first m prompts look at the first image, and so on.
    """

    def __init__(self, crossattention: nn.Module) -> None:
        super().__init__()
        self.crossattention = crossattention

    def forward(self, hidden_states: torch.Tensor, *, encoder_hidden_states: torch.Tensor, **named):
        """As the wrapped module: a tensor (b m, l, d), or a tuple that begins with it."""
        rows = hidden_states.reshape(len(encoder_hidden_states), -1, hidden_states.shape[-1])
        result = self.crossattention(rows, encoder_hidden_states=encoder_hidden_states, **named)
        if isinstance(result, tuple):
            return result[0].reshape(hidden_states.shape), *result[1:]
        return result.reshape(hidden_states.shape)


class FirstStates(nn.Module):
    """A self-attention of transformers that returns its first ``count`` states only."""

    def __init__(self, attention: nn.Module, count: int) -> None:
        super().__init__()
        self.attention, self.count = attention, count

    def forward(self, *arguments, **named):
        """As the wrapped module, with (n, count, d) in place of (n, l, d)."""
        result = self.attention(*arguments, **named)
        return (result[0][:, : self.count], *result[1:]) if isinstance(result, tuple) else result[:, : self.count]


def spare(layers: nn.ModuleList, *, states_read: int) -> None:
    """Wrap the attentions in a text encoder's ``layers``, whose head reads the first ``states_read`` states."""
    for layer in layers:
        if hasattr(layer, "crossattention"):
            layer.crossattention = SharedImageTokens(layer.crossattention)
    layers[-1].attention = FirstStates(layers[-1].attention, states_read)
