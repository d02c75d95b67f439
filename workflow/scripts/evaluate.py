"""Evaluates a prior: the floor, a lap, or the ceiling."""

from typing import TYPE_CHECKING

from diem.data.observations import Observations
from diem.diffusion.denoisers import load_prior
from diem.em.e_step import PosteriorSampler
from diem.evaluation import evaluate as evaluation
from diem.files.hdf5 import write_hdf5
from diem.jobs import resume
from diem.jobs.job import job, progress, select_device
from diem.report import tables

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    params, files = snakemake.params, snakemake.input
    device = select_device(snakemake.config["device"])
    prior = load_prior(files.prior)
    card = {**params.card, "optimizer_steps": prior.card["optimizer_steps"]}
    made_of = resume.fingerprint(
        [*files], params.data, params.evaluation, params.e_step, params.seed, device=device
    )
    with (
        Observations(files.observations) as observations,
        resume.Pieces(
            snakemake.output[0], made_of, snakemake.config["checkpoint_seconds"]
        ) as pieces,
        progress(snakemake.log[0], unit="sample") as bar,
    ):
        rows, arrays = evaluation.evaluate(
            prior.to(device),
            observations,
            files.get("clean"),
            params.data,
            params.evaluation,
            PosteriorSampler.from_config(params.e_step),
            params.seed,
            card,
            e_step_samples=files.get("samples", []),
            extractor=files.get("extractor"),
            inception_weights=files.get("inception_weights"),
            inception_reference=files.get("inception_reference"),
            keep=pieces,
            progress=bar.update,
            cache_mb=snakemake.config["cache_mb"],
        )
        write_hdf5(snakemake.output.samples, arrays, params.card)
        tables.write_rows(snakemake.output.metrics, rows)
