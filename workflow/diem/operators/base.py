"""Linear forward operators ``A`` of ``y = A x + n``.

An operator object stands for a *batch* of forward operators, one for each observation: its
parameters are tensors whose first dimension runs over the observations, and ``operator[rows]``
selects some of them. A parameter of which there is only one is shared by all observations. Adding
an operator adds one class and one entry of :data:`OPERATORS`; a user's own class needs no entry and
is named by its import path, see :func:`find`.
"""

import abc
import contextlib
import importlib
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diem.errors import DiemError, nearest

__all__ = [
    "OPERATORS",
    "Blur",
    "Downsample",
    "Fourier",
    "Mask",
    "Operator",
    "Partial",
    "Projection",
    "Sparse",
    "build",
    "csr_parameters",
    "find",
    "simulate",
]

SEARCH_PATH = "DIEM_PATH"
"""The environment variable of the folders where users' classes are looked for, after Python's."""


class Operator(abc.ABC):
    """A batch of linear forward operators.

    A class of one's own defines :attr:`observation_shape`, :meth:`forward` and :meth:`adjoint`; it
    names its parameters in :attr:`fields`, and if some values of ``y`` can be missing it also
    defines :meth:`observed`. It needs :meth:`simulate` only to simulate observations.

    Arguments:
        event_shape: The shape of one ``x``.
        parameters: The parameters named by :attr:`fields` and, where there are any, by
            :attr:`optional`, each of shape ``(B, *)``, or ``(1, *)`` if all observations share it.
            They are single precision but for booleans and the :attr:`integers`.
    """

    fields: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()
    integers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, event_shape: Sequence[int], parameters: Mapping[str, Tensor]) -> None:
        self.event_shape = tuple(event_shape)
        self.parameters = {field: parameters[field] for field in self.fields}
        self.parameters |= {f: parameters[f] for f in self.optional if f in parameters}

    @classmethod
    def simulate(
        cls, event_shape: Sequence[int], count: int, rng: np.random.Generator, **options: Any
    ) -> dict[str, np.ndarray]:
        """Draws the parameters of ``count`` operators, in the smallest dtype that holds them.

        Arguments:
            event_shape: The shape of one ``x``.
            count: The number of operators.
            rng: The random stream.
            options: The keys of the config's ``operator`` entry.

        Raises:
            DiemError: If the class does not say how its parameters are drawn.
        """
        if cls.fields:
            raise DiemError(
                f"operator: {cls.__name__} has no method 'simulate', so its parameters"
                f" ({', '.join(cls.fields)}) must come from a file (data.name 'hdf5')."
            )
        return {}

    @property
    @abc.abstractmethod
    def observation_shape(self) -> tuple[int, ...]:
        """The shape of one ``y``."""

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Returns ``A x``, from ``(B, *event)`` to ``(B, *observation)``."""

    @abc.abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Returns ``A' y``, from ``(B, *observation)`` to ``(B, *event)``."""

    def observed(self) -> Tensor:
        """Returns which entries of ``y`` carry data, as booleans ``(B, *observation)``.

        An entry whose row of ``A`` is zero holds nothing but padding.
        """
        return torch.ones((len(self), *self.observation_shape), dtype=torch.bool)

    def check(self) -> None:
        """Raises a :class:`DiemError` if the parameters do not fit the event."""
        for field, value in self.parameters.items():
            if not torch.isfinite(value).all():
                raise DiemError(f"operator/{field} holds non-finite values.")

    def dense(self) -> Tensor:
        """Returns the matrices ``A``, of shape ``(B, observation size, event size)``."""
        size, batch = math.prod(self.event_shape), len(self)
        basis = torch.eye(size, device=self.device).reshape(size, 1, *self.event_shape)
        columns = [self.forward(e.expand(batch, *self.event_shape)).flatten(1) for e in basis]
        return torch.stack(columns, dim=-1)

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next((value.device for value in self.parameters.values()), torch.device("cpu"))

    def to(self, device: str | torch.device) -> Self:
        """Returns the same operators on another device."""
        moved = {field: value.to(device) for field, value in self.parameters.items()}
        return type(self)(self.event_shape, moved)

    def __len__(self) -> int:
        """The number of operators: 1 where one stands for all observations."""
        return max((len(value) for value in self.parameters.values()), default=1)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        some = {k: v if len(v) == 1 else v[rows] for k, v in self.parameters.items()}
        return type(self)(self.event_shape, some)


