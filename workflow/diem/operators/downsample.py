"""Averages over squares of pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diem.components import Integer, Model, option
from diem.errors import DiemError
from diem.lazy import torch
from diem.operators.base import Operator

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Downsample"]


class Downsample(Operator):
    """Averages squares of pixels: what a camera with fewer, larger pixels sees.

    Parameters:
        factor: The squares' size, of shape ``(B,)``, the same for all observations.
    """

    name = "downsample"
    keeps_shape = False
    fields = ("factor",)

    class Options(Model):
        """How much images are reduced."""

        factor: Integer = option(
            ..., "the height and width of the squares that are averaged", ge=2, le=255
        )

    @classmethod
    def simulate(cls, event_shape, count, rng, *, factor: int) -> dict[str, np.ndarray]:  # type: ignore[override]
        """Returns the factor once an observation: nothing is random."""
        return {"factor": np.full(count, factor, np.uint8)}

    @property
    def _factor(self) -> int:
        return int(self.parameters["factor"][0])

    @property
    def observation_shape(self) -> tuple[int, ...]:
        channels, height, width = self.event_shape
        return channels, height // self._factor, width // self._factor

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(x, self._factor)

    def adjoint(self, y: Tensor) -> Tensor:
        factor = self._factor
        return y.repeat_interleave(factor, -2).repeat_interleave(factor, -1) / factor**2

    def check(self) -> None:
        super().check()
        factor = self.parameters["factor"]
        if factor.ndim != 1 or len(factor) == 0 or (factor != factor[0]).any():
            raise DiemError("operator/factor must hold one and the same number an observation.")
        sides, whole = self.event_shape[1:], factor[0] >= 1 and factor[0] == factor[0].round()
        if len(self.event_shape) != 3 or not whole or any(n % self._factor for n in sides):
            raise DiemError(
                f"operator/factor is {factor[0]:g}, where a divisor of the height and width of"
                f" images is needed, and the data have shape {self.event_shape}."
            )
