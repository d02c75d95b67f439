"""Whether a class is the linear operator that the method takes it for."""

from collections.abc import Callable

import torch
from torch import Tensor

from diem.errors import DiemError
from diem.operators.base import Operator

__all__ = ["PROBED", "verify_operator"]

TOLERANCE = 1e-4
"""The largest error of an operator's identities, relative to the norms: single precision's."""

PROBED = 4
"""It is enough to verify the operators of so many observations."""


def verify_operator(operator: Operator, name: str, seed: int = 0) -> None:
    """Checks on random vectors that an operator is linear, and its adjoint the adjoint.

    Arguments:
        operator: The operators of a few observations.
        name: The operator's name, for errors.
        seed: The seed of the vectors.

    Raises:
        DiemError: If a method fails, changes shapes, gives values that are not finite, mixes the
            observations of a batch, or is not what it must be. The sentence names the operator.
    """
    probe = _Probe(operator, name)
    generator = torch.Generator().manual_seed(seed)
    count, device = max(len(operator), 2), operator.device
    x, z = torch.randn(2, count, *operator.event_shape, generator=generator).to(device).unbind()
    y = torch.randn(count, *probe.shape, generator=generator).to(device)
    ax, az, aty = probe.forward(x), probe.forward(z), probe.adjoint(y)
    if not torch.equal(ax, probe.forward(x)):
        raise probe.refused("forward gives other values when it is called again")
    if not (ax.any() or az.any()) and probe.observed(ax).any():
        raise probe.refused("forward is zero for every x, so nothing is observed")
    probe.check_batch(x, ax)
    probe.check_linearity((x, ax), (z, az))
    probe.check_adjoint((x, ax), (y, aty))
    probe.check_observed(ax)
    probe.check_elementwise(x, ax)
    probe.check_together()


