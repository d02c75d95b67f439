"""Fits the reference of the FID: the Inception features of the clean training images."""

from typing import TYPE_CHECKING

from diem.data.sets import DATASETS
from diem.evaluation import inception
from diem.evaluation.feature_network import Reference
from diem.files.hdf5 import Rows
from diem.jobs.job import started

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake, unit="image") as job:
    network = inception.load(snakemake.input.weights, job.device)
    step = DATASETS.find(snakemake.params.data["name"]).step
    # Each row is read once.
    with Rows([snakemake.input.clean], "train/x", cache_mb=0) as x:
        reference = Reference.of(x, "train", network, step, job.keep)
        reference.save(snakemake.output[0])
