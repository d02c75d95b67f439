"""Gathers how far the posteriors of an experiment can be believed, in one table."""

from typing import TYPE_CHECKING

from diem.evaluation.rows import over_seeds, read_rows
from diem.jobs.job import started
from diem.report.tables.calibration import calibration, readable_calibration
from diem.report.tables.writing import write_table

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    params = snakemake.params
    rows = over_seeds(read_rows(snakemake.input))
    table = calibration(rows, params.labels, params.ceilings)
    write_table(snakemake.output, table, readable_calibration(table))
