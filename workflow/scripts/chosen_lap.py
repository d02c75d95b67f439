"""Selects the lap of each run, by held-out observations alone."""

from typing import TYPE_CHECKING

from diem.evaluation.selection import select_laps
from diem.jobs.job import job
from diem.report import tables
from diem.report.laps import readable_selection

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    files = snakemake.input
    table = select_laps(files.metrics, files.evaluations, snakemake.params.labels)
    tables.write(snakemake.output, table, readable_selection(table))
