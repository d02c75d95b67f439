"""Fits the reference of FID or FD-DINOv2: the features of the clean training images."""

from typing import TYPE_CHECKING

from diem.data.sets import DATASETS
from diem.evaluation import dinov2, inception
from diem.evaluation.feature_network import Reference
from diem.files.hdf5 import Rows
from diem.jobs.job import started

if TYPE_CHECKING:
    from snakemake.script import snakemake

NETWORKS = {"inception": inception, "dinov2": dinov2}

with started(snakemake, unit="image") as job:
    network = NETWORKS[snakemake.wildcards.network].load(snakemake.input.weights, job.device)
    step = DATASETS.find(snakemake.params.data["name"]).step
    # Each row is read once.
    with Rows([snakemake.input.clean], "train/x", cache_mb=0) as x:
        reference = Reference.of(x, "train", network, step, job.keep)
        reference.save(snakemake.output[0])
