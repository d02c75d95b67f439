"""Trains the feature extractor of the Frechet distance on clean, labelled images."""

from typing import TYPE_CHECKING

from diem.evaluation.extractor import train_extractor
from diem.files.hdf5 import Reader, Rows
from diem.jobs.job import logger, started

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake) as job:
    clean = snakemake.input.clean
    with (
        Reader(clean) as file,
        Rows([clean], "train/x", cache_mb=job.cache_mb) as train,
        Rows([clean], "test/x", cache_mb=job.cache_mb) as test,
    ):
        labels = (file.read(f"{split}/label") for split in ("train", "test"))
        extractor = train_extractor(train, next(labels), test, next(labels), job.seed)
    logger.info("accuracy on the test split: %.4f", extractor.validation_accuracy)
    extractor.save(snakemake.output[0])
