"""A user's own observations, of which nothing clean is known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diem.components import Fraction, Number, Positive, option
from diem.data.sets.base import SPLITS, DataSet, Split
from diem.errors import DiemError
from diem.operators import OPERATORS

if TYPE_CHECKING:
    import h5py

__all__ = ["HDF5"]


class HDF5(DataSet):
    """Observations of a user's own, in a file that :mod:`diem.data.ingest` describes.

    What it says is read from the file's header; :func:`diem.data.ingest.ingest` takes the
    observations in.
    """

    name = "hdf5"
    facts = frozenset()

    path: str = option(
        meaning="a file of your own observations, see"
        " [docs/your_own_data.md](../docs/your_own_data.md). There are no clean data then: no"
        " ceiling, and only the metrics that need none, which are the default",
        min_length=1,
    )
    validation: Fraction = option(
        0.05,
        "the fraction of `train` that is held out at random, if the file lacks this split; of its"
        " `groups`, where it holds them",
    )
    test: Fraction = option(
        0.1,
        "the fraction of `train` that is held out at random, if the file lacks this split; of its"
        " `groups`, where it holds them",
    )
    offset: Number = option(
        0.0,
        "`x` is `offset + scale u`, where `u` spans about [-2, 2] and is what is learned. `y`,"
        " `sigma_y`, and what a loaded prior gives, keep the units of the file",
    )
    scale: Positive = option(1.0, "see `offset`")

    def event_shape(self) -> tuple[int, ...]:
        """Returns the shape of one ``x``.

        Raises:
            DiemError: If there is no such file, or it does not tell.
        """
        with self._opened() as file:
            shape = np.asarray(file.attrs.get("event_shape", ()))
        if (
            shape.ndim != 1
            or not len(shape)
            or shape.dtype.kind not in "iu"
            or not (shape > 0).all()
        ):
            raise DiemError(
                f"{self.path}: the attribute 'event_shape' must hold positive integers."
            )
        return tuple(shape.tolist())

    def observation_shape(self) -> tuple[int, ...]:
        """Returns the shape of one ``y``.

        Raises:
            DiemError: If there is no such file, or it does not tell.
        """
        with self._opened() as file:
            return self._observations(file, "train").shape[1:]

    def counts(self) -> dict[str, int]:
        import h5py

        with self._opened() as file:
            counts = {
                name: len(self._observations(file, name))
                for name in SPLITS
                if name == "train" or f"{name}/y" in file
            }
            labels = file.get("train/groups")
            if not isinstance(labels, h5py.Dataset) or len(labels) != counts["train"]:
                units = counts["train"]
            else:
                units = len(np.unique(labels[:]))
        # Groups need not be of one size, which only the draw of them can tell.
        held = {
            name: round(max(1, round(getattr(self, name) * units)) * counts["train"] / units)
            for name in SPLITS
            if name not in counts
        }
        counts["train"] -= sum(held.values())
        return counts | held

    def check_observations(self, entry: Mapping[str, Any]) -> None:
        operator = (entry.get("operator") or {}).get("name")
        with self._opened() as file:
            first = next((split for split in SPLITS if f"{split}/y" in file), "train")
            rows = self._observations(file, first).shape[1:]
            named, noises = file.attrs.get("operator"), ("sigma_y", f"{first}/sigma_y")
            noise = any(name in file for name in noises)
        if operator is None and named is None:
            raise DiemError(
                f"operator is missing, and {self.path} does not name it: give a built-in one"
                f" ({', '.join(OPERATORS.names)}) or module:Class."
            )
        if entry.get("sigma_y") is None and not noise:
            raise DiemError(f"sigma_y is missing, and {self.path} does not hold it.")
        if isinstance(named, bytes):
            named = named.decode("utf-8", "replace")
        known, shape = operator or named, self.event_shape()
        keeps = known in OPERATORS.names and OPERATORS.find(known).keeps_shape
        if keeps and rows != shape:
            raise DiemError(
                f"operator: {known!r} keeps the shape of x, which is {shape} by the attribute"
                f" event_shape of {self.path}, and '{first}/y' has rows of shape {rows}: one of"
                " the two is not as it should be, or the operator is another."
            )

    def load(self, seed: int) -> dict[str, Split]:
        raise DiemError(f"{self.path}: these are observations, and there are no clean data.")

    def _observations(self, file: h5py.File, split: str) -> h5py.Dataset:
        import h5py

        y = file.get(f"{split}/y")
        if not isinstance(y, h5py.Dataset) or y.ndim == 0:
            raise DiemError(f"{self.path}: '{split}/y' is missing.")
        return y

    @contextlib.contextmanager
    def _opened(self) -> Iterator[h5py.File]:
        import h5py

        if not Path(self.path).is_file():
            raise DiemError(f"{self.path}: there is no such file.")
        try:
            with h5py.File(self.path, "r") as file:
                yield file
        except (OSError, RuntimeError, KeyError, TypeError, ValueError):
            raise DiemError(
                f"{self.path}: this is no complete HDF5 file (truncated, or of another format)."
            ) from None
