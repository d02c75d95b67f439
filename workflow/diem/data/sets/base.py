"""What a data set is."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from diem.components import Component
from diem.errors import DiemError
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SPLITS", "DataSet", "Split", "Told", "from_bytes", "to_bytes"]

SPLITS = ("train", "validation", "test")
"""The splits, in the order in which their random streams are numbered."""


class Split(NamedTuple):
    """One split of a data set.

    Attributes:
        x: The data in [-2, 2], float32, with shape :math:`(N, *event)`; images are
            :math:`(N, C, H, W)`. Data that do not fit in memory are consecutive batches of this
            shape, which can be read once.
        label: The classes, int64, with shape :math:`(N,)`, or :py:`None` where there are none.
        groups: The numbers of the groups of data that resemble each other, such as the slices of a
            volume, with shape :math:`(N,)`, or :py:`None` where each is alone. Of batches they are
            batches too, which are known once all data are read.
    """

    x: np.ndarray | Iterable[np.ndarray]
    label: np.ndarray | None = None
    groups: np.ndarray | Iterable[np.ndarray] | None = None

    def whole(self) -> np.ndarray:
        """Returns all data at once, where they fit in memory; batches are read."""
        return self.x if isinstance(self.x, np.ndarray) else np.concatenate(list(self.x))


class Told(NamedTuple):
    """What a file of observations tells, which then is not told again.

    Attributes:
        operator: The operator's name, or none.
        sigma_y: Whether it holds the noise's standard deviation.
        observation_shape: The shape of one ``y``.
    """

    operator: str | None
    sigma_y: bool
    observation_shape: tuple[int, ...]


class DataSet(Component):
    """A data set: its shape and size, which are known before anything is read, and its data.

    The data are scaled to [-2, 2] by :meth:`load`, and nowhere else.

    Attributes:
        facts: What else there is: ``clean`` data, without which observations are the user's own;
            ``labels`` of the clean data; a ``curve`` on which all of them lie.
        step: How far apart neighbouring 8-bit pixels of its images are in [-2, 2], see
            :func:`from_bytes` and :func:`to_bytes`.
        given: The options that name a file or folder, which must be there before it is read.
    """

    facts: ClassVar[frozenset[str]] = frozenset({"clean"})
    step: ClassVar[float] = 4 / 256
    given: ClassVar[tuple[str, ...]] = ("path",)

    @abc.abstractmethod
    def event_shape(self) -> tuple[int, ...]:
        """Returns the shape of one sample; of an image, it is ``(channels, height, width)``."""

    @abc.abstractmethod
    def counts(self) -> dict[str, int]:
        """Returns the number of samples by split, as far as it is known before they are read.

        Raises:
            DiemError: If only files can tell, and they are not there.
        """

    def check(self) -> None:
        """Raises a :class:`DiemError` if the options ask for more than the files that are there.

        Nothing large is read, and files that are not there are told by :meth:`load`. The sentence
        begins with the key.
        """

    def check_given(self) -> None:
        """Raises a :class:`DiemError` if a file or folder of :attr:`given` is not there.

        What it would be read for removes the data of before first. The sentence begins with the
        key.
        """
        for key in self.given:
            value = getattr(self, key, None)
            if isinstance(value, str) and not Path(value).exists():
                raise DiemError(f"data.{key}: there is no such file or folder: {value}.")

    def shares_images(self) -> bool:
        """Returns whether the same samples are for validation and for testing."""
        return False

    @abc.abstractmethod
    def load(self, seed: int) -> dict[str, Split]:
        """Returns the splits "train", "validation" and "test" of the clean data.

        Arguments:
            seed: The configuration's seed.

        Raises:
            DiemError: If a file is missing, damaged, or does not suit.
        """

    def loaded(self, seed: int) -> dict[str, Split]:
        """Returns what :meth:`load` does, if it is what the class declares.

        Arguments:
            seed: The configuration's seed.

        Raises:
            DiemError: As :meth:`load` does, or if a split is missing, or no array of the shape, the
                number and the type that are declared.
        """
        splits, event, counts = self.load(seed), tuple(self.event_shape()), self.counts()
        for name in SPLITS:
            split = splits.get(name)
            if split is None and counts.get(name) == 0:
                continue  # nothing is trained on where a prior is given
            if not isinstance(split, Split):
                raise DiemError(f"data {self.name!r} loads no Split {name!r}.")
            x: Any = split.x
            if not hasattr(x, "dtype"):
                continue  # batches, which are not read yet
            needed = (counts.get(name, len(x)), *event)
            if not isinstance(x, np.ndarray) or (x.shape, x.dtype) != (needed, np.float32):
                raise DiemError(
                    f"data {self.name!r} loads {name!r} as {type(x).__name__} of shape"
                    f" {tuple(x.shape)} and type {x.dtype}, where an array of shape {needed} and"
                    " type float32 is needed."
                )
        return splits

    def told(self) -> Told | None:
        """Returns what a user's own observations tell of themselves; of clean data, nothing."""
        return None

    def downloads(self) -> str | None:
        """Returns the file of :data:`diem.files.downloads.DOWNLOADS` that is to be the `path`."""
        return None

    def curve(self, seed: int, points: int) -> np.ndarray:
        """Returns points, ``(points, *event)``, along the curve of data with the fact ``curve``."""
        raise TypeError(f"The data set {self.name!r} has no curve.")

    def observation_shape(self) -> tuple[int, ...] | None:
        """Returns the shape of one observation, where observations are the user's own."""
        return None


def from_bytes(x: np.ndarray, step: float) -> np.ndarray:
    """Returns pixels from 0 to 255 in [-2, 2], neighbouring ones a :attr:`DataSet.step` apart."""
    return x.astype(np.float32) * np.float32(step) - 2


def to_bytes(x: Tensor, step: float) -> Tensor:
    """Returns images in [-2, 2] as 8-bit pixels, those of :func:`from_bytes` without loss.

    Values between pixels are rounded, and values beyond are clipped.
    """
    return ((x + 2) / step).round().clamp(0, 255).to(torch.uint8)
