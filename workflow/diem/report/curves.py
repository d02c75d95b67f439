"""The loss curves that trainings have written, read back."""

from pathlib import Path

import pandas as pd

from diem.em.laps import lap_number
from diem.errors import DiemError
from diem.files.atomic import REMEDY

__all__ = ["laps_of", "read_curve"]


def laps_of(run: Path) -> dict[int, Path]:
    """Returns the folders of a run's laps by their numbers, in their order.

    Arguments:
        run: The run's folder.
    """
    # Of a lap that was done as the last one too, the folder of that comes last, and is taken.
    laps = {lap_number(path.name.removeprefix("lap_")): path for path in sorted(run.glob("lap_*"))}
    return dict(sorted(laps.items()))


def read_curve(path: str | Path) -> pd.DataFrame:
    """Reads a loss curve: a row for every few optimizer steps, see :func:`diem.em.training.train`.

    Arguments:
        path: The file, ``losses.csv`` beside a prior.

    Raises:
        DiemError: If it is no loss curve.
    """
    try:
        curve = pd.read_csv(path).astype(float)
        numbers = curve[["step", "loss", "validation_loss", "learning_rate"]]
        if curve.empty or numbers.isna().any(axis=None):
            raise ValueError
    except (OSError, ValueError, KeyError):  # pandas' errors of parsing are ValueErrors
        raise DiemError(f"{path}: this is no table of losses: {REMEDY}.") from None
    return curve
