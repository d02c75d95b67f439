"""Draws one figure of an experiment, as PDF and PNG."""

from typing import TYPE_CHECKING

from diem.jobs.job import started
from diem.report.drawing.style import save
from diem.report.figures.base import figure_named
from diem.report.figures.files import opened

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    files, params = snakemake.input, snakemake.params
    figure, experiment = figure_named(params.figure), snakemake.wildcards.experiment
    settings = experiment, params.labels, params.metrics, params.ceilings, params.trained
    with opened(figure.reads, *settings, dict(files.items())) as source:
        drawn = figure.draw(source)
    for kind, path in snakemake.output.items():
        save(drawn, path, kind)
