"""Phantoms: random ellipses, the embedded stand-in for slices through a body."""

import math
from typing import Annotated

import numpy as np
from pydantic import Field

from diem.components import Count, Integer, option
from diem.data.sets.base import SPLITS, DataSet, Split
from diem.seeds import Stage, rng

__all__ = ["Phantoms"]

ELLIPSES = 8
"""The ellipses within a phantom."""

BATCH = 64
"""At most so many images are drawn at a time, which keeps the memory small."""


class Phantoms(DataSet):
    r"""Draws phantoms of random ellipses, as simple as slices through a body can be.

    Each image is a bright rim around a body of grey tissue, in which smaller ellipses overlap; one
    in three is dark, and where several overlap the last one counts. A smooth shading multiplies
    all of it. Edges are one pixel wide. With `complex`, the image is the magnitude, and its phase
    varies smoothly. An image depends on the seed, its split and its number alone, at a given size.

    The events have shape (1, size, size), black at -2 and white at 2; or, if `complex`, shape
    (2, size, size), the real and imaginary parts of images of magnitudes from 0 to 2.

    References:
        | The Fourier Reconstruction of a Head Section (Shepp & Logan, 1974)
        | https://doi.org/10.1109/TNS.1974.6499235
    """

    name = "phantoms"

    train: Count = option(512, "the number of images of random ellipses to train on")
    validation: Count = option(64, "the number of images for validation")
    test: Count = option(64, "the number of images for testing")
    size: Annotated[Integer, Field(ge=8)] = option(64, "the height and width in pixels")
    complex: bool = option(False, "whether the images have a phase, as two channels")

    def event_shape(self) -> tuple[int, ...]:
        return (2 if self.complex else 1, self.size, self.size)

    def counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in SPLITS}

    def load(self, seed: int) -> dict[str, Split]:
        splits = {}
        for block, name in enumerate(SPLITS):
            count = getattr(self, name)
            u = rng(seed, Stage.DATA, block=block).uniform(size=(count, 6 * (ELLIPSES + 2)))
            batches = np.array_split(u, math.ceil(count / BATCH))
            splits[name] = Split(self._drawn(batch) for batch in batches)
        return splits

    def _drawn(self, u: np.ndarray) -> np.ndarray:
        """Draws the phantoms of uniform numbers with shape (N, 6 (ELLIPSES + 2))."""
        u = np.moveaxis(u.reshape(len(u), ELLIPSES + 2, 6), 0, -1)[..., None, None]
        (outline, shading), inner = u[:2], u[2:]
        canvas = _Canvas(self.size)
        image = _body(canvas, outline, inner)
        across, _ = canvas.turned(2 * np.pi * shading[0], (0, 0))
        image *= 1 - 0.2 * shading[1] * (1 + across) / 2
        if not self.complex:
            return (4 * image - 2).astype(np.float32)[:, None]
        along, across = canvas.turned(2 * np.pi * shading[2], (0, 0))
        phase = np.pi * (2 * shading[3] - 1 + shading[4] * along + (shading[5] - 0.5) * across**2)
        channels = (2 * image * np.cos(phase), 2 * image * np.sin(phase))
        return np.stack(channels, 1).astype(np.float32)


class _Canvas:
    """The pixels of a square from -1 to 1."""

    def __init__(self, size: int) -> None:
        grid = (np.arange(size) + 0.5) * (2 / size) - 1
        self.size, self.y, self.x = size, grid[:, None], grid[None, :]

    def turned(self, angle: np.ndarray, at: tuple) -> tuple[np.ndarray, np.ndarray]:
        """Returns the pixels' coordinates along axes that are turned and moved."""
        dx, dy = self.x - at[0], self.y - at[1]
        return dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)

    def ellipse(
        self, place: tuple[np.ndarray, np.ndarray], a: np.ndarray, b: np.ndarray
    ) -> np.ndarray:
        """Returns how much of each pixel lies within the semi-axes a and b, about."""
        radius = np.sqrt((place[0] / a) ** 2 + (place[1] / b) ** 2)
        return np.clip((1 - radius) * np.minimum(a, b) * self.size / 2 + 0.5, 0, 1)


def _body(canvas: _Canvas, outline: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Draws bodies with their rim and the ellipses within, in [0, 1]."""
    centre = 0.1 * outline[0] - 0.05, 0.1 * outline[1] - 0.05
    angle = np.pi * (outline[2] - 0.5) / 2
    a, b, rim = 0.6 + 0.15 * outline[3], 0.75 + 0.15 * outline[4], 0.05 + 0.07 * outline[5]
    place = canvas.turned(angle, centre)
    body = canvas.ellipse(place, a - rim, b - rim)
    image = 0.9 * (canvas.ellipse(place, a, b) - body)
    tissue = np.full_like(image, 0.45)
    for v in inner:
        # Uniform over the inside of the body.
        r, phi = 0.8 * np.sqrt(v[0]), 2 * np.pi * v[1]
        along, across = r * (a - rim) * np.cos(phi), r * (b - rim) * np.sin(phi)
        at = (
            centre[0] + along * np.cos(angle) - across * np.sin(angle),
            centre[1] + along * np.sin(angle) + across * np.cos(angle),
        )
        place = canvas.turned(np.pi * v[2], at)
        cover = canvas.ellipse(place, 0.06 + 0.2 * v[3] ** 2, 0.06 + 0.2 * v[4] ** 2)
        grey = np.where(v[5] < 1 / 3, 0.3 * v[5], 0.2 + 0.6 * v[5])
        tissue += cover * (grey - tissue)
    image += body * tissue
    return image
