"""The sliced Wasserstein distance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from diem.evaluation.arrays import check_pair, vectors
from diem.evaluation.metrics.base import Label, Measurement, Metric, Panel, clean_test
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from diem.evaluation.arrays import Array
    from diem.evaluation.evaluate import Evaluation
    from diem.files.hdf5 import HasRows


__all__ = ["SlicedWasserstein", "sliced_wasserstein"]

PROJECTED = 2**23
"""The projections that are held in memory at a time, or those on one direction."""

SORTED = 2**20
"""The projections that are sorted at a time, or those on one direction."""


def sliced_wasserstein(a: HasRows, b: HasRows, projections: int = 128, seed: int = 0) -> float:
    r"""Returns the sliced 2-Wasserstein distance between two sets of samples.

    .. math:: \left( \frac{1}{P} \sum_{p=1}^P W_2^2(\theta_p^\top a, \theta_p^\top b) \right)^{1/2}

    with directions :math:`\theta_p` drawn uniformly from the unit sphere. It has the unit of the
    data. The same seed and event give the same directions, so that the distances of several models
    can be compared. Samples are read once for every :data:`PROJECTED` projections.

    References:
        | Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015)
        | https://hal.science/hal-00881872

    Arguments:
        a: The first samples, with shape :math:`(N, *event)`.
        b: The second samples, with shape :math:`(M, *event)`.
        projections: The number of directions :math:`P`.
        seed: The seed of the directions.

    Raises:
        ValueError: If the events' shapes differ.
        DiemError: If a value is not finite.
    """
    import ot  # takes seconds, and most commands do without

    from diem.files.hdf5 import row_parts
    from diem.seeds import Stage, rng

    check_pair(a, b)
    theta = rng(seed, Stage.METRIC).standard_normal((math.prod(a[:1].shape[1:]), projections))
    theta /= np.linalg.norm(theta, axis=0)
    count = len(a) + len(b)
    most, few = (max(1, held // count) for held in (PROJECTED, SORTED))
    squared = 0.0
    for directions in torch.from_numpy(theta).split(most, dim=1):
        u, v = (torch.cat([_projected(part, directions) for part in row_parts(x)]) for x in (a, b))
        for pair in zip(u.split(few, dim=1), v.split(few, dim=1), strict=True):
            squared += float(ot.wasserstein_1d(*pair, p=2).sum())
    return math.sqrt(squared / projections)


def _projected(x: Array, theta: Tensor) -> Tensor:
    x = vectors(x)
    return (x @ theta.to(x.device)).cpu()


class SlicedWasserstein(Metric):
    """The distance of many samples from the clean test split."""

    name = "sliced_wasserstein"
    order = 40
    labels = {
        "sliced_wasserstein": Label(
            *("Sliced Wasserstein distance", "data units", "↓"),
            heading="Sliced Wasserstein (data units)",
        )
    }
    needs = frozenset({"clean"})
    subject = "samples"
    panel = Panel("divergence", 2)
    quality = 4

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        test = evaluation.test
        for subject, x, card in evaluation.samples:
            value = sliced_wasserstein(x, test, seed=evaluation.job.seed)
            yield Measurement(value, subject, {**card, **clean_test(len(test))})
