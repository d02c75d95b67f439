"""Linear forward operators ``A`` of ``y = A x + n``.

An operator object stands for a *batch* of forward operators, one for each observation: its
parameters are tensors whose first dimension runs over the observations, and ``operator[rows]``
selects some of them. Adding an operator adds one class and one entry of :data:`OPERATORS`.
"""

import abc
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from .errors import DiemError, nearest

__all__ = ["OPERATORS", "Mask", "Operator", "Projection", "build", "simulate"]


class Operator(abc.ABC):
    """A batch of linear forward operators.

    Arguments:
        event_shape: The shape of one ``x``.
        parameters: The parameters named by :attr:`fields`, each of shape ``(B, *)``.
    """

    fields: ClassVar[tuple[str, ...]]

    def __init__(self, event_shape: Sequence[int], parameters: Mapping[str, Tensor]) -> None:
        self.event_shape = tuple(event_shape)
        self.parameters = {field: parameters[field] for field in self.fields}

    @classmethod
    @abc.abstractmethod
    def simulate(
        cls, event_shape: Sequence[int], count: int, rng: np.random.Generator, **options: Any
    ) -> dict[str, np.ndarray]:
        """Draws the parameters of ``count`` operators, in the smallest dtype that holds them.

        Arguments:
            event_shape: The shape of one ``x``.
            count: The number of operators.
            rng: The random stream.
            options: The keys of the config's ``operator`` entry.
        """

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
        return self.parameters[self.fields[0]].device

    def to(self, device: str | torch.device) -> Self:
        """Returns the same operators on another device."""
        moved = {field: value.to(device) for field, value in self.parameters.items()}
        return type(self)(self.event_shape, moved)

    def __len__(self) -> int:
        return len(self.parameters[self.fields[0]])

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return type(self)(self.event_shape, {k: v[rows] for k, v in self.parameters.items()})


class Mask(Operator):
    """Keeps some pixels, with all of their channels, and replaces the others by zero.

    Parameters:
        mask: Which pixels are kept, booleans of shape ``(B, 1, height, width)``, or in general of
            the event's shape with the first dimension 1.
    """

    fields = ("mask",)

    @classmethod
    def simulate(cls, event_shape, count, rng, *, missing: float) -> dict[str, np.ndarray]:
        """Draws masks in which each pixel misses with probability ``missing``."""
        return {"mask": rng.random((count, 1, *event_shape[1:])) >= missing}

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
        if tuple(mask.shape[1:]) != expected:
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

    def check(self) -> None:
        super().check()
        shape, size = tuple(self.parameters["matrix"].shape), math.prod(self.event_shape)
        if len(shape) != 3 or shape[2] != size:
            raise DiemError(
                f"operator/matrix has shape {shape[1:]} an observation,"
                f" where the data need (rows, {size})."
            )


OPERATORS: dict[str, type[Operator]] = {"mask": Mask, "projection": Projection}


def _lookup(name: str) -> type[Operator]:
    if name not in OPERATORS:
        raise DiemError(f"operator.name: {name!r} is unknown{nearest(name, OPERATORS)}.")
    return OPERATORS[name]


def build(
    name: str, event_shape: Sequence[int], parameters: Mapping[str, np.ndarray | Tensor]
) -> Operator:
    """Builds a batch of operators from their stored parameters and checks them.

    Arguments:
        name: A name of :data:`OPERATORS`.
        event_shape: The shape of one ``x``.
        parameters: The parameters by field, each of shape ``(B, *)``.

    Raises:
        DiemError: If the name is unknown, a field is missing or does not fit the event.
    """
    cls = _lookup(name)
    for field in cls.fields:
        if field not in parameters:
            raise DiemError(f"operator/{field} is missing, which the operator {name!r} needs.")
    tensors = {field: torch.as_tensor(parameters[field]) for field in cls.fields}
    # Stored in the smallest type that holds them, applied to single precision.
    tensors = {k: v if v.dtype == torch.bool else v.float() for k, v in tensors.items()}
    operator = cls(event_shape, tensors)
    operator.check()
    return operator


def simulate(
    spec: Mapping[str, Any], event_shape: Sequence[int], count: int, rng: np.random.Generator
) -> Operator:
    """Draws a batch of operators from the config's ``operator`` entry.

    Arguments:
        spec: The entry: ``name`` and the operator's options.
        event_shape: The shape of one ``x``.
        count: The number of operators.
        rng: The random stream.
    """
    options = {key: value for key, value in spec.items() if key != "name"}
    parameters = _lookup(spec["name"]).simulate(event_shape, count, rng, **options)
    return build(spec["name"], event_shape, parameters)
