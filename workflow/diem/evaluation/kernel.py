"""The kernel distance between features: unbiased, so that few samples serve."""

import numpy as np
import torch
from torch import Tensor

from diem.evaluation.arrays import pair

__all__ = ["kernel_distance"]

BLOCK = 1024

Array = np.ndarray | Tensor


def kernel_distance(a: Array, b: Array) -> float:
    r"""Returns the squared maximum mean discrepancy of a cubic kernel, without bias.

    .. math:: k(x, y) = (x \cdot y / F + 1)^3

    It is that of the kernel inception distance (KID). Of two sets of one distribution it is zero in
    expectation, for any number of samples, so that it can be negative.

    References:
        | Demystifying MMD GANs (Binkowski et al., 2018)
        | https://arxiv.org/abs/1801.01401

    Arguments:
        a: The first features, with shape :math:`(N, F)`, of two samples or more.
        b: The second, with shape :math:`(M, F)`.
    """
    a, b = pair(a, b)
    n, m = len(a), len(b)
    within = (_sum(x, x) - float(_kernel(torch.linalg.vecdot(x, x), x).sum()) for x in (a, b))
    first, second = (total / (k * (k - 1)) for total, k in zip(within, (n, m), strict=True))
    return first + second - 2 * _sum(a, b) / (n * m)


def _sum(a: Tensor, b: Tensor) -> float:
    """Returns the sum of the kernel over all pairs, of which a block of rows is held at once."""
    return sum(float(_kernel(part @ b.T, part).sum()) for part in a.split(BLOCK))


def _kernel(products: Tensor, features: Tensor) -> Tensor:
    """Returns the kernel of products of features."""
    return (products / features.shape[1] + 1) ** 3
