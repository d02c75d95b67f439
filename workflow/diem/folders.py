"""The results folder: whether it can be written, and that one workflow at a time writes it."""

import fcntl
import os
from pathlib import Path
from typing import IO

from .errors import DiemError

__all__ = ["check_writable", "hold"]


def check_writable(folder: str | Path) -> None:
    """Raises a :class:`DiemError` if a folder is not writable, or could not be made."""
    path = Path(folder).absolute()
    while not path.exists():
        path = path.parent
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        raise DiemError(f"results: the folder {str(folder)!r} cannot be written ({path}).")


def hold(folder: str | Path) -> IO[str]:
    """Makes a folder this process's own until it ends, however it ends.

    The operating system releases the lock of a killed process, so that the same command can be
    given again at once; a lock file would have to be removed by hand.

    Arguments:
        folder: The folder, which is made if it is missing.

    Returns:
        The open lock file, to be kept open.

    Raises:
        DiemError: If another process holds the folder.
    """
    path = Path(folder) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise DiemError(
            f"results: another workflow is writing to the folder {str(folder)!r}."
        ) from None
    except OSError:
        # A file system without locks; Snakemake's own bookkeeping must do.
        pass
    return file
