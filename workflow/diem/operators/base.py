"""What a forward operator is, and how operators are found, built and simulated.

An operator object stands for a *batch* of forward operators, one for each observation: its
parameters are tensors whose first dimension runs over the observations, and ``operator[rows]``
selects some of them. A parameter of which there is only one is shared by all observations.
"""

from __future__ import annotations

import abc
import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from diem.components import Kind, Model, options_of, validated
from diem.errors import DiemError
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OPERATORS", "Operator", "build", "find", "simulate", "tensor_of"]


class Operator(abc.ABC):
    """A batch of linear forward operators.

    A class of one's own defines :attr:`observation_shape`, :meth:`forward` and :meth:`adjoint`; it
    names its parameters in :attr:`fields`. If some values of ``y`` can be missing it also defines
    :meth:`observed`, and if some tell of each other :meth:`together`. It needs :meth:`simulate`
    only to simulate observations, and then its options are those of a model :attr:`Options`, or the
    keywords of :meth:`simulate`.

    Arguments:
        event_shape: The shape of one ``x``.
        parameters: The parameters named by :attr:`fields` and, where there are any, by
            :attr:`optional`, each of shape ``(B, *)``, or ``(1, *)`` if all observations share it.
            They are single precision but for booleans, the :attr:`booleans`, which a file may
            hold as numbers, and the :attr:`integers`; arrays become such tensors.
    """

    name: ClassVar[str]
    keeps_shape: ClassVar[bool | None] = None
    """Whether ``y`` has the shape of ``x``; none if that is known only when it runs."""
    elementwise: bool = False
    """Whether each value of ``y`` is that of ``x`` at its place, or nothing; not inherited."""
    kspace: ClassVar[bool] = False
    """Whether ``y`` are Fourier coefficients, real and imaginary parts as channels."""
    fields: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()
    integers: ClassVar[tuple[str, ...]] = ()
    booleans: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[Model]]
    """The options of :meth:`simulate`, of which each is a key of the config's ``operator``."""
    _device: torch.device | None = None
    """Where :meth:`to` has put an operator, which one without parameters cannot tell otherwise."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.elementwise = vars(cls).get("elementwise", False)

    def __init__(self, event_shape: Sequence[int], parameters: Mapping[str, Any]) -> None:
        self.event_shape = tuple(event_shape)
        name = type(self).__name__
        for field in self.fields:
            if field not in parameters:
                raise DiemError(f"operator/{field} is missing, which the operator {name!r} needs.")
        self.parameters: dict[str, Tensor] = {}
        for field in (f for f in (*self.fields, *self.optional) if f in parameters):
            values = parameters[field]
            known = isinstance(values, torch.Tensor)
            taken = values if known else _typed(type(self), field, values)
            self.parameters[field] = taken.detach()

    @classmethod
    def options(cls) -> type[Model]:
        """Returns the model of the options: the declared one, or one of the keywords."""
        declared = vars(cls).get("Options")
        return declared or options_of(cls.simulate)

    @classmethod
    def parse(cls, options: Mapping[str, Any], where: str) -> Model:
        """Returns the options of an entry of the configuration.

        Raises:
            DiemError: If an option is unknown, missing, or has a bad value.
        """
        return validated(cls.options(), options, where)

    @classmethod
    def suits(cls, event_shape: tuple[int, ...], **options: Any) -> None:
        """Raises a :class:`DiemError` if no operator can be drawn for samples of this shape.

        It is asked before anything runs, and neither draws nor reads anything. The sentence begins
        with the key, ``operator.`` and an option.

        Arguments:
            event_shape: The shape of one ``x``.
            options: The keys of the config's ``operator`` entry, see :attr:`Options`.
        """
        own = cls.__mro__[: cls.__mro__.index(Operator)]
        if cls.fields and not any("simulate" in vars(base) for base in own):
            raise DiemError(
                f"operator.name: {cls.__name__} has no method 'simulate', so its parameters"
                f" ({', '.join(cls.fields)}) must come from a file (data.name 'hdf5')."
            )

    @classmethod
    def simulate(
        cls, event_shape: Sequence[int], count: int, rng: np.random.Generator, **options: Any
    ) -> dict[str, np.ndarray]:
        """Draws the parameters of ``count`` operators, in the smallest dtype that holds them.

        Arguments:
            event_shape: The shape of one ``x``.
            count: The number of operators.
            rng: The random stream.
            options: The keys of the config's ``operator`` entry, see :attr:`Options`.

        Raises:
            DiemError: If the class does not say how its parameters are drawn.
        """
        cls.suits(tuple(event_shape), **options)
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

    def precondition(self, b: Tensor, scale: Tensor, var_y: Tensor) -> Tensor:
        """Returns about ``(scale A A' + diag(var_y))^-1 b``, for solvers of such systems.

        It changes no result, and saves iterations where the singular values of ``A`` are many and
        far apart. It must be linear in ``b``, symmetric and positive.

        Arguments:
            b: Of shape ``(B, *observation)``.
            scale: A positive number, of shape ``()``.
            var_y: The noise's variance, broadcastable to ``b``.
        """
        return b / var_y

    def observed(self) -> Tensor:
        """Returns which entries of ``y`` carry data, as booleans ``(B, *observation)``.

        An entry whose row of ``A`` is zero holds nothing but padding.
        """
        shape = (len(self), *self.observation_shape)
        return torch.ones(shape, dtype=torch.bool, device=self.device)

    def together(self) -> Tensor:
        """Returns which entries of ``y`` tell of each other, as integers ``(*observation)``.

        Entries with the same integer, the flat index of one of them, hold the same data twice: who
        knows one knows the others, but for noise, so that they are hidden and shown together. Here
        each stands alone, and an operator with such entries says which.
        """
        shape = self.observation_shape
        return torch.arange(math.prod(shape), device=self.device).reshape(shape)

    def check(self) -> None:
        """Raises a :class:`DiemError` if the parameters do not fit the event."""
        for field, value in self.parameters.items():
            if not torch.isfinite(value).all():
                raise DiemError(f"operator/{field} holds non-finite values.")

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """Returns the matrices ``A``, of shape ``(B, observation size, event size)``.

        Arguments:
            dtype: That of the vectors to which the operator is applied, by default single.
        """
        size, batch = math.prod(self.event_shape), len(self)
        basis = torch.eye(size, device=self.device, dtype=dtype)
        basis = basis.reshape(size, 1, *self.event_shape)
        columns = [self.forward(e.expand(batch, *self.event_shape)).flatten(1) for e in basis]
        return torch.stack(columns, dim=-1)

    @property
    def device(self) -> torch.device:
        """The device of the parameters; where there are none, that of :meth:`to`."""
        chosen = self._device or torch.device("cpu")
        return next((value.device for value in self.parameters.values()), chosen)

    def to(self, device: str | torch.device) -> Self:
        """Returns the same operators on another device."""
        moved = {field: value.to(device) for field, value in self.parameters.items()}
        return self._with(moved, torch.device(device))

    def double(self) -> Self:
        """Returns the same operators in double precision, of all that its parameters tell."""
        wide = {k: v.double() if v.is_floating_point() else v for k, v in self.parameters.items()}
        return self._with(wide, self._device)

    def _with(self, parameters: Mapping[str, Tensor], device: torch.device | None) -> Self:
        operator = type(self)(self.event_shape, parameters)
        operator._device = device
        return operator

    def __len__(self) -> int:
        """The number of operators: 1 where one stands for all observations."""
        return max((len(value) for value in self.parameters.values()), default=1)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        some = {k: v if len(v) == 1 else v[rows] for k, v in self.parameters.items()}
        return self._with(some, self._device)


class _Operators(Kind):
    """The operators, whose entries hold only the options that are given or have a default."""

    def entry(self, spec: str | Mapping[str, Any], where: str = "") -> dict[str, Any]:
        """Returns an entry of the configuration with every default, after checking it."""
        return {
            key: value for key, value in super().entry(spec, where).items() if value is not None
        }


OPERATORS = _Operators(
    "operator", "diem.operators", Operator, besides=("base", "given", "partial", "verify")
)
"""The operators, see :class:`diem.components.Kind`."""

find = OPERATORS.find


def build(
    name: str, event_shape: Sequence[int], parameters: Mapping[str, np.ndarray | Tensor]
) -> Operator:
    """Builds a batch of operators from their stored parameters and checks them.

    Arguments:
        name: A built-in operator, or ``module:Class``.
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
    tensors = {field: _typed(cls, field, parameters[field]) for field in fields}
    with _failures(name, "built"):
        operator = cls(event_shape, tensors)
        operator.check()
    return operator


def _typed(cls: type[Operator], field: str, values: Any) -> Tensor:
    """Returns a parameter in the type that operators of a class apply."""
    value = tensor_of(values, f"operator/{field}")
    if field in cls.integers:
        if value.dtype == torch.bool or not torch.equal(value, value.long().to(value)):
            raise DiemError(f"operator/{field} holds {value.dtype}, where integers are needed.")
        return value.long()
    if field in cls.booleans:
        # Other programs store them as numbers.
        if not torch.equal(value, value.bool().to(value)):
            raise DiemError(
                f"operator/{field} holds {value.dtype} other than 0 and 1, where booleans are"
                " needed."
            )
        return value.bool()
    # Stored in the smallest type that holds them, applied to single precision.
    return value if value.dtype == torch.bool else value.float()


def tensor_of(values: Any, name: str) -> Tensor:
    """Returns a parameter as a tensor, whatever its byte order and strides are.

    Arguments:
        values: A tensor, an array, or what NumPy makes an array of.
        name: What they are, for the sentence.

    Raises:
        DiemError: If they are no real numbers.
    """
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()  # PyTorch warns of memory maps and arrays of pandas
    try:
        value = torch.as_tensor(values)
    except (RuntimeError, TypeError, ValueError):  # PyTorch takes fewer kinds of arrays
        value = torch.from_numpy(_copied(values, name))
    if value.is_complex():
        raise DiemError(f"{name} is complex, where real numbers are needed.")
    return value


def _copied(values: Any, name: str) -> np.ndarray:
    """Returns numbers in this machine's byte order, row by row, and those with a point double."""
    try:
        array = np.asarray(values)
    except (RuntimeError, TypeError, ValueError) as error:
        raise DiemError(f"{name} is no array of numbers ({error}).") from None
    if array.dtype.kind not in "fiubc":
        raise DiemError(f"{name} is no array of numbers, but of type {array.dtype}.")
    wide = {"f": np.dtype(np.float64), "c": np.dtype(np.complex128)}
    native = wide.get(array.dtype.kind, array.dtype.newbyteorder("="))
    return np.array(array, native, order="C")


@contextlib.contextmanager
def _failures(name: str, done: str) -> Iterator[None]:
    """Tells whatever a user's class raises; what a built-in raises is a defect."""
    try:
        yield
    except DiemError:
        raise
    except Exception as error:
        if name in OPERATORS.names:
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
    with _failures(name, "simulated"):
        parameters = cls.simulate(event_shape, count, rng, **options)
    return build(name, event_shape, parameters)
