"""Observations: a batch of them, and the files that hold them."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from diem import operators
from diem.components import NOISE
from diem.data.sets.base import SPLITS
from diem.errors import DiemError, nearest
from diem.files.foreign import check_foreign
from diem.files.hdf5 import Reader, Which, write_hdf5
from diem.operators.base import Operator
from diem.seeds import subset

__all__ = [
    "SPLITS",
    "Observations",
    "Observed",
    "Units",
    "check_noise",
    "detached",
    "numbers",
    "numbers_of_pandas",
    "place_of",
    "save_observations",
    "unit_of_values",
    "users_observations",
]

Units: TypeAlias = float | Sequence[float] | Tensor
"""An ``offset`` or a ``scale`` of ``x``: a number, or a list of one for each place of its first
axis, a column of vectors or a channel of other data."""

BLOCK = 2**22
"""So many values of ``x``, ``y`` and parameters together are in memory at a time."""


def detached(tensor: Tensor) -> np.ndarray:
    """Returns a tensor, of any device, as an array; in single precision if NumPy lacks its own."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def numbers(values: Any, name: str) -> np.ndarray:
    """Returns real numbers as an array, NaN where a masked array is masked.

    Arguments:
        values: An array, a tensor, a table of pandas, or what NumPy makes an array of.
        name: What they are, for the sentence.

    Raises:
        DiemError: If they are no real numbers.
    """
    if isinstance(values, Tensor):
        values = detached(values)
    try:
        masked = np.ma.asarray(values)
    except ValueError:
        raise DiemError(f"{name} is no array (its rows differ in shape).") from None
    if masked.dtype.kind == "c":
        raise DiemError(f"{name} is complex: give real and imaginary parts as channels.")
    if masked.dtype.kind == "O" and hasattr(values, "dtypes"):
        masked = np.ma.asarray(numbers_of_pandas(values, name))
    if masked.dtype.kind not in "fiub":
        raise DiemError(f"{name} is of type {masked.dtype}, where numbers are needed.")
    return np.ma.filled(masked.astype(np.result_type(masked.dtype, np.float32)), np.nan)


def numbers_of_pandas(values: Any, name: str) -> np.ndarray:
    """Returns columns of several types, or of pandas' own, NaN where a value is missing.

    Raises:
        DiemError: If a column holds no real numbers.
    """
    table = values.to_frame() if hasattr(values, "to_frame") else values
    for column, kind in table.dtypes.items():
        if kind.kind not in "fiub":
            raise DiemError(
                f"{name}: the column {column!r} is of type {kind}, where numbers are needed."
            )
    return values.to_numpy(dtype=float, na_value=np.nan)


def unit_of_values(unit: Units, shape: Sequence[int]) -> Tensor:
    """Returns the ``offset`` or the ``scale`` of each value of ``x``, of the event's shape.

    Arguments:
        unit: The unit, or already that of each value.
        shape: The event's shape.
    """
    values = torch.as_tensor(unit, dtype=torch.float32)
    if values.ndim < len(shape):
        values = values.reshape(-1, *(1 for _ in shape[1:]))
    return values.expand(*shape)


def place_of(shape: Sequence[int]) -> str:
    """Returns what a list of units has one number for each of: the places of the first axis."""
    return "column" if len(shape) == 1 else "channel"


@dataclass(frozen=True)
class Observed:
    """A batch of observations: what a posterior sampler needs to know of them.

    Arguments:
        operator: The forward operators, one an observation.
        y: The observations, of shape ``(B, *observation)``.
        sigma_y: The noise's standard deviation, of shape ``()`` or ``(*observation)`` for all
            observations, or ``(B, *)``, which broadcasts to ``y``, for each of them.
        index: Which sample of the data set each observation is of, of shape ``(B,)``.
    """

    operator: Operator
    y: Tensor
    sigma_y: Tensor
    index: np.ndarray

    def to(self, device: str | torch.device) -> "Observed":
        """Returns the same observations on another device."""
        y, sigma_y = self.y.to(device), self.sigma_y.to(device)
        return Observed(self.operator.to(device), y, sigma_y, self.index)

    def scaled(self, offset: Units, scale: Units) -> "Observed":
        """Returns the observations of ``(x - offset) / scale``, by the same operators.

        What was not observed is zero.

        Raises:
            DiemError: If each column or channel has a scale, and the operators do not show single
                values.
        """
        y, shape = self.y, self.operator.event_shape
        if not isinstance(offset, int | float) or offset:
            level = unit_of_values(offset, shape).to(y)
            y = y - self.operator.forward(level.expand(len(y), *shape))
        if not isinstance(scale, int | float):
            if not self.operator.elementwise:
                whole = self.operator
                while isinstance(whole, operators.Partial):  # where values are missing
                    whole = whole.operator
                raise DiemError(
                    f"operator: each {place_of(shape)} of x has a scale of its own (data.scale is a"
                    f" list), and {type(whole).__name__} does not show single values of x, as a"
                    " mask does."
                )
            scale = unit_of_values(scale, shape).to(y)
        y = torch.where(self.operator.observed(), y / scale, 0.0)
        return Observed(self.operator, y, self.sigma_y / scale, self.index)


