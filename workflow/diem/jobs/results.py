"""The results folder: who writes it, and what lies beside its files to go on with."""

import fcntl
import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from diem.errors import DiemError
from diem.files.atomic import discard

__all__ = [
    "MARK",
    "check_folder",
    "check_writable",
    "checkpoint_file",
    "held",
    "hold",
    "pieces_folder",
    "remove_pieces",
    "results_folder",
    "unfinished",
]

MARK = ".diem.lock"
"""The file that marks a folder as one of results, and is locked by who writes there."""


def check_folder(folder: str | Path, asked: str = "results") -> Path:
    """Refuses a folder that is none and cannot be made, for a plan, which writes nothing.

    Arguments:
        folder: The folder.
        asked: What asks for it: a key, or the name of a file.

    Returns:
        The nearest folder above that is there, or itself.

    Raises:
        DiemError: If a file or a link to nothing stands where a folder is needed.
    """
    path = Path(folder).absolute()
    try:
        while not path.exists():
            if path.is_symlink():
                raise DiemError(f"{asked}: {str(path)!r} is a link to what is not there.")
            path = path.parent
    except OSError as error:  # such as a name that is too long
        raise _unwritable(asked, folder, error.strerror) from None
    if not path.is_dir():
        raise _unwritable(asked, folder, path)
    return path


def _unwritable(asked: str, folder: str | Path, reason: object) -> DiemError:
    return DiemError(f"{asked}: the folder {str(folder)!r} cannot be written ({reason}).")


def check_writable(folder: str | Path, asked: str = "results") -> None:
    """Raises a :class:`DiemError` if a folder is not writable, or could not be made.

    Arguments:
        folder: The folder.
        asked: What asks for it: a key, or the name of a file.
    """
    path = check_folder(folder, asked)
    if not os.access(path, os.W_OK | os.X_OK):
        raise _unwritable(asked, folder, path)


def hold(folder: str | Path, asked: str = "results") -> IO[str]:
    """Makes a folder this process's own until it ends, however it ends.

    The operating system releases the lock of a killed process, so that the same command can be
    given again at once. The lock file stays, and marks the folder as one of results.

    Arguments:
        folder: The folder, which is made if it is missing.
        asked: What asks for it: a key, or the name of an argument.

    Returns:
        The open lock file, to be kept open.

    Raises:
        DiemError: If the folder cannot be written, holds files and is not marked, or if another
            process holds it.
    """
    check_writable(folder, asked)
    path = Path(folder) / MARK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise _unwritable(asked, folder, getattr(error, "strerror", error)) from None
    foreign = sorted(p.name for p in path.parent.iterdir() if not p.name.startswith("."))
    if foreign and not path.exists():
        raise DiemError(
            f"{asked}: the folder {str(folder)!r} holds files that this workflow has not marked as"
            f" its own ({', '.join(foreign[:3])}{', ...' if foreign[3:] else ''}): choose another"
            f" folder, or make an empty file {str(path)!r} if they are an earlier version's."
        )
    try:
        file = path.open("a", encoding="utf-8")
    except OSError as error:
        raise DiemError(
            f"{asked}: {path} cannot be written ({error.strerror}): it is another user's, or of"
            " another program."
        ) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise DiemError(
            f"{asked}: another workflow is writing to the folder {str(folder)!r}."
        ) from None
    except OSError:
        # A file system without locks; Snakemake's own bookkeeping must do.
        pass
    return file


def check_replaced(output: str | Path, is_own: Callable[[Path], bool], what: str) -> None:
    """Refuses to write over a file that is another's: the user's, or one of results.

    Arguments:
        output: The file to write.
        is_own: Whether a file that is there is one of the kind that is written. It may raise a
            :class:`DiemError` of a file that it cannot read.
        what: The kind, for the sentence.

    Raises:
        DiemError: If there is such a file.
    """
    path = Path(output)
    if not path.exists():
        return
    if any((folder / MARK).is_file() for folder in path.resolve().parents):
        reason = "it is in a folder of results"
    else:
        try:
            reason = "" if is_own(path) else f"it holds no {what}"
        except DiemError:
            reason = f"it holds no {what}"
    if reason:
        raise DiemError(
            f"{output}: this file is there already, and {reason}: give the output another name."
        )


def results_folder(folder: str | Path) -> Path:
    """Returns a folder that is marked as one of results.

    Raises:
        DiemError: If it is none.
    """
    if not (Path(folder) / MARK).is_file():
        raise DiemError(f"{folder}: this is no folder of results: it has no {MARK}.")
    return Path(folder)


def held(folder: str | Path) -> bool:
    """Returns whether a process holds a folder of results, as far as the file system can tell."""
    with (Path(folder) / MARK).open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
    return False


def unfinished(output: str | Path) -> Path:
    """Returns the hidden folder in which all is kept to go on with the making of a file."""
    output = Path(output)
    return output.with_name(f".{output.name}.diem")


def pieces_folder(output: str | Path, fingerprint: str) -> Path:
    """Returns where the pieces of the making of a file are kept, see :mod:`diem.jobs.resume`.

    Arguments:
        output: The file.
        fingerprint: What the pieces depend on.
    """
    return unfinished(output) / f"pieces-{fingerprint}"


def checkpoint_file(output: str | Path) -> Path:
    """Returns where the checkpoint of a training run is kept, for the prior that it makes."""
    return unfinished(output) / "checkpoint"


def remove_pieces(*outputs: str | Path) -> None:
    """Removes what was kept to go on with the making of files, of every fingerprint.

    So are the temporary files of attempts that were killed, see :func:`diem.files.atomic.atomic`.
    Nothing else is: a user's folder holds other things.

    Arguments:
        outputs: The files, which are complete: Snakemake has taken note of it, or nothing needs to.
    """
    for output in map(Path, outputs):
        # Jobs that begin together remove the same.
        discard(unfinished(output))
        for path in output.parent.glob(f".{glob.escape(output.name)}.*.tmp"):
            if path.name[len(output.name) + 2 : -len(".tmp")].isdigit():
                discard(path)
