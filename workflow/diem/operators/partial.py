"""A part of an operator's observations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from diem.operators.base import Operator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Partial"]


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
        self.elementwise = operator.elementwise

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.operator.observation_shape

    def forward(self, x: Tensor) -> Tensor:
        return self.operator.forward(x) * self.shown

    def adjoint(self, y: Tensor) -> Tensor:
        return self.operator.adjoint(y * self.shown)

    def observed(self) -> Tensor:
        return self.operator.observed() & self.shown

    def together(self) -> Tensor:
        return self.operator.together()

    @property
    def device(self) -> torch.device:
        return self.shown.device

    def to(self, device: str | torch.device) -> Self:
        return type(self)(self.operator.to(device), self.shown.to(device))

    def double(self) -> Self:
        return type(self)(self.operator.double(), self.shown)

    def __len__(self) -> int:
        return len(self.shown)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        shown = self.shown if len(self.shown) == 1 else self.shown[rows]
        return type(self)(self.operator[rows], shown)
