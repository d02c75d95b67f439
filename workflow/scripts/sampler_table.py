"""Gathers the rows of a comparison of posterior samplers, and makes its table of them."""

from typing import TYPE_CHECKING

from diem import restoration_table, tables
from diem.jobs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    output = snakemake.output
    rows = tables.read_rows(snakemake.input.rows)
    table = restoration_table.beside(rows, snakemake.input.published)
    tables.write(output, table, restoration_table.readable(table, rows))
    tables.write_rows(output.rows, rows)
