"""Reconstructs the test images of a set of observations with a run's last prior."""

from typing import TYPE_CHECKING

from diem import evaluation, resume, storage, tables
from diem.denoisers import load_prior
from diem.jobs import job, progress, select_device
from diem.sampling import PosteriorSampler

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    params, files = snakemake.params, snakemake.input
    device = select_device(snakemake.config["device"])
    made_of = resume.fingerprint(
        [*files], params.evaluation, params.e_step, params.seed, device=device
    )
    with (
        storage.Observations(files.observations) as observations,
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
        storage.write_hdf5(snakemake.output.samples, arrays, {**params.card, "stage": "lap"})
        tables.write_rows(snakemake.output.metrics, rows)
