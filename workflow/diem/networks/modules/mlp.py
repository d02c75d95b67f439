"""The paper's multilayer perceptron."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from diem.networks.modules.embedding import noise_embedding

__all__ = ["MLP"]


class MLP(nn.Module):
    """A multilayer perceptron, the network of the paper's low-dimensional manifold.

    The noise embedding is concatenated to the flattened input. Each hidden layer is a linear map,
    SiLU, and a layer normalization without parameters; a linear map follows.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        hidden: Sequence[int],
        embedding: int,
    ):
        """Builds the network.

        Arguments:
            event_shape: The shape of one sample.
            hidden: The width of each hidden layer.
            embedding: The number of noise embedding features, even.
        """
        super().__init__()
        size = math.prod(event_shape)
        self.embedding = embedding
        self.first = nn.Linear(size + embedding, hidden[0])
        self.layers = nn.ModuleList(
            nn.Linear(before, after)
            for before, after in zip(hidden, (*hidden[1:], size), strict=True)
        )
        for layer in (self.first, *self.layers):
            nn.init.zeros_(layer.bias)  # the authors' layers begin without

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Evaluates the network.

        Arguments:
            x: The input, of shape ``(B, *event)``.
            t: The noise conditioning variable, of shape ``(B,)``, ``(1,)`` or ``()``.

        Returns:
            The output, of the shape of ``x``.
        """
        e = noise_embedding(t, self.embedding).to(x.dtype)

        # The first layer acts on the input and on the embedding apart: the same numbers as on
        # their concatenation, without building it, and without its gradient when only that of the
        # input is asked for.
        w = self.first.weight
        size = w.shape[1] - self.embedding
        h = F.linear(x.flatten(1), w[:, :size]) + F.linear(e, w[:, size:], self.first.bias)

        for layer in self.layers:
            h = F.silu(h)
            h = F.layer_norm(h, h.shape[1:])
            h = layer(h)

        return h.view_as(x)
