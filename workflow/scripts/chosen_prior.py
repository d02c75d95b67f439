"""Writes the prior of the lap that was selected, with the selection in its card."""

from typing import TYPE_CHECKING

from diem.evaluation.selection import write_selected
from diem.files.tables import read_csv
from diem.jobs.job import started

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    files, run = snakemake.input, snakemake.wildcards.run
    write_selected(snakemake.output[0], read_csv(files.table), files.table, run, files.priors)
