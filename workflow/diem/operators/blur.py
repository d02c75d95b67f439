"""Convolution with a kernel of each observation's own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

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

    Beyond its boundary an image goes on periodically, or is reflected about its outermost pixels.
    Either way the convolution of the image, padded where it is reflected, is a product of spectra,
    of which the product with the conjugate spectrum is the exact adjoint.

    Parameters:
        kernel: The kernels, of shape ``(B, size, size)`` with an odd size, centred.
        reflect: Whether images are reflected, booleans of shape ``(B,)``, the same for all
            observations; periodic without.
    """

    name = "blur"
    keeps_shape = True
    fields = ("kernel",)
    optional = ("reflect",)
    booleans = ("reflect",)

    class Options(Model):
        """How kernels are drawn."""

        size: Integer = option(..., "the odd height and width of the kernels, in pixels", ge=3)
        intensity: Number = option(..., "how much the camera's path turns: 0 is straight", ge=0)
        boundary: Literal["periodic", "reflect"] | None = option(
            None,
            "what images are beyond their boundary: `periodic` (the default), or `reflect`",
            paper="`reflect`",
        )

        @field_validator("size")
        @classmethod
        def _odd(cls, size: int) -> int:
            if size % 2 == 0:
                raise ValueError(f"{{place}} is {size}, and must be odd")
            return size

    @classmethod
    def suits(cls, event_shape, *, size: int, **options) -> None:  # type: ignore[override]
        if size % 2 == 0 or len(event_shape) != 3 or size > min(event_shape[1:]):
            raise DiemError(
                f"operator.size: a kernel of {size} x {size} pixels needs an odd size and images"
                f" that are no smaller, and the data have shape {tuple(event_shape)}."
            )

    @classmethod
    def simulate(  # type: ignore[override]  # its own options
        cls, event_shape, count, rng, *, size: int, intensity: float, boundary: str | None = None
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
        cls.suits(event_shape, size=size)
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
        reflect = {"reflect": np.ones(count, bool)} if boundary == "reflect" else {}
        return {"kernel": kernel.astype(np.float32), **reflect}

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.event_shape

    def forward(self, x: Tensor) -> Tensor:
        margin = self._margin
        padded = torch.nn.functional.pad(x, (margin,) * 4, "reflect")
        return self._cropped(self._filtered(padded, self._spectrum))

    def adjoint(self, y: Tensor) -> Tensor:
        margin = self._margin
        padded = self._filtered(torch.nn.functional.pad(y, (margin,) * 4), self._spectrum.conj())
        return _folded(_folded(padded, margin, -1), margin, -2)

    @property
    def _margin(self) -> int:
        """How far an image is padded on each side."""
        reflect = self.parameters.get("reflect")
        if reflect is None or not reflect[0]:
            return 0
        return self.parameters["kernel"].shape[-1] // 2

    def _cropped(self, x: Tensor) -> Tensor:
        margin, (height, width) = self._margin, self.event_shape[1:]
        return x[..., margin : margin + height, margin : margin + width]

    def precondition(self, b: Tensor, scale: Tensor, var_y: Tensor) -> Tensor:
        # Exact where images wrap around and the noise of an observation is the same everywhere.
        mean = var_y.expand(b.shape).mean(dim=(-3, -2, -1), keepdim=True)
        padded = torch.nn.functional.pad(b, (self._margin,) * 4)
        inverse = 1 / (scale * self._spectrum.abs().square() + mean)
        return self._cropped(self._filtered(padded, inverse))

    def _filtered(self, x: Tensor, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * spectrum, s=x.shape[-2:])

    @property
    def _spectrum(self) -> Tensor:
        kernel, size = self.parameters["kernel"], self.parameters["kernel"].shape[-1]
        height, width = (side + 2 * self._margin for side in self.event_shape[1:])
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
        reflect = self.parameters.get("reflect")
        if reflect is not None and (
            reflect.ndim != 1 or reflect.dtype != torch.bool or len(reflect.unique()) != 1
        ):
            raise DiemError("operator/reflect must hold one and the same boolean an observation.")


def _folded(x: Tensor, margin: int, dim: int) -> Tensor:
    """Adds the margins of a dimension to where they are reflected from: the padding's adjoint."""
    size = x.shape[dim] - 2 * margin
    inner = x.narrow(dim, margin, size)
    if margin == 0:
        return inner
    left, right = (x.narrow(dim, start, margin).flip(dim) for start in (0, margin + size))
    rest = list(inner.shape)
    rest[dim] = 1
    edge = inner.new_zeros(rest)  # an outermost pixel is not repeated
    rest[dim] = size - margin - 1
    far = inner.new_zeros(rest)
    return inner + torch.cat((edge, left, far), dim) + torch.cat((far, right, edge), dim)
