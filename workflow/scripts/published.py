"""Sets published numbers beside an experiment's own."""

from typing import TYPE_CHECKING

from diem.evaluation.rows import over_seeds, read_rows
from diem.jobs.job import started
from diem.paper import published
from diem.report.tables.writing import write_table

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    files, output = snakemake.input, snakemake.output
    rows = over_seeds(read_rows(files.metrics))
    table = published.with_published(rows, snakemake.params.runs, files.published)
    write_table(output, table, published.readable_published(table))
