"""Gathers the metric rows of an experiment, and makes its table of them."""

from typing import TYPE_CHECKING

from diem.evaluation.rows import read_rows, write_rows
from diem.jobs.job import job
from diem.report.tables.experiment import readable_summary, summary
from diem.report.tables.writing import write_table

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    runs, files = snakemake.params.runs, snakemake.output
    rows = read_rows(snakemake.input)
    write_table(files, summary(rows, runs), readable_summary(rows, runs))
    write_rows(files.rows, rows)
