"""Sets published numbers beside an experiment's own."""

from typing import TYPE_CHECKING

from diem.jobs.job import job
from diem.paper import published
from diem.report import tables

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    files, output = snakemake.input, snakemake.output
    rows = tables.read_rows(files.metrics)
    table = published.with_published(rows, snakemake.params.runs, files.published)
    tables.write(output, table, published.readable_published(table))
