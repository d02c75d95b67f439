"""Reconstructs the test images of a set of observations with a run's last prior."""

from typing import TYPE_CHECKING

from diem.data.observations import Observations
from diem.diffusion.posterior_sampler import PosteriorSampler
from diem.diffusion.prior import read_prior
from diem.em.laps import with_batch
from diem.evaluation.reconstruct import Reconstruction, reconstruct
from diem.evaluation.rows import write_rows
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import started

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake, unit="sample") as job:
    params, files = snakemake.params, snakemake.input
    config, names = snakemake.config, dict(snakemake.wildcards.items())
    with Observations(files.observations) as observations:
        task = Reconstruction(
            read_prior(files.prior).to(job.device),
            read_prior(files.gaussian).to(job.device),
            observations,
            files.clean,
            params.evaluation,
            PosteriorSampler.from_config(with_batch(params.e_step, config, names)),
            job,
        )
        rows, arrays = reconstruct(task, params.card)
    write_hdf5(snakemake.output.samples, arrays, {**params.card, "stage": "lap"})
    write_rows(snakemake.output.metrics, rows)
