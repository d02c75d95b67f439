"""Fits the Gaussian prior to observations alone."""

from typing import TYPE_CHECKING

from diem.data.observations import Observations
from diem.diffusion.gaussian import fit_to_observations
from diem.diffusion.prior import Prior
from diem.jobs.job import started
from diem.seeds import Stage, torch_generator
from diem.versions import of_code, versions

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake, unit="iteration") as job:
    entry = snakemake.params.gaussian
    with Observations(snakemake.input.observations) as file:
        rows = file.subset("train", entry["observations"], job.seed)
        observed = file.load("train", rows[:: entry["every"]]).to(job.device)
    gaussian = fit_to_observations(
        observed.operator,
        observed.y,
        observed.sigma_y,
        entry["rank"],
        entry["iterations"],
        torch_generator(job.seed, Stage.GAUSSIAN, device=job.device),
        job.keep,
    )
    card = {
        "experiment": snakemake.wildcards.experiment,
        **snakemake.params.made,
        "gaussian": entry,
        "fitted_to": len(observed.y),
        "lap": 0,
        "optimizer_steps": 0,
        "seed": job.seed,
        "versions": versions(),
        **of_code(snakemake.params.code),
    }
    Prior(gaussian, None, card).save(snakemake.output[0])
