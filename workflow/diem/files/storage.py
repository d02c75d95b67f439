"""Files: HDF5 layouts, safetensors, atomic writes, and checks that name what is wrong.

Nothing is ever half-written: a file is made under a temporary name in the same folder, then
renamed. Everything carries checksums, so that flipped bytes are found when they are read: HDF5's
own of data sets (Fletcher-32) and of its structures, and SHA-256 of attributes and of safetensors.
"""

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diem import __version__, operators
from diem.errors import DiemError
from diem.operators.base import Operator
from diem.signals import postponed

__all__ = [
    "HasRows",
    "LossyFile",
    "Observations",
    "Observed",
    "Reader",
    "Rows",
    "atomic",
    "digest",
    "load_tensors",
    "load_weights",
    "parts",
    "save_tensors",
    "users_observations",
    "write_hdf5",
    "write_observations",
]

SPLITS = ("train", "validation", "test")
"""The groups of a file of observations."""

SCHEMA_VERSION = 1
"""The version of the HDF5 layouts."""

CHUNK_BYTES = 2**16
"""A chunk of a data set holds so many bytes of whole rows, or one row: rows are read at random."""

PART_BYTES = 2**26
"""What goes through all rows of a data set takes so many bytes at a time, or one row."""

CHECKSUM = "sha256"
"""The attribute, or the tensor, with the checksum of all others."""

REMEDY = "if the workflow made this file, delete it and give the same command again"


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a temporary name that becomes ``path`` if the block succeeds, and vanishes if not.

    Raises:
        DiemError: If the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        # Safetensors wraps what the system told.
        told = re.search(r"I/O error: (.*) \(os error \d+\)", str(error))
        reason = told[1] if told else getattr(error, "strerror", None) or str(error)
        raise DiemError(f"{path} cannot be written: {reason}.") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_hdf5(
    path: str | Path,
    arrays: Mapping[str, np.ndarray | Iterable[np.ndarray]],
    attributes: Mapping[str, Any],
) -> None:
    """Writes arrays and attributes to an HDF5 file, whole or not at all.

    Arguments:
        path: The file.
        arrays: The data sets by name; a name with slashes makes groups. One that does not fit in
            memory is given as its consecutive parts, each of shape ``(rows, *)``.
        attributes: The root's attributes. The versions of diem and of the layout are added.
    """
    with (
        atomic(path) as temporary,
        LossyFile(temporary, "w+") as disk,
        _new_hdf5(disk) as file,
    ):
        for name, array in arrays.items():
            _write_array(file, name, array, disk)
        with postponed():
            file.attrs.update(attributes)
            file.attrs["diem_version"] = __version__
            file.attrs["schema_version"] = SCHEMA_VERSION
            file.attrs[CHECKSUM] = _checksum_of_attributes(file)


@contextlib.contextmanager
def _new_hdf5(disk: "LossyFile") -> Iterator[h5py.File]:
    """Yields a new HDF5 file, and raises what the disk told once it is closed.

    Signals are postponed wherever HDF5 writes: it swallows what a handler raises in the midst of
    that, the bytes are missing, and the file looks whole.
    """
    file = None
    try:
        with postponed():
            # The newest layout has checksums of HDF5's own structures, as the data have theirs.
            file = h5py.File(disk, "w", libver="latest")
        yield file
    finally:
        try:
            if file is not None:
                with postponed():
                    file.close()
        finally:
            disk.check()


class LossyFile(io.FileIO):
    """A file that takes whatever is written: after an error of the disk, all of it is lost.

    HDF5 does not survive an error of the disk, and a log's must not end a job.
    """

    error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Writes all of the data, unless there was an error."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while self.error is None and len(rest) > 0:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return size

    def check(self) -> None:
        """Raises the error, if there was one."""
        if self.error is not None:
            raise self.error


def _write_array(
    file: h5py.File, name: str, array: np.ndarray | Iterable[np.ndarray], disk: LossyFile
) -> None:
    if not isinstance(array, np.ndarray | np.generic):
        _write_parts(file, name, array, disk)
    elif array.ndim > 0 and array.size > 0:
        _write_parts(file, name, [array], disk)
    else:
        with postponed():
            if array.ndim == 0:
                _write_scalar(file, name, array)
            else:  # which knows neither chunks nor checksums
                file.create_dataset(name, data=array)


