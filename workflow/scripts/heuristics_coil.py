"""Draws the samples that the figure of the coil shows."""

from typing import TYPE_CHECKING

from diem.files.hdf5 import write_hdf5
from diem.jobs.job import job, select_device
from diem.paper import heuristics

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    params = snakemake.params
    device = select_device(snakemake.config["device"])
    arrays = heuristics.coil_samples(params.entry, params.seed, device)
    attributes = {
        "heuristics": snakemake.wildcards.heuristics,
        "seed": params.seed,
        "sigma": params.entry["coil"]["sigma"],
        "prior_samples": params.entry["coil"]["prior_samples"],
        "covariances": list(params.entry["covariances"]),
    }
    write_hdf5(snakemake.output[0], arrays, attributes)
