"""Fits the reference of the FID: the Inception features of the clean training images."""

from typing import TYPE_CHECKING

from diem import inception, storage
from diem.jobs import job, select_device

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    network = inception.load(snakemake.input.weights, select_device(snakemake.config["device"]))
    with storage.Reader(snakemake.input.clean) as file:
        x = file.read("train/x")
    inception.Reference.of(x, "train", network).save(snakemake.output[0])
