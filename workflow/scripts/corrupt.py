"""Simulates observations y = A x + n of clean data."""

from typing import TYPE_CHECKING

from diem.data import simulate as observing
from diem.jobs.job import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    observing.corrupt(
        snakemake.input.clean,
        snakemake.output[0],
        snakemake.params.entry,
        snakemake.params.seed,
        snakemake.wildcards.experiment,
    )
