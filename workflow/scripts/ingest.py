"""Checks the user's file of observations and takes it in."""

from typing import TYPE_CHECKING

from diem.data.ingest import ingest
from diem.jobs.job import started

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake) as job:
    ingest(
        snakemake.input[0],
        snakemake.output[0],
        snakemake.params.entry,
        snakemake.params.data,
        job.seed,
        snakemake.wildcards.experiment,
    )