class Mask(Operator):
    """Keeps some pixels, with all of their channels, and replaces the others by zero.

    Parameters:
        mask: Which pixels are kept, booleans of shape ``(B, 1, height, width)``, or in general of
            the event's shape with the first dimension 1; or which values, of the event's shape.
    """

    fields = ("mask",)

    @classmethod
    def simulate(
        cls,
        event_shape,
        count,
        rng,
        *,
        missing: float | None = None,
        box: int | None = None,
        place: str = "random",
    ) -> dict[str, np.ndarray]:
        """Draws masks of scattered missing pixels, or with a square hole.

        Each pixel misses with probability ``missing``; or a square of ``box`` by ``box`` pixels of
        an image misses, whose ``place`` is ``random`` (uniform over all that fit) or ``centre``.
        """
        if box is None:
            return {"mask": rng.random((count, 1, *event_shape[1:])) >= missing}
        if len(event_shape) != 3 or box >= min(event_shape[1:]):
            raise DiemError(
                f"operator.box: a hole of {box} x {box} pixels needs larger images, and the data"
                f" have shape {tuple(event_shape)}."
            )
        mask = np.ones((count, 1, *event_shape[1:]), bool)
        free = np.array(event_shape[1:]) - box
        random = place == "random"
        corners = rng.integers(free + 1, size=(count, 2)) if random else [free // 2] * count
        for hole, (top, left) in zip(mask, corners, strict=True):
            hole[:, top : top + box, left : left + box] = False
        return {"mask": mask}

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.event_shape

    def forward(self, x: Tensor) -> Tensor:
        return x * self.parameters["mask"]

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.parameters["mask"]

    def observed(self) -> Tensor:
        return self.parameters["mask"].expand(-1, *self.event_shape)

    def check(self) -> None:
        mask, expected = self.parameters["mask"], (1, *self.event_shape[1:])
        if tuple(mask.shape[1:]) not in (expected, self.event_shape):
            raise DiemError(
                f"operator/mask has shape {tuple(mask.shape[1:])} an observation,"
                f" where the data need {expected}."
            )
        if mask.dtype != torch.bool:
            raise DiemError(f"operator/mask holds {mask.dtype}, where booleans are needed.")


class Projection(Operator):
    """Multiplies the flattened ``x`` by a dense matrix of each observation's own.

    Parameters:
        matrix: The matrices, of shape ``(B, rows, event size)``.
    """

    fields = ("matrix",)

    @classmethod
    def simulate(cls, event_shape, count, rng, *, rows: int) -> dict[str, np.ndarray]:
        """Draws matrices whose rows are uniform on the unit sphere."""
        matrix = rng.standard_normal((count, rows, math.prod(event_shape)))
        matrix /= np.linalg.norm(matrix, axis=-1, keepdims=True)
        return {"matrix": matrix.astype(np.float32)}

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (self.parameters["matrix"].shape[1],)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bij,bj->bi", self.parameters["matrix"], x.flatten(1))

    def adjoint(self, y: Tensor) -> Tensor:
        x = torch.einsum("bij,bi->bj", self.parameters["matrix"], y)
        return x.reshape(-1, *self.event_shape)

    def observed(self) -> Tensor:
        return self.parameters["matrix"].any(dim=2)

    def check(self) -> None:
        super().check()
        shape, size = tuple(self.parameters["matrix"].shape), math.prod(self.event_shape)
        if len(shape) != 3 or shape[2] != size:
            raise DiemError(
                f"operator/matrix has shape {shape[1:]} an observation,"
                f" where the data need (rows, {size})."
            )


class Sparse(Operator):
    """Multiplies the flattened ``x`` by a sparse matrix in compressed rows (CSR).

    Parameters:
        data: The values of the entries, of shape ``(B, entries)``. Matrices with fewer entries than
            others of the batch are padded at the end.
        indices: The column of each entry, integers of the same shape.
        indptr: Where each row's entries begin and end, integers of shape ``(B, rows + 1)``.

    All observations share the three, or each has its own; :func:`csr_parameters` makes them. On a
    GPU sums have no fixed order, so that results there can differ in the last digits.
    """

    fields = ("data", "indices", "indptr")
    integers = ("indices", "indptr")

    @classmethod
    def simulate(cls, event_shape, count, rng, *, rows: int, entries: int) -> dict[str, np.ndarray]:
        """Draws matrices whose rows are unit vectors with so many random entries."""
        size = math.prod(event_shape)
        if entries > size:
            raise DiemError(f"operator.entries is {entries}, more than the data's {size} values.")
        order = rng.random((count, rows, size)).argsort(axis=-1)[..., :entries]
        data = rng.standard_normal((count, rows, entries))
        data /= np.linalg.norm(data, axis=-1, keepdims=True)
        indptr = np.arange(0, rows * entries + 1, entries, dtype=np.int32)
        return {
            "data": data.reshape(count, -1).astype(np.float32),
            "indices": np.sort(order, axis=-1).reshape(count, -1).astype(np.int32),
            "indptr": np.tile(indptr, (count, 1)),
        }

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (self.parameters["indptr"].shape[1] - 1,)

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x.flatten(1), self.parameters["indices"], self._rows, self._height)

    def adjoint(self, y: Tensor) -> Tensor:
        size = math.prod(self.event_shape)
        x = self._product(y, self._rows, self.parameters["indices"], size)
        return x.reshape(-1, *self.event_shape)

    def _product(self, source: Tensor, taken: Tensor, put: Tensor, size: int) -> Tensor:
        """Sums each entry times the value at ``taken`` into the place ``put``."""
        shape = (len(source), self.parameters["data"].shape[1])
        terms = self.parameters["data"] * source.gather(1, taken.expand(shape))
        return source.new_zeros(len(source), size).scatter_add(1, put.expand(shape), terms)

    @property
    def _height(self) -> int:
        return self.observation_shape[0]

    @property
    def _rows(self) -> Tensor:
        """The row of each entry."""
        indptr, entries = self.parameters["indptr"], self.parameters["data"].shape[1]
        place = torch.arange(entries, device=indptr.device).expand(len(indptr), -1)
        rows = torch.searchsorted(indptr, place.contiguous(), right=True) - 1
        return rows.clamp(max=self._height - 1)  # padding is zero, wherever it goes

    def observed(self) -> Tensor:
        return self.parameters["indptr"].diff(dim=1) > 0

    def check(self) -> None:
        super().check()
        data, indices, indptr = (self.parameters[field] for field in self.fields)
        if data.ndim != 2 or indices.shape != data.shape or indptr.ndim != 2:
            raise DiemError(
                f"operator/data, indices and indptr have shapes {tuple(data.shape[1:])},"
                f" {tuple(indices.shape[1:])} and {tuple(indptr.shape[1:])} an observation, where"
                " (entries,), (entries,) and (rows + 1,) are needed."
            )
        if len(indptr) != len(data):
            raise DiemError("operator/data and operator/indptr are of unequal numbers of matrices.")
        size = math.prod(self.event_shape)
        if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < size:
            raise DiemError(
                f"operator/indices holds columns from {int(indices.min())} to {int(indices.max())},"
                f" where the data have {size} values."
            )
        ends = indptr[:, -1:]
        if (
            (indptr[:, 0] != 0).any()
            or (indptr.diff(dim=1) < 0).any()
            or ends.max() > data.shape[1]
        ):
            raise DiemError(
                "operator/indptr must ascend from 0 to the number of entries of its matrix."
            )
        padding = torch.arange(data.shape[1], device=data.device) >= ends
        if (data[padding] != 0).any():
            raise DiemError("operator/data must be zero where operator/indptr has ended.")


