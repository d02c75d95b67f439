"""Fits the reference of the FID: the Inception features of the clean training images."""

from typing import TYPE_CHECKING

from diem.evaluation import inception
from diem.files.hdf5 import Rows
from diem.jobs import resume
from diem.jobs.job import job, select_device

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    device = select_device(snakemake.config["device"])
    network = inception.load(snakemake.input.weights, device)
    made_of = resume.fingerprint([*snakemake.input], device=device)
    with (
        # Each row is read once.
        Rows([snakemake.input.clean], "train/x", cache_mb=0) as x,
        resume.Pieces(
            snakemake.output[0], made_of, snakemake.config["checkpoint_seconds"]
        ) as pieces,
    ):
        inception.Reference.of(x, "train", network, pieces).save(snakemake.output[0])
