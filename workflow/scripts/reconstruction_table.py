"""Gathers the reconstructions of an experiment in one table."""

from typing import TYPE_CHECKING

from diem.jobs.job import job
from diem.report import tables

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    files, params = snakemake.output, snakemake.params
    rows = tables.read_rows(snakemake.input)
    table = tables.reconstructions(rows, params.labels, params.trained)
    tables.write(files, table, tables.reconstructions_readable(table))
    tables.write_rows(files.rows, rows)
