"""Gathers the metric rows of an experiment, and makes its table of them."""

from typing import TYPE_CHECKING

from diem.jobs.job import job
from diem.report import tables

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    runs, files = snakemake.params.runs, snakemake.output
    rows = tables.read_rows(snakemake.input)
    tables.write(files, tables.summary(rows, runs), tables.readable(rows, runs))
    tables.write_rows(files.rows, rows)
