"""Gathers the rows of a comparison of posterior samplers, and makes its table of them."""

from typing import TYPE_CHECKING

from diem.evaluation.rows import read_rows, write_rows
from diem.jobs.job import started
from diem.paper.restoration.table import means_over_seeds, readable_restoration, restoration_table
from diem.report.tables.writing import write_table

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    output = snakemake.output
    rows = read_rows(snakemake.input.rows)
    means = means_over_seeds(rows)
    table = restoration_table(means, snakemake.input.published)
    write_table(output, table, readable_restoration(table, means))
    write_rows(output.rows, rows)
