"""Fits the Gaussian prior to observations alone."""

from typing import TYPE_CHECKING

from diem.data.observations import Observations
from diem.em.gaussian_prior import gaussian_prior
from diem.jobs.job import started
from diem.versions import of_code

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake, unit="iteration") as job:
    params, name = snakemake.params, snakemake.wildcards.experiment
    card = {"experiment": name, **params.made, **of_code(params.code)}
    with Observations(snakemake.input.observations) as file:
        gaussian_prior(snakemake.output[0], file, params.gaussian, card, job)
