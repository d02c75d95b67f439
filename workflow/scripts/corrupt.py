"""Simulates observations y = A x + n of clean data."""

from typing import TYPE_CHECKING

from diem.data.simulate import corrupt
from diem.jobs.job import started

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake) as job:
    corrupt(
        snakemake.input.clean,
        snakemake.output[0],
        snakemake.params.entry,
        job.seed,
        snakemake.wildcards.experiment,
    )
