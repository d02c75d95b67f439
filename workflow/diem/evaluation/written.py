"""The evaluation of a prior's file, as files: its metric rows, and the arrays of figures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diem.data.observations import Observations
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import read_prior
from diem.em.laps import without_batch
from diem.evaluation.evaluate import Evaluation, evaluate
from diem.evaluation.rows import write_rows
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import Job

__all__ = ["Settings", "write_evaluation"]


class Settings(NamedTuple):
    """The settings of an evaluation.

    Attributes:
        card: What tells it from others: experiment, run, observations, stage, lap.
        evaluation: The config's ``evaluation`` entry.
        e_step: How posteriors are drawn, see :func:`diem.diffusion.outside.outside_e_step`.
        data: The config's ``data`` entry.
    """

    card: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    e_step: Mapping[str, Any]
    data: Mapping[str, Any]


def write_evaluation(
    metrics: str | Path, samples: str | Path, files: Mapping[str, Any], settings: Settings, job: Job
) -> None:
    """Evaluates a prior, and writes what was found.

    Arguments:
        metrics: The file of rows to write.
        samples: The file of arrays to write.
        files: The inputs: ``prior``, ``observations``, and those of :class:`Evaluation`.
        settings: The settings.
        job: The job.
    """
    prior = read_prior(files["prior"])
    card = {**settings.card, "optimizer_steps": prior.card["optimizer_steps"]}
    with Observations(files["observations"]) as observations:
        evaluation = Evaluation(
            prior.to(job.device),
            observations,
            PosteriorSampler.from_config(settings.e_step),
            settings.evaluation,
            settings.data,
            files,
            job,
        )
        rows, arrays = evaluate(evaluation, card)
        posterior = json.dumps(without_batch(settings.e_step))
        attributes = {**settings.card, "posterior": posterior}
        write_hdf5(samples, arrays, attributes)
        write_rows(metrics, rows)
