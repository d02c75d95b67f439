"""A multilayer perceptron of residual blocks, for small images and vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diem.components import Count, Even, option
from diem.errors import DiemError
from diem.networks.base import Network, dense

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LARGEST", "ResidualMLP"]

LARGEST = 4096
"""A network that begins with a Gaussian holds its covariance."""


class ResidualMLP(Network):
    """A residual perceptron for small images and vectors; not in the paper."""

    name = "residual_mlp"

    width: Count = option(256, "the number of features of each layer")
    blocks: Count = option(4, "the number of residual blocks")
    embedding: Even = option(64, "the number of noise-embedding features")
    gaussian: bool = option(
        False,
        "whether fresh weights begin as the exact denoiser of the Gaussian of their samples, and"
        " learn what that leaves: few rows then need not teach a network their covariance. For"
        f" samples of {LARGEST:,} values at most",
    )

    def check(self, event_shape: Sequence[int]) -> None:
        if self.gaussian and math.prod(event_shape) > LARGEST:
            raise DiemError(
                f"network.gaussian is true, and samples of shape {tuple(event_shape)} have more"
                f" than {LARGEST:,} values."
            )

    def build(self, event_shape: Sequence[int]) -> nn.Module:
        from diem.networks.modules.residual_mlp import ResidualMLP as Module

        self.check(event_shape)
        return Module(event_shape, self.width, self.blocks, self.embedding, self.gaussian)

    def multiplications(self, event_shape: Sequence[int]) -> float:
        size, width = math.prod(event_shape), self.width
        blocks = width * (self.embedding + 2 * self.blocks * width)
        gaussian = dense([size, size, size]) if self.gaussian else 0.0
        return dense([size, width, size]) + blocks + gaussian

    def activations(self, event_shape: Sequence[int]) -> float:
        return 2.0 * math.prod(event_shape) + 5.0 * self.blocks * self.width
