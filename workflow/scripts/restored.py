"""Restores test images with one posterior sampler, at every task and number of steps."""

from pathlib import Path
from typing import TYPE_CHECKING

from diem.evaluation.lpips import Perceptual
from diem.files.hdf5 import write_hdf5
from diem.jobs import resume
from diem.jobs.job import job, progress, select_device
from diem.paper import restoration
from diem.report import tables

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    params, files, wildcards = snakemake.params, snakemake.input, snakemake.wildcards
    entry = params.entry
    device = select_device(snakemake.config["device"])
    if entry["pretrained"] is None:
        denoiser, card = restoration.trained(files.prior, entry["schedule"])
    else:
        denoiser, card = restoration.pretrained(
            entry["pretrained"], params.weights, entry["schedule"]
        )
    perceptual = None
    if files.get("lpips"):
        perceptual = Perceptual(Path(files.lpips[0]).parents[1], device)
    total = entry["images"] * len(entry["tasks"]) * len(entry["steps"])
    made_of = resume.fingerprint(
        [*files], entry, wildcards.method, card, params.seed, device=device
    )
    with (
        resume.Pieces(
            snakemake.output[0], made_of, snakemake.config["checkpoint_seconds"]
        ) as pieces,
        progress(snakemake.log[0], unit="image", total=total) as bar,
    ):
        rows, arrays = restoration.compare(
            denoiser,
            files.clean,
            entry,
            wildcards.method,
            params.seed,
            {"experiment": wildcards.experiment, **card},
            perceptual,
            device,
            pieces,
            bar.update,
        )
        write_hdf5(snakemake.output.images, arrays, {"method": wildcards.method})
        tables.write_rows(snakemake.output.rows, rows)
