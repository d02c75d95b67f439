"""Whether a prior repeats what it was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.evaluation.arrays import pair
from diem.evaluation.metrics.base import Label, Measurement, Metric, mean_of
from diem.lazy import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from diem.evaluation.arrays import Array
    from diem.evaluation.evaluate import Evaluation

__all__ = ["Memorisation", "nearest"]

MOST = 2048
"""The samples of each set that are compared, at most."""


def nearest(x: Array, others: Array) -> Tensor:
    """Returns the distance of each sample to the nearest of others, with shape ``(N,)``.

    Arguments:
        x: The samples, with shape ``(N, *event)``.
        others: The others, with shape ``(M, *event)``.
    """
    x, others = pair(x, others)
    return torch.cat([torch.cdist(part, others).amin(dim=1) for part in x.split(256)])


class Memorisation(Metric):
    """How many prior samples are nearer to training data than to held-out data, both clean.

    Of both, equally many are looked at. They are draws of one distribution, so that a prior which
    repeats nothing has 50 %, however good or bad it is; one that repeats its training data has
    100 %.
    """

    name = "memorisation"
    order = 85
    labels = {
        "memorisation": Label(
            *("Nearer to training data", "%, of none: 50"),
            least=None,
            heading="Nearer to training data (%)",
        )
    }
    needs = frozenset({"clean"})
    subject = "samples"

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        count = min(len(evaluation.train), len(evaluation.test), MOST)
        train, test = (evaluation.some(x, count) for x in (evaluation.train, evaluation.test))
        drawn = evaluation.some(evaluation.x, MOST)
        nearer = 100.0 * (nearest(drawn, train) < nearest(drawn, test))
        compared = {"reference": "clean train and test", "reference_samples": 2 * count}
        yield mean_of(nearer, "prior", {**evaluation.card, "samples": len(drawn), **compared})