def csr_parameters(matrices: Any) -> dict[str, np.ndarray]:
    """Returns the parameters of :class:`Sparse`, of SciPy's sparse matrices.

    Arguments:
        matrices: One matrix ``(rows, event size)`` that all observations share, or a sequence of
            one an observation, each of the same shape.
    """
    if not isinstance(matrices, Sequence):
        matrices = [matrices]
    rows = [matrix.tocsr() for matrix in matrices]
    entries = max(matrix.nnz for matrix in rows)

    def padded(values: np.ndarray, dtype: type) -> np.ndarray:
        return np.pad(values.astype(dtype), (0, entries - len(values)))

    return {
        "data": np.stack([padded(matrix.data, np.float32) for matrix in rows]),
        "indices": np.stack([padded(matrix.indices, np.int32) for matrix in rows]),
        "indptr": np.stack([matrix.indptr.astype(np.int32) for matrix in rows]),
    }


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

    fields = ("columns",)
    optional = ("maps",)

    @classmethod
    def simulate(
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
        _check_image(event_shape)
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

    @property
    def _mask(self) -> Tensor:
        return self.parameters["columns"][:, None, None]

    @property
    def _maps(self) -> Tensor | None:
        maps = self.parameters.get("maps")
        return None if maps is None else torch.complex(maps[:, :, 0], maps[:, :, 1])

    def observed(self) -> Tensor:
        return self._mask.expand(-1, *self.observation_shape)

    def check(self) -> None:
        super().check()
        _check_image(self.event_shape)
        columns, (height, width) = self.parameters["columns"], self.event_shape[1:]
        if tuple(columns.shape[1:]) != (width,):
            raise DiemError(
                f"operator/columns has shape {tuple(columns.shape[1:])} an observation,"
                f" where the data need {(width,)}."
            )
        if columns.dtype != torch.bool:
            raise DiemError(f"operator/columns holds {columns.dtype}, where booleans are needed.")
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


class Blur(Operator):
    r"""Convolves each channel of an image with a kernel of the observation's own.

    The boundary is periodic, so that the convolution is a product of spectra and its adjoint is
    exact: the product with the conjugate spectrum.

    Parameters:
        kernel: The kernels, of shape ``(B, size, size)`` with an odd size, centred.
    """

    fields = ("kernel",)

    @classmethod
    def simulate(
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

    def _filtered(self, x: Tensor, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * spectrum, s=self.event_shape[1:])

    @property
    def _spectrum(self) -> Tensor:
        kernel, (height, width) = self.parameters["kernel"], self.event_shape[1:]
        size = kernel.shape[-1]
        padded = F.pad(kernel, (0, width - size, 0, height - size))
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


class Downsample(Operator):
    """Averages squares of pixels: what a camera with fewer, larger pixels sees.

    Parameters:
        factor: The squares' size, of shape ``(B,)``, the same for all observations.
    """

    fields = ("factor",)

    @classmethod
    def simulate(cls, event_shape, count, rng, *, factor: int) -> dict[str, np.ndarray]:
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
        return F.avg_pool2d(x, self._factor)

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


def _complex(x: Tensor) -> Tensor:
    """Returns complex images ``(B, N, H, W)`` of their real and imaginary channels."""
    return torch.complex(x[:, 0::2], x[:, 1::2])


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


class Partial(Operator):
    """An operator of whose observations only some values are shown.

    Arguments:
        operator: The operator.
        shown: Which values of each observation are shown, booleans ``(B, *observation)``. The
            others are zero, as if they had not been observed.
    """

    def __init__(self, operator: Operator, shown: Tensor) -> None:
        super().__init__(operator.event_shape, {})
        self.operator = operator
        self.shown = shown

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.operator.observation_shape

    def forward(self, x: Tensor) -> Tensor:
        return self.operator.forward(x) * self.shown

    def adjoint(self, y: Tensor) -> Tensor:
        return self.operator.adjoint(y * self.shown)

    def observed(self) -> Tensor:
        return self.operator.observed() & self.shown

    @property
    def device(self) -> torch.device:
        return self.shown.device

    def to(self, device: str | torch.device) -> Self:
        return type(self)(self.operator.to(device), self.shown.to(device))

    def __len__(self) -> int:
        return len(self.shown)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return type(self)(self.operator[rows], self.shown[rows])


OPERATORS: dict[str, type[Operator]] = {
    "blur": Blur,
    "downsample": Downsample,
    "fourier": Fourier,
    "mask": Mask,
    "projection": Projection,
    "sparse": Sparse,
}


def find(name: str) -> type[Operator]:
    """Returns an operator's class.

    Arguments:
        name: A name of :data:`OPERATORS`, or ``module:Class``, which is imported. The module is
            looked for where Python does (``PYTHONPATH`` included), then in the folders of the
            environment variable :data:`SEARCH_PATH`, then in the working folder.

    Raises:
        DiemError: If there is no such operator, or its module cannot be imported.
    """
    if ":" not in name:
        if name not in OPERATORS:
            raise DiemError(f"operator.name: {name!r} is unknown{nearest(name, OPERATORS)}.")
        return OPERATORS[name]
    module, _, attribute = name.partition(":")
    folders = [*filter(None, os.environ.get(SEARCH_PATH, "").split(os.pathsep)), str(Path.cwd())]
    before = list(sys.path)
    sys.path += folders
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except Exception as error:  # whatever a user's module raises
        known = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if known:
            reason = f"there is no module {module!r} in PYTHONPATH, {', '.join(folders)}"
        raise DiemError(f"operator {name!r} cannot be imported ({reason}).") from None
    finally:
        sys.path[:] = before
    if not (isinstance(found, type) and issubclass(found, Operator)):
        raise DiemError(f"operator {name!r} is no subclass of diem.operators.Operator.")
    missing = sorted(found.__abstractmethods__)
    if missing:
        raise DiemError(f"operator {name!r} does not define {', '.join(missing)}.")
    return found


def build(
    name: str, event_shape: Sequence[int], parameters: Mapping[str, np.ndarray | Tensor]
) -> Operator:
    """Builds a batch of operators from their stored parameters and checks them.

    Arguments:
        name: The operator, see :func:`find`.
        event_shape: The shape of one ``x``.
        parameters: The parameters by field, each of shape ``(B, *)``, or ``(1, *)`` if shared.

    Raises:
        DiemError: If the name is unknown, a field is missing or does not fit the event.
    """
    cls = find(name)
    for field in cls.fields:
        if field not in parameters:
            raise DiemError(f"operator/{field} is missing, which the operator {name!r} needs.")
    fields = [field for field in (*cls.fields, *cls.optional) if field in parameters]
    tensors = {}
    for field in fields:
        value = torch.as_tensor(parameters[field])
        if field in cls.integers:
            if value.is_floating_point() or value.dtype == torch.bool:
                raise DiemError(f"operator/{field} holds {value.dtype}, where integers are needed.")
            tensors[field] = value.long()
        else:
            # Stored in the smallest type that holds them, applied to single precision.
            tensors[field] = value if value.dtype == torch.bool else value.float()
    with _told(name, "built"):
        operator = cls(event_shape, tensors)
        operator.check()
    return operator


@contextlib.contextmanager
def _told(name: str, done: str) -> Iterator[None]:
    """Tells whatever a user's class raises; what a built-in raises is a defect."""
    try:
        yield
    except DiemError:
        raise
    except Exception as error:
        if name in OPERATORS:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DiemError(f"operator {name!r} cannot be {done} ({reason}).") from None


def simulate(
    spec: Mapping[str, Any], event_shape: Sequence[int], count: int, rng: np.random.Generator
) -> Operator:
    """Draws a batch of operators from the config's ``operator`` entry.

    Arguments:
        spec: The entry: ``name`` and the operator's options.
        event_shape: The shape of one ``x``.
        count: The number of operators.
        rng: The random stream.

    Raises:
        DiemError: If the operator does not know the options, or they do not fit the event.
    """
    name, options = spec["name"], {key: value for key, value in spec.items() if key != "name"}
    cls = find(name)
    with _told(name, "simulated"):
        parameters = cls.simulate(event_shape, count, rng, **options)
    return build(name, event_shape, parameters)
