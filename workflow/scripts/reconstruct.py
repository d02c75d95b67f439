"""Reconstructs the test images of a set of observations with a run's last prior."""

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
    made_of = resume.fingerprint(
        [*files], params.evaluation, params.e_step, params.seed, device=device
    )
    with (
        Observations(files.observations) as observations,
        resume.Pieces(
            snakemake.output[0], made_of, snakemake.config["checkpoint_seconds"]
        ) as pieces,
        progress(snakemake.log[0], unit="sample") as bar,
    ):
        rows, arrays = evaluation.reconstruct(
            load_prior(files.prior).to(device),
            load_prior(files.gaussian).to(device),
            observations,
            files.clean,
            params.evaluation,
            PosteriorSampler.from_config(params.e_step),
            params.seed,
            params.card,
            keep=pieces,
            progress=bar.update,
        )
        write_hdf5(snakemake.output.samples, arrays, {**params.card, "stage": "lap"})
        tables.write_rows(snakemake.output.metrics, rows)
