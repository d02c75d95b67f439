"""Convolution with a kernel of each observation's own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from pydantic import field_validator

from diem.components import Integer, Model, Number, option
from diem.errors import DiemError
from diem.lazy import torch
from diem.operators.base import Operator

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Blur"]


class Blur(Operator):
    r"""Convolves each channel of an image with a kernel of the observation's own.

    The boundary is periodic, so that the convolution is a product of spectra and its adjoint is
    exact: the product with the conjugate spectrum.

    Parameters:
        kernel: The kernels, of shape ``(B, size, size)`` with an odd size, centred.
    """

    name = "blur"
    keeps_shape = True
    fields = ("kernel",)

    class Options(Model):
        """How kernels are drawn."""

        size: Integer = option(..., "the odd height and width of the kernels, in pixels", ge=3)
        intensity: Number = option(..., "how much the camera's path turns: 0 is straight", ge=0)

        @field_validator("size")
        @classmethod
        def _odd(cls, size: int) -> int:
            if size % 2 == 0:
                raise ValueError(f"{{place}} is {size}, and must be odd")
            return size

    @classmethod
    def simulate(  # type: ignore[override]  # its own options
        cls, event_shape, count, rng, *, size: int, intensity: float
    ) -> dict[str, np.ndarray]:
        r"""Draws the motion kernels of a camera that shakes during the exposure.

        A point moves at constant speed along a path of ``size - 1`` pixels. Its first direction is
        uniform; then it turns as a Brownian motion does, whose standard deviation at the end of
        the exposure is ``intensity`` times :math:`\pi`: at 0 the path is straight. A kernel is
        the time that the point spends at each pixel, centred on the path's bounding box.

        References:
            | Modeling the Performance of Image Restoration from Motion Blur (Boracchi & Foi, 2012)
            | https://doi.org/10.1109/TIP.2012.2192126
        """
        if size % 2 == 0 or len(event_shape) != 3 or size > min(event_shape[1:]):
            raise DiemError(
                f"operator.size: a kernel of {size} x {size} pixels needs an odd size and images"
                f" that are no smaller, and the data have shape {tuple(event_shape)}."
            )
        points = 8 * size
        turns = rng.standard_normal((count, points)) * math.pi * intensity / math.sqrt(points)
        turns[:, 0] = rng.uniform(0, 2 * math.pi, count)
        heading = turns.cumsum(axis=1)
        path = np.stack((np.sin(heading), np.cos(heading)), axis=-1).cumsum(axis=1)
        path *= (size - 1) / points
        low, high = path.min(axis=1, keepdims=True), path.max(axis=1, keepdims=True)
        path += (size - 1) / 2 - (low + high) / 2

        kernel = np.zeros((count, size, size))
        corner = np.clip(np.floor(path).astype(int), 0, size - 2)
        far = path - corner  # each point is shared among the four pixels around it
        rows = np.arange(count)[:, None]
        for i, j in np.ndindex(2, 2):
            share = np.abs(1 - i - far[..., 0]) * np.abs(1 - j - far[..., 1])
            np.add.at(kernel, (rows, corner[..., 0] + i, corner[..., 1] + j), share / points)
        return {"kernel": kernel.astype(np.float32)}

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.event_shape

    def forward(self, x: Tensor) -> Tensor:
        return self._filtered(x, self._spectrum)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._filtered(y, self._spectrum.conj())

    def precondition(self, b: Tensor, scale: Tensor, var_y: Tensor) -> Tensor:
        # Exact where the noise is the same for all values of an observation.
        mean = var_y.expand(b.shape).mean(dim=(-3, -2, -1), keepdim=True)
        return self._filtered(b, 1 / (scale * self._spectrum.abs().square() + mean))

    def _filtered(self, x: Tensor, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * spectrum, s=self.event_shape[1:])

    @property
    def _spectrum(self) -> Tensor:
        kernel, (height, width) = self.parameters["kernel"], self.event_shape[1:]
        size = kernel.shape[-1]
        padded = torch.nn.functional.pad(kernel, (0, width - size, 0, height - size))
        padded = padded.roll((-(size // 2), -(size // 2)), dims=(-2, -1))
        return torch.fft.rfft2(padded)[:, None]

    def check(self) -> None:
        super().check()
        shape = tuple(self.parameters["kernel"].shape)
        fits = len(shape) == 3 and shape[1] == shape[2] and shape[1] % 2 == 1
        if not fits or len(self.event_shape) != 3 or shape[1] > min(self.event_shape[1:]):
            raise DiemError(
                f"operator/kernel has shape {shape[1:]} an observation, where square kernels of an"
                f" odd size are needed that fit in the data's shape {self.event_shape}."
            )
