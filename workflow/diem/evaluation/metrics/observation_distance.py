"""The distance between held-out observations and observations of model samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from diem.evaluation.metrics.base import Label, Measurement, Metric
from diem.evaluation.metrics.sliced_wasserstein import sliced_wasserstein
from diem.lazy import torch

if TYPE_CHECKING:
    import numpy as np

    from diem.evaluation.evaluate import Evaluation

__all__ = ["ObservationDistance"]


class ObservationDistance(Metric):
    r"""How far observations of the prior's samples are from held-out ones.

    Each test observation's operator observes one model sample; the sliced Wasserstein distance is
    between the two sets of :math:`A^\top y`, in which observations of different operators can be
    compared.
    """

    name = "observation_distance"
    order = 80
    labels = {"observation_distance": Label("Observation distance", "data units", "↓")}
    subject = "observations"

    def measure(self, evaluation: Evaluation) -> Iterator[Measurement]:
        from diem.evaluation.draws import Blocks
        from diem.seeds import Stage, torch_generator

        x, observations, seed = evaluation.x, evaluation.observations, evaluation.job.seed
        chosen = observations.subset("test", len(x), seed)
        count = len(chosen)

        def of_model(number: int, rows: slice) -> np.ndarray:
            held = observations.load("test", chosen[rows])
            generator = torch_generator(seed, Stage.METRIC, 0, number)
            noise = torch.randn(held.y.shape, generator=generator)
            y = held.operator.forward(torch.from_numpy(x[rows])) + held.sigma_y * noise
            return held.operator.adjoint(y).numpy()

        def of_test(number: int, rows: slice) -> np.ndarray:
            held = observations.load("test", chosen[rows])
            return held.operator.adjoint(held.y).numpy()

        size = evaluation.settings["block"]
        model, test = (Blocks(count, size, adjoint) for adjoint in (of_model, of_test))
        reference = f"held-out observations{observations.units()}"
        compared = {"reference": reference, "reference_samples": count}
        card = {**evaluation.card, "samples": count, "split": "test", **compared}
        yield Measurement(sliced_wasserstein(model, test, seed=seed), "prior", card)
