"""Measures some random cases of the heuristics."""

from typing import TYPE_CHECKING

from diem import heuristics, tables
from diem.jobs import job, progress, select_device

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    params = snakemake.params
    first, last = params.cases
    with progress(snakemake.log[0], unit="noise level") as bar:
        rows = heuristics.divergences(
            snakemake.wildcards.heuristics,
            params.entry,
            params.seed,
            range(first, last + 1),
            select_device(snakemake.config["device"]),
            progress=bar.update,
        )
    tables.write_rows(snakemake.output[0], rows)
