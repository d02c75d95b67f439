"""A user's own observations, of which nothing clean is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.components import Fraction, Number, Positive, option
from diem.data.sets.base import SPLITS, DataSet, Split
from diem.errors import DiemError

if TYPE_CHECKING:
    from diem.files.hdf5 import Reader

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
        0.05, "the fraction of `train` that is held out at random, if the file lacks this split"
    )
    test: Fraction = option(
        0.1, "the fraction of `train` that is held out at random, if the file lacks this split"
    )
    offset: Number = option(
        0.0,
        "`x` is `offset + scale u`, where `u` spans about [-2, 2] and is what is learned. `y`,"
        " `sigma_y`, and what a loaded prior gives, keep the units of the file",
    )
    scale: Positive = option(1.0, "see `offset`")
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
        held = {
            name: max(1, round(getattr(self, name) * counts["train"]))
            for name in SPLITS
            if name not in counts
        }
        counts["train"] -= sum(held.values())
        return counts | held

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
