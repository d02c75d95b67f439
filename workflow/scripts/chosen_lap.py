"""Chooses the lap of each run, by held-out observations alone."""

from typing import TYPE_CHECKING

from diem import choice, tables
from diem.jobs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    files = snakemake.input
    table = choice.choice(files.metrics, files.evaluations, snakemake.params.labels)
    tables.write(snakemake.output, table, choice.readable(table))
