"""Some columns of k-space, as accelerated MRI measures them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from diem.components import Count, Model, Number, option
from diem.errors import DiemError
from diem.lazy import torch
from diem.operators.base import Operator

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Fourier"]


class Fourier(Operator):
    r"""Measures some columns of the centred Fourier transform of an image, as accelerated MRI does.

    With the orthonormal two-dimensional transform :math:`F`, a column mask :math:`M` of each
    observation and, of several coils, the sensitivity maps :math:`S_c`,

    .. math:: A x = (M F S_1 x, \dots, M F S_C x)

    The zero frequency is in the middle of the spectrum, at ``(height // 2, width // 2)``. Real and
    imaginary parts are channels: an event of one channel is a real image, one of two is complex,
    and an observation has two channels a coil. Columns that are not measured are zero.

    Parameters:
        columns: Which columns are measured, booleans of shape ``(B, width)``.
        maps: The sensitivity maps, of shape ``(B or 1, coils, 2, height, width)``. Without them
            there is one coil, which sees everything alike. If their root sum of squares is 1, no
            ``A x`` is longer than ``x``.

    References:
        | fastMRI: An Open Dataset and Benchmarks for Accelerated MRI (Zbontar et al., 2018)
        | https://arxiv.org/abs/1811.08839

        | SENSE: Sensitivity Encoding for Fast MRI (Pruessmann et al., 1999)
        | https://doi.org/10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S
    """

    name = "fourier"
    keeps_shape = False
    kspace = True
    fields = ("columns",)
    optional = ("maps",)
    booleans = ("columns",)

    class Options(Model):
        """Which columns are measured, by how many coils."""

        acceleration: Number = option(..., "one in so many columns is measured", ge=1)
        coils: Count = option(1, "the number of coils, each with a sensitivity map")

    @classmethod
    def suits(cls, event_shape, **options) -> None:
        _check_image(event_shape)

    @classmethod
    def simulate(  # type: ignore[override]  # its own options
        cls, event_shape, count, rng, *, acceleration: float, coils: int = 1
    ) -> dict[str, np.ndarray]:
        r"""Draws column masks of an acceleration :math:`R`, and the maps of an array of coils.

        Of ``width`` columns, :math:`1 / R` is measured: three eighths of them in the middle, which
        are the :math:`2 \lceil 3 \, \text{width} / (16 R) \rceil` lowest frequencies, and each of
        the others with probability :math:`5 / (8 R - 3)`. At a width of 320 these are the paper's
        :math:`2 \lceil 60 / R \rceil` and :math:`200 / (320 R - 120)`.

        The coils lie around the image at equal angles. The sensitivity of each falls off as a
        Gaussian, its phase turns slowly, and the root sum of squares over the coils is 1. The maps
        are the same for all observations and depend on the number of coils and the size alone.
        """
        cls.suits(event_shape)
        if not acceleration >= 1:
            raise DiemError(f"operator.acceleration is {acceleration}, and must be at least 1.")
        height, width = event_shape[1:]
        columns = rng.random((count, width)) < 5 / (8 * acceleration - 3)
        half = math.ceil(3 * width / (16 * acceleration))
        columns[:, max(width // 2 - half, 0) : width // 2 + half] = True
        if coils == 1:
            return {"columns": columns}
        return {"columns": columns, "maps": _coil_maps(coils, height, width)[None]}

    @property
    def observation_shape(self) -> tuple[int, ...]:
        coils = self.parameters["maps"].shape[1] if "maps" in self.parameters else 1
        return (2 * coils, *self.event_shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        z = x if x.shape[1] == 1 else _complex(x)
        if self._maps is not None:
            z = self._maps * z
        z = torch.fft.fft2(torch.fft.ifftshift(z, dim=(-2, -1)), norm="ortho")
        return _channels(torch.fft.fftshift(z, dim=(-2, -1)) * self._mask)

    def adjoint(self, y: Tensor) -> Tensor:
        z = torch.fft.ifftshift(_complex(y) * self._mask, dim=(-2, -1))
        z = torch.fft.fftshift(torch.fft.ifft2(z, norm="ortho"), dim=(-2, -1))
        if self._maps is not None:
            z = (self._maps.conj() * z).sum(dim=1, keepdim=True)
        return z.real.contiguous() if self.event_shape[0] == 1 else _channels(z)

    def precondition(self, b: Tensor, scale: Tensor, var_y: Tensor) -> Tensor:
        if self._maps is not None:
            return super().precondition(b, scale, var_y)
        # Exact where the noise is the same for all values of an observation.
        mean = var_y.expand(b.shape).mean(dim=(-3, -2, -1), keepdim=True)
        if self.event_shape[0] == 2:
            return b / (scale * self._mask + mean)
        # Of a real image, A A' takes the mean of a coefficient and its conjugate at -k, if both
        # are measured, and else half of it.
        z, both = _complex(b), self._mask & _opposite(self._mask)
        even = (z + _opposite(z).conj()) / 2
        paired = even / (scale + mean) + (z - even) / mean
        return _channels(torch.where(both, paired, z / (scale / 2 * self._mask + mean)))

    @property
    def _mask(self) -> Tensor:
        return self.parameters["columns"][:, None, None]

    @property
    def _maps(self) -> Tensor | None:
        maps = self.parameters.get("maps")
        return None if maps is None else torch.complex(maps[:, :, 0], maps[:, :, 1])

    def observed(self) -> Tensor:
        return self._mask.expand(-1, *self.observation_shape)

    def together(self) -> Tensor:
        alone = super().together()
        if self.event_shape[0] == 2:
            return alone
        # Of a real image, the coefficient at -k is the conjugate of that at k.
        opposite = alone
        for dim, size in enumerate(self.event_shape[1:], start=1):
            place = torch.arange(size, device=self.device)
            opposite = opposite.index_select(dim, (2 * (size // 2) - place) % size)
        return torch.minimum(alone, opposite)

    def check(self) -> None:
        super().check()
        _check_image(self.event_shape)
        columns, (height, width) = self.parameters["columns"], self.event_shape[1:]
        if tuple(columns.shape[1:]) != (width,):
            raise DiemError(
                f"operator/columns has shape {tuple(columns.shape[1:])} an observation,"
                f" where the data need {(width,)}."
            )
        if "maps" not in self.parameters:
            return
        shape = tuple(self.parameters["maps"].shape)
        if len(shape) != 5 or shape[1] == 0 or shape[2:] != (2, height, width):
            raise DiemError(
                f"operator/maps has shape {shape[1:]} an observation,"
                f" where the data need (coils, 2, {height}, {width})."
            )
        if 1 != shape[0] != len(columns) != 1:
            raise DiemError(
                f"operator/maps are of {shape[0]} observations, where one for all or"
                f" {len(columns)} are needed."
            )


def _complex(x: Tensor) -> Tensor:
    """Returns complex images ``(B, N, H, W)`` of their real and imaginary channels."""
    return torch.complex(x[:, 0::2], x[:, 1::2])


def _opposite(z: Tensor) -> Tensor:
    """Returns what lies at ``-k``, along the dimensions of the frequencies that have some."""
    for dim in (-2, -1):
        if (size := z.shape[dim]) > 1:
            z = z.flip(dim).roll(1 - size % 2, dim)
    return z


def _channels(z: Tensor) -> Tensor:
    """Returns the real and imaginary channels ``(B, 2 N, H, W)`` of complex images."""
    return torch.view_as_real(z).movedim(-1, 2).flatten(1, 2).contiguous()


def _check_image(event_shape: Sequence[int]) -> None:
    if len(event_shape) != 3 or event_shape[0] not in (1, 2):
        raise DiemError(
            "operator.name: 'fourier' needs images of one channel (real) or two (complex), and the"
            f" data have shape {tuple(event_shape)}."
        )


def _coil_maps(coils: int, height: int, width: int) -> np.ndarray:
    """Returns the sensitivity maps of :meth:`Fourier.simulate`: (coils, 2, height, width)."""
    y, x = np.meshgrid(
        np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij", sparse=True
    )
    angle = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    # The coils' centres lie on the circle through the middles of the image's sides.
    towards = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    magnitude = np.exp(-((towards - 1) ** 2 + across**2) / 2)
    magnitude /= np.sqrt(np.square(magnitude).sum(axis=0))
    phase = angle + np.pi / 2 * across
    maps = np.stack((magnitude * np.cos(phase), magnitude * np.sin(phase)), axis=1)
    return maps.astype(np.float32)
