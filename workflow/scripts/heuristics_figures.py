"""Draws the figures of the heuristics: divergence against the noise level, and the coil."""

from typing import TYPE_CHECKING

from diem.files.hdf5 import Reader
from diem.files.tables import read_csv
from diem.jobs.job import started
from diem.paper.heuristics.coil import COIL_ARRAYS
from diem.paper.heuristics.figures import coil_corners, divergence_by_sigma
from diem.report.drawing.style import save

if TYPE_CHECKING:
    from snakemake.script import snakemake

with started(snakemake):
    name, files = snakemake.wildcards.heuristics, snakemake.input
    table = read_csv(files.table).fillna({"source": ""})
    with Reader(files.coil) as file:
        names = [*COIL_ARRAYS, *file.attribute("covariances")]
        coil = {key: file.read(key) for key in names}
        settings = {key: file.attribute(key) for key in ("sigma", "prior_samples", "seed")}
    drawn = {
        "divergence": divergence_by_sigma(table, name),
        "coil": coil_corners(coil, name, **settings),
    }
    for key, path in snakemake.output.items():
        figure, kind = key.split("_")
        save(drawn[figure], path, kind)
