"""The kernel distance on features of a small classifier of the same images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from diem.evaluation.metrics.base import Label, Measurement, Metric, Planned, clean_test, too_few

if TYPE_CHECKING:
    from diem.evaluation.evaluate import Evaluation

__all__ = ["KernelDistance"]


class KernelDistance(Metric):
    """The distance of many samples from the clean test split, without bias by their number.

    It is :func:`diem.evaluation.kernel.kernel_distance`, on features of the extractor.
    """

    name = "kernel_distance"
    order = 35
    labels = {
        "kernel_distance": Label(
            *("Kernel distance", "{extractor} features", "↓", None),
            heading="Kernel distance (features)",
        )
    }
    needs = frozenset({"clean", "images", "labels"})
    subject = "samples"
    inputs = ("extractor",)

    def problem(self, planned: Planned) -> str | None:
        return too_few(planned, 2)

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        from diem.evaluation.extractor import load_extractor
        from diem.evaluation.kernel import kernel_distance
        from diem.files.hdf5 import row_parts

        test, extractor = evaluation.test, load_extractor(evaluation.file("extractor"))
        reference = extractor.features_of(row_parts(test))
        for subject, x, card in evaluation.samples:
            # Pixels are clipped to their range, as they would be in an image file.
            features = extractor.features_of(part.clip(-2, 2) for part in row_parts(x))
            value = kernel_distance(features, reference)
            yield Measurement(value, subject, {**card, **clean_test(len(test)), **extractor.card})
