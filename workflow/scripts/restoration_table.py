"""Gathers the rows of a comparison of posterior samplers, and makes its table of them."""

from typing import TYPE_CHECKING

from diem.jobs.job import job
from diem.paper.restoration.table import readable_restoration, restoration_table
from diem.report import tables

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    output = snakemake.output
    rows = tables.read_rows(snakemake.input.rows)
    table = restoration_table(rows, snakemake.input.published)
    tables.write(output, table, readable_restoration(table, rows))
    tables.write_rows(output.rows, rows)
