"""Records of CIFAR-10's binary version, from its archive or from a folder.

Nothing is extracted to the disk and nothing is unpickled: a record is one byte of label and 3,072
bytes of pixels, and an archive is read as a stream. No more than one file, of 10,000 records, is in
memory.

References:
    | Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009)
    | https://www.cs.toronto.edu/~kriz/cifar.html
"""

import gzip
import tarfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from diem.errors import DiemError

__all__ = ["images", "labels"]

SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
CLASSES = 10
MOST = 10_000  # records of a file, which keeps any file that is read small
PART = 1000  # images that are yielded at a time

TRAINING = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)
FILES = {"train": TRAINING, "test": TEST}


def labels(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the classes of the official training and test images, and checks all files.

    Arguments:
        path: The archive ``cifar-10-binary.tar.gz``, or a folder that holds ``data_batch_1.bin`` to
            ``data_batch_5.bin``, or some of these, and ``test_batch.bin``.

    Returns:
        By the keys "train" and "test": the classes, uint8, with shape (N,), in the official order.

    Raises:
        DiemError: If a file is missing or damaged; it names the file.
    """
    found = {}
    for name, records in _files(Path(path), (*TRAINING, *TEST)):
        found[name] = records[:, 0].copy()
        del records  # before the next file is read
    for names in FILES.values():
        if found.keys().isdisjoint(names):
            raise DiemError(f"{path}: there is no {names[0]} in it.")
    return {
        split: np.concatenate([found[name] for name in names if name in found])
        for split, names in FILES.items()
    }


def images(path: str | Path, split: str, rows: range) -> Iterator[np.ndarray]:
    """Yields some of the images in the official order, a few at a time.

    The files of an archive are in another order than the official one, and it is read from its
    beginning for each of them.

    Arguments:
        path: The archive or the folder.
        split: "train" or "test".
        rows: Which images, consecutive ones.

    Yields:
        The images, uint8, with shape (N, 3, 32, 32).

    Raises:
        DiemError: If a file is damaged; it names the file.
    """
    start = 0
    for name in FILES[split]:
        if start >= rows.stop:
            return
        for _, records in _files(Path(path), (name,)):
            wanted = records[max(rows.start - start, 0) : rows.stop - start, 1:]
            start += len(records)
            for i in range(0, len(wanted), PART):
                yield wanted[i : i + PART].reshape(-1, *SHAPE).copy()
            del records, wanted  # before the next file is read


def _files(path: Path, names: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Yields those of the files that there are, one after another: the name and the records."""
    if path.is_dir():
        for name in names:
            file = path / name
            if file.is_file():
                _check_size(file.stat().st_size, str(file))
                yield name, _records(file.read_bytes(), str(file))
    elif path.is_file():
        yield from _archived(path, names)
    else:
        raise DiemError(f"`data.path`: there is no such folder or archive: {path}.")


def _archived(path: Path, names: Collection[str]) -> Iterator[tuple[str, np.ndarray]]:
    found = set()
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream) as archive:
            for member in archive:
                name, where = PurePosixPath(member.name).name, f"{path}: {member.name}"
                if name not in names:
                    continue
                if not member.isreg() or name in found:
                    raise DiemError(f"{where} is a link or is there twice, which is refused.")
                found.add(name)
                _check_size(member.size, where)
                yield name, _records(archive.extractfile(member).read(), where)
            # The checksum of all of it is at the end of the stream.
            while stream.read(2**20):
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error):
        raise DiemError(f"{path}: this is no complete tar.gz archive.") from None


def _check_size(size: int, where: str) -> None:
    count, rest = divmod(size, RECORD)
    if rest or not 0 < count <= MOST:
        raise DiemError(
            f"{where}: it has {size:,} bytes, where 1 to {MOST:,} records of {RECORD:,} bytes are"
            " needed."
        )


def _records(content: bytes, where: str) -> np.ndarray:
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() >= CLASSES:
        raise DiemError(f"{where}: it holds labels that are none of the {CLASSES} classes.")
    return records
