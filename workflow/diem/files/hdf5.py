"""HDF5 files of ours: written whole, read with checks that name what is wrong.

Everything carries checksums of HDF5's, so that flipped bytes are found when they are read: data
sets (Fletcher-32), and its structures. All attributes of a file are one, of JSON in a fixed length,
in the header of the root: text of variable length, as h5py writes it, lies in a heap that has no
checksum, and in which HDF5 may follow a damaged size for ever.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import h5py
import numpy as np

from diem import __version__
from diem.errors import DiemError
from diem.files.atomic import REMEDY, LossyFile, atomic
from diem.signals import postponed

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["HasRows", "Reader", "Rows", "Which", "row_parts", "write_hdf5"]

SCHEMA_VERSION = 1
"""The version of the HDF5 layouts."""

CHUNK_BYTES = 2**16
"""A chunk of a data set holds so many bytes of whole rows, or one row: rows are read at random."""

PART_BYTES = 2**26
"""What goes through all rows of a data set takes so many bytes at a time, or one row."""

ATTRIBUTES = "attributes"
"""The attribute of the root that holds all others."""

Which = slice | tuple[()] | np.ndarray
"""Which rows to read: a slice, all of what may be a single value, or their numbers."""


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
            versions = {"diem_version": __version__, "schema_version": SCHEMA_VERSION}
            text = json.dumps({**attributes, **versions}, default=lambda x: np.asarray(x).tolist())
            file.attrs[ATTRIBUTES] = np.bytes_(text.encode())


@contextlib.contextmanager
def _new_hdf5(disk: LossyFile) -> Iterator[h5py.File]:
    """Yields a new HDF5 file, and raises the disk's error, if there was one, once it is closed.

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
        if not os.access(path, os.R_OK):
            raise DiemError(f"{path}: this file may not be read (its permissions).")
        try:
            self.file = h5py.File(path, "r")
        except OSError as error:
            if "unable to lock file" in str(error):
                raise DiemError(f"{path}: another program has locked this file.") from None
            raise DiemError(
                f"{path}: this is no complete HDF5 file (truncated, or of another format):"
                f" {REMEDY}."
            ) from None
        with self._intact("its header"):
            # Those of another program, and of diem 0.3, are attributes of their own.
            self.attributes: Mapping[str, Any] = self.file.attrs
            written = ATTRIBUTES in self.attributes
            alone = len(self.attributes) == 1
            if written:
                self.attributes = dict(json.loads(self.file.attrs[ATTRIBUTES]))
        if written and not alone:
            raise DiemError(
                f"{path}: it has attributes beside {ATTRIBUTES!r}, in which diem writes all:"
                " change that one (JSON), or give each of its entries one of its own."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @contextlib.contextmanager
    def _intact(self, place: str) -> Iterator[None]:
        """Names the place of a damaged structure, of which h5py raises any of these."""
        try:
            yield
        except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
            if "filter" in str(error) and "not registered" in str(error):
                raise DiemError(
                    f"{self.path}: {place} is compressed by a filter that is not installed here:"
                    " write it without, or install the package hdf5plugin and import it."
                ) from None
            raise DiemError(f"{self.path}: {place} is damaged: {REMEDY}.") from None

    def __contains__(self, name: str) -> bool:
        with self._intact(repr(name)):
            return name in self.file

    def names(self, group: str) -> list[str]:
        """Returns the names in a group, none if the group is missing."""
        with self._intact(repr(group)):
            return sorted(self.file[group]) if group in self.file else []

    def attribute(self, name: str, default: Any = None) -> Any:
        """Returns an attribute of the root, or if it is missing, a default if one is given."""
        with self._intact(f"the attribute {name!r}"):
            if name in self.attributes:
                return self.attributes[name]
        if default is None:
            raise DiemError(f"{self.path}: the attribute {name!r} is missing.")
        return default

    def text(self, name: str) -> str | None:
        """Returns an attribute of the root as text, however a program stored it, or none.

        Raises:
            DiemError: If the attribute is no text.
        """
        with self._intact(f"the attribute {name!r}"):
            value = self.attributes.get(name)
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(())[()]
        if isinstance(value, bytes):
            value = value.rstrip(b"\0 ").decode("utf-8", "replace")
        if value is None or isinstance(value, str):
            return None if value is None else str(value)
        raise DiemError(f"{self.path}: the attribute {name!r} is no text.")

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of a data set."""
        return self._dataset(name).shape

    def _dataset(self, name: str) -> h5py.Dataset:
        with self._intact(repr(name)):
            dataset = self.file.get(name)
        if not isinstance(dataset, h5py.Dataset):
            raise DiemError(f"{self.path}: the data set {name!r} is missing.")
        return dataset

    def sizes(self, name: str) -> tuple[int, ...]:
        """Returns an attribute of positive integers, as other programs store them too.

        Raises:
            DiemError: If the attribute is missing, or holds something else.
        """
        values = np.asarray(self.attribute(name)).reshape(-1)
        if values.dtype.kind in "iuf" and len(values) and np.isfinite(values).all():
            whole = values.astype(np.int64)
            if (whole == values).all() and (whole > 0).all():
                return tuple(whole.tolist())
        raise DiemError(f"{self.path}: the attribute {name!r} must hold positive integers.")

    def read(
        self,
        name: str,
        rows: Which = slice(None),
        shape: Sequence[int] | None = None,
        finite: bool = True,
    ) -> np.ndarray:
        """Reads rows of a data set, or a single value.

        Arguments:
            name: The data set.
            rows: The rows to read, a slice or their numbers in any order, or ``()`` for all of what
                may be a single value.
            shape: If given, the shape that one row must have.
            finite: Whether values that are not finite are refused.

        Returns:
            The values in this machine's byte order, in a type that PyTorch has.

        Raises:
            DiemError: If the data set is missing, damaged, of another shape, or not finite.
        """
        dataset = self._numbers(name, shape, single=isinstance(rows, tuple))
        return _native(self._rows_of(dataset, rows, finite))

    def labels(self, name: str) -> np.ndarray:
        """Returns a data set of labels, one a row: numbers, or texts as bytes.

        Raises:
            DiemError: If it is none.
        """
        dataset = self._dataset(name)
        if dataset.ndim != 1 or dataset.dtype.kind not in "fiubSO":
            raise DiemError(
                f"{self.path}: {name!r} has shape {dataset.shape} and type {dataset.dtype}, where"
                " numbers or texts are expected, one an observation."
            )
        labels = self._rows_of(dataset)
        return labels if labels.dtype.kind in "fiub" else labels.astype(bytes)

    def verify(self) -> None:
        """Reads all data sets, and keeps nothing.

        Raises:
            DiemError: If one is damaged.
        """
        names: list[str] = []
        with self._intact("its structure"):
            self.file.visit(names.append)
            found = [name for name in names if isinstance(self.file[name], h5py.Dataset)]
        for name in found:
            dataset = self._dataset(name)
            with self._intact(repr(name)):
                for _ in row_parts(dataset) if dataset.ndim and dataset.size else [dataset[()]]:
                    pass

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
            remedy = ": write real and imaginary parts as channels"
            raise DiemError(
                f"{self.path}: {name!r} holds {dataset.dtype}, where numbers are needed"
                f"{remedy if dataset.dtype.kind == 'c' else ''}."
            )
        rows = dataset.shape[1:]
        if shape is not None and rows != tuple(shape):
            last = len(rows) == 3 and (rows[2], *rows[:2]) == tuple(shape)
            raise DiemError(
                f"{self.path}: {name!r} has rows of shape {rows}, where {tuple(shape)} is expected"
                f"{': write channels first, np.moveaxis(y, -1, 1)' if last else ''}."
            )
        return dataset

    def _rows_of(
        self, dataset: h5py.Dataset, rows: Which = slice(None), finite: bool = True
    ) -> np.ndarray:
        """Reads rows of a data set, and checks that they are intact and, if asked, finite."""
        name = dataset.name.removeprefix("/")
        with self._intact(repr(name)):
            array = _taken(dataset, rows) if isinstance(rows, np.ndarray) else dataset[rows]
        if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DiemError(f"{self.path}: {name!r} holds non-finite values.")
        return array


def _taken(dataset: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Returns rows in the order of their numbers, of which consecutive ones are read at once."""
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    array = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    apart = np.flatnonzero(np.diff(ascending) != 1) + 1
    for start, stop in itertools.pairwise([0, *apart, len(rows)] if len(rows) else []):
        array[order[start:stop]] = dataset[ascending[start] : ascending[stop - 1] + 1]
    return array


def _native(array: np.ndarray) -> np.ndarray:
    """Returns numbers of any byte order and width in a type that PyTorch has."""
    kind, width = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and width > 8:
        return array.astype(np.float64)
    if kind == "u" and width > 1:
        return array.astype(np.int64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


class HasRows(Protocol):
    """What gives its rows by slices, such as arrays, tensors and :class:`Rows`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray | Tensor: ...


def row_parts(x: HasRows) -> Iterator[np.ndarray | Tensor]:
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
        total: The number of rows in the files, with those that :meth:`keep` forgets.
        held: The rows, if they are held in memory.
        stored: The type of their values on the disk.

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
            self._sources: list[tuple[Reader, h5py.Dataset]] = []
            for file in files:
                dataset = file._numbers(name, shape)
                self._sources.append((file, dataset))
                shape = dataset.shape[1:]
            self.shape: tuple[int, ...] = self._sources[0][1].shape[1:]
            self.stored: np.dtype = self._sources[0][1].dtype
            # Half precision is for the disk alone.
            half = self.stored == np.float16
            self._dtype = np.dtype(np.float32) if half else self.stored
            self._ends = np.cumsum([len(dataset) for _, dataset in self._sources])
            self.total = int(self._ends[-1])
            self._chosen = np.arange(self.total)
            self.held: np.ndarray | None = None
            if len(self) * self._dtype.itemsize * math.prod(self.shape) <= cache_mb * 2**20:
                self.held = self[:]
            else:
                self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.held is None:
            self._opened.close()

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Returns rows ``(N, *shape)``, in the order in which they are asked for.

        Those that are stored in half precision are in single precision here.
        """
        if self.held is not None:
            return self.held[rows]
        rows = self._chosen[rows]
        x = np.empty((len(rows), *self.shape), self._dtype)
        source = np.searchsorted(self._ends, rows, side="right")
        # Consecutive rows of a file are read at once.
        apart = np.flatnonzero((np.diff(rows) != 1) | (np.diff(source) != 0)) + 1
        for start, stop in itertools.pairwise([0, *apart, len(rows)] if len(rows) else []):
            file, dataset = self._sources[source[start]]
            first = rows[start] - self._ends[source[start]] + len(dataset)
            x[start:stop] = file._rows_of(dataset, slice(first, first + stop - start))
        return x

    def keep(self, mask: np.ndarray) -> None:
        """Forgets the rows for which a mask is false."""
        self._chosen = self._chosen[mask]
        if self.held is not None:
            self.held = self.held[mask]
