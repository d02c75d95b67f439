"""CIFAR-10, from the archive of its binary version or from a folder.

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
from typing import IO, cast

import numpy as np

from diem.components import Count, option
from diem.data.sets.base import SPLITS, DataSet, Split, from_bytes
from diem.errors import DiemError
from diem.files.downloads import CIFAR10 as ARCHIVE

__all__ = ["CIFAR10"]

SHAPE = (3, 32, 32)
RECORD = 1 + 3 * 32 * 32
CLASSES = 10
MOST = 10_000  # records of a file, which keeps any file that is read small
BATCH = 1000  # images that are yielded at a time

TRAINING = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)
OFFICIAL = {"train": 50_000, "test": 10_000}
"""The images of the official archive."""
FILES = {"train": TRAINING, "test": TEST}


class CIFAR10(DataSet):
    """Reads CIFAR-10, 32x32 photographs of ten classes, from its binary version.

    The paper observes all training images to train on and all test images to validate with, and
    shows posterior samples of test images. Neither of the latter touches the weights, and each has
    a corruption of its own; at the paper's sizes they are the same images.

    The events have shape (3, 32, 32), and the classes are their labels. All images are in the
    official order, whatever the seed.

    References:
        | Learning Multiple Layers of Features from Tiny Images (Krizhevsky, 2009)
        | https://www.cs.toronto.edu/~kriz/cifar.html
    """

    name = "cifar10"
    facts = frozenset({"clean", "labels"})
    step = 4 / 256  # as in the paper

    path: str | None = option(
        None,
        f"the official archive `{ARCHIVE}`, or a folder with its `data_batch_*.bin` and"
        " `test_batch.bin`; null downloads the archive and checks its SHA256",
        min_length=1,
    )
    train: Count = option(50000, "how many of the first training images are to train on")
    validation: Count = option(
        10000,
        "how many of the first test images are for validation. At the paper's sizes validation and"
        " test are the same images, each with its own corruption; neither is trained on",
    )
    test: Count = option(10000, "how many of the last test images are for testing")

    def event_shape(self) -> tuple[int, ...]:
        return SHAPE

    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in SPLITS}

    def shares_images(self) -> bool:
        return self.validation + self.test > self._held("test")

    def check(self) -> None:
        for name in SPLITS:
            source = "train" if name == "train" else "test"
            if getattr(self, name) > self._held(source):
                raise DiemError(
                    f"data.{name} is {getattr(self, name)}, and {self.path or 'the archive'} holds"
                    f" {self._held(source)} {source} images."
                )

    def _held(self, source: str) -> int:
        """Returns how many images there are, of which an archive has the official number."""
        folder = None if self.path is None else Path(self.path)
        if folder is None or not folder.is_dir():
            return OFFICIAL[source]
        files = (folder / name for name in FILES[source])
        return sum(file.stat().st_size // RECORD for file in files if file.is_file())

    def downloads(self) -> str | None:
        return ARCHIVE if self.path is None else None

    def load(self, seed: int) -> dict[str, Split]:
        path = self.path
        if path is None:
            raise DiemError(f"data.path is null, where the archive {ARCHIVE} is needed.")
        label = _labels(path)
        splits = {}
        for name, source in (("train", "train"), ("validation", "test"), ("test", "test")):
            count, total = getattr(self, name), len(label[source])
            if count > total:
                raise DiemError(
                    f"data.{name} is {count}, and {path} holds {total} {source} images."
                )
            rows = range(total - count, total) if name == "test" else range(count)
            x = (from_bytes(batch, self.step) for batch in _images(path, source, rows))
            splits[name] = Split(x, label[source][rows.start : rows.stop].astype(np.int64))
        return splits


def _labels(path: str | Path) -> dict[str, np.ndarray]:
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


def _images(path: str | Path, split: str, rows: range) -> Iterator[np.ndarray]:
    """Yields images in the official order, a few at a time.

    The files of an archive are in another order than the official one, and it is read from its
    beginning for each of them.

    Arguments:
        path: The archive or the folder.
        split: "train" or "test".
        rows: Which images; they are consecutive.

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
            for i in range(0, len(wanted), BATCH):
                yield wanted[i : i + BATCH].reshape(-1, *SHAPE).copy()
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
        raise DiemError(f"data.path: there is no such folder or archive: {path}.")


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
                yield name, _records(cast(IO[bytes], archive.extractfile(member)).read(), where)
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
