"""A sparse matrix in compressed rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diem.components import Count, Model, option
from diem.errors import DiemError
from diem.lazy import torch
from diem.operators.base import Operator

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Sparse", "csr_parameters"]


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

    name = "sparse"
    keeps_shape = False
    fields = ("data", "indices", "indptr")
    integers = ("indices", "indptr")

    class Options(Model):
        """How matrices are drawn."""

        rows: Count = option(..., "the number of rows")
        entries: Count = option(..., "the entries of each row, at random places")

    @classmethod
    def suits(cls, event_shape, *, entries: int, **options) -> None:  # type: ignore[override]
        size = math.prod(event_shape)
        if entries > size:
            raise DiemError(f"operator.entries is {entries}, more than the data's {size} values.")

    @classmethod
    def simulate(cls, event_shape, count, rng, *, rows: int, entries: int) -> dict[str, np.ndarray]:  # type: ignore[override]
        """Draws matrices whose rows are unit vectors with so many random entries."""
        cls.suits(event_shape, entries=entries)
        size = math.prod(event_shape)
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
            one an observation, each of the same shape. A row of which all entries are zero, stored
            or not, observes nothing.

    Raises:
        DiemError: If they are no such matrices, or differ in shape.
    """
    if not isinstance(matrices, Sequence):
        matrices = [matrices]
    rows = [_csr(matrix) for matrix in matrices]
    shapes = sorted({matrix.shape for matrix in rows})
    if len(shapes) != 1:
        raise DiemError(
            f"matrices have the shapes {', '.join(map(str, shapes)) or '(there are none)'}, where"
            " one that all share is needed."
        )
    entries = max(matrix.nnz for matrix in rows)

    def padded(values: np.ndarray, dtype: type) -> np.ndarray:
        return np.pad(values.astype(dtype), (0, entries - len(values)))

    return {
        "data": np.stack([padded(matrix.data, np.float32) for matrix in rows]),
        "indices": np.stack([padded(matrix.indices, np.int32) for matrix in rows]),
        "indptr": np.stack([matrix.indptr.astype(np.int32) for matrix in rows]),
    }


def _csr(matrix: Any) -> Any:
    """Returns a copy of a matrix in compressed rows, without entries that are zero."""
    if not hasattr(matrix, "tocsr") or matrix.dtype.kind not in "fiub":
        kind = getattr(matrix, "dtype", "")
        raise DiemError(
            f"matrices holds {f'{type(matrix).__name__} {kind}'.strip()}, where SciPy's sparse"
            " matrices of real numbers are needed (scipy.sparse.csr_array of a dense one)."
        )
    copy = matrix.tocsr().astype(np.float32)
    copy.eliminate_zeros()
    return copy