class _Probe:
    """Calls an operator, and tells what is wrong with it.

    Arguments:
        operator: The operators of a few observations.
        name: The operator's name, for errors.

    Attributes:
        shape: The shape of one observation.
    """

    def __init__(self, operator: Operator, name: str) -> None:
        self.operator, self.name = operator, name
        try:
            self.shape = operator.observation_shape
        except Exception as error:  # whatever a user's class raises
            raise self.refused(f"observation_shape fails ({_reason(error)})") from None
        shape = self.shape
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n > 0 for n in shape):
            raise self.refused(
                f"observation_shape is {shape!r}, where a tuple of positive integers is needed"
            )

    def refused(self, reason: str) -> DiemError:
        return DiemError(f"operator {self.name!r}: {reason}.")

    def called(
        self,
        method: str,
        function: Callable[[], Tensor],
        shape: tuple[int, ...],
        kinds: tuple[torch.dtype, ...] = (torch.float32, torch.bool),
    ) -> Tensor:
        """Returns what a method gives, checked for its type, shape and values."""
        before = {key: value.clone() for key, value in self.operator.parameters.items()}
        try:
            value = function()
        except DiemError:
            raise
        except Exception as error:  # whatever a user's class raises
            raise self.refused(f"{method} fails ({_reason(error).rstrip('.')})") from None
        now = self.operator.parameters
        if any(not torch.equal(now[key], old) for key, old in before.items()):
            raise self.refused(f"{method} changes the operator's parameters")
        if not isinstance(value, Tensor):
            raise self.refused(f"{method} returns {type(value).__name__}, where a tensor is needed")
        if tuple(value.shape) != shape:
            raise self.refused(f"{method} has shape {tuple(value.shape)}, where {shape} is needed")
        if value.dtype not in kinds:
            raise self.refused(f"{method} holds {value.dtype}, where {kinds[0]} is needed")
        if value.dtype == torch.float32 and not torch.isfinite(value).all():
            raise self.refused(f"{method} holds non-finite values")
        if value.requires_grad:
            raise self.refused(
                f"{method} requires gradients, as the weights of a module do: call the module's"
                " requires_grad_(False)"
            )
        return value

    def forward(self, x: Tensor) -> Tensor:
        given, shape = x.clone(), (len(x), *self.shape)
        value = self.called("forward", lambda: self.operator.forward(given), shape)
        return self.untouched("forward", given, x, value)

    def adjoint(self, y: Tensor) -> Tensor:
        given, shape = y.clone(), (len(y), *self.operator.event_shape)
        value = self.called("adjoint", lambda: self.operator.adjoint(given), shape)
        return self.untouched("adjoint", given, y, value)

    def untouched(self, method: str, given: Tensor, before: Tensor, value: Tensor) -> Tensor:
        """Returns what a method gave, if it has left its argument as it was."""
        if not torch.equal(given, before):
            raise self.refused(f"{method} writes into its argument, which others need as it is")
        return value

    def check_batch(self, x: Tensor, ax: Tensor) -> None:
        """Checks that observations do not depend on the others of a batch."""
        alone = self.called(
            "forward of a part", lambda: self.operator[1:2].forward(x[1:2]), (1, *self.shape)
        )
        if (_norm(alone - ax[1:2]) > TOLERANCE * _norm(ax[1:2])).any():
            raise self.refused("forward mixes the observations of a batch, or operator[rows] fails")

    def check_linearity(self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> None:
        """Checks the linearity on two vectors, each with what ``forward`` gives."""
        (x, ax), (z, az) = first, second
        difference = _norm(self.forward(2 * x - 3 * z) - (2 * ax - 3 * az))
        scale = _norm(ax) + _norm(az)
        not_zero = self.forward(torch.zeros_like(x)).any()
        if (difference > TOLERANCE * scale).any() or not_zero:
            raise self.refused("forward is not linear (A (2 x - 3 z) differs from 2 A x - 3 A z)")

    def check_adjoint(self, first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> None:
        """Checks the adjoint on ``x`` with ``A x``, and ``y`` with ``A' y``."""
        (x, ax), (y, aty) = first, second
        left, right = _inner(ax, y), _inner(x, aty)
        scale = _norm(ax) * _norm(y) + _norm(x) * _norm(aty)
        if ((left - right).abs() > TOLERANCE * scale).any():
            worst = int(((left - right).abs() / scale).argmax())
            raise self.refused(
                f"adjoint is not the adjoint of forward (<A x, y> is {left[worst]:.5g} and"
                f" <x, A' y> is {right[worst]:.5g})"
            )

    def observed(self, ax: Tensor) -> Tensor:
        """Returns which values of some observations carry data."""
        shape = (len(self.operator), *self.shape)
        observed = self.called("observed", self.operator.observed, shape)
        if observed.dtype != torch.bool:
            raise self.refused(f"observed holds {observed.dtype}, where booleans are needed")
        return observed.expand_as(ax)

    def check_observed(self, ax: Tensor) -> None:
        """Checks that nothing comes out where ``observed`` says so."""
        if ax[~self.observed(ax)].any():
            raise self.refused("forward is not zero where observed says that nothing is observed")

    def check_elementwise(self, x: Tensor, ax: Tensor) -> None:
        """Checks that values are those of ``x``, of an operator that says so."""
        if not self.operator.elementwise:
            return
        seen = self.observed(ax)
        if ax.shape != x.shape or not torch.equal(ax[seen], x[seen]):
            raise self.refused(
                "the class says elementwise = True, and forward gives other values than those of x"
                " at their places"
            )

    def check_together(self) -> None:
        """Checks that those that tell of each other are entries of an observation."""
        index = self.called("together", self.operator.together, self.shape, (torch.int64,))
        if index.min() < 0 or index.max() >= index.numel():
            raise self.refused(
                f"together holds {int(index.min())} to {int(index.max())}, where the flat indices"
                f" of {index.numel()} entries are needed"
            )


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() * b.double()).flatten(1).sum(dim=1)


def _norm(a: Tensor) -> Tensor:
    return _inner(a, a).sqrt()
