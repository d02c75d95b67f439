"""Plans the FLOPs, the hours and the disk of every stage, and prints the table."""

from typing import TYPE_CHECKING

import pandas as pd

from diem.jobs.job import started
from diem.planning.estimate import estimate, readable, text
from diem.report.tables.writing import write_table

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    rows = estimate(snakemake.config)
    table = readable(rows)
    write_table(snakemake.params.files, pd.DataFrame(rows), table)
    print(text(table))
