"""Draws the figures of a comparison of posterior samplers: metrics by steps, restored images."""

from typing import TYPE_CHECKING

from diem.evaluation.rows import read_rows
from diem.files.hdf5 import Reader
from diem.jobs.job import started
from diem.paper.restoration.figures import restoration_images, restoration_metrics
from diem.paper.restoration.table import means_over_seeds
from diem.report.drawing.style import save

if TYPE_CHECKING:
    from snakemake.script import snakemake

PARTS = ("x", "y", "observed", "truth")


def images(path: str, task: str) -> dict:
    with Reader(path) as file:
        # What a method lost is not finite.
        return {part: file.read(f"{task}/{part}", finite=part != "x") for part in PARTS}


with started(snakemake):
    files, name = snakemake.input, snakemake.wildcards.comparison
    rows = means_over_seeds(read_rows(files.rows))
    methods = list(rows["run"].unique())
    shown = {
        task: dict(zip(methods, (images(path, task) for path in files.images), strict=True))
        for task in rows["observations"].unique()
    }
    drawn = {
        "metrics": restoration_metrics(rows, name),
        "images": restoration_images(rows, shown, name),
    }
    for output, path in snakemake.output.items():
        figure, kind = output.split("_")
        save(drawn[figure], path, kind)
