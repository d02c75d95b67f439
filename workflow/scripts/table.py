"""Gathers the metric rows of an experiment, and makes its table of them."""

from typing import TYPE_CHECKING

from diem import storage, tables
from diem.jobs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    runs, files = snakemake.params.runs, snakemake.output
    rows = tables.read_rows(snakemake.input)
    readable = tables.readable(rows, runs)
    texts = {
        files.rows: rows.to_csv(index=False),
        files.csv: tables.summary(rows, runs).to_csv(index=False),
        files.markdown: tables.markdown(readable),
        files.latex: tables.latex(readable),
        files.html: tables.html(readable),
    }
    for path, text in texts.items():
        with storage.atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
