"""The FID: the Fréchet distance on features of the Inception network."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

from diem.evaluation.metrics.base import Label, Measurement, Metric, Panel

if TYPE_CHECKING:
    from diem.evaluation.evaluate import Evaluation


__all__ = ["FID"]


class FID(Metric):
    """The distance of many samples from the clean training split.

    References:
        | GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium
          (Heusel et al., 2017)
        | https://arxiv.org/abs/1706.08500
    """

    name = "fid"
    order = 10
    labels = {"fid": Label("FID", "{extractor}", "↓")}
    needs = frozenset({"clean", "colour"})
    subject = "samples"
    inputs = ("inception_weights", "inception_reference")
    panel: ClassVar[Panel | None] = Panel("distance", 2)
    quality: ClassVar[float | None] = 1

    @staticmethod
    def source() -> ModuleType:
        """Returns the module of its network."""
        from diem.evaluation import inception

        return inception

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        from diem.evaluation.feature_network import load_reference
        from diem.evaluation.gaussians import feature_moments, frechet_distance_of_moments

        source = self.source()
        network, (_, reference_file) = source.network_of(evaluation), self.inputs
        reference = load_reference(evaluation.file(reference_file), network)
        for samples in evaluation.samples:
            features = source.features_of(evaluation, samples)
            fitted = feature_moments(pooled for pooled, *_ in features)
            value = frechet_distance_of_moments(fitted, reference.moments)
            card = {**samples.card, **network.card, **reference.card}
            yield Measurement(value, samples.subject, card)
