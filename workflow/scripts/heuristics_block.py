"""Measures some random cases of the heuristics."""

from typing import TYPE_CHECKING

from diem.jobs import resume
from diem.jobs.job import job, progress, select_device
from diem.paper import heuristics
from diem.report import tables

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    params = snakemake.params
    first, last = params.cases
    device = select_device(snakemake.config["device"])
    made_of = resume.fingerprint([], params.entry, params.seed, device=device)
    with (
        resume.Pieces(
            snakemake.output[0], made_of, snakemake.config["checkpoint_seconds"]
        ) as pieces,
        progress(snakemake.log[0], unit="noise level") as bar,
    ):
        rows = heuristics.divergences(
            snakemake.wildcards.heuristics,
            params.entry,
            params.seed,
            range(first, last + 1),
            device,
            keep=pieces,
            progress=bar.update,
        )
        tables.write_rows(snakemake.output[0], rows)
