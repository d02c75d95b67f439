"""Measures some random cases of the heuristics."""

from typing import TYPE_CHECKING

from diem.evaluation.rows import write_rows
from diem.jobs.job import started
from diem.paper.heuristics.divergences import divergences

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake, unit="noise level") as job:
    params, name = snakemake.params, snakemake.wildcards.heuristics
    first, last = params.cases
    rows = divergences(name, params.entry, range(first, last + 1), job)
    write_rows(snakemake.output[0], rows)
