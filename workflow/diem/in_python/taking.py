"""Arrays and operators that are given in Python, taken in as a file of observations."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from diem.data.ingest import write_observations
from diem.data.observations import check_noise, numbers
from diem.data.validate import RESCALE, check_file
from diem.errors import DiemError
from diem.operators import OPERATORS, Operator
from diem.planning.beginning import shows_values

__all__ = ["ObservationWarning", "array_of", "check_fit", "checked", "take_in"]


class ObservationWarning(UserWarning):
    """What is implausible about observations."""


def array_of(y: Any) -> np.ndarray:
    """Returns observations in single precision, NaN where they are missing.

    Arguments:
        y: An array, a tensor or nested lists, of shape ``(N, *observation)``.

    Raises:
        DiemError: If they are no real numbers of such a shape, or infinite.
    """
    values = numbers(y, "y")
    if values.ndim < 2 or 0 in values.shape:
        raise DiemError(
            f"y has shape {values.shape}, where (observations, ...) is needed, one a row."
        )
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if np.isinf(values).any():
        place = tuple(np.argwhere(np.isinf(values))[0].tolist())
        raise DiemError(
            f"y holds infinite values (as float32), first at {place}: what is missing is NaN."
        )
    if np.isnan(values).all():
        raise DiemError("y: no value is observed, all of them are NaN.")
    return values


def _noise(given: Any, y: np.ndarray) -> tuple[Any, np.ndarray | None]:
    """Returns the noise of all observations, or else that of each of them.

    Arguments:
        given: The standard deviation: one number, one an observation ``(N,)``, one a value
            ``(*observation)``, or what broadcasts to ``y``.
        y: The observations.
    """
    sigma_y = numbers(given, "sigma_y").astype(float)
    count, shape = len(y), y.shape[1:]
    known = ~np.isnan(sigma_y)
    check_noise(sigma_y[known] if known.any() else sigma_y, "sigma_y")
    if sigma_y.shape == (count,) == shape:
        raise DiemError(
            f"sigma_y has shape {sigma_y.shape}, one number an observation or one a value: say"
            f" which by the shape ({count}, 1) or (1, {count})."
        )
    if sigma_y.size == 1:
        return float(sigma_y.reshape(())), None
    if sigma_y.shape in (shape, (1, *shape)):
        return sigma_y.reshape(shape), None
    if len(sigma_y) == sigma_y.size == count:
        return None, sigma_y.reshape(count)
    try:
        return None, np.broadcast_to(sigma_y, y.shape)
    except ValueError:
        raise DiemError(
            f"sigma_y has shape {sigma_y.shape}, where (), ({count},), {shape} or what broadcasts"
            f" to {y.shape} is needed."
        ) from None


def check_fit(y: np.ndarray, operator: Operator) -> None:
    """Raises a :class:`DiemError` if operators are not those of so many such observations."""
    if operator.observation_shape != y.shape[1:]:
        raise DiemError(
            f"y has rows of shape {y.shape[1:]}, where the operator of x with shape"
            f" {operator.event_shape} gives {operator.observation_shape}."
        )
    if len(operator) not in (1, len(y)):
        raise DiemError(f"y holds {len(y)} observations, and there are {len(operator)} operators.")


def take_in(path: Path, y: np.ndarray, operator: Operator, name: str, sigma_y: Any) -> None:
    """Writes the file of observations.

    Arguments:
        path: The file to write.
        y: The observations, see :func:`array_of`.
        operator: Their operators, one an observation or one for all.
        name: The name of the operator's class, see :func:`diem.operators.given.importable`.
        sigma_y: The noise's standard deviation.

    Raises:
        DiemError: If the noise does not fit, or a parameter.
    """
    for_all, each = _noise(sigma_y, y)
    train: dict[str, Any] = {"y": y, **operator.to("cpu").parameters}
    if each is not None:
        train["sigma_y"] = each
    built_in = name if name in OPERATORS.names else None
    write_observations(path, {"train": train}, built_in, for_all, operator.event_shape)


def checked(path: Path, name: str | None, operator: Operator) -> None:
    """Checks a file as the workflow does, and warns of what is implausible.

    Arguments:
        path: The file.
        name: The name of its operator, if it does not tell it.
        operator: The operators of some observations. Where they show values, their scale is taken
            care of, see :mod:`diem.planning.beginning`.

    Raises:
        DiemError: If it cannot be used.
    """
    scaled = shows_values(operator)
    for level, sentence in check_file(path, name):
        if level == "error":
            raise DiemError(sentence)
        if level == "warning" and not (scaled and sentence.endswith(RESCALE)):
            warnings.warn(sentence, ObservationWarning, stacklevel=3)
