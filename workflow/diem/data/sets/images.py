"""A folder of image files, read as they are asked for, with every file that does not fit named."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from diem.components import Count, Integer, option
from diem.data.sets.base import DataSet, Split, from_bytes
from diem.errors import DiemError
from diem.seeds import Stage, rng

__all__ = ["Images"]

ENDINGS = {".jpeg", ".jpg", ".png"}

BATCH = 64
"""The images that are in memory at a time."""

Natural = Annotated[Integer, Field(ge=0)]


class Images(DataSet):
    """Reads a folder of colour images, PNG or JPEG files of one size.

    The events have shape (3, size, size). A split without images is left out.
    """

    name = "images"
    step = 4 / 255

    path: str = option(
        meaning="a folder of PNG or JPEG files, 8-bit RGB and of one size; others are named and"
        " refused",
        min_length=1,
    )
    train: Natural | None = option(
        None, "the number of images to train on, drawn at random; null takes all the others"
    )
    validation: Natural = option(1000, "the number of images for validation")
    test: Natural = option(1000, "the number of images for testing")
    size: Count = option(256, "the images' height and width; none is scaled or cut")

    def event_shape(self) -> tuple[int, ...]:
        return (3, self.size, self.size)

    def counts(self) -> dict[str, int]:
        train = self.train
        if train is None:
            train = len(_names(self.path)) - self.validation - self.test
        return {"train": train, "validation": self.validation, "test": self.test}

    def check(self) -> None:
        if Path(self.path).is_dir():
            self._train_of(_names(self.path))

    def _train_of(self, names: Sequence[str]) -> int:
        """Returns how many images are to train on."""
        rest = len(names) - self.test - self.validation
        train = rest if self.train is None else self.train
        if train > rest or rest < 0:
            raise DiemError(
                "data.train, data.validation and data.test ask for more than the"
                f" {len(names)} images in {self.path}."
            )
        return train

    def load(self, seed: int) -> dict[str, Split]:
        names = _names(self.path)
        train = self._train_of(names)
        order = rng(seed, Stage.SPLIT).permutation(len(names))
        parts = np.split(order, np.cumsum([self.test, self.validation, train]))[:3]
        chosen = dict(zip(("test", "validation", "train"), parts, strict=True))
        return {
            name: Split(self._batches([names[i] for i in rows]))
            for name, rows in chosen.items()
            if len(rows)
        }

    def _batches(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        return (from_bytes(x, self.step) for x in _read(self.path, names, self.size))


def _names(folder: str) -> list[str]:
    """Returns the names of the PNG and JPEG files in a folder, in their order.

    Raises:
        DiemError: If there is no such folder, or none of these files in it.
    """
    if not Path(folder).is_dir():
        raise DiemError(f"data.path: {folder!r} is no folder.")
    names = sorted(f.name for f in Path(folder).iterdir() if f.suffix.lower() in ENDINGS)
    if not names:
        raise DiemError(f"data.path: there is no PNG or JPEG file in {folder!r}.")
    return names


def _read(folder: str, names: Sequence[str], size: int) -> Iterator[np.ndarray]:
    """Yields images in batches of a few, integers from 0 to 255 with shape (N, 3, size, size).

    Raises:
        DiemError: If a file cannot be read, or is no colour image of this size.
    """
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        yield np.stack([_image(Path(folder) / name, size) for name in batch])


def _image(path: Path, size: int) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            # The header tells these, before anything large is decoded.
            shape, mode = image.size, image.mode
            pixels = np.asarray(image) if shape == (size, size) and mode == "RGB" else None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise DiemError(f"{path}: this image cannot be read ({reason}).") from None
    if pixels is None:
        raise DiemError(
            f"{path}: this image is of {shape[0]} x {shape[1]} pixels and mode {mode}, where"
            f" data.size asks for {size} x {size} pixels and mode RGB."
        )
    return pixels.transpose(2, 0, 1)
