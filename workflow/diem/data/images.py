"""Folders of image files, read as they are asked for, with every file that does not fit named."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from diem.errors import DiemError

__all__ = ["crops", "names", "read", "reduced"]

ENDINGS = {".jpeg", ".jpg", ".png"}

# Images that are in memory at a time.
PART = 64


def names(folder: str | Path) -> list[str]:
    """Returns the names of the PNG and JPEG files in a folder, in their order.

    Raises:
        DiemError: If there is no such folder, or none of these files in it.
    """
    if not Path(folder).is_dir():
        raise DiemError(f"data.path: {str(folder)!r} is no folder.")
    found = sorted(f.name for f in Path(folder).iterdir() if f.suffix.lower() in ENDINGS)
    if not found:
        raise DiemError(f"data.path: there is no PNG or JPEG file in {str(folder)!r}.")
    return found


def read(folder: str | Path, files: Sequence[str], size: int) -> Iterator[np.ndarray]:
    """Yields images in parts of a few, as integers from 0 to 255 with shape (N, 3, size, size).

    Arguments:
        folder: The folder.
        files: The names of the files.
        size: The height and width that every image must have.

    Raises:
        DiemError: If a file cannot be read, or is no colour image of this size.
    """
    for start in range(0, len(files), PART):
        part = files[start : start + PART]
        yield np.stack([_image(Path(folder) / name, size) for name in part])


def _image(path: Path, size: int) -> np.ndarray:
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


def reduced(picture: np.ndarray, factor: int) -> np.ndarray:
    """Returns the averages of whole squares of ``factor`` by ``factor`` pixels, of (H, W, 3)."""
    height, width = (n // factor for n in picture.shape[:2])
    squares = picture[: height * factor, : width * factor]
    return squares.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))


def crops(
    pictures: Sequence[np.ndarray], count: int, size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yields random square crops of pictures, which take turns, in parts of a few.

    Arguments:
        pictures: The pictures, each of shape (H, W, 3).
        count: The number of crops :math:`N`.
        size: Their height and width.
        rng: The random stream.

    Yields:
        Some crops, with shape (B, 3, size, size), of the pictures' dtype.
    """
    u = rng.random((count, 2))
    for start in range(0, count, PART):
        found = []
        for i, (row, column) in enumerate(u[start : start + PART], start):
            picture = pictures[i % len(pictures)]
            top = int(row * (picture.shape[0] - size + 1))
            left = int(column * (picture.shape[1] - size + 1))
            found.append(picture[top : top + size, left : left + size].transpose(2, 0, 1))
        yield np.stack(found)
