"""Trains the feature extractor of the Frechet distance on clean, labelled images."""

import contextlib
from typing import TYPE_CHECKING

from diem.evaluation import metrics
from diem.files.hdf5 import Reader, Rows
from diem.jobs import resume
from diem.jobs.job import job, logger

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    clean, seed, images = snakemake.input.clean, snakemake.params.seed, []
    with (
        contextlib.ExitStack() as opened,
        resume.Pieces(
            snakemake.output[0],
            resume.fingerprint([clean], seed),
            snakemake.config["checkpoint_seconds"],
        ) as pieces,
    ):
        file = opened.enter_context(Reader(clean))
        for split in ("train", "test"):
            x = Rows([clean], f"{split}/x", cache_mb=snakemake.config["cache_mb"])
            images += [opened.enter_context(x), file.read(f"{split}/label")]
        extractor = metrics.train_extractor(*images, seed, keep=pieces)
        logger.info("accuracy on the test split: %.4f", extractor.validation_accuracy)
        extractor.save(snakemake.output[0])
