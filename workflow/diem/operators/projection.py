"""A dense matrix of each observation's own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from diem.components import Count, Model, option
from diem.errors import DiemError
from diem.lazy import torch
from diem.operators.base import Operator

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Projection"]


class Projection(Operator):
    """Multiplies the flattened ``x`` by a dense matrix of each observation's own.

    Parameters:
        matrix: The matrices, of shape ``(B, rows, event size)``.
    """

    name = "projection"
    keeps_shape = False
    fields = ("matrix",)

    class Options(Model):
        """How matrices are drawn."""

        rows: Count = option(..., "the number of rows, which are uniform on the unit sphere")

    @classmethod
    def simulate(cls, event_shape, count, rng, *, rows: int) -> dict[str, np.ndarray]:  # type: ignore[override]
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
