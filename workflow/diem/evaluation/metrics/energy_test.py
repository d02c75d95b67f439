"""The energy two-sample test of prior samples against held-out data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from diem.evaluation.arrays import pair
from diem.evaluation.metrics.base import P_VALUE, Label, Measurement, Metric, clean_test
from diem.lazy import torch
from diem.seeds import Stage, rng

if TYPE_CHECKING:
    from diem.evaluation.arrays import Array
    from diem.evaluation.evaluate import Evaluation

__all__ = ["EnergyTest", "energy_test"]

MOST = 1024
"""The samples of each set that are compared, at most."""

PERMUTATIONS = 999


def energy_test(
    a: Array, b: Array, permutations: int = PERMUTATIONS, seed: int = 0
) -> tuple[float, float]:
    r"""Returns the energy distance of two sets of samples, and the p-value of their being alike.

    .. math:: 2 \, E \|X - Y\| - E \|X - X'\| - E \|Y - Y'\|

    The p-value is that of a permutation test, and exact: of samples of one distribution it is
    uniform, and a multiple of 1 / (permutations + 1).

    References:
        | Energy statistics: A class of statistics based on distances (Szekely & Rizzo, 2013)
        | https://doi.org/10.1016/j.jspi.2013.03.018

    Arguments:
        a: The first samples, with shape ``(N, *event)``.
        b: The second, with shape ``(M, *event)``.
        permutations: The number of random permutations.
        seed: The seed of the permutations.
    """
    a, b = pair(a, b)
    both = torch.cat([a, b])
    distances = torch.cdist(both, both)
    # A column of signed weights a permutation: the statistic is a quadratic form in them.
    weights = torch.cat([a.new_full((len(a),), 1 / len(a)), b.new_full((len(b),), -1 / len(b))])
    stream = rng(seed, Stage.METRIC, block=1)
    orders = [range(len(weights)), *(stream.permutation(len(weights)) for _ in range(permutations))]
    columns = torch.stack([weights[torch.as_tensor(order)] for order in orders], dim=1)
    values = -(columns * (distances @ columns)).sum(dim=0)
    # What differs by rounding alone is the same.
    as_large = (values >= values[0] - 1e-12 * distances.mean()).sum()
    return float(values[0].clip(min=0)), float(as_large) / (permutations + 1)


class EnergyTest(Metric):
    """Whether prior samples and held-out clean data could be of one distribution."""

    name = "energy_test"
    order = 47
    labels = {
        "energy_test_distance": Label("Energy distance", "data units", "↓"),
        "energy_test_p": Label("Energy test", P_VALUE, least=None),
    }
    needs = frozenset({"clean"})
    subject = "samples"

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        test = evaluation.test
        x, held = evaluation.x[:MOST], evaluation.some(test, MOST)
        distance, p = energy_test(x, held, seed=evaluation.job.seed)
        card = {**evaluation.card, "samples": len(x), **clean_test(len(held))}
        yield Measurement(distance, "prior", card, "energy_test_distance")
        yield Measurement(p, "prior", card, "energy_test_p")
