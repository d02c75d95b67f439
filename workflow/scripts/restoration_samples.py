"""Restores test images with one posterior sampler, at every task and number of steps."""

from typing import TYPE_CHECKING

from diem.evaluation.rows import write_rows
from diem.files.hdf5 import write_hdf5
from diem.jobs.job import started
from diem.paper.restoration import prior
from diem.paper.restoration.restore import compare

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake, unit="image") as job:
    params, files, wildcards = snakemake.params, snakemake.input, snakemake.wildcards
    entry = params.entry
    if entry["pretrained"] is None:
        denoiser, columns = prior.trained(files.prior, entry["schedule"], entry["clip"])
    else:
        settings = params.weights, entry["schedule"], entry["clip"]
        denoiser, columns = prior.pretrained(entry["pretrained"], *settings)
    job.progress.reset(total=entry["images"] * len(entry["tasks"]) * len(entry["steps"]))
    metric_files = dict(files.items())
    columns["experiment"] = wildcards.comparison
    rows, arrays = compare(
        denoiser, files.clean, entry, wildcards.method, columns, job, metric_files
    )
    write_hdf5(snakemake.output.images, arrays, {"method": wildcards.method})
    write_rows(snakemake.output.rows, rows)
