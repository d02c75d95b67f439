"""Patches of the colour photographs that scikit-learn embeds."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from diem.components import Count, Integer, option
from diem.data.sets.base import SPLITS, DataSet, Split, from_bytes
from diem.seeds import Stage, rng

__all__ = ["Photographs"]

COLUMNS = {"train": slice(256, 640), "validation": slice(0, 128), "test": slice(128, 256)}
"""Where the splits of a photograph lie, in columns of its 640: no pixel is in two of them."""

WIDTH = 128
"""The columns of the narrowest split."""

BATCH = 64
"""The images that are in memory at a time."""


class Photographs(DataSet):
    """Cuts patches from the two colour photographs that scikit-learn embeds, a temple and a flower.

    The photographs are 640 pixels wide. Patches for validation lie in their columns 0 to 127, those
    for testing in 128 to 255, and training patches in 256 to 639, at random places. Patches of a
    split can overlap, patches of two splits share no pixel. Without reduction most small patches
    show little but one colour. The events have shape (3, size, size).

    References:
        | https://scikit-learn.org/stable/datasets/loading_other_datasets.html#sample-images
    """

    name = "photographs"
    step = 4 / 255

    train: Count = option(
        8192,
        "the number of patches to train on, at random places of the two colour photographs that"
        " scikit-learn embeds. The splits lie in the columns 256 to 639, 0 to 127, and 128 to 255"
        " of the 640: no pixel is in two of them",
    )
    validation: Count = option(256, "the number of patches for validation")
    test: Count = option(256, "the number of patches for testing")
    size: Annotated[Integer, Field(ge=2, le=WIDTH)] = option(
        16, "the height and width of a patch in pixels"
    )
    reduce: Count = option(
        1, "the photographs are reduced by this factor first. With `size`, the product is at most"
        f" {WIDTH}",
    )  # fmt: skip

    @model_validator(mode="after")
    def _fits_the_narrowest_split(self) -> Self:
        if self.size * self.reduce > WIDTH:
            raise ValueError(
                f"{{place}}.size times {{place}}.reduce is {self.size * self.reduce}, but the"
                f" narrowest split is {WIDTH} pixels wide"
            )
        return self

    def event_shape(self) -> tuple[int, ...]:
        return (3, self.size, self.size)

    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in SPLITS}

    def load(self, seed: int) -> dict[str, Split]:
        from sklearn.datasets import load_sample_images  # takes seconds, and others do without

        images = load_sample_images().images
        splits = {}
        for block, (name, columns) in enumerate(COLUMNS.items()):
            count, stream = getattr(self, name), rng(seed, Stage.DATA, block=block)
            sources = [_reduced(image[:, columns], self.reduce) for image in images]
            crops = _crops(sources, count, self.size, stream)
            splits[name] = Split(from_bytes(x, self.step) for x in crops)
        return splits


def _reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """Returns the averages of whole squares of ``factor`` by ``factor`` pixels, of (H, W, 3)."""
    height, width = (n // factor for n in image.shape[:2])
    squares = image[: height * factor, : width * factor]
    return squares.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))


def _crops(
    images: Sequence[np.ndarray], count: int, size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yields random square crops of images (H, W, 3), which take turns, in batches of a few.

    Arguments:
        images: The images.
        count: The number of crops.
        size: Their height and width.
        rng: The random stream.

    Yields:
        Crops, with shape (B, 3, size, size), of the images' dtype.
    """
    u = rng.random((count, 2))
    for start in range(0, count, BATCH):
        crops = []
        for i, (row, column) in enumerate(u[start : start + BATCH], start):
            image = images[i % len(images)]
            top = int(row * (image.shape[0] - size + 1))
            left = int(column * (image.shape[1] - size + 1))
            crops.append(image[top : top + size, left : left + size].transpose(2, 0, 1))
        yield np.stack(crops)
