"""Sets published numbers beside an experiment's own."""

from typing import TYPE_CHECKING

from diem import published, storage, tables
from diem.jobs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    files, output = snakemake.input, snakemake.output
    rows = tables.read_rows(files.metrics)
    table = published.beside(rows, snakemake.params.runs, files.published)
    readable = published.readable(table)
    texts = {
        output.csv: table.to_csv(index=False),
        output.markdown: tables.markdown(readable),
        output.latex: tables.latex(readable),
        output.html: tables.html(readable),
    }
    for path, text in texts.items():
        with storage.atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
