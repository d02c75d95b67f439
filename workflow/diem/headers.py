"""What a configuration must know of a user's file before anything runs, read without PyTorch."""

from pathlib import Path

from .errors import DiemError

__all__ = ["event_shape"]


def event_shape(path: str | Path) -> tuple[int, ...]:
    """Returns the shape of one ``x`` of a file of observations, see :mod:`diem.own`.

    Raises:
        DiemError: If there is no such file, or it does not tell.
    """
    import h5py
    import numpy as np

    if not Path(path).is_file():
        raise DiemError(f"{path}: there is no such file.")
    try:
        with h5py.File(path, "r") as file:
            shape = np.asarray(file.attrs.get("event_shape", ()))
    except (OSError, RuntimeError, TypeError, ValueError):
        raise DiemError(
            f"{path}: this is no complete HDF5 file (truncated, or of another format)."
        ) from None
    if shape.ndim != 1 or not len(shape) or shape.dtype.kind not in "iu" or not (shape > 0).all():
        raise DiemError(f"{path}: the attribute 'event_shape' must hold positive integers.")
    return tuple(shape.tolist())
