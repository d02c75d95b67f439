"""Gathers the rows of the heuristics, and makes their table beside the published medians."""

from typing import TYPE_CHECKING

import pandas as pd

from diem.evaluation.rows import write_rows
from diem.files.tables import read_csv
from diem.jobs.job import started
from diem.paper.heuristics.table import divergence_table, readable_divergences
from diem.report.tables.writing import write_table

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    files = snakemake.output
    rows = pd.concat([read_csv(path) for path in snakemake.input.rows], ignore_index=True)
    table = divergence_table(rows, snakemake.input.published)
    write_table(files, table, readable_divergences(table))
    write_rows(files.rows, rows)
