"""Whether a prior repeats what it was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diem.evaluation.arrays import pair
from diem.evaluation.metrics.base import Label, Measurement, Metric
from diem.lazy import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from diem.evaluation.arrays import Array
    from diem.evaluation.evaluate import Evaluation

__all__ = ["Memorisation", "error_of", "nearest"]

MOST = 2048
"""The samples of each set that are compared, at most."""


def nearest(x: Array, others: Array) -> tuple[Tensor, Tensor]:
    """Returns the distances of samples to the nearest of others, and which these are, ``(N,)``.

    Arguments:
        x: The samples, with shape ``(N, *event)``.
        others: The others, with shape ``(M, *event)``.
    """
    x, others = pair(x, others)
    parts = [torch.cdist(part, others).min(dim=1) for part in x.split(256)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def error_of(index: Tensor, count: int) -> float:
    r"""Returns the standard error of the fraction of samples that are nearest to training data.

    That fraction is :math:`\sum_j c_j m_j / N`, where :math:`c_j` samples are nearest to the
    :math:`j`-th of all reference data, and :math:`m_j` says whether it is training data. Which half
    of them is, is chance. Of independent samples it is the error of a binomial; in many dimensions
    a few of the reference data are nearest to many samples, and it is several times that.

    Arguments:
        index: Which of the reference data each sample is nearest to, with shape ``(N,)``.
        count: The number of reference data.
    """
    shares = torch.bincount(index, minlength=count).double() / len(index)
    return float((shares - 1 / count).square().sum().mul(count / (4 * (count - 1))).sqrt())


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
        (to_train, of_train), (to_test, of_test) = nearest(drawn, train), nearest(drawn, test)
        # Data that are in both are nearer to neither.
        nearer = (to_train < to_test).double() + (to_train == to_test).double() / 2
        error = 100 * error_of(torch.where(nearer > 0, of_train, count + of_test), 2 * count)
        compared = {"reference": "clean train and test", "reference_samples": 2 * count}
        card = {**evaluation.card, "samples": len(drawn), **compared}
        yield Measurement(100 * float(nearer.mean()), "prior", card, error=error)
