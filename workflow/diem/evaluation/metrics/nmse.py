"""The normalized mean squared error of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diem.evaluation.arrays import aligned
from diem.evaluation.metrics.base import Fidelity, Label

if TYPE_CHECKING:
    from torch import Tensor

    from diem.evaluation.arrays import Array


__all__ = ["NMSE", "nmse"]


def nmse(x: Array, reference: Array) -> Tensor:
    r"""Returns each sample's normalized mean squared error.

    .. math:: \frac{\| x - x_\text{ref} \|^2}{\| x_\text{ref} \|^2}

    It depends on where zero is: images are compared by their
    :func:`diem.evaluation.arrays.intensities`.

    Arguments:
        x: The samples, with shape :math:`(N, *event)`.
        reference: The true values, with the same shape.

    Returns:
        The errors, with shape :math:`(N,)`.

    Raises:
        ValueError: If the shapes differ.
    """
    x, reference = aligned(x, reference)
    error, power = (v.square().flatten(start_dim=1).sum(dim=1) for v in (x - reference, reference))
    return error / power


class NMSE(Fidelity):
    """The mean error of reconstructed images."""

    name = "nmse"
    order = 110
    labels = {"nmse": Label("NMSE", better="↓")}
    needs = frozenset({"clean", "images"})

    def values(self, x: Array, truth: Array, data_range: float = 4.0, tool: Any = None) -> Tensor:
        return nmse(x, truth)
