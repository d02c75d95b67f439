"""Gathers the rows of a comparison of posterior samplers, and makes its table of them."""

from typing import TYPE_CHECKING

from diem import restoration_table, storage, tables
from diem.jobs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    output = snakemake.output
    rows = tables.read_rows(snakemake.input.rows)
    table = restoration_table.beside(rows, snakemake.input.published)
    tables.write(dict(output.items()), table, restoration_table.readable(table, rows))
    with storage.atomic(output.rows) as temporary:
        temporary.write_text(rows.to_csv(index=False), encoding="utf-8")
