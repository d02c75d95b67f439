"""Draws the first posteriors of new observations, as PDF and PNG."""

from typing import TYPE_CHECKING

from diem.data.observations import users_observations
from diem.inference.sample_files import read_posteriors
from diem.jobs.job import started
from diem.report.drawing.style import save
from diem.report.posteriors import POSTERIORS, posteriors

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    files, entry = snakemake.input, snakemake.params.entry
    with users_observations(files.observations, entry["operator"], entry["sigma_y"]) as file:
        shown = read_posteriors(files.samples, file, POSTERIORS)
    figure = posteriors(shown, snakemake.wildcards.posterior)
    for kind, path in snakemake.output.items():
        save(figure, path, kind)
