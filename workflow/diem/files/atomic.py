"""Files that are whole or not there: a temporary name in the same folder, then renamed."""

import contextlib
import errno
import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from diem.errors import DiemError

__all__ = ["LossyFile", "atomic", "discard"]

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
        # The bytes are on the disk before the name is, and the name before what follows.
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        # Safetensors wraps the message of the system.
        wrapped = re.search(r"I/O error: (.*) \(os error \d+\)", str(error))
        reason = wrapped[1] if wrapped else getattr(error, "strerror", None) or str(error)
        raise DiemError(f"{path} cannot be written: {reason}.") from error
    finally:
        discard(temporary)


def _sync(path: Path) -> None:
    """Has a file, or the names in a folder, written to the disk, where its system can."""
    if not path.exists():
        return  # what follows tells it
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):
            raise
    finally:
        os.close(opened)


def discard(path: Path) -> None:
    """Removes a file or a folder, if it is there and can be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


class LossyFile(io.FileIO):
    """A file that takes whatever is written: after an error of the disk, all of it is lost.

    HDF5 does not survive an error of the disk, and a log's must not end a job.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
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
