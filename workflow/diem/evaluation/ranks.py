"""Ranks of the truth among posterior samples, which are uniform where posteriors are right.

Given an observation, the truth and exact posterior samples are draws of one distribution, so that
any number that is computed of each has a uniform rank among those of the samples. What a rank is of
decides what it can tell: single values, their sum, the power in a band of frequencies, or the
distance to some other point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from diem.evaluation.arrays import double
from diem.lazy import torch

if TYPE_CHECKING:
    import numpy as np
    from torch import Generator, Tensor

    from diem.evaluation.arrays import Array
    from diem.operators.base import Operator

__all__ = ["coverage", "functionals", "of_other_groups", "one_of_each", "pit", "unseen"]


def pit(draws: Array, truth: Array, generator: Generator) -> Tensor:
    r"""Returns the randomized probability integral transform of the truth.

    It is :math:`(r + u) / (K + 1)`, where :math:`r` is the rank of the truth among :math:`K` draws
    and :math:`u` is uniform; ties have random ranks. Where truth and draws are of one distribution,
    it is uniform in [0, 1], whatever the number of draws.

    References:
        | Validating Bayesian Inference Algorithms with Simulation-Based Calibration
          (Talts et al., 2018)
        | https://arxiv.org/abs/1804.06788

    Arguments:
        draws: The draws, with shape :math:`(N, K, *)`.
        truth: The truth, with shape :math:`(N, *)`.
        generator: The random stream.

    Returns:
        The transforms, with shape :math:`(N, *)`.
    """
    draws, truth = double(draws), double(truth)
    below = (draws < truth[:, None]).sum(dim=1)
    equal = (draws == truth[:, None]).sum(dim=1)
    uniform = torch.rand(truth.shape, generator=generator, dtype=torch.float64).to(truth.device)
    return (below + uniform * (equal + 1)) / (draws.shape[1] + 1)


def coverage(transforms: Tensor, level: float) -> Tensor:
    """Returns where central intervals of a level hold the truth, booleans of the same shape.

    Arguments:
        transforms: What :func:`pit` has returned.
        level: The probability of the intervals, which is how often they should hold the truth.
    """
    return (transforms - 0.5).abs() < level / 2


def unseen(operator: Operator, count: int, generator: Generator) -> Tensor:
    """Returns which values no observation depends on, booleans ``(count, *event)``.

    Where an operator sees something of every value, as a blur does, all values count.

    Arguments:
        operator: The forward operators.
        count: The number of observations.
        generator: The random stream of a probe.
    """
    probe = torch.randn(count, *operator.event_shape, generator=generator)
    hidden = operator.adjoint(operator.forward(probe.to(operator.device))) == 0
    return hidden if hidden.any() else torch.ones_like(hidden)


def of_other_groups(groups: np.ndarray) -> np.ndarray:
    """Returns for each observation the place of one that is of another group, each once.

    Of groups of which one has more than half of all, some are of the same.

    Arguments:
        groups: The group of each observation, integers of shape ``(N,)``.
    """
    import numpy as np

    order = np.argsort(groups, kind="stable")
    largest = np.unique(groups, return_counts=True)[1].max()
    others = np.empty_like(order)
    others[order] = np.roll(order, largest)
    return others


def one_of_each(groups: np.ndarray, generator: Generator) -> np.ndarray:
    """Returns the places of one observation of each group, at random.

    Arguments:
        groups: The group of each observation, integers of shape ``(N,)``.
        generator: The random stream.
    """
    import numpy as np

    order = torch.randperm(len(groups), generator=generator).numpy()
    return order[np.unique(groups[order], return_index=True)[1]]


def functionals(
    truth: Tensor, groups: np.ndarray | None = None
) -> dict[str, Callable[[Tensor], Tensor]]:
    """Returns functions whose ranks tell more than those of single values, by name.

    ``total`` is the sum of all values, ``low`` and ``high`` are the powers of images below and
    above half of the highest frequency, and ``distance`` is that to another truth, for the test of
    accuracy with random points (TARP), which sees what marginals do not.

    References:
        | Sampling-Based Accuracy Testing of Posterior Estimators for General Inference
          (Lemos et al., 2023)
        | https://arxiv.org/abs/2302.03026

    Arguments:
        truth: The truth, with shape ``(N, *event)``.
        groups: The group of each, integers of shape ``(N,)``, where those of one resemble each
            other: a point that does is no random one.

    Returns:
        Functions from ``(N, *, *event)`` to ``(N, *)``.
    """
    dims = truth.ndim - 1
    others = truth.roll(1, dims=0) if groups is None else truth[of_other_groups(groups)]
    found = {
        "total": lambda x: x.flatten(-dims).sum(dim=-1),
        "distance": lambda x: _distance(x, others),
    }
    if dims == 3:
        found["low"] = lambda x: _power(x, high=False)
        found["high"] = lambda x: _power(x, high=True)
    return found


def _distance(x: Tensor, point: Tensor) -> Tensor:
    between = x.ndim - point.ndim
    point = point.reshape(len(point), *[1] * between, *point.shape[1:])
    return torch.linalg.vector_norm((x - point).flatten(-(point.ndim - 1 - between)), dim=-1)


def _power(x: Tensor, high: bool) -> Tensor:
    """Returns the power of images ``(*, C, H, W)`` in a band of frequencies."""
    frequencies = [torch.fft.fftfreq(size, dtype=x.dtype, device=x.device) for size in x.shape[-2:]]
    radius = torch.hypot(frequencies[0][:, None], frequencies[1])
    band = (radius >= 0.25) if high else (radius > 0) & (radius < 0.25)
    size = math.prod(x.shape[-2:])
    return (torch.fft.fft2(x).abs().square() / size * band).flatten(-3).sum(dim=-1)
