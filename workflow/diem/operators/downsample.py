"""Fewer, larger pixels."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from diem.components import Integer, Model, option
from diem.errors import DiemError
from diem.lazy import torch
from diem.operators.base import Operator

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Downsample"]


class Downsample(Operator):
    """Averages squares of pixels, as a camera with fewer, larger pixels does; or reduces by cubics.

    Parameters:
        factor: The squares' size, of shape ``(B,)``, the same for all observations.
        bicubic: Whether images are reduced by cubics, booleans of shape ``(B,)``, the same for all
            observations; averages without.
    """

    name = "downsample"
    keeps_shape = False
    fields = ("factor",)
    optional = ("bicubic",)
    booleans = ("bicubic",)

    class Options(Model):
        """How much images are reduced."""

        factor: Integer = option(
            ..., "how many times smaller height and width become", ge=2, le=255
        )
        filter: Literal["average", "bicubic"] | None = option(
            None,
            "`average` (the default) of squares, or `bicubic` with antialiasing",
            paper="`bicubic`",
        )

    @classmethod
    def suits(cls, event_shape, *, factor: int, filter: str | None = None) -> None:  # type: ignore[override]
        if len(event_shape) != 3 or any(n % factor for n in event_shape[1:]):
            raise DiemError(
                f"operator.factor is {factor}, where a divisor of the height and width of images is"
                f" needed, and the data have shape {tuple(event_shape)}."
            )

    @classmethod
    def simulate(  # type: ignore[override]  # its own options
        cls, event_shape, count, rng, *, factor: int, filter: str | None = None
    ) -> dict[str, np.ndarray]:
        """Returns the factor once an observation: nothing is random."""
        cls.suits(event_shape, factor=factor)
        bicubic = {"bicubic": np.ones(count, bool)} if filter == "bicubic" else {}
        return {"factor": np.full(count, factor, np.uint8), **bicubic}

    @property
    def _factor(self) -> int:
        return int(self.parameters["factor"][0])

    @property
    def observation_shape(self) -> tuple[int, ...]:
        channels, height, width = self.event_shape
        return channels, height // self._factor, width // self._factor

    @property
    def _bicubic(self) -> bool:
        bicubic = self.parameters.get("bicubic")
        return bicubic is not None and bool(bicubic[0])

    def _matrices(self, like: Tensor) -> list[Tensor]:
        """Returns what reduces the height, and what reduces the width."""
        weights = (_cubic_weights(side, self._factor) for side in self.event_shape[1:])
        return [torch.from_numpy(w).to(like) for w in weights]

    def forward(self, x: Tensor) -> Tensor:
        if not self._bicubic:
            return torch.nn.functional.avg_pool2d(x, self._factor)
        rows, columns = self._matrices(x)
        return rows @ x @ columns.T

    def adjoint(self, y: Tensor) -> Tensor:
        if self._bicubic:
            rows, columns = self._matrices(y)
            return rows.T @ y @ columns
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
        bicubic = self.parameters.get("bicubic")
        if bicubic is not None and (
            bicubic.ndim != 1 or bicubic.dtype != torch.bool or len(bicubic.unique()) != 1
        ):
            raise DiemError("operator/bicubic must hold one and the same boolean an observation.")


@cache
def _cubic_weights(size: int, factor: int) -> np.ndarray:
    r"""Returns the weights of a side's pixels in each pixel of the reduced side.

    They are Keys' cubic with :math:`a = -1/2`, as wide as the factor asks for, and sum to one;
    beyond the boundary an image is mirrored, its outermost pixels included.

    References:
        | Cubic Convolution Interpolation for Digital Image Processing (Keys, 1981)
        | https://doi.org/10.1109/TASSP.1981.1163711
    """
    centre = (np.arange(size // factor) + 0.5) * factor - 0.5
    pixels = np.arange(-2 * factor, size + 2 * factor)
    d = np.abs(centre[:, None] - pixels) / factor
    near, far = ((1.5 * d - 2.5) * d * d + 1) * (d <= 1), ((-0.5 * d + 2.5) * d - 4) * d + 2
    weights = near + far * ((d > 1) & (d < 2))
    weights /= weights.sum(axis=1, keepdims=True)
    folded = pixels % (2 * size)
    folded = np.minimum(folded, 2 * size - 1 - folded)
    return weights @ (folded[:, None] == np.arange(size))
