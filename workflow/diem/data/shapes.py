"""What a configuration must know of a user's file before anything runs, read without PyTorch."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from diem.errors import DiemError

if TYPE_CHECKING:
    import h5py

__all__ = ["event_shape", "observation_shape"]


def event_shape(path: str | Path) -> tuple[int, ...]:
    """Returns the shape of one ``x`` of a file of observations, see :mod:`diem.data.ingest`.

    Raises:
        DiemError: If there is no such file, or it does not tell.
    """
    import numpy as np

    with _opened(path) as file:
        shape = np.asarray(file.attrs.get("event_shape", ()))
    if shape.ndim != 1 or not len(shape) or shape.dtype.kind not in "iu" or not (shape > 0).all():
        raise DiemError(f"{path}: the attribute 'event_shape' must hold positive integers.")
    return tuple(shape.tolist())


def observation_shape(path: str | Path) -> tuple[int, ...]:
    """Returns the shape of one ``y`` of a file of observations.

    Raises:
        DiemError: If there is no such file, or it does not tell.
    """
    with _opened(path) as file:
        if "train/y" not in file:
            raise DiemError(f"{path}: 'train/y' is missing.")
        return file["train/y"].shape[1:]


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator["h5py.File"]:
    import h5py

    if not Path(path).is_file():
        raise DiemError(f"{path}: there is no such file.")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, TypeError, ValueError):
        raise DiemError(
            f"{path}: this is no complete HDF5 file (truncated, or of another format)."
        ) from None
