"""Draws a posterior sample for every observation of a shard."""

from typing import TYPE_CHECKING

from diem.data.observations import Observations
from diem.diffusion.denoisers import load_prior
from diem.em.e_step import PosteriorSampler, e_step, restart_level
from diem.jobs.job import started
from diem.jobs.results import remove_pieces

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake, unit="observation") as job:
    params, files, lap = snakemake.params, snakemake.input, int(snakemake.wildcards.lap)
    entry = params.e_step
    prior = load_prior(files.prior, network=params.network)
    remove_pieces(files.prior)
    with Observations(files.observations) as observations:
        e_step(
            snakemake.output[0],
            prior.to(job.device),
            observations,
            PosteriorSampler.from_config(entry),
            block=entry["block"],
            repeats=entry["repeats"],
            seed=job.seed,
            lap=lap,
            shard=int(snakemake.wildcards.shard),
            shards=snakemake.config["shards"],
            previous=files.get("previous", []),
            sigma_start=restart_level(entry["restart"], lap, params.laps),
            pieces=job.keep,
            progress=job.progress,
            drop_last=entry["drop_last"],
            restart_residual=entry["restart_residual"],
        )
