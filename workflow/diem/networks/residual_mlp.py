"""A multilayer perceptron of residual blocks, for small images and vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diem.components import Count, Even, option
from diem.networks.base import Network, dense

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ResidualMLP"]


class ResidualMLP(Network):
    """A residual perceptron for small images and vectors; not in the paper."""

    name = "residual_mlp"

    width: Count = option(256, "the number of features of each layer")
    blocks: Count = option(4, "the number of residual blocks")
    embedding: Even = option(64, "the number of noise-embedding features")

    def build(self, event_shape: Sequence[int]) -> nn.Module:
        from diem.networks.modules.residual_mlp import ResidualMLP as Module

        return Module(event_shape, self.width, self.blocks, self.embedding)

    def multiplications(self, event_shape: Sequence[int]) -> float:
        size, width = math.prod(event_shape), self.width
        blocks = width * (self.embedding + 2 * self.blocks * width)
        return dense([size, width, size]) + blocks

    def activations(self, event_shape: Sequence[int]) -> float:
        return 2.0 * math.prod(event_shape) + 5.0 * self.blocks * self.width
