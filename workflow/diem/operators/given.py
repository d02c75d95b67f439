"""Operators as they are given in Python: by name, as an object, or as a function.

Functions become operators here, :func:`given` takes whatever a user gives, and :func:`importable`
gives a class that no module holds, as one of a notebook, an import path for a while.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np

from diem.components import short, split
from diem.errors import DiemError, nearest
from diem.lazy import torch
from diem.operators.base import OPERATORS, Operator, build, simulate, tensor_of
from diem.operators.mask import Mask
from diem.operators.partial import Partial

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Given", "given", "importable", "linear", "shape_of", "where_shown"]

Function: TypeAlias = "Callable[[Tensor], Tensor]"

Given: TypeAlias = "str | Mapping[str, Any] | Operator | Function"
"""What stands for an operator: see :func:`given`."""


def given(
    operator: Given,
    y: Tensor,
    event_shape: Sequence[int] | None = None,
    adjoint: Function | None = None,
) -> Operator:
    """Returns the operators of observations, of what a user gives for them.

    Arguments:
        operator: The name of a built-in operator, or ``module:Class``; a mapping of ``name`` and
            either the operator's parameters by field, with one row an observation or one for all,
            or its options as in the configuration, where nothing is random; an operator; or a
            linear function of ``x``, from ``(B, *event)`` to ``(B, *observation)``. Without
            parameters, a ``mask`` is of what is not NaN in ``y``.
        y: The observations, of shape ``(N, *observation)``.
        event_shape: The shape of one ``x``, where neither the operator nor ``y`` tells it.
        adjoint: The adjoint of a function; without it, it comes of automatic differentiation.

    Raises:
        DiemError: If it is none of these, or does not fit the observations.
    """
    shape = None if event_shape is None else shape_of(event_shape)
    if isinstance(operator, Operator):
        found = operator
    elif isinstance(operator, str | Mapping):
        found = _of_name(operator, y, shape)
    elif callable(operator) and not isinstance(operator, type):
        return _of_function(operator, y, shape, adjoint)
    else:
        raise DiemError(
            f"operator is {short(operator)}, where a name, a mapping with a name, an operator (an"
            " object, not its class) or a linear function is needed."
        )
    if adjoint is not None:
        raise DiemError("adjoint belongs to a function, and the operator is none.")
    if shape not in (None, found.event_shape):
        raise DiemError(
            f"event_shape is {shape}, and the operator observes x of shape {found.event_shape}."
        )
    return found


def shape_of(event_shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape of one ``x`` as a user gives it.

    Raises:
        DiemError: If it is no tuple of positive integers.
    """
    try:
        sizes = np.asarray(event_shape)
    except ValueError:
        sizes = np.empty(0)
    some = sizes.ndim == 1 and sizes.size > 0 and sizes.dtype.kind in "iuf"
    if not some or not ((sizes >= 1) & (sizes < 2**31) & (sizes == np.floor(sizes))).all():
        raise DiemError(
            f"event_shape is {short(event_shape)}, where a tuple of positive integers is needed."
        )
    return tuple(sizes.astype(int).tolist())


# By name


def _of_name(spec: str | Mapping[str, Any], y: Tensor, shape: tuple[int, ...] | None) -> Operator:
    name, options = split(spec, "operator")
    cls = OPERATORS.find(name, "operator" if isinstance(spec, str) else "operator.name")
    if shape is None and cls.keeps_shape:
        shape = tuple(y.shape[1:])
    if shape is None:
        raise DiemError(
            f"event_shape is missing: the operator {name!r} does not tell the shape of one x."
        )
    if cls is Mask and not options:
        options = {"mask": ~torch.isnan(y)}
    fields = {*cls.fields, *cls.optional}
    if options.keys() <= fields and all(
        isinstance(value, list | tuple) or np.ndim(value) > 0 for value in options.values()
    ):
        parameters = {key: _parameter(key, value, len(y)) for key, value in options.items()}
    else:
        parameters = _of_options(cls, name, options, shape)
    return build(name, shape, parameters)


def _parameter(name: str, values: Any, count: int) -> Tensor:
    value = tensor_of(values, f"operator.{name}")
    if len(value) not in (1, count):
        raise DiemError(
            f"operator.{name} has {len(value)} rows, where one for each of the {count} observations"
            " or one for all is needed."
        )
    return value


def _of_options(
    cls: type[Operator], name: str, options: Mapping[str, Any], shape: tuple[int, ...]
) -> dict[str, Tensor]:
    """Returns the parameters that options tell, if they leave nothing to chance."""
    known = [*cls.fields, *cls.optional, *cls.options().model_fields]
    for key in options:
        if key not in known:
            raise DiemError(f"operator.{key} is unknown{nearest(key, known)}.")
    cls.parse(options, "operator")
    entry = {"name": name, **options}
    drawn = [simulate(entry, shape, 2, np.random.default_rng(seed)) for seed in (0, 1)]
    for field in drawn[0].parameters:
        rows = torch.cat([operator.parameters[field] for operator in drawn])
        if not (rows == rows[:1]).all():
            raise DiemError(
                f"operator: {name!r} with these options is drawn at random, and nobody but you"
                f" knows what yours are: give its parameters ({', '.join(cls.fields)})."
            )
    return {field: values[:1] for field, values in drawn[0].parameters.items()}


# As a function


