"""The paper's multilayer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diem.components import Count, Even, option
from diem.networks.base import Network, dense

if TYPE_CHECKING:
    from torch import nn

__all__ = ["MLP"]


class MLP(Network):
    """A multilayer perceptron, the network of the paper's low-dimensional manifold."""

    name = "mlp"

    hidden: list[Count] = option([256, 256, 256], "the widths of the hidden layers", min_length=1)
    embedding: Even = option(64, "the number of noise-embedding features")

    def build(self, event_shape: Sequence[int]) -> nn.Module:
        from diem.networks.modules.mlp import MLP as Module

        return Module(event_shape, self.hidden, self.embedding)

    def multiplications(self, event_shape: Sequence[int]) -> float:
        return dense(self._widths(event_shape))

    def activations(self, event_shape: Sequence[int]) -> float:
        return 3.0 * sum(self._widths(event_shape))

    def _widths(self, event_shape: Sequence[int]) -> list[int]:
        size = math.prod(event_shape)
        return [size + self.embedding, *self.hidden, size]
