"""Draws the figures of the heuristics: divergence against the noise level, and the coil."""

from typing import TYPE_CHECKING

import pandas as pd

from diem.files.hdf5 import Reader
from diem.jobs.job import job
from diem.paper.heuristics import COIL_ARRAYS
from diem.report import figures

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job(snakemake.log[0], snakemake.config["threads"]):
    name, files = snakemake.wildcards.heuristics, snakemake.input
    table = pd.read_csv(files.table).fillna({"source": ""})
    with Reader(files.coil) as file:
        names = [*COIL_ARRAYS, *file.attribute("covariances")]
        coil = {key: file.read(key) for key in names}
        told = {key: file.attribute(key) for key in ("sigma", "prior_samples", "seed")}
    drawn = {
        "divergence": figures.divergence_by_sigma(table, name),
        "coil": figures.coil_corners(coil, name, **told),
    }
    for key, path in snakemake.output.items():
        figure, kind = key.split("_")
        figures.save(drawn[figure], path, kind)
