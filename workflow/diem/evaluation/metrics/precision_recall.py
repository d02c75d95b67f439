"""How much of prior samples looks like data, and how much of the data the prior covers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from diem.evaluation.arrays import pair
from diem.evaluation.metrics.base import Label, Measurement, Metric, Planned, clean_test
from diem.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from diem.evaluation.arrays import Array
    from diem.evaluation.evaluate import Evaluation

__all__ = ["PrecisionRecall", "precision_recall"]

MOST = 2048
"""The samples of each set that are compared, at most."""

NEIGHBOURS = 5


def precision_recall(x: Array, reference: Array, neighbours: int = NEIGHBOURS) -> dict[str, float]:
    """Returns fractions that compare two sets by the balls around samples to their k-th neighbours.

    ``precision`` is that of samples in a ball of the reference, ``recall`` that of the reference in
    a ball of the samples, ``density`` the mean number of the reference's balls that a sample lies
    in, divided by k, and ``coverage`` that of the reference whose ball holds a sample. Density and
    coverage of equally many samples of one distribution are 1 and 1 - 2^-k in expectation, nearly.

    References:
        | Improved Precision and Recall Metric for Assessing Generative Models
          (Kynkäänniemi et al., 2019), https://arxiv.org/abs/1904.06991
        | Reliable Fidelity and Diversity Metrics for Generative Models (Naeem et al., 2020)
        | https://arxiv.org/abs/2002.09797

    Arguments:
        x: The samples, with shape ``(N, *event)``.
        reference: What they are compared with, with shape ``(M, *event)``.
        neighbours: The number k of neighbours, less than either number of samples.
    """
    x, reference = pair(x, reference)
    distances = torch.cdist(x, reference)
    in_reference = distances <= _radii(reference, neighbours)
    in_samples = distances <= _radii(x, neighbours)[:, None]
    return {
        "precision": float(in_reference.any(dim=1).double().mean()),
        "recall": float(in_samples.any(dim=0).double().mean()),
        "density": float(in_reference.sum(dim=1).double().mean() / neighbours),
        "coverage": float(in_reference.any(dim=0).double().mean()),
    }


def _radii(x: Tensor, neighbours: int) -> Tensor:
    """Returns the distance of each sample to its k-th neighbour."""
    return torch.cdist(x, x).kthvalue(neighbours + 1, dim=1).values


class PrecisionRecall(Metric):
    """Fidelity and diversity of prior samples against the clean test split, of equally many."""

    name = "precision_recall"
    order = 46
    labels = {
        "precision_recall_precision": Label("Precision", "", "↑"),
        "precision_recall_recall": Label("Recall", "", "↑"),
        "precision_recall_density": Label("Density", "", "↑"),
        "precision_recall_coverage": Label("Coverage of clean data", "", "↑"),
    }
    needs = frozenset({"clean"})
    subject = "samples"

    def problem(self, planned: Planned) -> str | None:
        if planned.settings["samples"] <= NEIGHBOURS:
            return f"more evaluation.samples than its {NEIGHBOURS} neighbours"
        few = planned.counts is not None and planned.counts["test"] <= NEIGHBOURS
        return f"more test samples (data.test) than its {NEIGHBOURS} neighbours" if few else None

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        test = evaluation.test
        count = min(len(evaluation.x), len(test), MOST)
        card = {**evaluation.card, "samples": count, **clean_test(count)}
        found = precision_recall(evaluation.x[:count], evaluation.some(test, count))
        for name, value in found.items():
            yield Measurement(value, "prior", card, f"{self.name}_{name}")
