"""Gathers the metric rows of an experiment, and makes its table of them."""

from typing import TYPE_CHECKING

from diem.evaluation.rows import over_seeds, read_rows, write_rows
from diem.jobs.job import started
from diem.report.tables.experiment import readable_summary, summary
from diem.report.tables.writing import write_table

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    params, files = snakemake.params, snakemake.output
    rows = read_rows(snakemake.input)
    means = over_seeds(rows, params.metrics)
    settings = params.runs, params.metrics, params.ceilings
    write_table(files, summary(means, *settings), readable_summary(means, *settings))
    write_rows(files.rows, rows)
