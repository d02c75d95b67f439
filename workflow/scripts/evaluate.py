"""Evaluates a prior: the floor, a lap, or the ceiling."""

import json
from typing import TYPE_CHECKING

from diem.data.observations import Observations
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import read_prior
from diem.em.laps import with_batch
from diem.evaluation.evaluate import Evaluation, evaluate
from diem.evaluation.rows import write_rows
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import started

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake, unit="sample") as job:
    params, files = snakemake.params, dict(snakemake.input.items())
    config, names = snakemake.config, dict(snakemake.wildcards.items())
    prior = read_prior(files["prior"])
    card = {**params.card, "optimizer_steps": prior.card["optimizer_steps"]}
    with Observations(files["observations"]) as observations:
        evaluation = Evaluation(
            prior.to(job.device),
            observations,
            PosteriorSampler.from_config(with_batch(params.e_step, config, names)),
            params.evaluation,
            params.data,
            files,
            job,
        )
        rows, arrays = evaluate(evaluation, card)
        attributes = {**params.card, "posterior": json.dumps(params.e_step)}
        write_hdf5(snakemake.output.samples, arrays, attributes)
        write_rows(snakemake.output.metrics, rows)
