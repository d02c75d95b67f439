"""Draws posterior samples of new observations."""

from typing import TYPE_CHECKING

from diem.data.observations import users_observations
from diem.inference import priors
from diem.jobs import resume
from diem.jobs.job import job, progress, select_device

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    files, params = snakemake.input, snakemake.params
    entry = params.entry
    device = select_device(snakemake.config["device"])
    prior = priors.load_prior(files.prior, device)
    made_of = resume.fingerprint([*files], entry, params.e_step, params.seed, device=device)
    with (
        users_observations(files.observations, entry["operator"], entry["sigma_y"]) as file,
        resume.Pieces(
            snakemake.output[0], made_of, snakemake.config["checkpoint_seconds"]
        ) as pieces,
        progress(snakemake.log[0], "sample", entry["samples"] * len(file)) as bar,
    ):
        priors.write_posteriors(
            snakemake.output[0],
            prior,
            file,
            entry["samples"],
            seed=params.seed,
            batch=entry["batch"],
            pieces=pieces,
            progress=bar.update,
            **params.e_step,
        )
