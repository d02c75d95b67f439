"""Gathers the rows of the heuristics, and makes their table beside the published medians."""

from typing import TYPE_CHECKING

import pandas as pd

from diem import heuristics, storage, tables
from diem.jobs import job

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    files = snakemake.output
    rows = pd.concat([pd.read_csv(path) for path in snakemake.input.rows], ignore_index=True)
    table = heuristics.summary(rows, snakemake.input.published)
    readable = heuristics.readable(table)
    texts = {
        files.rows: rows.to_csv(index=False),
        files.csv: table.to_csv(index=False),
        files.markdown: tables.markdown(readable),
        files.latex: tables.latex(readable),
        files.html: tables.html(readable),
    }
    for path, text in texts.items():
        with storage.atomic(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
