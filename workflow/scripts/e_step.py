"""Draws a posterior sample for every observation of a shard."""

from typing import TYPE_CHECKING

from diem.data.observations import Observations
from diem.diffusion.denoisers import load_prior
from diem.em import e_step as sampling
from diem.jobs import results as folders
from diem.jobs import resume
from diem.jobs.job import job, progress, select_device

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    params, lap = snakemake.params, int(snakemake.wildcards.lap)
    entry = params.e_step
    previous = snakemake.input.get("previous", [])
    sigma_start = sampling.restart_level(entry["restart"], lap, params.laps)
    prior = load_prior(snakemake.input.prior, network=params.network)
    folders.remove_pieces(snakemake.input.prior)
    device = select_device(snakemake.config["device"])
    made_of = resume.fingerprint(
        [snakemake.input.prior, snakemake.input.observations, *previous],
        entry,
        sigma_start,
        params.seed,
        device=device,
    )
    with (
        Observations(snakemake.input.observations) as observations,
        resume.Pieces(
            snakemake.output[0], made_of, snakemake.config["checkpoint_seconds"]
        ) as pieces,
        progress(snakemake.log[0], unit="observation") as bar,
    ):
        sampling.e_step(
            snakemake.output[0],
            prior.to(device),
            observations,
            sampling.PosteriorSampler.from_config(entry),
            block=entry["block"],
            repeats=entry["repeats"],
            seed=params.seed,
            lap=lap,
            shard=int(snakemake.wildcards.shard),
            shards=snakemake.config["shards"],
            previous=previous,
            sigma_start=sigma_start,
            pieces=pieces,
            progress=bar,
            drop_last=entry["drop_last"],
            restart_residual=entry["restart_residual"],
        )
