"""Selects the lap of each run, by validation observations alone."""

from typing import TYPE_CHECKING

from diem.evaluation.selection import select_laps
from diem.jobs.job import started
from diem.report.tables.laps import readable_selection
from diem.report.tables.writing import write_table

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    files = snakemake.input
    table = select_laps(files.metrics, files.evaluations, snakemake.params.labels)
    write_table(snakemake.output, table, readable_selection(table))
