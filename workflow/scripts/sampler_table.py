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
    readable = restoration_table.readable(table, rows)
    texts = {
        output.rows: rows.to_csv(index=False),
        output.csv: table.to_csv(index=False),
        output.markdown: tables.markdown(readable),
        output.latex: tables.latex(readable),
        output.html: tables.html(readable),
    }
    for path, text in texts.items():
        with storage.atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
