"""fastMRI's knees: HDF5 files in a folder, or in a tar archive that is read as a stream.

Nothing is extracted to the disk, and no more than one volume is in memory. An archive is
compressed as a whole, so that its volumes can only be read in their own order.

References:
    | fastMRI: An Open Dataset and Benchmarks for Accelerated MRI (Zbontar et al., 2018)
    | https://arxiv.org/abs/1811.08839
"""

import contextlib
import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Self, cast

import numpy as np
from pydantic import Field, model_validator

from diem.components import Count, Integer, option
from diem.data.sets.base import DataSet, Split
from diem.errors import DiemError
from diem.seeds import Stage, rng

__all__ = ["FastMRI"]

OFFICIAL = 973
"""The volumes of fastMRI's single-coil training archive, which is planned with where an archive
would have to be read."""

LARGEST = 2**33
"""The most bytes of a volume of an archive, which is read as a whole; a compressed zero is none."""

RECONSTRUCTION = "reconstruction_rss"
"""The data set of a volume: root-sum-of-squares images, of shape (slices, height, width)."""


class FastMRI(DataSet):
    """Reads slices of fastMRI's single-coil knee volumes, from folders or from its tar archives.

    The slices are scaled by the maximum of those that are taken of their volume, and are read
    volume by volume as they are asked for. A folder's volumes are read once; an archive is read
    from its beginning once for its list of volumes and once for each split. The events have shape
    (1, size, size), black at -2.

    References:
        | fastMRI: An Open Dataset and Benchmarks for Accelerated MRI (Zbontar et al., 2018)
        | https://fastmri.med.nyu.edu
    """

    name = "fastmri"
    given = ("path", "validation_path")

    path: str = option(
        meaning="single-coil volumes: a folder of HDF5 files or the official tar archive",
        min_length=1,
    )
    validation_path: str | None = option(
        None,
        "the volumes that validation and test volumes are drawn from, or null for those of `path`",
        min_length=1,
    )
    validation: Count = option(99, "the number of volumes for validation")
    test: Count = option(100, "the number of volumes for testing")
    slices: list[Annotated[Integer, Field(ge=0)]] = option(
        [10, 41],
        "the first slice of a volume and the one to stop before",
        min_length=2,
        max_length=2,
    )
    size: Count = option(320, "the height and width in pixels")

    @model_validator(mode="after")
    def _has_slices(self) -> Self:
        if self.slices[0] >= self.slices[1]:
            raise ValueError(
                f"{{place}}.slices is {self.slices}, but the first must be less than the second"
            )
        return self

    def event_shape(self) -> tuple[int, ...]:
        return (1, self.size, self.size)

    def counts(self) -> dict[str, int]:
        """Returns the number of slices by split, if every volume has all that are asked for."""
        train = len(_names(self.path)) if Path(self.path).is_dir() else OFFICIAL
        if self._shared():
            train -= self.validation + self.test
        count = self.slices[1] - self.slices[0]
        volumes = {"train": train, "validation": self.validation, "test": self.test}
        return {name: number * count for name, number in volumes.items()}

    def _shared(self) -> bool:
        """Returns whether validation and test volumes are of the same place, however it is told."""
        held_path = self.validation_path
        return held_path is None or os.path.realpath(held_path) == os.path.realpath(self.path)

    def check(self) -> None:
        held_path = self.validation_path or self.path
        if Path(held_path).is_dir():  # an archive would have to be read
            self._check_held(_names(held_path), held_path)

    def _check_held(self, names: Sequence[str], held_path: str) -> None:
        """Refuses more volumes for validation and testing than there are."""
        if self.validation + self.test > len(names) - self._shared():
            raise DiemError(
                f"data.validation and data.test are {self.validation} and {self.test}, which is too"
                f" many for the {len(names)} volumes in {held_path}."
            )

    def load(self, seed: int) -> dict[str, Split]:
        held_path = self.validation_path or self.path
        names = _names(held_path)
        self._check_held(names, held_path)
        order = [names[i] for i in rng(seed, Stage.SPLIT).permutation(len(names))]
        held = self.test + self.validation
        train = order[held:] if self._shared() else _names(self.path)
        return {
            "train": self._split(self.path, train),
            "validation": self._split(held_path, order[self.test : held]),
            "test": self._split(held_path, order[: self.test]),
        }

    def _split(self, path: str, names: Collection[str]) -> Split:
        """Returns the slices of volumes; those of one are a group."""
        read: list[int] = []
        first, last = self.slices

        def slices() -> Iterator[np.ndarray]:
            for x in _slices_of(path, set(names), first, last, self.size):
                read.append(len(x))
                yield 4 * x[:, None] - 2

        def groups() -> Iterator[np.ndarray]:
            yield np.repeat(np.arange(len(read)), read)

        return Split(slices(), groups=groups())