def _write_parts(file: h5py.File, name: str, parts: Iterable[np.ndarray], disk: LossyFile) -> None:
    dataset = None
    for part in parts:
        with postponed():
            if dataset is None:
                dataset = _growing(file, name, part)
            start = len(dataset)
            dataset.resize(start + len(part), axis=0)
            dataset[start:] = part
        disk.check()  # before the next part, which may take long to make
    with postponed():
        del dataset  # which writes what HDF5 still holds of it


def _growing(file: h5py.File, name: str, part: np.ndarray) -> h5py.Dataset:
    """Returns an empty data set of rows, of which the first part is given."""
    shape = part.shape[1:]
    most = max(1, CHUNK_BYTES // max(1, part.itemsize * math.prod(shape)))
    # Chunks of nearly equal size: the last one takes its whole size on the disk.
    count = max(1, len(part))
    chunks = (math.ceil(count / math.ceil(count / most)), *shape)
    layout = {"maxshape": (None, *shape), "chunks": chunks, "fletcher32": True}
    return file.create_dataset(name, (0, *shape), part.dtype, **layout)


def _write_scalar(file: h5py.File, name: str, value: np.ndarray | np.generic) -> None:
    """Writes a single value into the header of its data set, which has a checksum."""
    group, _, name = name.rpartition("/")
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.COMPACT)
    layout.set_obj_track_times(False)
    kind = h5py.h5t.py_create(value.dtype, logical=True)
    scalar = h5py.h5s.create(h5py.h5s.SCALAR)
    place = file.require_group(group or "/").id
    h5py.Dataset(h5py.h5d.create(place, name.encode(), kind, scalar, layout))[()] = value


def _checksum_of_attributes(file: h5py.File) -> np.ndarray:
    """Returns the SHA-256 of the root's attributes: HDF5 has no checksum of text."""
    told = {name: np.asarray(file.attrs[name]).tolist() for name in file.attrs if name != CHECKSUM}
    total = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    return np.frombuffer(total.digest(), np.uint8)


class Reader:
    """An open HDF5 file whose contents are checked as they are read.

    Every error is a :class:`DiemError` that names the file and the data set.

    Arguments:
        path: The file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        if not Path(path).is_file():
            raise DiemError(f"{path}: there is no such file.")
        try:
            self.file = h5py.File(path, "r")
        except OSError:
            raise DiemError(
                f"{path}: this is no complete HDF5 file (truncated, or of another format):"
                f" {REMEDY}."
            ) from None
        with self._intact("its header"):
            # Files of other programs have no checksum.
            stored = self.file.attrs.get(CHECKSUM)
            intact = stored is None or np.array_equal(stored, _checksum_of_attributes(self.file))
        if not intact:
            raise DiemError(
                f"{path}: its attributes are damaged, or were changed without deleting their"
                f" checksum, the attribute {CHECKSUM!r}: {REMEDY}."
            )

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @contextlib.contextmanager
    def _intact(self, what: str) -> Iterator[None]:
        """Tells what h5py raises of a damaged structure, which can be any of these."""
        try:
            yield
        except (OSError, RuntimeError, KeyError, TypeError, ValueError):
            raise DiemError(f"{self.path}: {what} is damaged: {REMEDY}.") from None

    def __contains__(self, name: str) -> bool:
        with self._intact(repr(name)):
            return name in self.file

    def names(self, group: str) -> list[str]:
        """Returns the names in a group, none if the group is missing."""
        with self._intact(repr(group)):
            return sorted(self.file[group]) if group in self.file else []

    def attribute(self, name: str) -> Any:
        """Returns an attribute of the root."""
        with self._intact(f"the attribute {name!r}"):
            if name in self.file.attrs:
                return self.file.attrs[name]
        raise DiemError(f"{self.path}: the attribute {name!r} is missing.")

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a data set."""
        return self._dataset(name).shape

    def _dataset(self, name: str) -> h5py.Dataset:
        with self._intact(repr(name)):
            dataset = self.file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise DiemError(f"{self.path}: the data set {name!r} is missing.")
        return dataset

    def read(
        self, name: str, rows: slice = slice(None), shape: Sequence[int] | None = None
    ) -> np.ndarray:
        """Reads some rows of a data set.

        Arguments:
            name: The data set.
            rows: The rows to read.
            shape: If given, the shape that one row must have.

        Raises:
            DiemError: If the data set is missing, damaged, of another shape, or not finite.
        """
        return self._rows_of(self._numbers(name, shape, single=rows == ()), rows)

    def _numbers(
        self, name: str, shape: Sequence[int] | None = None, single: bool = False
    ) -> h5py.Dataset:
        """Returns a data set of numbers, with rows unless it is a single value.

        Arguments:
            name: The data set.
            shape: If given, the shape that one row must have.
            single: Whether it may be a single value.
        """
        dataset = self._dataset(name)
        if dataset.ndim == 0 and not single:
            raise DiemError(f"{self.path}: {name!r} is a single value, where rows are expected.")
        if dataset.dtype.kind not in "fiub":
            raise DiemError(
                f"{self.path}: {name!r} holds {dataset.dtype}, where numbers are needed."
            )
        if shape is not None and dataset.shape[1:] != tuple(shape):
            raise DiemError(
                f"{self.path}: {name!r} has rows of shape {dataset.shape[1:]},"
                f" where {tuple(shape)} is expected."
            )
        return dataset

    def _rows_of(self, dataset: h5py.Dataset, rows: slice | tuple = slice(None)) -> np.ndarray:
        """Reads rows of a data set, and checks that they are intact and finite."""
        name = dataset.name.removeprefix("/")
        with self._intact(repr(name)):
            array = dataset[rows]
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DiemError(f"{self.path}: {name!r} holds non-finite values.")
        return array


