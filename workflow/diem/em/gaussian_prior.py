"""The Gaussian prior that the first lap begins with, fitted to observations alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diem.data.observations import Observations
from diem.diffusion.gaussian import fit_to_observations
from diem.diffusion.prior import Prior
from diem.jobs.job import Job
from diem.seeds import Stage, torch_generator
from diem.versions import versions

__all__ = ["gaussian_prior"]


def gaussian_prior(
    output: str | Path,
    observations: Observations,
    entry: Mapping[str, Any],
    card: Mapping[str, Any],
    job: Job,
) -> None:
    """Fits the Gaussian prior to training observations, and writes it.

    Arguments:
        output: The prior to write.
        observations: The observations.
        entry: The config's ``gaussian`` entry.
        card: What the prior's card should tell beside the fit: experiment, data, observations.
        job: The job. Each iteration is a piece of its work.
    """
    rows = observations.subset("train", entry["observations"], job.seed)
    observed = observations.load("train", rows[:: entry["every"]]).to(job.device)
    gaussian = fit_to_observations(
        observed.operator,
        observed.y,
        observed.sigma_y,
        entry["rank"],
        entry["iterations"],
        torch_generator(job.seed, Stage.GAUSSIAN, device=job.device),
        job.keep,
        entry["shrinkage"],
    )
    told = {
        **card,
        "gaussian": dict(entry),
        "fitted_to": len(observed.y),
        "lap": 0,
        "optimizer_steps": 0,
        "seed": job.seed,
        "versions": versions(),
    }
    Prior(gaussian, None, told).save(output)
