"""Trains the feature extractor of the Frechet distance on clean, labelled images."""

from typing import TYPE_CHECKING

from diem import metrics, storage
from diem.jobs import job, logger

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    with storage.Reader(snakemake.input.clean) as file:
        x, label = file.read("train/x"), file.read("train/label")
        x_test, label_test = file.read("test/x"), file.read("test/label")
    extractor = metrics.train_extractor(x, label, x_test, label_test, snakemake.params.seed)
    logger.info("accuracy on the test split: %.4f", extractor.validation_accuracy)
    extractor.save(snakemake.output[0])
