"""The standard error of a mean over observations, some of which may belong together, and ties."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from diem.lazy import torch

if TYPE_CHECKING:
    import numpy as np

    from diem.evaluation.arrays import Array

__all__ = ["standard_error", "tie_errors", "tie_margin"]

TIE_ERRORS = 2.0
"""Numbers are a tie if they differ by less than so many standard errors of their difference."""


def standard_error(values: Array, groups: np.ndarray | None = None) -> float | None:
    r"""Returns the standard error of the mean of a number of each observation.

    Of groups it is that of clustered data, which is the usual one where each is of one:

    .. math:: \frac{1}{N} \sqrt{\frac{G}{G - 1}
        \sum_g \Big( \sum_{i \in g} (v_i - \bar v) \Big)^2}

    References:
        | A Practitioner's Guide to Cluster-Robust Inference (Cameron & Miller, 2015)
        | https://doi.org/10.3368/jhr.50.2.317

    Arguments:
        values: The numbers :math:`v_i`, of shape ``(N,)``.
        groups: The group of each, integers of shape ``(N,)``, where numbers of one group resemble
            each other; without them, each is alone.

    Returns:
        The error, or nothing of a single number or group.
    """
    values = torch.as_tensor(values)
    if groups is not None:
        group = torch.unique(torch.as_tensor(groups), return_inverse=True)[1]
        count = int(group.max()) + 1
        sums = values.new_zeros(count).index_add(0, group, values - values.mean())
        # Sums of groups have the mean zero.
        return float(sums.std() * count**0.5 / len(values)) if count > 1 else None
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else None


def tie_errors(freedom: float) -> float:
    """Returns how many standard errors make a tie: :data:`TIE_ERRORS`, of few numbers more.

    Arguments:
        freedom: The degrees of freedom of the error: with few Student's t has as many as a normal
            distribution has two.
    """
    from scipy.stats import norm, t

    return float(t.ppf(norm.cdf(TIE_ERRORS), max(1.0, freedom)))


def tie_margin(one: float, other: float, seeds: int = 1) -> float:
    """Returns by how much two means may differ and be a tie, as if they were independent.

    References:
        | The generalization of "Student's" problem when several different population variances are
          involved (Welch, 1947)
        | https://doi.org/10.1093/biomet/34.1-2.28

    Arguments:
        one: The standard error of the one.
        other: That of the other.
        seeds: Over how many seeds both are means. Errors of one seed are over many observations.
    """
    error = math.hypot(one, other)
    if seeds == 1 or not 0 < error < math.inf:
        return TIE_ERRORS * error
    return error * tie_errors((seeds - 1) / ((one / error) ** 4 + (other / error) ** 4))
