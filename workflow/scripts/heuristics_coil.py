"""Draws the samples that the figure of the coil shows."""

from typing import TYPE_CHECKING

from diem.files.hdf5 import write_hdf5
from diem.jobs.job import started
from diem.paper.heuristics.coil import coil_samples

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake, unit="sample") as job:
    entry = snakemake.params.entry
    arrays = coil_samples(entry, job)
    attributes = {
        "heuristics": snakemake.wildcards.heuristics,
        "seed": job.seed,
        "sigma": entry["coil"]["sigma"],
        "prior_samples": entry["coil"]["prior_samples"],
        "covariances": list(entry["covariances"]),
    }
    write_hdf5(snakemake.output[0], arrays, attributes)
