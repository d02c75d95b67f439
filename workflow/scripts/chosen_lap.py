"""Chooses the lap of each run, by held-out observations alone."""

from typing import TYPE_CHECKING

from diem.evaluation import selection as choice
from diem.jobs.job import job
from diem.report import tables

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    files = snakemake.input
    table = choice.choice(files.metrics, files.evaluations, snakemake.params.labels)
    tables.write(snakemake.output, table, choice.readable(table))
