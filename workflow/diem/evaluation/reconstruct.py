"""Reconstructions of images by a learned prior, by the Gaussian that it began with, and by none."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from diem.data.observations import Observations
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import Prior
from diem.evaluation.draws import Posteriors
from diem.evaluation.evaluate import groups_of, posterior_arrays, read_truth, some_observations
from diem.evaluation.metrics import METRICS, Fidelity, Measurement
from diem.evaluation.metrics.base import Planned, clean_test, mean_of
from diem.evaluation.rows import metric_rows
from diem.jobs.job import Job
from diem.seeds import Stage

__all__ = ["Reconstruction", "reconstruct"]


@dataclass(frozen=True)
class Reconstruction:
    """What images are reconstructed of, and with which priors.

    Arguments:
        prior: The learned prior, on the device to use.
        gaussian: The Gaussian prior that it began with, on the same device.
        observations: The observations, whose test split the priors have never seen.
        clean: The file of clean data; its test split is the reference.
        settings: Of the config's ``evaluation`` entry ``test_observations`` and
            ``posterior_samples``.
        sampler: The sampler of the posteriors.
        job: The job.
    """

    prior: Prior
    gaussian: Prior
    observations: Observations
    clean: str | Path
    settings: Mapping[str, Any]
    sampler: PosteriorSampler
    job: Job


def reconstruct(
    task: Reconstruction, card: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Reconstructs images of observations that the prior need not have been trained on.

    Three ways are measured by the metrics of reconstructions: ``A' y``, which of undersampled
    Fourier observations is the zero-filled inverse; the Gaussian prior, whose posterior mean is
    exact; and the learned prior, whose posterior mean is that of its samples.

    Arguments:
        task: The priors, the observations, and the truth.
        card: The part of the rows' card that the caller knows: experiment, run, observations, lap.

    Returns:
        The rows, and the learned prior's arrays ``posterior/*`` as
        :func:`diem.evaluation.evaluate.evaluate` returns them.
    """
    observed = some_observations(task.observations, task.settings, task.job.seed)
    count, stage = task.settings["posterior_samples"], Stage.TEST_POSTERIOR
    floor = Posteriors(task.gaussian, task.sampler, count, task.job)
    lap = Posteriors(task.prior, task.sampler, count, task.job)
    from_gaussian = floor.draw(observed, "floor/posterior", stage)
    from_prior = lap.draw(observed, "posterior", stage)
    truth = read_truth(task.clean, observed, task.prior)

    closed = {"split": "test", "samples": len(truth), "sampler": "closed form"}
    on_device = observed.to(task.gaussian.gaussian.mean.device)
    given = (on_device.operator, on_device.y, on_device.sigma_y)
    exact = task.gaussian.gaussian.posterior_mean(*given).cpu()
    of_floor, of_lap = (
        {"stage": name, **{key: prior.card[key] for key in ("lap", "optimizer_steps")}}
        for name, prior in (("floor", task.gaussian), ("lap", task.prior))
    )
    drawn = lap.card(len(truth))
    estimates = [
        ("adjoint", observed.operator.adjoint(observed.y), closed),
        ("posterior", from_gaussian, {**floor.card(len(truth)), **of_floor}),
        ("posterior_mean", exact, {**closed, **of_floor}),
        ("posterior", from_prior, {**drawn, **of_lap}),
        ("posterior_mean", from_prior.mean(dim=1), {**drawn, **of_lap}),
    ]
    rows, groups = [], groups_of(task.observations, task.settings, task.job.seed)
    for metric in _metrics(task.prior.event_shape):
        measurements = _compared(metric, estimates, truth, groups)
        rows += metric_rows(metric.name, measurements, card, task.job.seed)
    return rows, posterior_arrays(from_prior, observed, truth)


def _metrics(event_shape: tuple[int, ...]) -> list[Fidelity]:
    """Returns the metrics of reconstructions: all that need no files and suit the images' shape."""
    known = sorted(METRICS.all().values(), key=lambda metric: metric.order)
    found = [metric() for metric in known if issubclass(metric, Fidelity) and not metric.inputs]
    return [metric for metric in found if not metric.problem(Planned(event_shape, None, {}))]


def _compared(
    metric: Fidelity,
    estimates: Iterable[tuple[str, Tensor, Mapping[str, Any]]],
    truth: Tensor,
    groups: np.ndarray | None,
) -> Iterable[Measurement]:
    for subject, x, card in estimates:
        told = {**clean_test(len(truth)), **card}
        yield mean_of(metric.of_each(x, truth), subject, told, groups=groups)
