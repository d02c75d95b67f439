"""The Fréchet distance on features of a small classifier of the same images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from diem.evaluation.metrics.base import Label, Measurement, Metric, Panel, Planned, clean_test

if TYPE_CHECKING:
    from diem.evaluation.evaluate import Evaluation


__all__ = ["FrechetDistance"]

FEATURES = 32
"""The extractor's features, :attr:`diem.evaluation.extractor.Extractor.dimension`."""


class FrechetDistance(Metric):
    """The distance of many samples from the clean test split, on features of the extractor."""

    name = "frechet_distance"
    order = 30
    labels = {
        "frechet_distance": Label(
            *("Frechet distance", "{extractor} features", "↓"),
            heading="Frechet distance (features)",
        )
    }
    needs = frozenset({"clean", "images", "labels"})
    subject = "samples"
    inputs = ("extractor",)
    panel = Panel("distance", 1)
    quality = 2

    def problem(self, planned: Planned) -> str | None:
        if planned.settings["samples"] <= FEATURES:
            return f"more evaluation.samples than its {FEATURES} features"
        if planned.counts is not None and planned.counts["test"] <= FEATURES:
            return f"more test images (data.test) than its {FEATURES} features"
        return None

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        from diem.evaluation.extractor import load_extractor
        from diem.evaluation.gaussians import feature_moments, frechet_distance_of_moments
        from diem.files.hdf5 import row_parts

        test, extractor = evaluation.test, load_extractor(evaluation.file("extractor"))
        reference = feature_moments(map(extractor.features, row_parts(test)), full=True)
        for subject, x, card in evaluation.samples:
            # Pixels are clipped to their range, as they would be in an image file.
            clipped = (part.clip(-2, 2) for part in row_parts(x))
            fitted = feature_moments(map(extractor.features, clipped), full=True)
            value = frechet_distance_of_moments(fitted, reference)
            yield Measurement(value, subject, {**card, **clean_test(len(test)), **extractor.card})
