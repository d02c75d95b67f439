"""A user's own observations, of which nothing clean is known."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

from diem.components import Fraction, Number, Positive, option
from diem.data.sets.base import SPLITS, DataSet, Split, Told
from diem.errors import DiemError, placed

if TYPE_CHECKING:
    from diem.files.hdf5 import Reader

__all__ = ["FRACTIONS", "HDF5", "held_out"]

FRACTIONS = {"validation": 0.05, "test": 0.1}
"""What is held out of ``train`` for a split that a file lacks, unless it is said."""


def held_out(path: str, scenes: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Returns how many of the different ``x`` of ``train`` are held out for each split.

    Arguments:
        path: The file, for the sentence.
        scenes: The number of different ``x``.
        fractions: The fraction to hold out by split, of the splits that the file lacks.

    Raises:
        DiemError: If none would be left.
    """
    sizes = {name: max(1, round(fraction * scenes)) for name, fraction in fractions.items()}
    if sizes and sum(sizes.values()) >= scenes:
        raise DiemError(
            f"{path}: 'train' holds {scenes} different x (or groups), too few to hold out"
            f" {' and '.join(sizes)}."
        )
    return sizes


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
        FRACTIONS["validation"],
        "the fraction of `train` that is held out at random, if the file lacks this split; of its"
        " `groups`, where it holds them",
    )
    test: Fraction = option(
        FRACTIONS["test"],
        "the fraction of `train` that is held out at random, if the file lacks this split; of its"
        " `groups`, where it holds them",
    )
    offset: Number | list[Number] = option(
        0.0,
        "`x` is `offset + scale u`, where `u` spans about [-2, 2] and is what is learned. `y`,"
        " `sigma_y`, and what a loaded prior gives, keep the units of the file. It may be a"
        " list, one number a column of vectors or a channel of other data",
    )
    scale: Positive | list[Positive] = option(1.0, "see `offset`; a list needs the operator `mask`")
    links: bool = option(
        False,
        "lets the file read others of this machine: links, external storage, virtual data sets",
    )

    def event_shape(self) -> tuple[int, ...]:
        """Returns the shape of one ``x``.

        Raises:
            DiemError: If there is no such file, or it does not tell.
        """
        with self._opened() as file:
            return file.sizes("event_shape")

    def observation_shape(self) -> tuple[int, ...]:
        """Returns the shape of one ``y``.

        Raises:
            DiemError: If there is no such file, or it does not tell.
        """
        with self._opened() as file:
            return self._shape(file, "train")[1:]

    def counts(self) -> dict[str, int]:
        with self._opened() as file:
            counts = {
                name: self._shape(file, name)[0]
                for name in SPLITS
                if name == "train" or f"{name}/y" in file
            }
            units = self._units(file) if "train/groups" in file else counts["train"]
        # Groups need not be of one size, which only the draw of them can tell.
        each = counts["train"] / units
        held = {name: round(n * each) for name, n in self._held(counts, units).items()}
        counts["train"] -= sum(held.values())
        return counts | held

    def _units(self, file: Reader) -> int:
        """Returns the number of different groups, or else ``x``: whole ones are held out."""
        if "train/groups" in file:
            return len(np.unique(file.labels("train/groups")))
        if "train/index" in file:
            return len(np.unique(file.read("train/index", shape=())))
        return self._shape(file, "train")[0]

    def _held(self, there: Collection[str], units: int) -> dict[str, int]:
        """Returns how many of the units of ``train`` are held out for other splits."""
        lacking = [name for name in SPLITS if name not in there]
        return held_out(self.path, units, {name: getattr(self, name) for name in lacking})

    def check(self) -> None:
        with placed("data.path: "), self._opened() as file:
            there = [name for name in SPLITS if f"{name}/y" in file]
            self._held(there, self._units(file))
        shape = self.event_shape()
        for key in ("offset", "scale"):
            values = getattr(self, key)
            if isinstance(values, list) and len(values) != shape[0]:
                raise DiemError(
                    f"data.{key} is a list of {len(values)}, which is one number a column of"
                    f" vectors or a channel, and x has shape {shape}."
                )

    def told(self) -> Told:
        with self._opened() as file:
            noise = any(f"{group}sigma_y" in file for group in ("", *(f"{s}/" for s in SPLITS)))
            first = next((split for split in SPLITS if f"{split}/y" in file), "train")
            return Told(file.text("operator"), noise, self._shape(file, first)[1:])

    def load(self, seed: int) -> dict[str, Split]:
        raise DiemError(f"{self.path}: these are observations, and there are no clean data.")

    def _shape(self, file: Reader, split: str) -> tuple[int, ...]:
        shape = file.shape(f"{split}/y")
        if not shape:
            raise DiemError(f"{self.path}: '{split}/y' is a single value, where rows are expected.")
        return shape

    def _opened(self) -> Reader:
        from diem.files.foreign import check_foreign
        from diem.files.hdf5 import Reader

        check_foreign(self.path, self.links)
        return Reader(self.path)
