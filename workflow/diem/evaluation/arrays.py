"""What metrics take: arrays of samples of shape ``(N, *event)``, whose arithmetic is double.

NumPy arrays and tensors are both welcome. Shapes that do not fit are a defect of the caller and
raise :py:`ValueError`; data that do not serve a metric raise :py:`DiemError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.errors import DiemError
from diem.lazy import torch

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from diem.files.hdf5 import HasRows

    Array = np.ndarray | Tensor

__all__ = ["aligned", "check_pair", "double", "intensities", "pair", "vectors"]


def double(x: Array) -> Tensor:
    """Returns an array as a tensor in double precision."""
    return torch.as_tensor(x, dtype=torch.float64)


def check_pair(a: HasRows, b: HasRows) -> None:
    """Raises unless two sets of samples (N, *event) have the same event."""
    shapes = [(len(x), *x[:1].shape[1:]) for x in (a, b)]
    if shapes[0][1:] != shapes[1][1:] or len(shapes[0]) < 2 or 0 in (len(a), len(b)):
        raise ValueError(
            f"Two sets (N, *event) of the same event are needed, got {shapes[0]} and {shapes[1]}."
        )


def vectors(x: Array) -> Tensor:
    """Returns samples as the finite rows of a matrix, with shape (N, F)."""
    x = double(x).flatten(start_dim=1)
    if not torch.isfinite(x).all():
        raise DiemError("The samples hold values that are not finite, no metric compares them.")
    return x


def pair(a: Array, b: Array) -> tuple[Tensor, Tensor]:
    """Returns two sets of samples as finite matrices, with shapes (N, F) and (M, F)."""
    check_pair(a, b)
    a = vectors(a)
    return a, vectors(b).to(a.device)


def aligned(x: Array, reference: Array) -> tuple[Tensor, Tensor]:
    """Returns samples and their references in double precision, if they have one shape."""
    x, reference = double(x), double(reference)
    if x.shape != reference.shape:
        raise ValueError(
            f"Samples and references have shapes {tuple(x.shape)} and {tuple(reference.shape)}."
        )
    return x, reference


def intensities(x: Array) -> Tensor:
    """Returns images as intensities, of which black is 0 and white is 1.

    Arguments:
        x: The images in [-2, 2], with shape :math:`(N, C, H, W)`. Two channels are the real and
            imaginary parts of a complex image, whose magnitude counts.

    Returns:
        The intensities, with shape :math:`(N, C, H, W)`, or :math:`(N, 1, H, W)` if complex.
    """
    x = double(x)
    if x.shape[1] == 2:
        return torch.linalg.vector_norm(x, dim=1, keepdim=True) / 2
    return (x + 2) / 4