class HasRows(Protocol):
    """What gives its rows by slices, such as arrays, tensors and :class:`Rows`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray | Tensor: ...


def parts(x: HasRows) -> Iterator[np.ndarray | Tensor]:
    """Yields all rows in order, :data:`PART_BYTES` of them at a time, or one row.

    What is summed part by part does not depend on where the rows are, in memory or on the disk.
    """
    size = max(1, PART_BYTES // max(1, x[:1].nbytes))
    for start in range(0, len(x), size):
        yield x[start : start + size]


class Rows:
    """The rows of a data set that may not fit in memory, of one or several files.

    A data set of at most ``cache_mb`` is held in memory; of a larger one, rows are read from the
    disk whenever they are asked for. Their values are the same. The files are open until the
    context is left, unless the rows are held.

    Arguments:
        paths: The files, from first to last. Since shards are consecutive blocks, the rows' order
            does not depend on their number. A file without the data set is passed over.
        name: The data set.
        shape: If given, the shape that one row must have.
        cache_mb: The most memory that it may take, in MiB.

    Attributes:
        shape: The shape of one row.
        held: The rows, if they are held in memory.

    Raises:
        DiemError: If no file holds the data set, or one holds it in another shape; and whenever
            rows that are read are damaged or not finite.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        name: str,
        shape: Sequence[int] | None = None,
        cache_mb: float = math.inf,
    ) -> None:
        with contextlib.ExitStack() as opened:
            files = [opened.enter_context(Reader(path)) for path in paths]
            files = [file for file in files if name in file]
            if not files:
                raise DiemError(f"{paths[0]}: the data set {name!r} is missing.")
            self._sources = []
            for file in files:
                dataset = file._numbers(name, shape)
                self._sources.append((file, dataset))
                shape = dataset.shape[1:]
            self.shape = tuple(shape)
            self._dtype = self._sources[0][1].dtype
            self._ends = np.cumsum([len(dataset) for _, dataset in self._sources])
            self._chosen = np.arange(self._ends[-1])
            self.held: np.ndarray | None = None
            if len(self) * self._dtype.itemsize * math.prod(self.shape) <= cache_mb * 2**20:
                self.held = self[:]
            else:
                self._opened = opened.pop_all()

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, *_: object) -> None:
        if self.held is None:
            self._opened.close()

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Returns rows ``(N, *shape)``, in the order in which they are asked for."""
        if self.held is not None:
            return self.held[rows]
        rows = self._chosen[rows]
        x = np.empty((len(rows), *self.shape), self._dtype)
        of = np.searchsorted(self._ends, rows, side="right")
        # Consecutive rows of a file are read at once.
        apart = np.flatnonzero((np.diff(rows) != 1) | (np.diff(of) != 0)) + 1
        for start, stop in itertools.pairwise([0, *apart, len(rows)] if len(rows) else []):
            file, dataset = self._sources[of[start]]
            first = rows[start] - self._ends[of[start]] + len(dataset)
            x[start:stop] = file._rows_of(dataset, slice(first, first + stop - start))
        return x

    def keep(self, mask: np.ndarray) -> None:
        """Forgets the rows for which a mask is false."""
        self._chosen = self._chosen[mask]
        if self.held is not None:
            self.held = self.held[mask]


def save_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]
) -> None:
    """Writes tensors and text to a safetensors file, whole or not at all, with their checksum."""
    tensors = {k: v.detach().to("cpu").contiguous() for k, v in tensors.items()}
    # No entry of the header, whose order safetensors does not keep: equal files have equal bytes.
    checksum = {CHECKSUM: _checksum(tensors, header)}
    with atomic(path) as temporary:
        # Safetensors makes files that nobody else may read.
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(tensors | checksum, temporary, metadata=dict(header))
        temporary.chmod(mode)


def _checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> Tensor:
    """Returns the SHA-256 of tensors, their names and a header."""
    total = hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        total.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy())
    return torch.tensor(list(total.digest()), dtype=torch.uint8)


def load_tensors(path: str | Path, ours: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads the tensors and the header of a safetensors file.

    Arguments:
        path: The file.
        ours: Whether :func:`save_tensors` must have written it, and so its checksum.

    Raises:
        DiemError: If the file is missing, damaged, of another format, or not finite.
    """
    if not Path(path).is_file():
        raise DiemError(f"{path}: there is no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DiemError(
            f"{path}: this is no complete safetensors file ({error}): {REMEDY}."
        ) from None
    checksum = tensors.pop(CHECKSUM, None) if ours else None
    if ours and (checksum is None or not torch.equal(checksum, _checksum(tensors, header))):
        what = "it has no checksum" if checksum is None else "its checksum is another"
        raise DiemError(f"{path}: this file is damaged, or is not diem's ({what}): {REMEDY}.")
    for key, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise DiemError(f"{path}: {key!r} holds non-finite values.")
    return tensors, header


