"""Measures some random cases of the heuristics."""

from typing import TYPE_CHECKING

from diem.jobs.job import started
from diem.paper import heuristics
from diem.report import tables

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake, unit="noise level") as job:
    params = snakemake.params
    first, last = params.cases
    rows = heuristics.divergences(
        snakemake.wildcards.heuristics,
        params.entry,
        job.seed,
        range(first, last + 1),
        job.device,
        keep=job.keep,
        progress=job.progress.update,
    )
    tables.write_rows(snakemake.output[0], rows)
