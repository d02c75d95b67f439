"""Gathers the reconstructions of an experiment in one table."""

from typing import TYPE_CHECKING

from diem.evaluation.rows import over_seeds, read_rows, write_rows
from diem.jobs.job import started
from diem.report.tables.reconstructions import readable_reconstructions, reconstructions
from diem.report.tables.writing import write_table

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    files, params = snakemake.output, snakemake.params
    rows = read_rows(snakemake.input)
    table = reconstructions(over_seeds(rows), params.labels, params.trained)
    write_table(files, table, readable_reconstructions(table))
    write_rows(files.rows, rows)
