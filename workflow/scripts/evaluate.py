"""Evaluates a prior: the floor, a lap, or the ceiling."""

from typing import TYPE_CHECKING

from diem.data.observations import Observations
from diem.diffusion.denoisers import load_prior
from diem.em.e_step import PosteriorSampler
from diem.evaluation import evaluate as evaluation
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import started
from diem.report import tables

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake, unit="sample") as job:
    params, files = snakemake.params, snakemake.input
    prior = load_prior(files.prior)
    card = {**params.card, "optimizer_steps": prior.card["optimizer_steps"]}
    with Observations(files.observations) as observations:
        rows, arrays = evaluation.evaluate(
            prior.to(job.device),
            observations,
            files.get("clean"),
            params.data,
            params.evaluation,
            PosteriorSampler.from_config(params.e_step),
            job.seed,
            card,
            e_step_samples=files.get("samples", []),
            extractor=files.get("extractor"),
            inception_weights=files.get("inception_weights"),
            inception_reference=files.get("inception_reference"),
            keep=job.keep,
            progress=job.progress.update,
            cache_mb=job.cache_mb,
        )
        write_hdf5(snakemake.output.samples, arrays, params.card)
        tables.write_rows(snakemake.output.metrics, rows)
