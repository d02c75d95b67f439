"""The kernel inception distance: the kernel distance on features of the Inception network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from diem.evaluation.metrics.base import Label, Measurement, Metric, Planned, clean_test, too_few

if TYPE_CHECKING:
    from diem.evaluation.evaluate import Evaluation

__all__ = ["KID"]


class KID(Metric):
    """The distance of prior samples from the clean test split, without bias by their number.

    It is :func:`diem.evaluation.kernel.kernel_distance`, of all images of both sets.
    """

    name = "kid"
    order = 15
    labels = {"kid": Label("KID", "{extractor}", "↓", least=None)}
    needs = frozenset({"clean", "colour"})
    subject = "samples"
    inputs = ("inception_weights",)

    def problem(self, planned: Planned) -> str | None:
        return too_few(planned, 2)

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        from diem.evaluation import inception
        from diem.evaluation.evaluate import Samples
        from diem.evaluation.kernel import kernel_distance

        network, test = inception.network_of(evaluation), Samples("test", evaluation.test, {})
        reference = inception.pooled_features(evaluation, test)
        for samples in evaluation.samples:
            value = kernel_distance(inception.pooled_features(evaluation, samples), reference)
            card = {**samples.card, **network.card, **clean_test(len(reference))}
            yield Measurement(value, samples.subject, card)