def load_weights(path: str | Path) -> dict[str, Any]:
    """Reads a PyTorch file of weights, from which nothing but tensors and plain values is loaded.

    Raises:
        DiemError: If the file is of another kind, or would have code run.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile and torch have no common one
        reason = " ".join(str(error).split())[:200]
        raise DiemError(f"{path}: this file holds no weights ({reason}).") from None


def digest(paths: Sequence[str | Path], *settings: Any) -> str:
    """Returns a fingerprint of files' bytes and settings (JSON): 16 hexadecimal digits."""
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in paths:
        with Path(path).open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()[:16]


@dataclass(frozen=True)
class Observed:
    """Some observations: what a posterior sampler needs to know of them.

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
        operator, y, sigma_y = (v.to(device) for v in (self.operator, self.y, self.sigma_y))
        return Observed(operator, y, sigma_y, self.index)

    def scaled(self, offset: float, scale: float) -> "Observed":
        """Returns the observations of ``(x - offset) / scale``, by the same operators.

        What was not observed is zero.
        """
        y = self.y
        if offset:
            level = torch.full((len(y), *self.operator.event_shape), float(offset), device=y.device)
            y = y - self.operator.forward(level.to(y))
        y = torch.where(self.operator.observed(), y / scale, 0.0)
        return Observed(self.operator, y, self.sigma_y / scale, self.index)


def write_observations(
    path: str | Path,
    splits: Mapping[str, Observed],
    operator: str,
    attributes: Mapping[str, Any],
    parts: Mapping[str, Iterable[np.ndarray]] | None = None,
) -> None:
    """Writes the observations of every split.

    Arguments:
        path: The file.
        splits: The observations by split, all with the same noise.
        operator: The operator's name.
        attributes: More attributes of the file: experiment, seed, ...
        parts: By split the consecutive parts of the ``y`` that are written, in the place of the
            whole ``y`` of ``splits``.
    """
    arrays = {}
    for split, observed in splits.items():
        arrays[f"{split}/y"] = observed.y.numpy() if parts is None else parts[split]
        arrays[f"{split}/index"] = observed.index
        for field, values in observed.operator.parameters.items():
            arrays[f"{split}/operator/{field}"] = values.numpy()
    some = next(iter(splits.values()))
    arrays["sigma_y"] = some.sigma_y.numpy()
    shape = list(some.operator.event_shape)
    write_hdf5(path, arrays, {"operator": operator, "event_shape": shape, **attributes})


class Observations(Reader):
    """An open file of observations, from which rows are read as they are needed.

    It is one that :func:`write_observations` wrote, or a user's own: there ``index`` may be
    missing, and ``sigma_y`` may be a data set of each split.

    Arguments:
        path: The file.
        operator: The operator's name, for a file that does not tell it.
        sigma_y: The noise's standard deviation, one number or one for each value of an
            observation, for a file that does not tell it.

    Raises:
        DiemError: If the file cannot be read or lacks something, or if something is told twice.
    """

    def __init__(
        self,
        path: str | Path,
        operator: str | None = None,
        sigma_y: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__(path)
        stored = str(self.attribute("operator")) if self.has_attribute("operator") else operator
        if stored is None:
            raise DiemError(f"{path}: the attribute 'operator' is missing, and none is named.")
        if operator not in (None, stored):
            raise DiemError(
                f"{path}: the attribute 'operator' is {stored!r}, where {operator!r} is named."
            )
        self.operator = stored
        shape = np.asarray(self.attribute("event_shape"))
        if shape.ndim != 1 or shape.dtype.kind not in "iu" or not (shape > 0).all():
            raise DiemError(f"{path}: the attribute 'event_shape' must hold positive integers.")
        self.event_shape = tuple(shape.tolist())
        noises = ["sigma_y", *(f"{split}/sigma_y" for split in SPLITS)]
        told = [name for name in noises if name in self]
        if told and sigma_y is not None:
            raise DiemError(f"{path}: it holds {told[0]!r}, and a sigma_y is given beside it.")
        if "sigma_y" in self and len(told) > 1:
            raise DiemError(f"{path}: it holds {told[1]!r} beside 'sigma_y' for all splits.")
        if "sigma_y" in told:
            sigma_y = self.read("sigma_y", rows=())
        self.sigma_y = None if sigma_y is None else self._positive("sigma_y", np.asarray(sigma_y))

    def has_attribute(self, name: str) -> bool:
        """Returns whether the root has an attribute."""
        with self._intact(f"the attribute {name!r}"):
            return name in self.file.attrs

    def _positive(self, name: str, sigma_y: np.ndarray) -> Tensor:
        if not (sigma_y > 0).all():
            raise DiemError(f"{self.path}: {name!r} must be positive.")
        return torch.as_tensor(sigma_y, dtype=torch.float32)

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

    def load(self, split: str, rows: slice = slice(None)) -> Observed:
        """Reads some observations of a split and checks that they fit each other.

        Values that were not observed are read as zero, whatever the file holds.

        Raises:
            DiemError: If a data set is missing, damaged, not finite, or of another shape.
        """
        index = np.arange(self.count(split))[rows]
        if f"{split}/index" in self:
            index = self.read(f"{split}/index", rows, shape=())
        operator = self.load_operator(split, rows)
        y = torch.from_numpy(self.read(f"{split}/y", rows, shape=operator.observation_shape))
        if len(index) != len(y):
            raise DiemError(
                f"{self.path}: '{split}' has {len(y)} observations and {len(index)} indices."
            )
        y = torch.where(operator.observed(), y.float(), 0.0)
        if not torch.isfinite(y).all():
            raise DiemError(f"{self.path}: '{split}/y' holds non-finite values as float32.")
        return Observed(operator, y, self._noise(split, rows, y.shape), index)

    def load_operator(self, split: str, rows: slice = slice(None)) -> Operator:
        """Reads the operators of some observations of a split.

        Raises:
            DiemError: If a parameter is missing, damaged, not finite, or of another shape.
        """
        parameters = {}
        for field in self.names(f"{split}/operator"):
            one_for_all = self._one_for_all(split, f"operator/{field}")
            some = slice(None) if one_for_all else rows
            parameters[field] = self.read(f"{split}/operator/{field}", some)
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

    def _noise(self, split: str, rows: slice, shape: tuple[int, ...]) -> Tensor:
        """Returns the noise of some observations of shape ``(B, *observation)``."""
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
        elif self.shape(name) == ():
            return self._positive(name, self.read(name, ()))
        else:
            sigma_y = self._positive(name, self.read(name, rows))
            fits = len(sigma_y) == shape[0] and sigma_y.shape[1:] in ((), shape[1:])
            if sigma_y.ndim == 1:
                sigma_y = sigma_y.reshape(-1, *(1,) * (len(shape) - 1))
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
) -> Observations:
    """Opens a file that need not be the workflow's own: no code runs because such a file names it.

    The arguments are those of :class:`Observations`.

    Raises:
        DiemError: Also if the file's operator is a class that ``operator`` does not name.
    """
    with Reader(path) as reader:
        named = reader.file.attrs.get("operator")
    if isinstance(named, str) and ":" in named and operator != named:
        raise DiemError(
            f"{path}: its operator is the class {named!r}, which is imported only if you name it."
        )
    return Observations(path, operator, sigma_y)
