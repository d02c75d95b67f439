"""The Fréchet distance of infinitely many samples, extrapolated from those that there are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from diem.seeds import Stage, rng

if TYPE_CHECKING:
    from torch import Tensor

    from diem.evaluation.gaussians import Moments

__all__ = ["frechet_distance_infinity", "least_samples"]

PARTS = 5
"""The parts that samples are divided into, at most."""

BLOCK = 4096
"""The rows of a part that are in double precision at once."""


def least_samples(features: int) -> int:
    """Returns the number of samples from which on each part has more than it has features."""
    return PARTS * (features + 1)


def frechet_distance_infinity(x: Tensor, reference: Tensor | Moments, seed: int = 0) -> float:
    r"""Returns the Fréchet distance to which more and more samples would lead.

    The expected distance of N samples is larger by c / N, nearly. In a random order the samples are
    divided into k parts, for k from 1 to 5: the mean distance of parts is larger by k c / N, and a
    line fitted in k has the value at k = 0. All samples are in the parts of each k, so that their
    noise does not grow as that of random subsets does. Of two sets of one distribution it can be
    negative.

    References:
        | Effectively Unbiased FID and Inception Score and where to find them
          (Chong & Forsyth, 2020)
        | https://arxiv.org/abs/1911.07023

    Arguments:
        x: The features of samples, with shape :math:`(N, F)`, :func:`least_samples` or more.
        reference: The features that they are compared with, with shape :math:`(M, F)`, as many
            or more, which are divided likewise: it is the distance of infinitely many of both.
            Or a fit of them: their own finite number stays.
        seed: The configuration's seed, of the random orders.

    Returns:
        The distance, in the squared unit of the features.

    Raises:
        DiemError: If there are too few samples, or a value is not finite.
    """
    from diem.evaluation.gaussians import frechet_distance_of_moments

    numbers, means = range(1, PARTS + 1), []
    for k in numbers:
        pairs = zip(_fits(x, k, seed, 0), _fits(reference, k, seed, 1), strict=True)
        means.append(fmean(frechet_distance_of_moments(*pair) for pair in pairs))
    return float(np.polyfit(numbers, means, 1)[1])


def _fits(x: Tensor | Moments, count: int, seed: int, block: int) -> Iterator[Moments]:
    """Yields the Gaussian fits of the parts of features, or the fit that there is."""
    from diem.evaluation.gaussians import Moments, feature_moments

    if isinstance(x, Moments):
        yield from repeat(x, count)
        return
    order = rng(seed, Stage.PARTS, block=block).permutation(len(x))
    for rows in np.array_split(order, count):
        blocks = (x[rows[start : start + BLOCK]] for start in range(0, len(rows), BLOCK))
        yield feature_moments(blocks, full=True)
