"""Draws posterior samples of all observations, or of a shard's, or gathers those of all shards."""

from typing import TYPE_CHECKING

from diem.data.observations import Observations
from diem.diffusion.prior import read_prior
from diem.em.blocks import Shard
from diem.em.e_step import EStep, e_step
from diem.em.laps import SHARDS, lap_number, with_batch
from diem.em.restart import Restart
from diem.em.samples import gather_samples
from diem.jobs.job import started

if TYPE_CHECKING:
    from snakemake.script import snakemake

# What only gathers takes no device: where it runs there need be none.
shards = snakemake.input.get(SHARDS)
with started(snakemake, unit=None if shards else "observation") as job:
    params, files, config = snakemake.params, snakemake.input, snakemake.config
    lap, names = lap_number(snakemake.wildcards.lap), dict(snakemake.wildcards.items())
    if shards:
        gather_samples(shards, snakemake.output[0])
    else:
        prior = read_prior(files.prior, network=params.network)
        with Observations(files.observations) as observations:
            e_step(
                snakemake.output[0],
                prior,
                observations,
                EStep.from_config(with_batch(params.e_step, config, names)),
                lap,
                job,
                Shard(int(names.get("shard", 1)), config["shards"]),
                Restart.from_config(params.e_step, lap, files.get("previous", [])),
            )
