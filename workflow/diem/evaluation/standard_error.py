"""The standard error of a mean over observations, some of which may belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.lazy import torch

if TYPE_CHECKING:
    import numpy as np

    from diem.evaluation.arrays import Array

__all__ = ["standard_error"]


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
