"""Fits the Gaussian prior to observations alone."""

from typing import TYPE_CHECKING

from diem.data.observations import Observations
from diem.diffusion.denoisers import Prior, versions
from diem.diffusion.gaussian import fit_to_observations
from diem.jobs import resume
from diem.jobs.job import job, select_device
from diem.seeds import Stage, torch_generator

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    entry, seed = snakemake.params.gaussian, snakemake.params.seed
    device = select_device(snakemake.config["device"])
    with Observations(snakemake.input.observations) as file:
        observed = file.load("train", slice(0, entry["observations"])).to(device)
    made_of = resume.fingerprint([snakemake.input.observations], entry, seed, device=device)
    with resume.Pieces(
        snakemake.output[0], made_of, snakemake.config["checkpoint_seconds"]
    ) as pieces:
        gaussian = fit_to_observations(
            observed.operator,
            observed.y,
            observed.sigma_y,
            entry["rank"],
            entry["iterations"],
            torch_generator(seed, Stage.GAUSSIAN, device=device),
            pieces,
        )
    card = {
        "experiment": snakemake.wildcards.experiment,
        **snakemake.params.made,
        "gaussian": entry,
        "fitted_to": len(observed.y),
        "lap": 0,
        "optimizer_steps": 0,
        "seed": seed,
        "versions": versions(),
    }
    Prior(gaussian, None, card).save(snakemake.output[0])
