"""The divergence that the paper shows: a transport that is cut short, less that of clean data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from diem.errors import DiemError
from diem.evaluation.metrics.base import (
    Label,
    Measurement,
    Metric,
    Panel,
    Planned,
    clean_test,
    too_few,
)

if TYPE_CHECKING:
    from diem.evaluation.arrays import Array
    from diem.evaluation.evaluate import Evaluation
    from diem.jobs.resume import Keep

__all__ = ["FLOOR", "TruncatedDivergence"]

FLOOR = 1e-6
"""The least value, in squared data units."""


def _cost(a: Array, b: Array, keep: Keep) -> float:
    """Returns the cost of the plan after at most 1,024 iterations, at the paper's tolerance."""
    from diem.evaluation.transport import truncated_transport

    # The paper's is a Euclidean norm of 1e-3, and this one is relative to masses of 1 / len(b).
    return truncated_transport(a, b, tolerance=1e-3 * math.sqrt(len(b)), keep=keep).cost


class TruncatedDivergence(Metric):
    r"""The paper's divergence from clean samples, by Sinkhorn iterations that are cut short.

    .. math:: \max(W_\lambda(u, v) - W_\lambda(u, u'), 10^{-6})

    of samples :math:`v` and two sets :math:`u, u'` of clean ones, halves of the test split,
    with :math:`\lambda = 10^{-3}`. It is no divergence of distributions: what it means
    is told by :func:`diem.evaluation.transport.truncated_transport`.
    """

    name = "truncated_divergence"
    order = 55
    labels = {
        "truncated_divergence": Label(
            *("Truncated divergence", "squared data units", "↓"),
            heading="Truncated divergence (squared units)",
        )
    }
    needs = frozenset({"clean"})
    subject = "samples"
    panel = Panel("divergence", 1.5)

    def problem(self, planned: Planned) -> str | None:
        return too_few(planned, 2)

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        from diem.jobs.resume import cached_number, prefixed

        test, keep = evaluation.test, evaluation.job.keep
        count = min(evaluation.settings["sinkhorn_samples"], len(test) // 2)
        if count == 0:
            raise DiemError(f"evaluation.metrics: {self.name!r} needs two clean test samples.")
        clean = evaluation.some(test, 2 * count)
        first, last = clean[:count], clean[count:]

        def cost(name: str, x: Array) -> float:
            piece = f"{self.name}/{name}"
            return cached_number(keep, piece, partial(_cost, first, x, prefixed(keep, piece)))

        subtracted = cost("clean", last)
        for subject, samples, card in evaluation.samples:
            x = evaluation.some(samples, count)
            value = max(cost(subject, x) - subtracted, FLOOR)
            yield Measurement(value, subject, {**card, "samples": len(x), **clean_test(2 * count)})
