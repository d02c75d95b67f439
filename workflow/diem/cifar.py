"""Records of CIFAR-10's binary version, from its archive or from a folder.

Nothing is extracted to the disk and nothing is unpickled: a record is one byte of label and 3,072
bytes of pixels, and an archive is read as a stream.

References:
    | Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009)
    | https://www.cs.toronto.edu/~kriz/cifar.html
"""

import gzip
import tarfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np

from .errors import DiemError

__all__ = ["read"]

SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
CLASSES = 10
MOST = 10_000  # records of a file, which keeps any file that is read small

TRAINING = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)


def read(path: str | Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the images and labels of the official training and test files.

    Arguments:
        path: The archive ``cifar-10-binary.tar.gz``, or a folder that holds ``data_batch_1.bin`` to
            ``data_batch_5.bin``, or some of these, and ``test_batch.bin``.

    Returns:
        By the keys "train" and "test": the images, uint8, with shape (N, 3, 32, 32), and their
        classes, uint8, with shape (N,), in the official order.

    Raises:
        DiemError: If a file is missing or damaged; it names the file.
    """
    path = Path(path)
    if path.is_dir():
        found = _folder(path)
    elif path.is_file():
        found = _archive(path)
    else:
        raise DiemError(f"`data.path`: there is no such folder or archive: {path}.")

    splits = {}
    for split, names in (("train", TRAINING), ("test", TEST)):
        records = [found[name] for name in names if name in found]
        if not records:
            raise DiemError(f"{path}: there is no {names[0]} in it.")
        records = np.concatenate(records)
        splits[split] = records[:, 1:].reshape(-1, *SHAPE), records[:, 0]
    return splits


def _folder(path: Path) -> dict[str, np.ndarray]:
    found = {}
    for name in (*TRAINING, *TEST):
        file = path / name
        if file.is_file():
            _check_size(file.stat().st_size, str(file))
            found[name] = _records(file.read_bytes(), str(file))
    return found


def _archive(path: Path) -> dict[str, np.ndarray]:
    found = {}
    try:
        with gzip.open(path) as stream, tarfile.open(fileobj=stream) as archive:
            for member in archive:
                name, where = PurePosixPath(member.name).name, f"{path}: {member.name}"
                if name not in (*TRAINING, *TEST):
                    continue
                if not member.isreg() or name in found:
                    raise DiemError(f"{where} is a link or is there twice, which is refused.")
                _check_size(member.size, where)
                found[name] = _records(archive.extractfile(member).read(), where)
            # The checksum of all of it is at the end of the stream.
            while stream.read(2**20):
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error):
        raise DiemError(f"{path}: this is no complete tar.gz archive.") from None
    return found


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
