"""Draws posterior samples of new observations."""

from typing import TYPE_CHECKING

from diem.data.observations import users_observations
from diem.inference.prior_denoiser import load_prior
from diem.inference.sample_files import write_posteriors
from diem.jobs.job import logger, started

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake, unit="sample") as job:
    files, params = snakemake.input, snakemake.params
    entry = params.entry
    prior = load_prior(files.prior, job.device)
    with users_observations(files.observations, entry["operator"], entry["sigma_y"]) as file:
        job.progress.reset(total=entry["samples"] * len(file))
        outliers = write_posteriors(
            snakemake.output[0],
            prior,
            file,
            entry["samples"],
            job,
            batch=entry["batch"],
            **params.e_step,
        )
        if outliers:
            logger.warning(prior.outliers_told(outliers, entry["samples"] * len(file)))
