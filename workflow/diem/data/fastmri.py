"""Volumes of fastMRI: HDF5 files in a folder, or in a tar archive that is read as a stream.

Nothing is extracted to the disk, and no more than one volume is in memory. An archive is
compressed as a whole, so that its volumes can only be read in their own order.

References:
    | fastMRI: An Open Dataset and Benchmarks for Accelerated MRI (Zbontar et al., 2018)
    | https://arxiv.org/abs/1811.08839
"""

import contextlib
import io
import lzma
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import h5py
import numpy as np

from diem.errors import DiemError

__all__ = ["names", "slices"]

RECONSTRUCTION = "reconstruction_rss"
"""The data set of a volume: root-sum-of-squares images, of shape (slices, height, width)."""


def names(path: str | Path) -> list[str]:
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


def slices(
    path: str | Path, wanted: Collection[str], first: int, last: int, size: int
) -> Iterator[np.ndarray]:
    """Yields the slices of one volume after another, divided by the volume's maximum.

    Arguments:
        path: The folder or the archive.
        wanted: The names of the volumes to read; they come in the order of :func:`names` from a
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
            yield _slices(path / name, str(path / name), first, last, size)
        return
    with _archive(path) as archive:
        for member in _members(archive, path):
            if member.name in wanted:
                # HDF5 reads back and forth, for which a compressed stream would start over.
                file = io.BytesIO(archive.extractfile(member).read())
                yield _slices(file, f"{path}: {member.name}", first, last, size)


def _slices(file: Path | IO[bytes], name: str, first: int, last: int, size: int) -> np.ndarray:
    try:
        with h5py.File(file, "r") as volume:
            x = volume.get(RECONSTRUCTION)
            if not isinstance(x, h5py.Dataset):
                raise DiemError(f"{name}: the data set {RECONSTRUCTION!r} is missing.")
            if x.ndim != 3 or x.shape[1:] != (size, size) or x.dtype.kind not in "fiu":
                raise DiemError(
                    f"{name}: {RECONSTRUCTION!r} has shape {x.shape} and type {x.dtype}, where"
                    f" numbers of shape (slices, {size}, {size}) are needed."
                )
            x = x[:].astype(np.float32)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError):
        raise DiemError(f"{name}: this is no complete HDF5 volume.") from None
    if len(x) <= first:
        raise DiemError(
            f"{name}: it has {len(x)} slices, and `data.slices` asks for those from {first} on."
        )
    peak = x.max()
    if not np.isfinite(x).all() or x.min() < 0 or peak == 0:
        raise DiemError(f"{name}: {RECONSTRUCTION!r} holds no image of finite, positive values.")
    return x[first:last] / peak


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[tarfile.TarFile]:
    if not path.is_file():
        raise DiemError(f"`data.path`: there is no such folder or archive: {path}.")
    try:
        with tarfile.open(path) as archive:
            yield archive
            # The checksum of a compressed archive comes after all members.
            while archive.fileobj.read(2**20):
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
