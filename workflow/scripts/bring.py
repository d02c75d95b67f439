"""Checks the user's file of observations and takes it in."""

from typing import TYPE_CHECKING

from diem.data import ingest as own
from diem.jobs.job import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    own.bring(
        snakemake.input[0],
        snakemake.output[0],
        snakemake.params.entry,
        snakemake.params.data,
        snakemake.params.seed,
        snakemake.wildcards.experiment,
    )
