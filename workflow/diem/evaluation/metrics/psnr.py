"""The peak signal-to-noise ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diem.evaluation.arrays import aligned
from diem.evaluation.metrics.base import Fidelity, Label
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from diem.evaluation.arrays import Array


__all__ = ["PSNR", "psnr"]


def psnr(x: Array, reference: Array, data_range: float = 4.0) -> Tensor:
    r"""Returns each sample's peak signal-to-noise ratio, in dB.

    .. math:: 10 \log_{10} \frac{r^2}{\mathrm{mean}((x - x_\text{ref})^2)}

    The range :math:`r` is that of the data's scale, not that of the sample. It is infinite for a
    sample that equals its reference.

    Arguments:
        x: The samples, with shape :math:`(N, *event)`.
        reference: The true values, with the same shape.
        data_range: The range :math:`r`, that of [-2, 2] by default.

    Returns:
        The ratios, with shape :math:`(N,)`.

    Raises:
        ValueError: If the shapes differ.
    """
    x, reference = aligned(x, reference)
    mse = (x - reference).square().flatten(start_dim=1).mean(dim=1)
    return 10 * torch.log10(data_range**2 / mse)


class PSNR(Fidelity):
    """The mean ratio of reconstructions."""

    name = "psnr"
    order = 90
    labels = {"psnr": Label("PSNR", "dB", "↑")}
    sections = frozenset({"experiments", "restoration"})

    def values(self, x: Array, truth: Array, data_range: float = 4.0, tool: Any = None) -> Tensor:
        return psnr(x, truth, data_range)
