"""The results folder: who writes it, and what lies beside its files to go on with."""

import fcntl
import glob
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from diem.errors import DiemError

__all__ = [
    "check_writable",
    "checkpoint_file",
    "hold",
    "pieces_folder",
    "remove_all_pieces",
    "remove_pieces",
]


def check_writable(folder: str | Path, asked: str = "results") -> None:
    """Raises a :class:`DiemError` if a folder is not writable, or could not be made.

    Arguments:
        folder: The folder.
        asked: What asks for it: a key, or the name of a file.
    """
    path = Path(folder).absolute()
    while not path.exists():
        path = path.parent
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        raise DiemError(f"{asked}: the folder {str(folder)!r} cannot be written ({path}).")


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


def pieces_folder(output: str | Path, fingerprint: str) -> Path:
    """Returns where the pieces of the making of a file are kept, see :mod:`diem.jobs.resume`.

    Arguments:
        output: The file.
        fingerprint: What the pieces depend on.
    """
    return Path(f"{output}.resume-{fingerprint}")


def checkpoint_file(output: str | Path) -> Path:
    """Returns where the checkpoint of a training run is kept, for the prior that it makes."""
    return Path(f"{output}.resume")


def remove_pieces(*outputs: str | Path) -> None:
    """Removes what was kept to go on with the making of files, of every fingerprint.

    So are the temporary files of attempts that were killed, see :func:`diem.files.atomic.atomic`.

    Arguments:
        outputs: The files, which are complete: Snakemake has taken note of it, or nothing needs to.
    """
    for output in map(Path, outputs):
        name = glob.escape(output.name)
        # A user's folder holds other things.
        for pattern in (f"{name}.resume", f"{name}.resume-*"):
            _remove(output.parent.glob(pattern))
        for path in list(output.parent.glob(f".{name}.*.tmp")):
            if path.name[len(output.name) + 2 : -len(".tmp")].isdigit():
                _remove([path])


def remove_all_pieces(folder: str | Path) -> None:
    """Removes what was kept to go on with any file in a folder, all of which are complete.

    So are the temporary files of jobs that were killed, see :func:`diem.files.atomic.atomic`.
    """
    for pattern in ("*.resume*", ".*.tmp"):
        _remove(Path(folder).rglob(pattern))


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        # Jobs that begin together remove the same.
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
