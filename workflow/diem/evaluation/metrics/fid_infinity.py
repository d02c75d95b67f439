"""The FID without bias by the number of samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from diem.evaluation.extrapolation import frechet_distance_infinity, least_samples
from diem.evaluation.metrics.base import Label, Measurement, Metric, Planned

if TYPE_CHECKING:
    from diem.evaluation.evaluate import Evaluation

__all__ = ["FIDInfinity"]

FEATURES = 2048
"""The pooled features of the Inception network."""


class FIDInfinity(Metric):
    """The `fid` of infinitely many prior samples, extrapolated.

    It is :func:`diem.evaluation.extrapolation.frechet_distance_infinity` to the same fit of the
    clean training split, whose own number stays as it is: that leaves a perfect prior a little
    above 0.
    """

    name = "fid_infinity"
    order = 12
    labels = {"fid_infinity": Label("FID-infinity", "{extractor}", "↓", least=None)}
    needs = frozenset({"clean", "colour"})
    subject = "samples"
    inputs = ("inception_weights", "inception_reference")

    def problem(self, planned: Planned) -> str | None:
        least = least_samples(FEATURES)
        few = planned.settings["samples"] < least
        return f"{least} samples or more (evaluation.samples)" if few else None

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        from diem.evaluation import inception
        from diem.evaluation.feature_network import load_reference

        network, samples = inception.network_of(evaluation), evaluation.samples[0]
        reference = load_reference(evaluation.file("inception_reference"), network)
        features = inception.pooled_features(evaluation, samples)
        value = frechet_distance_infinity(features, reference.moments, evaluation.job.seed)
        card = {**samples.card, **network.card, **reference.card}
        yield Measurement(value, samples.subject, card)
