"""The coil: a prior in three dimensions, observed once, whose posteriors a figure shows."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from diem.jobs.job import Job
from diem.paper.heuristics.mixture import Mixture, ObservedMixture, double_precision
from diem.paper.heuristics.posteriors import EXACT, noisy_posteriors
from diem.seeds import Stage, rng

__all__ = ["COIL_ARRAYS", "coil", "coil_samples"]

COIL_ARRAYS = ("prior", "posterior", EXACT)
"""The arrays of the coil beside those of the covariances, see :func:`coil_samples`."""


def coil(entry: Mapping[str, Any]) -> ObservedMixture:
    r"""Returns components along :math:`(2 \sin u, 2 \cos u, u / \pi - 2)`, u in [0, 2 pi].

    The observation is :math:`y = 0` with :math:`A = (1, 0, 2)`.

    Arguments:
        entry: The config's entry of the heuristics.
    """
    u = torch.linspace(0, 2 * math.pi, entry["components"], dtype=torch.float64)
    means = torch.stack([2 * u.sin(), 2 * u.cos(), 2 * u / math.pi - 2], dim=1)
    matrix = torch.tensor([[1.0, 0.0, 2.0]], dtype=torch.float64)
    prior = Mixture(means, entry["thickness"])
    return ObservedMixture(prior, matrix, torch.zeros(1, dtype=torch.float64), entry["sigma_y"])


def coil_samples(entry: Mapping[str, Any], job: Job) -> dict[str, np.ndarray]:
    """Draws the samples that the figure of the coil shows.

    Arguments:
        entry: The config's entry of the heuristics.
        job: The job.

    Returns:
        Arrays, float32, with shape ``(samples, 3)``: ``prior``, ``posterior``, :data:`EXACT` for
        p(x_t | y), and one for q(x_t | y) with each covariance.
    """
    problem, settings = coil(entry).to(double_precision(job.device)), entry["coil"]
    generator = rng(job.seed, Stage.HEURISTICS)  # block 0, which is no case
    counts = dict.fromkeys((EXACT, *entry["covariances"]), settings["samples"])
    drawn = noisy_posteriors(
        problem, settings["sigma"], settings["prior_samples"], counts, generator
    )
    prior = {"prior": problem.prior.sample(settings["samples"], generator)}
    arrays = prior | {name: samples for name, (samples, _) in drawn.items()}
    return {name: samples.float().cpu().numpy() for name, samples in arrays.items()}
