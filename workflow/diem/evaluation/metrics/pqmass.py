"""PQMass: whether prior samples put the same mass as held-out data into random regions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from diem.evaluation.arrays import pair
from diem.evaluation.metrics.base import Label, Measurement, Metric, Planned, clean_test, too_few
from diem.lazy import torch
from diem.seeds import Stage, rng

if TYPE_CHECKING:
    from diem.evaluation.arrays import Array
    from diem.evaluation.evaluate import Evaluation

__all__ = ["PQMass", "pqmass"]

MOST = 2048
"""The samples of each set that are compared, at most."""

REGIONS = 50
TESSELLATIONS = 100


def pqmass(
    a: Array,
    b: Array,
    regions: int = REGIONS,
    tessellations: int = TESSELLATIONS,
    seed: int = 0,
) -> np.ndarray:
    r"""Returns :math:`\chi^2 / (R - 1)` of the counts of two sets in R random regions.

    Regions are the Voronoi cells of samples that are drawn of both sets and then left out. Of two
    sets of one distribution the mean over tessellations is 1, nearly; it has no upper bound.

    References:
        | PQMass: Probabilistic Assessment of the Quality of Generative Models using Probability
          Mass Estimation (Lemos et al., 2024)
        | https://arxiv.org/abs/2402.04355

    Arguments:
        a: The first samples, with shape ``(N, *event)``.
        b: The second, with shape ``(M, *event)``.
        regions: The number of regions, R.
        tessellations: How many times regions are drawn.
        seed: The seed of the regions.

    Returns:
        A number a tessellation, of shape ``(tessellations,)``.
    """
    a, b = pair(a, b)
    both = torch.cat([a, b])
    first = np.arange(len(both)) < len(a)
    distances = torch.cdist(both, both)
    stream, found = rng(seed, Stage.METRIC, block=2), []
    for _ in range(tessellations):
        centres = stream.choice(len(both), regions, replace=False)
        cells = distances[:, torch.as_tensor(centres)].argmin(dim=1).cpu().numpy()
        left = np.ones(len(both), bool)
        left[centres] = False
        counts = np.stack(
            [np.bincount(cells[left & mine], minlength=regions) for mine in (first, ~first)]
        )
        found.append(_chi2(counts))
    return np.array(found)


def _chi2(counts: np.ndarray) -> float:
    """Returns chi-squared of two rows of counts by its degrees of freedom."""
    counts = counts[:, counts.sum(axis=0) > 0]
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    return float(((counts - expected) ** 2 / expected).sum() / max(1, counts.shape[1] - 1))


class PQMass(Metric):
    """The mass of prior samples and of held-out clean data in random regions."""

    name = "pqmass"
    order = 48
    labels = {
        "pqmass": Label(
            *("PQMass", "chi-squared by degrees, perfect: 1", "↓"), heading="PQMass (chi-squared)"
        )
    }
    needs = frozenset({"clean"})
    subject = "samples"

    def problem(self, planned: Planned) -> str | None:
        return too_few(planned, 2 * REGIONS)

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        test = evaluation.test
        x, held = evaluation.x[:MOST], evaluation.some(test, MOST)
        value = float(pqmass(x, held, seed=evaluation.job.seed).mean())
        card = {**evaluation.card, "samples": len(x), **clean_test(len(held))}
        yield Measurement(value, "prior", card)
