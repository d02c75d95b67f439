"""The Fréchet distance on features of a small classifier, without bias by numbers of samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from diem.evaluation.extrapolation import frechet_distance_infinity, least_samples
from diem.evaluation.metrics.base import Label, Measurement, Metric, Planned, clean_test, too_few
from diem.evaluation.metrics.frechet_distance import FEATURES

if TYPE_CHECKING:
    from diem.evaluation.evaluate import Evaluation

__all__ = ["FrechetDistanceInfinity"]


class FrechetDistanceInfinity(Metric):
    """The `frechet_distance` of infinitely many samples of prior and clean data, extrapolated.

    The numbers of prior samples and of test samples grow together, see
    :func:`diem.evaluation.extrapolation.frechet_distance_infinity`: a perfect prior has 0, about.
    """

    name = "frechet_distance_infinity"
    order = 32
    labels = {
        "frechet_distance_infinity": Label(
            *("Frechet distance of infinitely many samples", "{extractor} features", "↓", None),
            heading="Frechet distance, infinite (features)",
        )
    }
    needs = frozenset({"clean", "images", "labels"})
    subject = "samples"
    inputs = ("extractor",)

    def problem(self, planned: Planned) -> str | None:
        return too_few(planned, least_samples(FEATURES))

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        from diem.evaluation.extractor import load_extractor
        from diem.files.hdf5 import row_parts

        test, extractor = evaluation.test, load_extractor(evaluation.file("extractor"))
        # Pixels are clipped to their range, as they would be in an image file.
        features = extractor.features_of(part.clip(-2, 2) for part in row_parts(evaluation.x))
        reference = extractor.features_of(row_parts(test))
        value = frechet_distance_infinity(features, reference, evaluation.job.seed)
        card = {**evaluation.card, **clean_test(len(test)), **extractor.card}
        yield Measurement(value, "prior", card)
