"""Writes the prior of the lap that was selected, with the selection in its card."""

from typing import TYPE_CHECKING

from diem.evaluation.selection import read_selection, write_selected
from diem.jobs.job import started

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    files, run = snakemake.input, snakemake.wildcards.run
    table = read_selection(files.table)
    write_selected(snakemake.output[0], table, files.table, run, files.priors)
