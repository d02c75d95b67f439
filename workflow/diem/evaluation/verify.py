"""Reads results from end to end, to tell whether they are as they were written."""

from collections.abc import Callable, Iterator
from pathlib import Path

from diem.errors import DiemError
from diem.evaluation.rows import read_rows
from diem.files.hdf5 import Reader
from diem.files.tables import read_csv
from diem.files.tensors import load_tensors

__all__ = ["verified"]

UNSIGNED = ("losses.csv",)
"""Tables without a digest, which no job reads."""


def verified(folder: str | Path) -> Iterator[tuple[Path, str | None]]:
    """Reads every file of a folder of results that carries a checksum.

    Arguments:
        folder: The folder.

    Yields:
        Each file, and what is wrong with it, or none.

    Raises:
        DiemError: If there is no such folder, or nothing to verify in it.
    """
    known: dict[str, Callable[[Path], object]] = {
        ".h5": _read_hdf5,
        ".safetensors": load_tensors,
        ".csv": _read_table,
    }
    paths = sorted(
        path
        for path in Path(folder).rglob("*")
        if path.suffix in known
        and path.name not in UNSIGNED
        # What a job keeps to go on with is its own to judge.
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise DiemError(f"{folder}: there are no results in this folder.")
    for path in paths:
        try:
            known[path.suffix](path)
        except DiemError as error:
            yield path, str(error)
        else:
            yield path, None


def _read_hdf5(path: Path) -> None:
    with Reader(path) as file:
        file.verify()


def _read_table(path: Path) -> None:
    if path.name == "metrics.csv":
        read_rows([path])
    else:
        read_csv(path)