def _names(path: str | Path) -> list[str]:
    """Returns the names of all volumes (``*.h5``) of a folder or an archive, sorted.

    Raises:
        DiemError: If the path is neither, has no volume, or is unsafe or damaged.
    """
    path = Path(path)
    if path.is_dir():
        found = [file.name for file in path.iterdir() if _is_volume(file.name)]
    else:
        with _archive(path) as archive:
            found = [member.name for member in _members(archive, path)]
    if not found:
        raise DiemError(f"{path}: there is no volume (*.h5) in it.")
    if len(set(found)) < len(found):
        raise DiemError(f"{path}: two of its volumes have the same name.")
    return sorted(found)


def _slices_of(
    path: str | Path, wanted: Collection[str], first: int, last: int, size: int
) -> Iterator[np.ndarray]:
    """Yields the slices of one volume after another, divided by the maximum of a volume's.

    Arguments:
        path: The folder or the archive.
        wanted: The names of the volumes to read; they come in the order of :func:`_names` from a
            folder, and in its own from an archive.
        first: The first slice of each volume.
        last: The slice to stop before; a volume may have fewer.
        size: The height and width that a slice must have, in pixels.

    Yields:
        The slices of a volume in [0, 1], float32, with shape :math:`(S, size, size)`.

    Raises:
        DiemError: If a volume cannot be read or does not suit; it names the volume.
    """
    path = Path(path)
    if path.is_dir():
        for name in sorted(wanted):
            yield _volume(path / name, str(path / name), first, last, size)
        return
    with _archive(path) as archive:
        for member in _members(archive, path):
            if member.name in wanted:
                if member.size > LARGEST:
                    raise DiemError(
                        f"{path}: {member.name!r} is of {member.size:,} bytes, more than a volume"
                        f" has ({LARGEST:,})."
                    )
                # HDF5 reads back and forth, for which a compressed stream would start over.
                file = io.BytesIO(cast(IO[bytes], archive.extractfile(member)).read())
                yield _volume(file, f"{path}: {member.name}", first, last, size)


def _volume(file: Path | IO[bytes], name: str, first: int, last: int, size: int) -> np.ndarray:
    """Returns the slices of one volume, in [0, 1]."""
    import h5py

    try:
        with h5py.File(file, "r") as volume:
            x = volume.get(RECONSTRUCTION)
            if not isinstance(x, h5py.Dataset):
                raise DiemError(f"{name}: the data set {RECONSTRUCTION!r} is missing.")
            if x.is_virtual or x.external or x.file != volume:
                raise DiemError(f"{name}: {RECONSTRUCTION!r} lies in another file.")
            if x.ndim != 3 or x.shape[1:] != (size, size) or x.dtype.kind not in "fiu":
                raise DiemError(
                    f"{name}: {RECONSTRUCTION!r} has shape {x.shape} and type {x.dtype}, where"
                    f" numbers of shape (slices, {size}, {size}) are needed."
                )
            count, x = len(x), x[first:last].astype(np.float32)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError):
        raise DiemError(f"{name}: this is no complete HDF5 volume.") from None
    if count <= first:
        raise DiemError(
            f"{name}: it has {count} slices, and data.slices asks for those from {first} on."
        )
    peak = x.max()
    if not np.isfinite(x).all() or x.min() < 0 or peak == 0:
        raise DiemError(f"{name}: {RECONSTRUCTION!r} holds no image of finite, positive values.")
    return x / peak


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[tarfile.TarFile]:
    if not path.is_file():
        raise DiemError(f"data.path: there is no such folder or archive: {path}.")
    try:
        with tarfile.open(path) as archive:
            yield archive
            # The checksum of a compressed archive comes after all members.
            stream = cast(IO[bytes], archive.fileobj)
            while stream.read(2**20):
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError):
        raise DiemError(f"{path}: this is no complete tar archive.") from None


def _members(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """Yields the volumes of an archive, in their order."""
    for member in archive:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise DiemError(f"{path}: the name {member.name!r} leads out of the archive.")
        if not (member.isreg() or member.isdir()):
            raise DiemError(f"{path}: {member.name!r} is a link or a device, which is refused.")
        if member.isreg() and _is_volume(name.name):
            yield member


def _is_volume(name: str) -> bool:
    # Archives made on a Mac have a file of metadata, `._name`, beside each file.
    return name.endswith(".h5") and not name.startswith(".")
