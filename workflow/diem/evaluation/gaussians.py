"""Gaussian fits of features, and the Fréchet distance between them."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diem.errors import DiemError
from diem.evaluation.arrays import check_pair, vectors

__all__ = ["Moments", "feature_moments", "frechet_distance", "frechet_distance_of_moments"]

Array = np.ndarray | Tensor


def frechet_distance(a: Array, b: Array) -> float:
    r"""Returns the Fréchet distance between Gaussian fits of two sets of features.

    .. math::
        \| \mu_a - \mu_b \|_2^2
            + \mathrm{tr} \left( \Sigma_a + \Sigma_b - 2 (\Sigma_a \Sigma_b)^{1/2} \right)

    It is a squared 2-Wasserstein distance, has the squared unit of the features and is biased
    upwards for few samples. It means nothing without the name and digest of the extractor of the
    features.

    References:
        | The Fréchet Distance between Multivariate Normal Distributions (Dowson & Landau, 1982)
        | https://doi.org/10.1016/0047-259X(82)90077-X

    Arguments:
        a: The first features, with shape :math:`(N, F)`.
        b: The second features, with shape :math:`(M, F)`.

    Raises:
        ValueError: If the features are not vectors or their numbers differ.
        DiemError: If a set has no more samples than features, or a value is not finite.
    """
    check_pair(a, b)
    return frechet_distance_of_moments(*(feature_moments(x, full=True) for x in (a, b)))


class Moments(NamedTuple):
    r"""A Gaussian fit of features.

    Attributes:
        mean: The mean, float64, with shape :math:`(F,)`.
        root: A factor :math:`R` of the covariance :math:`R^\top R`, float64, with shape
            :math:`(K, F)`.
    """

    mean: Tensor
    root: Tensor


def feature_moments(x: Array | Iterable[Array], full: bool = False) -> Moments:
    """Returns the Gaussian fit of features, with shape :math:`(N, F)`, or of their parts.

    No more than :math:`F` features and one part are held in memory, in double precision.

    Arguments:
        x: The features, or consecutive parts of them.
        full: Whether there must be more samples than features.

    Raises:
        ValueError: If the features are not vectors.
        DiemError: If there are fewer than two samples, or too few, or a value is not finite.
    """
    count = 0
    mean = scatter = torch.zeros((), dtype=torch.float64)
    waiting: list[Tensor] = []
    for part in [x] if isinstance(x, Array) else x:
        if part.ndim != 2:
            raise ValueError(f"Features have shape (N, F), got {tuple(part.shape)}.")
        waiting.append(vectors(part))
        # Parts are taken together until they are worth a product of matrices.
        if sum(map(len, waiting)) > part.shape[1]:
            count, mean, scatter = _merged(count, mean, scatter, torch.cat(waiting))
            waiting = []
    rest = torch.cat(waiting) if waiting else torch.empty(0, 0)
    if count == 0 and full:
        raise DiemError(
            f"The Fréchet distance on {rest.shape[1]} features needs more than {rest.shape[1]}"
            f" samples, got {len(rest)}."
        )
    if count + len(rest) < 2:
        raise DiemError("A Gaussian fit of features needs two samples or more.")
    if count == 0:
        mean = rest.mean(dim=0)
        return Moments(mean, (rest - mean) / math.sqrt(len(rest) - 1))
    if len(rest) > 0:
        count, mean, scatter = _merged(count, mean, scatter, rest)
    eigenvalues, q = torch.linalg.eigh(scatter / (count - 1))
    return Moments(mean, eigenvalues.clamp(min=0).sqrt()[:, None] * q.T)


def _merged(count: int, mean: Tensor, scatter: Tensor, x: Tensor) -> tuple[int, Tensor, Tensor]:
    """Adds samples to a number of them, their mean, and their scatter about it.

    References:
        | Updating Formulae and a Pairwise Algorithm for Computing Sample Variances
          (Chan et al., 1979)
        | https://doi.org/10.1007/978-3-642-51461-6_3
    """
    total, centre = count + len(x), x.mean(dim=0)
    centred, shift = x - centre, centre - mean
    scatter = scatter + centred.T @ centred + torch.outer(shift, shift) * (count * len(x) / total)
    return total, mean + shift * (len(x) / total), scatter


def frechet_distance_of_moments(a: Moments, b: Moments) -> float:
    """Returns the :func:`frechet_distance` between two Gaussians."""
    # The trace of (A B)^1/2 is the sum of the singular values of the product of any two factors,
    # which loses no digits to the small eigenvalues.
    cross = torch.linalg.svdvals(a.root @ b.root.T).sum()
    spread = a.root.square().sum() + b.root.square().sum() - 2 * cross
    return max(float((a.mean - b.mean).square().sum() + spread), 0.0)