class _Function(Operator):
    """One linear function for all observations; a subclass has it."""

    function: ClassVar[Function]
    transposed: ClassVar[Function | None]
    shape: ClassVar[tuple[int, ...]]

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return self.shape

    def forward(self, x: Tensor) -> Tensor:
        return _apart(type(self).function(x), x)

    def adjoint(self, y: Tensor) -> Tensor:
        transposed = type(self).transposed
        return self._differentiated(y) if transposed is None else _apart(transposed(y), y)

    def _differentiated(self, y: Tensor) -> Tensor:
        """The vector-Jacobian product of a linear function is its adjoint, wherever it is taken."""
        with torch.enable_grad():
            x = torch.zeros(len(y), *self.event_shape, dtype=y.dtype, device=y.device)
            ax = type(self).function(x.requires_grad_())
            if not ax.requires_grad:
                raise RuntimeError("it is not differentiable by PyTorch: give its adjoint")
            return torch.autograd.grad(ax, x, y, materialize_grads=True)[0]


def _apart(value: Tensor, of: Tensor) -> Tensor:
    """Returns a value without the gradients of a module's weights, unless those of ``of`` flow."""
    return value if of.requires_grad or not isinstance(value, torch.Tensor) else value.detach()


def linear(
    function: Function,
    event_shape: Sequence[int],
    adjoint: Function | None = None,
    device: str | torch.device = "cpu",
) -> Operator:
    """Returns the operator of a linear function, the same for all observations.

    Arguments:
        function: From ``(B, *event)`` to ``(B, *observation)``, in single precision and on the
            device of its argument.
        event_shape: The shape of one ``x``.
        adjoint: Its adjoint; without it, it comes of automatic differentiation.
        device: The device to try the function on.

    Raises:
        DiemError: If the function fails. Whether it is linear is another question, see
            :func:`diem.operators.verify.verify_operator`.
    """
    shape = shape_of(event_shape)
    y = _called(function, torch.zeros(2, *shape, device=device))
    members = {
        "function": staticmethod(function),
        "transposed": None if adjoint is None else staticmethod(adjoint),
        "shape": tuple(y.shape[1:]),
    }
    return type("Function", (_Function,), members)(shape, {})


def _called(function: Function, x: Tensor, what: str = "operator") -> Tensor:
    """Returns what a function makes of two rows."""
    try:
        y = function(x)
    except Exception as error:  # whatever a user's function raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(".")
        raise DiemError(
            f"{what}: the function fails on a tensor of shape {tuple(x.shape)} ({reason})."
        ) from None
    if not isinstance(y, torch.Tensor) or y.ndim < 2 or len(y) != len(x):
        got = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
        raise DiemError(
            f"{what}: of shape {tuple(x.shape)} the function makes {got}, where a tensor with as"
            " many rows is needed."
        )
    return y


def _of_function(
    function: Function, y: Tensor, shape: tuple[int, ...] | None, adjoint: Function | None
) -> Operator:
    two = torch.zeros(2, *y.shape[1:], device=y.device)
    if shape is None and adjoint is not None:
        shape = tuple(_called(adjoint, two, "adjoint").shape[1:])
    if shape is None:
        shape = tuple(two.shape[1:])
        try:
            kept = _called(function, two).shape == two.shape
        except DiemError:
            kept = False
        if not kept:
            raise DiemError(
                "event_shape is missing: it is the shape of one x, which this function does not"
                " tell."
            )
    return linear(function, shape, adjoint, y.device)


# What is missing, and classes that no module holds


def where_shown(operator: Operator, shown: Tensor) -> Operator:
    """Returns the operator of whose observations only some values are shown.

    Unlike :class:`diem.operators.partial.Partial` it is all in its parameters, as files need it.

    Arguments:
        operator: The operator.
        shown: Which values are shown, booleans ``(N, *observation)``.
    """
    if isinstance(operator, Partial):
        return where_shown(operator.operator, operator.shown & shown)
    if bool((shown | ~operator.observed()).all()):
        return operator
    parameters = dict(operator.parameters)
    if type(operator) is Mask:
        return Mask(operator.event_shape, {"mask": parameters["mask"] & shown})
    return _shown(type(operator))(operator.event_shape, {**parameters, "shown": shown})


def _shown(cls: type[Operator]) -> type[Operator]:
    """Returns a subclass with one more parameter: which values of an observation are shown."""

    class Shown(cls):  # type: ignore[misc, valid-type]
        fields = (*cls.fields, "shown")
        booleans = (*cls.booleans, "shown")
        elementwise = cls.elementwise

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.parameters["shown"]

        def adjoint(self, y: Tensor) -> Tensor:
            return super().adjoint(y * self.parameters["shown"])

        def observed(self) -> Tensor:
            return super().observed() & self.parameters["shown"]

        # The class's own may be of whole observations alone.
        precondition = Operator.precondition

    Shown.__name__ = cls.__name__  # by which sentences call it
    return Shown


_HELD: contextvars.ContextVar[Mapping[str, type[Operator]] | None] = contextvars.ContextVar(
    "classes", default=None
)
"""The classes that are importable for a while, by name; each thread has its own."""


def __getattr__(name: str) -> type[Operator]:
    held = _HELD.get() or {}
    if name not in held:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return held[name]


@contextlib.contextmanager
def importable(cls: type[Operator]) -> Iterator[str]:
    """Yields a name by which files and the configuration can tell a class: an import path.

    Of a class that no module holds, as one of a notebook or of a function, it is one of this
    module, for as long as the context lasts.
    """
    name = vars(cls).get("name")
    if name in OPERATORS.names and OPERATORS.find(name) is cls:
        yield name
        return
    module = sys.modules.get(cls.__module__)
    if cls.__module__ != "__main__" and getattr(module, cls.__qualname__, None) is cls:
        yield f"{cls.__module__}:{cls.__qualname__}"
        return
    own = f"given_{cls.__name__}"  # no name that this module holds itself
    token = _HELD.set({**(_HELD.get() or {}), own: cls})
    try:
        yield f"{__name__}:{own}"
    finally:
        _HELD.reset(token)