def save_observations(
    path: str | Path,
    splits: Mapping[str, Observed],
    operator: str,
    attributes: Mapping[str, Any],
    y_parts: Mapping[str, Iterable[np.ndarray]] | None = None,
    groups: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Writes the observations of every split.

    Arguments:
        path: The file.
        splits: The observations by split, all with the same noise.
        operator: The operator's name.
        attributes: More attributes of the file: experiment, seed, ...
        y_parts: By split the consecutive parts of the ``y`` that are written, in the place of the
            whole ``y`` of ``splits``.
        groups: By split the numbers of the observations' groups, of shape ``(N,)``, where they form
            groups.
    """
    arrays: dict[str, Any] = {}
    for split, observed in splits.items():
        arrays[f"{split}/y"] = observed.y.numpy() if y_parts is None else y_parts[split]
        arrays[f"{split}/index"] = observed.index
        for field, values in observed.operator.parameters.items():
            arrays[f"{split}/operator/{field}"] = values.numpy()
    arrays |= {f"{split}/groups": values for split, values in (groups or {}).items()}
    first = next(iter(splits.values()))
    arrays["sigma_y"] = first.sigma_y.numpy()
    shape = list(first.operator.event_shape)
    write_hdf5(path, arrays, {"operator": operator, "event_shape": shape, **attributes})


def check_noise(sigma_y: np.ndarray, where: str) -> None:
    """Refuses a standard deviation that is not positive in the precision that it is used in.

    Arguments:
        sigma_y: The standard deviations.
        where: What they are, for the sentence.

    Raises:
        DiemError: If one is not, or not finite.
    """
    low, high = NOISE
    if not ((sigma_y >= low) & (sigma_y <= high)).all():
        raise DiemError(f"{where} must be positive, and from {low:g} to {high:g}.")


class Observations(Reader):
    """An open file of observations, from which rows are read as they are needed.

    It is one that :func:`save_observations` wrote, or a user's own: there ``index`` may be
    missing, and ``sigma_y`` may be a data set of each split.

    Arguments:
        path: The file.
        operator: The operator's name, for a file that does not tell it.
        sigma_y: The noise's standard deviation, one number or one for each value of an
            observation, for a file that does not tell it.

    Raises:
        DiemError: If the file cannot be read or lacks something, or if something is given twice.
    """

    def __init__(
        self,
        path: str | Path,
        operator: str | None = None,
        sigma_y: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__(path)
        stored = self.text("operator") or operator
        if stored is None:
            raise DiemError(
                f"{path}: the attribute 'operator' is missing, and none is named (--operator, or"
                " `operator` in the config: a built-in name, or module:Class)."
            )
        if operator not in (None, stored):
            raise DiemError(
                f"{path}: the attribute 'operator' is {stored!r}, where {operator!r} is named."
            )
        self.operator = stored
        self.event_shape = self.sizes("event_shape")
        self.sigma_y = self._noise_of_all_splits(sigma_y)

    def _noise_of_all_splits(self, given: float | Sequence[float] | None) -> Tensor | None:
        """Returns the file's noise, or the given one, unless each split has its own."""
        names = ["sigma_y", *(f"{split}/sigma_y" for split in SPLITS)]
        stored = [name for name in names if name in self]
        if stored and given is not None:
            raise DiemError(
                f"{self.path}: it holds {stored[0]!r}, and a sigma_y is given beside it."
            )
        if "sigma_y" in stored:
            if len(stored) > 1:
                raise DiemError(
                    f"{self.path}: it holds {stored[1]!r} beside 'sigma_y' for all splits."
                )
            return self._positive("sigma_y", self.read("sigma_y", rows=()))
        return None if given is None else self._positive("sigma_y", np.asarray(given))

    def has_attribute(self, name: str) -> bool:
        """Returns whether the root has an attribute."""
        with self._intact(f"the attribute {name!r}"):
            return name in self.attributes

    def units(self) -> str:
        """Returns what the values of scaled observations are in units of."""
        scale = self.attribute("scale") if self.has_attribute("scale") else 1.0
        if np.ndim(scale):
            return f", each {place_of(self.event_shape)} in units of its data.scale"
        return "" if scale == 1 else ", in units of data.scale"

    def _positive(self, name: str, sigma_y: np.ndarray) -> Tensor:
        sigma_y = np.asarray(sigma_y)
        check_noise(sigma_y, f"{self.path}: {name!r}")
        shape = () if sigma_y.size == 1 else sigma_y.shape
        return torch.from_numpy(sigma_y.astype(np.float32).reshape(shape))

    def splits(self) -> list[str]:
        """Returns the splits that the file holds, in order."""
        return [split for split in SPLITS if f"{split}/y" in self]

    def __len__(self) -> int:
        """The number of observations in all splits."""
        return sum(self.count(split) for split in self.splits())

    def count(self, split: str) -> int:
        """Returns the number of observations in a split."""
        shape = self.shape(f"{split}/y")
        if not shape:
            raise DiemError(f"{self.path}: '{split}/y' is a single value, where rows are expected.")
        return shape[0]

    def blocks(self, split: str) -> Iterator[slice]:
        """Yields consecutive rows of a split, so few at a time that they fit in memory."""
        count = self.count(split)
        names = [f"{split}/y", *(f"{split}/operator/{f}" for f in self.names(f"{split}/operator"))]
        size = math.prod(self.event_shape) + sum(math.prod(self.shape(name)[1:]) for name in names)
        rows = max(1, BLOCK // size)
        for start in range(0, count, rows):
            yield slice(start, min(start + rows, count))

    def subset(self, split: str, count: int, seed: int) -> np.ndarray:
        """Returns the numbers of the rows of a split that stand for all, see :mod:`diem.seeds`."""
        return subset(self.count(split), count, seed, SPLITS.index(split))

    def groups(self, split: str) -> np.ndarray | None:
        """Returns the number of each observation's group, or nothing where each is alone.

        Those of one ``x`` are a group too, where the file tells no others.

        Raises:
            DiemError: If the file does not tell that of each observation.
        """
        for name in ("groups", "index"):
            if f"{split}/{name}" in self:
                group = self.numbered(split, name)
                return group if group.max() + 1 < len(group) else None
        return None

    def numbered(self, split: str, name: str) -> np.ndarray:
        """Returns labels of the observations of a split as numbers from 0 on, of shape ``(N,)``.

        Raises:
            DiemError: If there are more or fewer than observations.
        """
        number = np.unique(self.labels(f"{split}/{name}"), return_inverse=True)[1]
        if len(number) != self.count(split):
            raise DiemError(
                f"{self.path}: '{split}' has {self.count(split)} observations and {len(number)}"
                f" {'groups' if name == 'groups' else 'indices'}."
            )
        return number

    def load(self, split: str, rows: Which = slice(None)) -> Observed:
        """Reads observations of a split and checks that they fit each other.

        Values that were not observed are read as zero, whatever the file holds: NaN too, and their
        noise may be NaN as well.

        Raises:
            DiemError: If a data set is missing, damaged, not finite, or of another shape.
        """
        index = np.arange(self.count(split))[rows]
        if f"{split}/index" in self:
            index = self.read(f"{split}/index", rows, shape=())
        operator = self.load_operator(split, rows)
        shape = operator.observation_shape
        y = torch.from_numpy(self.read(f"{split}/y", rows, shape, finite=False)).float()
        if len(index) != len(y):
            raise DiemError(
                f"{self.path}: '{split}' has {len(y)} observations and {len(index)} indices."
            )
        observed = operator.observed().expand_as(y)
        y = torch.where(observed, y, 0.0)
        if not torch.isfinite(y).all():
            place = (~torch.isfinite(y)).nonzero()[0].tolist()
            place[0] += (rows.start or 0) if isinstance(rows, slice) else 0
            raise DiemError(
                f"{self.path}: '{split}/y' holds non-finite values (as float32) where they are"
                f" observed, first at {tuple(place)}: the operator {self.operator!r} tells what is"
                " missing, by its mask or its method 'observed'."
            )
        return Observed(operator, y, self._noise(split, rows, observed), index)

    def load_operator(self, split: str, rows: Which = slice(None)) -> Operator:
        """Reads the operators of observations of a split.

        Raises:
            DiemError: If a parameter is missing, damaged, not finite, or of another shape.
        """
        parameters = {}
        for field in self.names(f"{split}/operator"):
            one_for_all = self._one_for_all(split, f"operator/{field}")
            rows_of_field = slice(None) if one_for_all else rows
            parameters[field] = self.read(f"{split}/operator/{field}", rows_of_field)
        try:
            return operators.build(self.operator, self.event_shape, parameters)
        except DiemError as error:
            raise DiemError(f"{self.path}: {split}: {error}") from None

    def _one_for_all(self, split: str, name: str) -> bool:
        """Returns whether a data set has one row for all observations, rather than one each."""
        count, shape = self.count(split), self.shape(f"{split}/{name}")
        if shape[:1] not in ((count,), (1,)):
            raise DiemError(
                f"{self.path}: '{split}' has {count} observations, and {name!r} of shape {shape},"
                " where one row an observation or one for all is expected."
            )
        return shape[:1] == (1,)

    def _noise(self, split: str, rows: Which, observed: Tensor) -> Tensor:
        """Returns the noise of observations, of which booleans tell what was observed."""
        shape = observed.shape
        name = f"{split}/sigma_y"
        if name not in self:
            if self.sigma_y is None:
                raise DiemError(
                    f"{self.path}: 'sigma_y' is missing (as {name!r}, or for all splits), and none"
                    " is given."
                )
            name, sigma_y = "sigma_y", self.sigma_y
            fits = sigma_y.shape in ((), shape[1:])
            if not fits and sigma_y.ndim == 1 and sigma_y.numel() == math.prod(shape[1:]):
                fits, sigma_y = True, sigma_y.reshape(shape[1:])
        elif math.prod(self.shape(name)) == 1:
            return self._positive(name, self.read(name, ()))
        else:
            sigma_y = torch.from_numpy(self.read(name, rows, finite=False)).float()
            fits = len(sigma_y) == shape[0] and sigma_y.shape[1:] in ((), shape[1:])
            if sigma_y.ndim == 1:
                sigma_y = sigma_y.reshape(-1, *(1,) * (len(shape) - 1))
            elif fits:
                sigma_y = torch.where(sigma_y.isnan() & ~observed, 1.0, sigma_y)
            sigma_y = self._positive(name, sigma_y.numpy())
        if not fits:
            stored = self.shape(name) if "/" in name else tuple(sigma_y.shape)
            raise DiemError(
                f"{self.path}: {name!r} has shape {stored}, where () or the"
                f" observation's shape {tuple(shape[1:])} is expected"
                f"{', one row an observation' if '/' in name else ''}."
            )
        return sigma_y


def users_observations(
    path: str | Path,
    operator: str | None = None,
    sigma_y: float | Sequence[float] | None = None,
    links: bool = False,
) -> Observations:
    """Opens a file that need not be the workflow's own: no code runs because such a file names it.

    The arguments are those of :class:`Observations`, and those of
    :func:`diem.files.foreign.check_foreign`.

    Raises:
        DiemError: Also if the file's operator is a class that ``operator`` does not name, if HDF5
            does not come to an end on it, or if it reads other files and may not.
    """
    check_foreign(path, links)
    with Reader(path) as reader:
        named = reader.text("operator")
    known = operators.OPERATORS.names
    if named is not None and named not in known and operator != named:
        if ":" not in named:
            hint = nearest(named, known)
            raise DiemError(f"{path}: its operator {named!r} is no built-in operator{hint}.")
        raise DiemError(
            f"{path}: its operator is the class {named!r}, which is imported only if you name it"
            " (--operator, or `operator` in the config)."
        )
    return Observations(path, operator, sigma_y)
